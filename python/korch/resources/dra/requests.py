"""Requests for devices: what claims, claim templates and device classes may say. Mirrors kubernetes' pkg/apis/resource/validation."""

from __future__ import annotations

from collections.abc import Sequence

from korch.api.errors import Cause, duplicate, invalid, not_supported, required
from korch.api.names import is_dns_label, is_dns_subdomain
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Object

_MODES = ("All", "ExactCount")
_REQUESTS_MAX, _SELECTORS_MAX, _EXPRESSION_BYTES_MAX, _SUBREQUESTS_MAX = 32, 32, 10 * 1024, 8
_DRIVER_MAX = 63


def default_spec(spec: Object) -> None:
    """Fill in the requests of a claim, in place: one device, unless said otherwise."""
    for request in (spec.get("devices") or {}).get("requests") or ():
        exact = request.get("exactly")
        for one in ([exact] if exact is not None else []) + list(request.get("firstAvailable") or ()):
            if fill(one, "allocationMode", "ExactCount") == "ExactCount" and not one.get("count"):
                one["count"] = 1
            for toleration in one.get("tolerations") or ():
                fill(toleration, "operator", "Equal")


def check_claim_spec(causes: list[Cause], spec: Object, path: str) -> None:
    """Check the spec of a claim."""
    devices = spec.get("devices") or {}
    requests = devices.get("requests") or ()
    if len(requests) > _REQUESTS_MAX:
        causes.append(_too_many(f"{path}.devices.requests", len(requests), _REQUESTS_MAX))
    names: set[str] = set()
    for position, request in enumerate(requests):
        where, name = f"{path}.devices.requests[{position}]", request.get("name") or ""
        _check_request_name(causes, name, where, names)
        exact, choices = request.get("exactly"), request.get("firstAvailable") or ()
        if exact is not None and choices:
            causes.append(invalid(where, request, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"))
        elif exact is None and not choices:
            causes.append(required(where, "exactly one of `exactly` or `firstAvailable` is required"))
        elif exact is not None:
            _check_exact(causes, exact, f"{where}.exactly")
        else:
            if len(choices) > _SUBREQUESTS_MAX:
                causes.append(_too_many(f"{where}.firstAvailable", len(choices), _SUBREQUESTS_MAX))
            inner: set[str] = set()
            for index, one in enumerate(choices):
                _check_request_name(causes, one.get("name") or "", f"{where}.firstAvailable[{index}]", inner)
                _check_exact(causes, one, f"{where}.firstAvailable[{index}]")
            names |= {f"{name}/{one}" for one in inner}
    for position, constraint in enumerate(devices.get("constraints") or ()):
        where = f"{path}.devices.constraints[{position}]"
        _check_known(causes, constraint.get("requests") or (), names, f"{where}.requests")
        if not constraint.get("matchAttribute") and not constraint.get("distinctAttribute"):
            causes.append(required(f"{where}.matchAttribute"))
    for position, config in enumerate(devices.get("config") or ()):
        where = f"{path}.devices.config[{position}]"
        _check_known(causes, config.get("requests") or (), names, f"{where}.requests")
        check_configuration(causes, config, where)


def _check_request_name(causes: list[Cause], name: str, path: str, seen: set[str]) -> None:
    if not name:
        causes.append(required(f"{path}.name"))
        return
    causes += [invalid(f"{path}.name", name, why) for why in is_dns_label(name)]
    if name in seen:
        causes.append(duplicate(f"{path}.name", name))
    seen.add(name)


def _check_exact(causes: list[Cause], request: Object, path: str) -> None:
    class_name = request.get("deviceClassName") or ""
    if not class_name:
        causes.append(required(f"{path}.deviceClassName"))
    causes += [invalid(f"{path}.deviceClassName", class_name, why) for why in is_dns_subdomain(class_name)] if class_name else []
    check_selectors(causes, request.get("selectors") or (), f"{path}.selectors")
    mode, count = request.get("allocationMode") or "", request.get("count") or 0
    if mode not in _MODES:
        causes.append(not_supported(f"{path}.allocationMode", mode, _MODES))
    elif mode == "All" and count:
        causes.append(invalid(f"{path}.count", count, "must not be specified when allocationMode is 'All'"))
    elif mode == "ExactCount" and count <= 0:
        causes.append(invalid(f"{path}.count", count, "must be greater than zero"))


def check_selectors(causes: list[Cause], selectors: Sequence[Object], path: str) -> None:
    """Check device selectors: each a CEL expression that is not too long."""
    if len(selectors) > _SELECTORS_MAX:
        causes.append(_too_many(path, len(selectors), _SELECTORS_MAX))
    for position, selector in enumerate(selectors):
        where = f"{path}[{position}]"
        if selector.get("cel") is None:
            causes.append(required(f"{where}.cel"))
            continue
        expression = selector["cel"].get("expression") or ""
        if not expression.strip():
            causes.append(required(f"{where}.cel.expression"))
        if len(expression.encode()) > _EXPRESSION_BYTES_MAX:
            causes.append(
                Cause("FieldValueTooLong", f"Too long: may not be more than {_EXPRESSION_BYTES_MAX} bytes", f"{where}.cel.expression")
            )


def check_configuration(causes: list[Cause], config: Object, path: str) -> None:
    """Check the opaque parameters for a driver."""
    opaque = config.get("opaque")
    if opaque is None:
        causes.append(required(f"{path}.opaque"))
        return
    check_driver(causes, opaque.get("driver") or "", f"{path}.opaque.driver")
    if opaque.get("parameters") is None:
        causes.append(required(f"{path}.opaque.parameters"))
    elif not isinstance(opaque["parameters"], dict):
        causes.append(invalid(f"{path}.opaque.parameters", "<value omitted>", "must be a valid JSON object"))


def check_driver(causes: list[Cause], name: str, path: str) -> None:
    """Check a driver's name."""
    if not name:
        causes.append(required(path))
    if len(name) > _DRIVER_MAX:
        causes.append(Cause("FieldValueTooLong", f"Too long: may not be more than {_DRIVER_MAX} bytes", path))
    causes += [invalid(path, name, why) for why in is_dns_subdomain(name)] if name else []


def _check_known(causes: list[Cause], given: Sequence[str], names: set[str], path: str) -> None:
    for position, one in enumerate(given):
        if one not in names:
            causes.append(
                invalid(
                    f"{path}[{position}]",
                    one,
                    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
                )
            )


def _too_many(path: str, count: int, limit: int) -> Cause:
    return Cause("FieldValueTooMany", f"Too many: {count}: must have at most {limit} items", path)
