"""CEL selectors of device classes and claims. What one says about a device is remembered as long as the device stays the same.

Mirrors dynamic-resource-allocation/cel: `device.driver`, `device.attributes["domain"].name`, `device.capacity["domain"].name`, names
without a domain being the driver's, and domains that a device does not know being empty.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from korch._core import native
from korch.scheduler.devices.pools import Device

Object = dict[str, Any]
# Remembered answers; so many are 30 MB.
ANSWERS_MAX = 200_000

_DOMAIN = re.compile(r"""device\.(?:attributes|capacity)\[\s*(?:"([^"]*)"|'([^']*)')\s*\]""")


class SelectorError(Exception):
    """A selector cannot be compiled, or failed on a device; the words are upstream's."""


class Selectors:
    """Compiled selectors and what they said."""

    def __init__(self) -> None:
        self._compiled: dict[str, native.CelExpression | str] = {}
        # The device is kept, so that nothing else can have its id.
        self._answers: dict[tuple[int, str], tuple[Device, bool | str]] = {}

    def matches(self, device: Device, expression: str) -> bool:
        """Return whether a selector selects the device. Raises SelectorError."""
        key = id(device), expression
        known = self._answers.get(key)
        if known is None:
            if len(self._answers) >= ANSWERS_MAX:
                self._answers.clear()
            known = self._answers[key] = device, self._evaluate(device, expression)
        answer = known[1]
        if isinstance(answer, str):
            raise SelectorError(answer)
        return answer

    def _evaluate(self, device: Device, expression: str) -> bool | str:
        compiled = self._compiled.get(expression)
        if compiled is None:
            try:
                compiled = native.CelExpression(expression, ["device"], "bool")
            except ValueError as error:
                compiled = f"CEL compile error: {error}"
            self._compiled[expression] = compiled
        if isinstance(compiled, str):
            return compiled
        domains = {domain for found in _DOMAIN.findall(expression) for domain in found if domain}
        try:
            value = native.CelValue.device(orjson.dumps(_shown(device, domains)))
            return bool(orjson.loads(compiled.evaluate([("device", value)])))
        except ValueError as error:
            return f"CEL runtime error: {error}"


def _shown(device: Device, domains: set[str]) -> Object:
    driver = device.id[0]

    def by_domain(named: Object) -> dict[str, Object]:
        found: dict[str, Object] = {domain: {} for domain in domains}
        for name, value in named.items():
            domain, _, local = name.rpartition("/")
            found.setdefault(domain or driver, {})[local] = value
        return found

    return {
        "driver": driver,
        "allowMultipleAllocations": bool(device.spec.get("allowMultipleAllocations")),
        "attributes": by_domain(device.spec.get("attributes") or {}),
        "capacity": by_domain({name: str(one["value"]) for name, one in (device.spec.get("capacity") or {}).items()}),
    }
