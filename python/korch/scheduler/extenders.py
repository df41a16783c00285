"""Scheduler extenders: HTTP services that filter and score nodes, agree to preemption and bind pods. Mirrors pkg/scheduler/extender.go.

An extender is asked about a pod only if the pod wants a resource that it manages (or it manages none in particular). One that cannot be
reached makes the pod's attempt fail, unless it is `ignorable`; failing to score is always ignored. Answers are read as Go reads them,
without regard to the case of field names.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import aiohttp

Object = dict[str, Any]
# (key, uid) of the pods that would have to go from a node, and how many of them a disruption budget protects.
Victims = tuple[list[tuple[str, str]], int]
TIMEOUT_S = 5.0
# An extender's scores go to 10, those of plugins to 100.
SCORE_FACTOR = 10


class ExtenderError(Exception):
    """What an extender answered or why it did not, in upstream's words."""


@dataclass(frozen=True)
class TlsConfig:
    """Certificates of one extender; `*_data` is base64 as in the configuration."""

    insecure: bool = False
    server_name: str = ""
    cert_file: str = ""
    key_file: str = ""
    ca_file: str = ""
    cert_data: str = ""
    key_data: str = ""
    ca_data: str = ""


@dataclass(frozen=True)
class ExtenderConfig:
    """One entry of `extenders`. Times are seconds."""

    url_prefix: str
    filter_verb: str = ""
    preempt_verb: str = ""
    prioritize_verb: str = ""
    bind_verb: str = ""
    weight: int = 0
    enable_https: bool = False
    tls: TlsConfig = TlsConfig()
    timeout_s: float = TIMEOUT_S
    is_node_cache_capable: bool = False
    managed_resources: frozenset[str] = frozenset()
    # Of these, those that the scheduler itself does not count.
    ignored_resources: frozenset[str] = frozenset()
    is_ignorable: bool = False


@dataclass
class Filtered:
    """Which nodes remain, and why others do not: {node: reason}."""

    nodes: list[str]
    failed: dict[str, str] = field(default_factory=dict[str, str])
    unresolvable: dict[str, str] = field(default_factory=dict[str, str])


class Extender:
    """One extender. Close it when it is needed no more. All calls raise ExtenderError."""

    def __init__(self, config: ExtenderConfig) -> None:
        self.config = config
        self._session: aiohttp.ClientSession | None = None
        self._ssl: ssl.SSLContext | None = None

    @property
    def name(self) -> str:
        return self.config.url_prefix

    def is_interested(self, pod: Object) -> bool:
        """Return whether the pod asks for a resource that the extender manages."""
        managed = self.config.managed_resources
        if not managed:
            return True
        spec = pod.get("spec") or {}
        for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
            resources = container.get("resources") or {}
            if any(not managed.isdisjoint(resources.get(kind) or {}) for kind in ("requests", "limits")):
                return True
        return False

    async def filter(self, pod: Object, nodes: Sequence[str], objects: Mapping[str, bytes]) -> Filtered:
        """Return what the extender leaves of `nodes`; `objects` are their JSON, of which it is sent those that it does not know itself."""
        if not self.config.filter_verb:
            return Filtered(list(nodes))
        answer = _fields(await self._send(self.config.filter_verb, self._arguments(pod, nodes, objects)))
        if answer.get("error"):
            raise ExtenderError(str(answer["error"]))
        names, listed = answer.get("nodenames"), answer.get("nodes")
        known = set(nodes)
        if self.config.is_node_cache_capable and names is not None:
            for name in names:
                if name not in known:
                    raise ExtenderError(f'extender "{self.name}" claims a filtered node "{name}" which is not found in the input node list')
            left = list(names)
        else:
            left = [one["metadata"]["name"] for one in (_fields(listed or {}).get("items") or ())]
        failed, unresolvable = answer.get("failednodes") or {}, answer.get("failedandunresolvablenodes") or {}
        return Filtered([name for name in left if name in known], dict(failed), dict(unresolvable))

    async def prioritize(self, pod: Object, nodes: Sequence[str], objects: Mapping[str, bytes]) -> dict[str, int]:
        """Return what to add to the scores of nodes; those that are not named get nothing."""
        if not self.config.prioritize_verb:
            return {}
        answer = await self._send(self.config.prioritize_verb, self._arguments(pod, nodes, objects))
        added: dict[str, int] = {}
        for one in map(_fields, answer or ()):
            host = one.get("host", "")
            added[host] = added.get(host, 0) + int(one.get("score", 0)) * self.config.weight * SCORE_FACTOR
        return added

    async def preempt(self, pod: Object, victims: Mapping[str, Victims], pods: Mapping[str, bytes]) -> dict[str, tuple[list[str], int]]:
        """Return which of the nodes may be freed, by removing which pods (uids). `pods` are JSON by `namespace/name`."""
        if self.config.is_node_cache_capable:
            told = {node: _victims([{"UID": uid} for _, uid in gone], count) for node, (gone, count) in victims.items()}
            arguments = {"Pod": pod, "NodeNameToVictims": None, "NodeNameToMetaVictims": told}
        else:
            told = {node: _victims([orjson.Fragment(pods[key]) for key, _ in gone], count) for node, (gone, count) in victims.items()}
            arguments = {"Pod": pod, "NodeNameToVictims": told, "NodeNameToMetaVictims": None}
        answer = _fields(await self._send(self.config.preempt_verb, arguments))
        chosen: dict[str, tuple[list[str], int]] = {}
        for node, one in (answer.get("nodenametometavictims") or {}).items():
            read = _fields(one or {})
            chosen[node] = [_fields(pod).get("uid", "") for pod in read.get("pods") or ()], int(read.get("numpdbviolations") or 0)
        return chosen

    async def bind(self, pod: Object, node: str) -> None:
        """Let the extender bind the pod."""
        meta = pod["metadata"]
        arguments = {"PodName": meta["name"], "PodNamespace": meta.get("namespace", ""), "PodUID": meta.get("uid", ""), "Node": node}
        answer = _fields(await self._send(self.config.bind_verb, arguments))
        if answer.get("error"):
            raise ExtenderError(str(answer["error"]))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _arguments(self, pod: Object, nodes: Sequence[str], objects: Mapping[str, bytes]) -> Object:
        if self.config.is_node_cache_capable:
            return {"Pod": pod, "Nodes": None, "NodeNames": list(nodes)}
        return {"Pod": pod, "Nodes": {"metadata": {}, "items": [orjson.Fragment(objects[name]) for name in nodes]}, "NodeNames": None}

    async def _send(self, verb: str, arguments: Object) -> Any:
        # Few schedulers have extenders, and every server loads this module.
        import aiohttp

        url = f"{self.config.url_prefix.rstrip('/')}/{verb}"
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self.config.timeout_s))
            self._ssl = self._tls()
        headers = {"Content-Type": "application/json"}
        server_name = self.config.tls.server_name or None
        secure: ssl.SSLContext | bool = self._ssl or True
        try:
            async with self._session.post(
                url, data=orjson.dumps(arguments), headers=headers, ssl=secure, server_hostname=server_name
            ) as answer:
                if answer.status != 200:
                    raise ExtenderError(f"failed {verb} with extender at URL {url}, code {answer.status}")
                return orjson.loads(await answer.read())
        except orjson.JSONDecodeError as error:
            raise ExtenderError(str(error)) from error
        except TimeoutError as error:
            words = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            raise ExtenderError(f'Post "{url}": {words}') from error
        except (aiohttp.ClientError, OSError) as error:
            raise ExtenderError(f'Post "{url}": {error}') from error

    def _tls(self) -> ssl.SSLContext | None:
        tls = self.config.tls
        if not (self.config.enable_https or self.config.url_prefix.startswith("https:")):
            return None
        from korch.client.http import Credentials

        has_ca = bool(tls.ca_file or tls.ca_data)
        return Credentials(
            ca_file=tls.ca_file,
            ca_data=base64.b64decode(tls.ca_data).decode(),
            client_cert_file=tls.cert_file,
            client_key_file=tls.key_file,
            client_cert_data=base64.b64decode(tls.cert_data),
            client_key_data=base64.b64decode(tls.key_data),
            insecure_skip_tls_verify=tls.insecure or (self.config.enable_https and not has_ca),
        ).ssl_context()


def _victims(pods: list[Any], violations: int) -> Object:
    return {"Pods": pods, "NumPDBViolations": violations}


def _fields(value: Any) -> Object:
    """Return an object's fields under lower-case names; Go takes any case."""
    if not isinstance(value, dict):
        raise ExtenderError(f"json: cannot unmarshal {type(value).__name__} into Go value")
    return {str(name).lower(): one for name, one in value.items()}
