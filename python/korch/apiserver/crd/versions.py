"""The versions of a custom kind: how an object that is stored in one of them is shown in another.

With the strategy None only `apiVersion` changes; with Webhook another server converts, and what it answered is kept for a while,
since watches and lists ask for the same objects again. An object that was written before the present schema gets today's
defaults when it is read. Mirrors apiextensions' apiserver/conversion.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from korch.api.errors import InternalError
from korch.api.meta import at
from korch.apiserver.conversion import NeedsConversion
from korch.apiserver.crd.schemas import LazySchema
from korch.apiserver.webhook_client import WebhookClient, WebhookFailed
from korch.resources.apiextensions.customresourcedefinition import storage_version
from korch.resources.resource import Object
from korch.runtime.rng import Rng

_KEPT_MAX = 4096
_TIMEOUT_S = 30.0
_REVISION = b'"resourceVersion":"'
_VERSION = b'"apiVersion":"'
# Of metadata, a webhook may change these alone.
_CHANGEABLE = ("labels", "annotations")


class Versions:
    """Converts between the versions of one declaration. `schema_revision` is that of the last change of its spec."""

    def __init__(
        self,
        crd: Object,
        *,
        schemas: Mapping[str, LazySchema],
        schema_revision: int,
        webhooks: WebhookClient,
        rng: Rng,
    ) -> None:
        self._group, self._kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]
        self._stored = storage_version(crd)
        self._schemas = schemas
        self._schema_revision = schema_revision
        self._webhook = at(crd, "spec", "conversion", "webhook") if at(crd, "spec", "conversion", "strategy") == "Webhook" else None
        self._webhooks = webhooks
        self._rng = rng
        self._kept: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()

    def presenter(self, version: str) -> Callable[[bytes], bytes]:
        """Return the function from stored bytes to bytes of `version`; it may raise NeedsConversion."""
        api_version = f"{self._group}/{version}"
        schema = self._schemas[version]

        def present(value: bytes) -> bytes:
            if _text_after(value, _VERSION) == api_version.encode():
                return value if self._is_current(value) else schema.restore(value)
            if self._webhook is None:
                obj: Object = orjson.loads(value)
                obj["apiVersion"] = api_version
                return schema.restore(orjson.dumps(obj))
            kept = self._kept.get((version, value))
            if kept is None:
                raise NeedsConversion(self, [value], version)
            self._kept.move_to_end((version, value))
            return kept

        return present

    def is_outdated(self, value: bytes) -> bool:
        """Return whether an object is stored in another version than objects are now, or not as the present schema would have it."""
        if _text_after(value, _VERSION) != f"{self._group}/{self._stored}".encode():
            return True
        return not self._is_current(value) and self._schemas[self._stored].restore(value) != value

    def writer(self, version: str) -> Callable[[Object], None]:
        """Return the function that turns an object of `version` into the form that is stored, in place."""
        target = f"{self._group}/{self._stored}"

        def to_storage(obj: Object) -> None:
            if version == self._stored:
                return
            if self._webhook is None:
                obj["apiVersion"] = target
                return
            kept = self._kept.get((self._stored, orjson.dumps(obj)))
            if kept is None:
                raise InternalError(f"conversion webhook for {self._shown(version)} failed: the object was not converted")
            obj.clear()
            obj.update(orjson.loads(kept))

        return to_storage

    async def prepare(self, obj: Object, version: str) -> None:
        """Convert an object that is about to be stored. Raises InternalError."""
        if self._webhook is not None and version != self._stored:
            await self.convert([orjson.dumps(obj)], self._stored)

    async def convert(self, values: Sequence[bytes], version: str) -> None:
        """Convert `values` to `version` and keep the results. Raises InternalError."""
        while len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)
        objects: list[Object] = [orjson.loads(value) for value in values]
        uid = self._rng.uid()
        review = {
            "kind": "ConversionReview",
            "apiVersion": "apiextensions.k8s.io/v1",
            "request": {"uid": uid, "desiredAPIVersion": f"{self._group}/{version}", "objects": objects},
        }
        shown = self._shown(str(objects[0].get("apiVersion", "")).rpartition("/")[2])
        try:
            config: Mapping[str, Any] = (self._webhook or {}).get("clientConfig") or {}
            answer = orjson.loads(await self._webhooks.call(config, orjson.dumps(review), timeout_s=_TIMEOUT_S))
            results = _results(answer, uid, len(objects))
        except (WebhookFailed, orjson.JSONDecodeError, ValueError) as error:
            raise InternalError(f"conversion webhook for {shown} failed: {error}") from error
        for value, before, after in zip(values, objects, results, strict=True):
            self._kept[version, value] = orjson.dumps(self._restored(before, after, version, shown))

    def _restored(self, before: Object, after: Object, version: str, shown: str) -> Object:
        """Return a converted object with the metadata that a webhook may not change. Raises InternalError."""
        wanted = f"{self._group}/{version}"
        if after.get("apiVersion") != wanted or after.get("kind") != self._kind:
            found = f"{after.get('apiVersion')}, Kind={after.get('kind')}"
            raise InternalError(f"conversion webhook for {shown} failed: returned invalid converted object: invalid groupVersion {found}")
        metadata, given = dict(before["metadata"]), after.get("metadata") or {}
        for field in ("name", "namespace", "uid"):
            if (given.get(field) or "") != (metadata.get(field) or ""):
                why = f"invalid metadata in object: metadata.{field} must not change"
                raise InternalError(f"conversion webhook for {shown} failed: {why}")
        for field in _CHANGEABLE:
            if given.get(field):
                metadata[field] = given[field]
            else:
                metadata.pop(field, None)
        head: Object = {"kind": self._kind, "apiVersion": wanted, "metadata": metadata}
        rest = {key: value for key, value in after.items() if key not in head}
        return orjson.loads(self._schemas[version].restore(orjson.dumps(head | rest))) if version in self._schemas else head | rest

    def _is_current(self, value: bytes) -> bool:
        found = _text_after(value, _REVISION)
        return found.isdigit() and int(found) >= self._schema_revision

    def _shown(self, version: str) -> str:
        return f"{self._group}/{version}, Kind={self._kind}"


def _text_after(value: bytes, mark: bytes) -> bytes:
    """Return the text of the first string field `mark`; objects are stored with kind, apiVersion and resourceVersion in front."""
    start = value.find(mark)
    if start < 0:
        return b""
    start += len(mark)
    return value[start : value.index(b'"', start)]


def _results(answer: Any, uid: str, count: int) -> list[Object]:
    response = answer.get("response") if isinstance(answer, dict) else None
    if not isinstance(response, dict):
        raise ValueError("no response provided")
    if response.get("uid") != uid:
        raise ValueError(f"expected response.uid={uid!r}, got {response.get('uid')!r}")
    result = response.get("result") or {}
    if result.get("status") != "Success":
        raise ValueError(result.get("message") or "unknown reason")
    converted = response.get("convertedObjects") or []
    if len(converted) != count:
        raise ValueError(f"expected {count} converted objects, got {len(converted)}")
    return converted
