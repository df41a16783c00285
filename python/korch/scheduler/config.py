"""Reading a KubeSchedulerConfiguration: what the engine follows, and what runs outside it (extenders, plugins in Python).

The engine checks and follows its part, as JSON; extenders and the names of other plugins are taken out of it here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from korch._core import native
from korch.api.go_duration import parse_duration
from korch.scheduler.extenders import TIMEOUT_S, ExtenderConfig, TlsConfig
from korch.scheduler.plugins import ENTRY_POINT, Factory, Object, Plugin, load

DEFAULT_SCHEDULER_NAME = "default-scheduler"
DYNAMIC_RESOURCES = "DynamicResources"
LEASE = "kube-scheduler"


@dataclass(frozen=True)
class Enabled:
    """A plugin in a profile; `weight` is 0 when it does not score."""

    plugin: Plugin
    filters: bool
    weight: int


@dataclass(frozen=True)
class Settings:
    """A configuration taken apart. `engine` is the engine's part in JSON; plugins are by the profile's scheduler name."""

    engine: bytes | None = None
    plugins: Mapping[str, tuple[Enabled, ...]] = field(default_factory=dict[str, tuple[Enabled, ...]])
    extenders: tuple[ExtenderConfig, ...] = ()
    # Profiles without the plugin DynamicResources.
    without_devices: frozenset[str] = frozenset()


def read_config(path: str | Path) -> bytes:
    """Return the file's KubeSchedulerConfiguration as JSON. Raises ValueError that names the file and what is wrong in it, OSError."""
    try:
        read = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}") from error
    config = orjson.dumps(read)
    try:
        native.Scheduler(settings(config).engine)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return config


@dataclass(frozen=True)
class Election:
    """Whether only a leader works, and the Lease in kube-system that it holds."""

    is_wanted: bool
    lease: str


def leader_election(config: bytes | None, scheduler_name: str) -> Election:
    """Return what a configuration says of it, or the default: schedulers of different pods do not wait for each other."""
    read: Object = orjson.loads(config) if config is not None else {}
    names = [one.get("schedulerName") or DEFAULT_SCHEDULER_NAME for one in read.get("profiles") or [{}]] if config else [scheduler_name]
    said: Object = read.get("leaderElection") or {}
    default = LEASE if DEFAULT_SCHEDULER_NAME in names else names[0]
    return Election(said.get("leaderElect", True) is not False, said.get("resourceName") or default)


def settings(config: bytes | None, registry: Mapping[str, Factory] | None = None) -> Settings:
    """Take a configuration in JSON apart, making the plugins that it enables. Raises ValueError; the engine's part is not checked."""
    if config is None:
        return Settings()
    read: Any = orjson.loads(config)
    if not isinstance(read, dict):
        return Settings(engine=config)
    extenders = [_extender(f"extenders[{at}]", one) for at, one in enumerate(read.pop("extenders", None) or ())]
    _check(extenders)
    plugins: dict[str, tuple[Enabled, ...]] = {}
    without_devices: set[str] = set()
    for at, profile in enumerate(read.get("profiles") or ()):
        name = profile.get("schedulerName") or DEFAULT_SCHEDULER_NAME
        if not _has_devices(profile):
            without_devices.add(name)
        plugins[name] = _take_plugins(f"profiles[{at}]", profile, registry or {})
    if ignored := sorted(frozenset[str]().union(*(one.ignored_resources for one in extenders))):
        read["profiles"] = [_ignoring(profile, ignored) for profile in read.get("profiles") or [{}]]
    # Whoever may be absent is asked last.
    in_turn = sorted(extenders, key=lambda one: one.is_ignorable)
    return Settings(orjson.dumps(read), plugins, tuple(in_turn), frozenset(without_devices))


def _has_devices(profile: Object) -> bool:
    """Return whether a profile leaves DynamicResources on, which is in the default."""
    sets: Mapping[str, Object] = profile.get("plugins") or {}
    everywhere = sets.get("multiPoint") or {}
    names = {kind: {one.get("name") for one in everywhere.get(kind) or ()} for kind in ("enabled", "disabled")}
    return DYNAMIC_RESOURCES in names["enabled"] or names["disabled"].isdisjoint((DYNAMIC_RESOURCES, "*"))


def _take_plugins(path: str, profile: Object, registry: Mapping[str, Factory]) -> tuple[Enabled, ...]:
    """Take what is not the engine's out of a profile and return it, in the order in which it runs."""
    arguments: dict[str, Object] = {}
    kept: list[Object] = []
    for one in profile.get("pluginConfig") or ():
        args = one.get("args") or {}
        if one.get("name") in registry or ENTRY_POINT in args:
            arguments[one["name"]] = args
        else:
            kept.append(one)
    if "pluginConfig" in profile:
        profile["pluginConfig"] = kept
    ours = registry.keys() | arguments.keys()
    sets: Mapping[str, Object] = profile.get("plugins") or {}
    taken = {point: _take(one, ours) for point, one in sets.items() if isinstance(one, dict)}
    nothing: tuple[dict[str, int], set[str]] = ({}, set())
    everywhere, _ = taken.get("multiPoint", nothing)
    found: list[Enabled] = []
    for name in dict.fromkeys([*everywhere, *(name for enabled, _ in taken.values() for name in enabled)]):
        args = dict(arguments.get(name, {}))
        entry_point = args.pop(ENTRY_POINT, None)
        try:
            plugin = (load(entry_point) if entry_point is not None else registry[name])(args)
        except Exception as error:
            raise ValueError(f'{path}.pluginConfig: initializing plugin "{name}": {error}') from error
        plugin.name = name
        filtering, scoring = taken.get("filter", nothing), taken.get("score", nothing)
        filters = name in filtering[0] or (name in everywhere and filtering[1].isdisjoint((name, "*")))
        scores = name in scoring[0] or (name in everywhere and scoring[1].isdisjoint((name, "*")))
        weight = scoring[0].get(name) or everywhere.get(name) or 1
        found.append(Enabled(plugin, filters, weight if scores and plugin.overrides("score") else 0))
    return tuple(found)


def _take(point: Object, ours: Iterable[str]) -> tuple[dict[str, int], set[str]]:
    """Take these names out of what one extension point enables and disables; return the weights of the one, and all names of the other."""
    enabled: list[Object] = point.get("enabled") or []
    disabled: list[Object] = point.get("disabled") or []
    mine = frozenset(ours)
    point["enabled"] = [one for one in enabled if one.get("name") not in mine]
    point["disabled"] = [one for one in disabled if one.get("name") not in mine]
    return {one["name"]: int(one.get("weight") or 0) for one in enabled if one.get("name") in mine}, {
        one.get("name", "") for one in disabled
    }


def _ignoring(profile: Object, resources: list[str]) -> Object:
    """Return the profile with extended resources that NodeResourcesFit leaves to an extender."""
    configs: list[Object] = list(profile.get("pluginConfig") or ())
    fit: Object = next((one for one in configs if one.get("name") == "NodeResourcesFit"), {"name": "NodeResourcesFit"})
    changed = fit | {"args": (fit.get("args") or {}) | {"ignoredResources": resources}}
    return profile | {"pluginConfig": [one for one in configs if one is not fit] + [changed]}


def _extender(path: str, read: Object) -> ExtenderConfig:
    tls: Object = read.get("tlsConfig") or {}
    managed: list[Object] = read.get("managedResources") or []
    for at, resource in enumerate(managed):
        name = resource.get("name", "")
        if "/" not in name or "kubernetes.io/" in name or name.startswith("requests."):
            raise ValueError(f'{path}.managedResources[{at}].name: Invalid value: "{name}": is an invalid extended resource name')
    try:
        timeout_s = parse_duration(str(read["httpTimeout"])) if read.get("httpTimeout") else 0.0
    except ValueError as error:
        raise ValueError(f"{path}.httpTimeout: {error}") from error
    return ExtenderConfig(
        url_prefix=read.get("urlPrefix", ""),
        filter_verb=read.get("filterVerb", ""),
        preempt_verb=read.get("preemptVerb", ""),
        prioritize_verb=read.get("prioritizeVerb", ""),
        bind_verb=read.get("bindVerb", ""),
        weight=int(read.get("weight") or 0),
        enable_https=bool(read.get("enableHTTPS")),
        tls=TlsConfig(
            insecure=bool(tls.get("insecure")),
            server_name=tls.get("serverName", ""),
            cert_file=tls.get("certFile", ""),
            key_file=tls.get("keyFile", ""),
            ca_file=tls.get("caFile", ""),
            cert_data=tls.get("certData", ""),
            key_data=tls.get("keyData", ""),
            ca_data=tls.get("caData", ""),
        ),
        timeout_s=timeout_s or TIMEOUT_S,
        is_node_cache_capable=bool(read.get("nodeCacheCapable")),
        managed_resources=frozenset(one["name"] for one in managed),
        ignored_resources=frozenset(one["name"] for one in managed if one.get("ignoredByScheduler")),
        is_ignorable=bool(read.get("ignorable")),
    )


def _check(extenders: list[ExtenderConfig]) -> None:
    """Raise ValueError for what is wrong with them together. Mirrors validateExtenders."""
    seen: set[str] = set()
    for at, one in enumerate(extenders):
        if one.prioritize_verb and one.weight <= 0:
            raise ValueError(f"extenders[{at}].weight: Invalid value: {one.weight}: must have a positive weight applied to it")
        if twice := sorted(seen & one.managed_resources):
            raise ValueError(f'extenders[{at}].managedResources: Invalid value: "{twice[0]}": duplicate extender managed resource name')
        seen |= one.managed_resources
    binders = sum(bool(one.bind_verb) for one in extenders)
    if binders > 1:
        raise ValueError(f'extenders: Invalid value: "found {binders} extenders implementing bind": only one extender can implement bind')
