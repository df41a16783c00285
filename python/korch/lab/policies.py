"""Policies: KubeSchedulerConfiguration files under which the same workload is run side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import orjson

from korch._core import native
from korch.lab.source import BadInput, Document, Place, documents

# Fields of a type by name, each with the fields below it; None: not looked into.
_Fields: TypeAlias = Mapping[str, Any] | None

_SET = {"enabled": {"name": None, "weight": None}, "disabled": {"name": None, "weight": None}}
_POINTS = (
    "preEnqueue", "queueSort", "preFilter", "filter", "postFilter", "preScore", "score", "reserve", "permit", "preBind", "bind",
    "postBind", "multiPoint", "placementGenerate", "placementFeasible", "placementScore", "podGroupPostFilter",
)  # fmt: skip
_PROFILE = {
    "schedulerName": None,
    "percentageOfNodesToScore": None,
    "plugins": dict.fromkeys(_POINTS, _SET),
    "pluginConfig": {"name": None, "args": None},
}
# Upstream's kubescheduler.config.k8s.io/v1.
_CONFIGURATION = dict.fromkeys(
    (
        "apiVersion", "kind", "parallelism", "leaderElection", "clientConnection", "healthzBindAddress", "metricsBindAddress",
        "enableProfiling", "enableContentionProfiling", "percentageOfNodesToScore", "podInitialBackoffSeconds", "podMaxBackoffSeconds",
        "extenders", "delayCacheUntilActive",
    )
) | {"profiles": _PROFILE}  # fmt: skip
_TYPE = {"apiVersion": None, "kind": None}
_WEIGHTS = {"name": None, "weight": None}
_CURVE = {"shape": {"utilization": None, "score": None}}
_STRATEGY = {"type": None, "resources": _WEIGHTS, "requestedToCapacityRatio": _CURVE}
_ARGUMENTS: dict[str, _Fields] = {
    "NodeResourcesFit": _TYPE | {"ignoredResources": None, "ignoredResourceGroups": None, "scoringStrategy": _STRATEGY},
    "NodeResourcesBalancedAllocation": _TYPE | {"resources": _WEIGHTS},
    "NodeAffinity": _TYPE | {"addedAffinity": None},
    "InterPodAffinity": _TYPE | {"hardPodAffinityWeight": None, "ignorePreferredTermsOfExistingPods": None},
    "PodTopologySpread": _TYPE | {"defaultConstraints": None, "defaultingType": None},
    "DefaultPreemption": _TYPE | {"minCandidateNodesPercentage": None, "minCandidateNodesAbsolute": None},
    "VolumeBinding": _TYPE | {"bindTimeoutSeconds": None} | _CURVE,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """A name for reports, and the configuration as JSON; None is what the scheduler does without one."""

    name: str
    config: bytes | None = None

    def engine(self) -> native.Scheduler:
        """Return an engine without nodes that decides by this policy."""
        return native.Scheduler(self.config)


DEFAULT = Policy("default")


def read_policies(paths: Sequence[str | Path]) -> list[Policy]:
    """Return the policies of files, named by their stems (by their paths where stems are equal); the default one for no file.

    Raises BadInput with the line of the field that the engine does not accept."""
    if not paths:
        return [DEFAULT]
    stems = [Path(one).stem for one in paths]
    return [Policy(stem if stems.count(stem) == 1 else str(path), read_config(path)) for stem, path in zip(stems, paths, strict=True)]


def read_config(path: str | Path) -> bytes:
    """Return a KubeSchedulerConfiguration as JSON. Raises BadInput."""
    found = documents(path)
    if len(found) != 1 or not isinstance(found[0].value, dict):
        raise BadInput(Place(str(path)), f"{len(found)} documents where one KubeSchedulerConfiguration is needed")
    document = found[0]
    _refuse_unknown(document, document.value, _CONFIGURATION, ())
    if document.value.get("extenders"):
        raise BadInput(document.place("extenders"), "extenders: a webhook cannot be asked in a simulation")
    config = orjson.dumps(document.value)
    try:
        native.Scheduler(config)
    except ValueError as error:
        raise BadInput(document.place(*_path(str(error))), str(error)) from error
    return config


def _refuse_unknown(document: Document, value: Any, known: _Fields, path: tuple[str | int, ...]) -> None:
    """Raise BadInput for the first field that upstream's type of this name does not have, as its strict decoder does."""
    if isinstance(value, list):
        for index, one in enumerate(cast(list[Any], value)):
            _refuse_unknown(document, one, known, (*path, index))
    if not isinstance(value, dict) or known is None:
        return
    for name, inner in cast(dict[str, Any], value).items():
        if name not in known:
            raise BadInput(document.place(*path, name), f'strict decoding error: unknown field "{_dotted((*path, name))}"')
        fields = known[name]
        if name == "args" and path[-2:-1] == ("pluginConfig",):
            fields = _ARGUMENTS.get(str(value.get("name")))
        _refuse_unknown(document, inner, fields, (*path, name))


def _dotted(path: tuple[str | int, ...]) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _path(message: str) -> list[str | int]:
    """Return the field that a message of the engine is about: `profiles[0].plugins: ...`, or `unknown field "profiles[0].x"`."""
    quoted = re.search(r'unknown field "?`?([\w.\[\]-]+)', message)
    text = quoted[1] if quoted is not None else message.partition(":")[0]
    steps: list[str | int] = []
    for name, index in re.findall(r"([A-Za-z][\w-]*)|\[(\d+)\]", text):
        steps.append(int(index) if index else name)
    return steps
