"""Which group-versions other servers serve: APIServices followed, their servers looked at, their discovery kept.

An APIService is available when its Service has a ready endpoint that answers discovery for the group-version. That is looked at whenever
an APIService changes and every few seconds; its condition says what was found. Local APIServices are made for what this server serves
itself. Mirrors kube-aggregator's controllers/status/remote and controllers/autoregister.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson

from korch._core import native
from korch.api.errors import AlreadyExists, ApiError, NotFound
from korch.api.meta import at
from korch.apiserver.admission.configurations import Configurations
from korch.apiserver.aggregation.connection import Backend, Connector
from korch.apiserver.options import RemovalOptions, WriteOptions
from korch.apiserver.pipeline import Pipeline, Target
from korch.apiserver.webhook_client import WebhookClient, WebhookFailed
from korch.resources.resource import Object
from korch.runtime.clock import rfc3339
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger

log = get_logger("aggregation")

CHECK_INTERVAL_S = 5.0
# While the ConfigMap of trust waits for its namespace, at the start.
_RETRY_S = 0.1
AUTOMANAGED = "kube-aggregator.kubernetes.io/automanaged"
_SYSTEM, _AUTHENTICATION = "kube-system", "extension-apiserver-authentication"
_GROUP, _PLURAL = "apiregistration.k8s.io", "apiservices"


@dataclass(slots=True)
class Remote:
    """A group-version that another server serves. `resources` is its APIResourceList; None until it was seen."""

    group: str
    version: str
    backend: Backend
    resources: list[Object] | None = None
    priority: tuple[int, int] = (0, 0)
    problem: tuple[str, str] = field(default=("", ""))

    @property
    def is_available(self) -> bool:
        return self.resources is not None and not self.problem[0]


class AggregatedApis:
    """The APIServices of one store. `connector` holds the identity that other servers believe."""

    def __init__(
        self, pipeline: Pipeline, runtime: Runtime, client: WebhookClient, connector: Connector, authentication: Mapping[str, str]
    ) -> None:
        self._pipeline = pipeline
        self._runtime = runtime
        self._client = client
        self.connector = connector
        self._authentication = authentication
        self._services = Configurations(pipeline.records.storage, pipeline.catalogue, _GROUP, _PLURAL)
        self._remotes: dict[tuple[str, str], Remote] = {}
        self.generation = 0
        # Whether the ConfigMap by which other servers learn whom to believe was there at the last look.
        self.is_trusted = not authentication

    def remote(self, group: str, version: str) -> Remote | None:
        """Return who serves a group-version, None when it is this server or nobody."""
        return self._remotes.get((group, version))

    def all(self) -> list[Remote]:
        """Return what other servers serve and can be reached."""
        return [one for one in self._remotes.values() if one.is_available]

    async def run(self) -> None:
        """Follow the APIServices; returns only when cancelled."""
        while True:
            try:
                await self.ensure()
            except (ApiError, native.StoreError) as error:
                log.warning("APIServices are not right yet", error=str(error))
            resource = self._pipeline.catalogue.get(_GROUP, "v1", _PLURAL)
            if resource is None:
                return
            storage = self._pipeline.records.storage
            async with storage.watch(resource.key_prefix(), storage.revision()) as watch:
                try:
                    async with asyncio.timeout(CHECK_INTERVAL_S if self.is_trusted else _RETRY_S):
                        await watch.next_events()
                except (TimeoutError, native.WatcherLagged):
                    continue

    async def ensure(self) -> None:
        """Look at everything once. Raises ApiError."""
        await self._ensure_local()
        await self._ensure_authentication()
        wanted: dict[tuple[str, str], Object] = {}
        for service in self._services.all():
            if at(service, "spec", "service"):
                wanted[service["spec"].get("group") or "", service["spec"]["version"]] = service
        before = {key: one.is_available for key, one in self._remotes.items()}
        for key in self._remotes.keys() - wanted.keys():
            del self._remotes[key]
        for key, service in wanted.items():
            await self._look_at(key, service)
        if before != {key: one.is_available for key, one in self._remotes.items()}:
            # Discovery is made anew.
            self._pipeline.catalogue.generation += 1

    async def _look_at(self, key: tuple[str, str], service: Object) -> None:
        spec: Object = service["spec"]
        backend = Backend(
            namespace=spec["service"]["namespace"],
            name=spec["service"]["name"],
            port=spec["service"].get("port") or 443,
            ca_bundle=spec.get("caBundle") or "",
            is_insecure=bool(spec.get("insecureSkipTLSVerify")),
        )
        remote = self._remotes.get(key)
        if remote is None or remote.backend != backend:
            remote = self._remotes[key] = Remote(key[0], key[1], backend)
        remote.priority = (spec.get("groupPriorityMinimum") or 0, spec.get("versionPriority") or 0)
        remote.problem = await self._problem(remote)
        await self._tell(service, remote)

    async def _problem(self, remote: Remote) -> tuple[str, str]:
        """Return (reason, message) of why a server cannot be reached, ("", "") when it can; take its discovery on the way."""
        backend = remote.backend
        shown = f"{backend.namespace}/{backend.name}"
        try:
            address = self._client.endpoint(backend.namespace, backend.name, backend.port)
        except WebhookFailed as error:
            if "not found" in str(error):
                return "ServiceNotFound", f'service/{backend.name} in "{backend.namespace}" is not present'
            if "no service port" in str(error):
                return "ServicePortError", f'service/{backend.name} in "{backend.namespace}" is not listening on port {backend.port}'
            return "MissingEndpoints", f'endpoints for service/{backend.name} in "{backend.namespace}" have no addresses'
        path = f"/apis/{remote.group}/{remote.version}"
        try:
            code, body = await self.connector.fetch(backend, address, path)
            if code == 200:
                found = orjson.loads(body)
                remote.resources = list(found.get("resources") or ())
                return "", ""
            why = f"bad status from https://{address[0]}:{address[1]}{path}: {code}"
        except (OSError, TimeoutError, ValueError) as error:
            why = f"failing or missing response from https://{address[0]}:{address[1]}{path}: {error or type(error).__name__}"
        log.info("aggregated server does not answer", service=shown, reason=why)
        return "FailedDiscoveryCheck", why

    async def _tell(self, service: Object, remote: Remote) -> None:
        """Write the condition, when it is not what it should be."""
        reason, message = remote.problem if remote.problem[0] else ("Passed", "all checks passed")
        wanted = {"type": "Available", "status": "False" if remote.problem[0] else "True", "reason": reason, "message": message}
        conditions: list[Object] = list(at(service, "status", "conditions") or ())
        found = next((one for one in conditions if one.get("type") == "Available"), None)
        if found is not None and {key: found.get(key) for key in wanted} == wanted:
            return
        since = rfc3339(self._runtime.clock.now())
        if found is not None and found.get("status") == wanted["status"]:
            since = found.get("lastTransitionTime") or since
        others = [one for one in conditions if one.get("type") != "Available"]

        def change(_old: Object, old_bytes: bytes) -> Object:
            new: Object = orjson.loads(old_bytes)
            new["status"] = {"conditions": [*others, wanted | {"lastTransitionTime": since}]}
            return new

        try:
            await self._pipeline.modify(self._target(service["metadata"]["name"], "status"), change, WriteOptions())
        except NotFound:
            return

    async def _ensure_local(self) -> None:
        """Keep an APIService for every group-version of the catalogue, and none for those that are gone."""
        served = {(one.group, one.version): one for one in self._pipeline.catalogue.all()}
        known = {one["metadata"]["name"]: one for one in self._services.all()}
        for (group, version), resource in served.items():
            name = f"{version}.{group}"
            if name in known:
                continue
            is_custom = resource.definitions is not None
            obj = {
                "apiVersion": f"{_GROUP}/v1",
                "kind": "APIService",
                "metadata": {"name": name, "labels": {AUTOMANAGED: "true" if is_custom else "onstart"}},
                "spec": {"group": group, "version": version, "groupPriorityMinimum": 1000 if is_custom else 17000, "versionPriority": 100},
            }
            try:
                await self._pipeline.create(self._target("", ""), orjson.dumps(obj), WriteOptions())
            except AlreadyExists:
                continue
        for name, service in known.items():
            spec: Mapping[str, Any] = service["spec"]
            is_gone = (spec.get("group") or "", spec["version"]) not in served
            if is_gone and (service["metadata"].get("labels") or {}).get(AUTOMANAGED) == "true":
                try:
                    await self._pipeline.delete(self._target(name, ""), RemovalOptions())
                except NotFound:
                    continue

    async def _ensure_authentication(self) -> None:
        """Keep the ConfigMap by which other servers learn whom to believe. Mirrors kube-apiserver's clusterauthenticationtrust."""
        resource = self._pipeline.catalogue.get("", "v1", "configmaps")
        if not self._authentication or resource is None:
            return
        target = Target(resource=resource, namespace=_SYSTEM, name=_AUTHENTICATION, is_internal=True)
        found = self._pipeline.records.read(resource, _SYSTEM, _AUTHENTICATION)
        wanted = dict(self._authentication)
        if found is None:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": _AUTHENTICATION}, "data": wanted}
            try:
                await self._pipeline.create(msgspec.structs.replace(target, name=""), orjson.dumps(body), WriteOptions())
            except (AlreadyExists, NotFound):
                # The namespace is not there yet, or another server was quicker: the next look finds it.
                return
        elif orjson.loads(found[0]).get("data") != wanted:

            def change(_old: Object, old_bytes: bytes) -> Object:
                return {**orjson.loads(old_bytes), "data": wanted}

            await self._pipeline.modify(target, change, WriteOptions())
        self.is_trusted = True

    def _target(self, name: str, subresource: str) -> Target:
        resource = self._pipeline.catalogue.get(_GROUP, "v1", _PLURAL)
        assert resource is not None, "the kind is built in"
        return Target(resource=resource, name=name, subresource=subresource, is_internal=True)
