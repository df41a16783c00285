"""What the pods of one workload have in common: from the spec that was sent to the spec that is stored, made once and then known.

A ReplicaSet's thousand pods are created with the same spec, byte for byte. What becomes of it (checked, defaulted, admitted, found valid)
depends on nothing but its bytes, its namespace and what admission looks at there; so it is kept with all of that beside it, as a recipe.
A pod whose spec has a recipe has only its head read (`apiVersion`, `kind`, `metadata`), while what admission looks at is the same;
anything out of the ordinary goes the long way, which is the only one that knows how to refuse a spec.

Admission plugins that shape specs say what they rest on with `pod_footing`; all others run for every pod, and see no spec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import orjson

from korch._core import native
from korch.api.errors import ApiError
from korch.apiserver.admission import Admission
from korch.apiserver.admission.service_account import TOKEN_VOLUME_PREFIX
from korch.apiserver.codec import Codec
from korch.apiserver.grants import is_node
from korch.apiserver.identity import User
from korch.resources.resource import Resource
from korch.runtime.rng import Rng

Object = dict[str, Any]

_RECIPES_MAX = 256
_SPEC_BYTES_MAX = 16 * 1024
# A recipe is made when a spec comes a second time among so many others.
_SEEN_MAX = 1024
_MIRROR = "kubernetes.io/config.mirror"


class PodFacts(NamedTuple):
    """What plugins know a pod by before they see it."""

    namespace: str
    account: str
    runtime_class: str


@runtime_checkable
class ShapesPods(Protocol):
    """An admission plugin that changes or refuses new pods because of their spec."""

    def pod_footing(self, pod: PodFacts) -> object | None:
        """Return what its answer rests on beside the spec: equal values, equal answers. None: every such pod is to be looked at."""
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """What becomes of one spec in one namespace: `defaulted` before admission, and as stored, cut where the token volume's name goes."""

    defaulted: orjson.Fragment
    stored: Sequence[bytes]
    status: orjson.Fragment
    fields: Mapping[str, str]
    facts: PodFacts
    footing: Sequence[object]

    def finish(self, pod: Object, rng: Rng) -> None:
        """Give a pod the spec and status that are stored."""
        name = f"{TOKEN_VOLUME_PREFIX}{rng.name_suffix()}".encode() if len(self.stored) > 1 else b""
        pod["spec"] = orjson.Fragment(name.join(self.stored))
        pod["status"] = self.status


class Draft:
    """A spec that goes the long way so that a recipe may be made of it."""

    __slots__ = ("_defaulted", "spec")

    def __init__(self, spec: bytes) -> None:
        self.spec = spec
        self._defaulted = b""

    def defaulted(self, pod: Object) -> None:
        """Note the spec with its defaults."""
        self._defaulted = orjson.dumps(pod["spec"])

    def recipe(self, resource: Resource, pod: Object, facts: PodFacts, footing: Sequence[object]) -> Recipe:
        """Return the recipe that led to `pod`, which is as it will be stored."""
        final = orjson.dumps(pod["spec"])
        names = (volume.get("name") or "" for volume in pod["spec"].get("volumes") or ())
        made = (name for name in names if name.startswith(TOKEN_VOLUME_PREFIX) and name.encode() not in self._defaulted)
        name = next(made, "")
        return Recipe(
            orjson.Fragment(self._defaulted),
            final.split(name.encode()) if name else (final,),
            orjson.Fragment(orjson.dumps(pod["status"])),
            {label: read(pod) for label, read in resource.selectable_fields.items()},
            facts,
            footing,
        )


class Opened(NamedTuple):
    """A new pod of which the head is decoded, and what becomes of its spec."""

    pod: Object
    recipe: Recipe


class PodRecipes:
    """The recipes of one server."""

    def __init__(self, codec: Codec, plugins: Sequence[Admission]) -> None:
        self._codec = codec
        self._shaping = [one for one in plugins if isinstance(one, ShapesPods)]
        self._recipes: dict[tuple[str, bytes], Recipe] = {}
        self._seen: set[int] = set()

    def open(self, resource: Resource, namespace: str, user: User, body: bytes, field_validation: str) -> Opened | Draft | None:
        """Return a new pod whose spec has a recipe; or the draft of one; or None for what has to go the long way."""
        if resource.plural != "pods" or resource.group or is_node(user):
            return None
        spec, head = _parted(body)
        if not spec:
            return None
        recipe = self._recipes.get((namespace, spec))
        if recipe is None or self._footing(recipe.facts) != recipe.footing:
            # Where unknown fields are ignored nobody would learn of them.
            return self._draft(namespace, spec) if field_validation != "Ignore" else None
        warnings: list[str] = []
        try:
            pod = self._codec.decode(resource, head, field_validation, warnings)
        except ApiError:
            return None
        if warnings or _MIRROR in (pod["metadata"].get("annotations") or {}):
            return None
        pod["spec"] = recipe.defaulted
        return Opened(pod, recipe)

    def learn(self, draft: Draft, resource: Resource, pod: Object) -> None:
        """Remember what became of a draft, when it holds for others. Called when `pod` was found valid, before anything is awaited."""
        spec = pod["spec"]
        facts = PodFacts(pod["metadata"]["namespace"], spec.get("serviceAccountName") or "", spec.get("runtimeClassName") or "")
        footing = self._footing(facts)
        if footing is None or _MIRROR in (pod["metadata"].get("annotations") or {}):
            return
        if len(self._recipes) >= _RECIPES_MAX:
            self._recipes.clear()
        self._recipes[facts.namespace, draft.spec] = draft.recipe(resource, pod, facts, footing)

    def _draft(self, namespace: str, spec: bytes) -> Draft | None:
        mark = hash((namespace, spec))
        if mark in self._seen:
            return Draft(spec)
        if len(self._seen) >= _SEEN_MAX:
            self._seen.clear()
        self._seen.add(mark)
        return None

    def _footing(self, facts: PodFacts) -> Sequence[object] | None:
        found: list[object] = []
        for plugin in self._shaping:
            one = plugin.pod_footing(facts)
            if one is None:
                return None
            found.append(one)
        return found


def _parted(body: bytes) -> tuple[bytes, bytes]:
    """Return spec and head of a new pod, b"" for one that brings more than these."""
    parts = native.part_object(body)
    if parts is None:
        return b"", b""
    head, managers, members = parts
    if managers or not members or len(members[0][1]) > _SPEC_BYTES_MAX:
        return b"", b""
    if members[0][0] != "spec" or not members[0][1].startswith(b"{") or members[1:] not in ([], [("status", b"{}")]):
        return b"", b""
    return members[0][1], head
