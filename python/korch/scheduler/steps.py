"""Decides a pod step by step where extenders or Python plugins have a say; all other pods are decided by the engine in batches.

The engine filters, then plugins, then extenders, each among what is left; scores add up; the engine chooses. Extenders are waited for,
so the cluster may change meanwhile: the last step works on the names of nodes and takes those that still exist, and the caller says
whether the pod is still wanted. Mirrors findNodesThatFitPod and prioritizeNodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random

import orjson

from korch._core import native
from korch.api.errors import ApiError
from korch.runtime.log import get_logger
from korch.scheduler.config import Enabled, Settings
from korch.scheduler.extenders import Extender, ExtenderError
from korch.scheduler.plugins import Curable, NodeTable, Object, Plugin, PluginError, reasons, refusal, scores

log = get_logger("scheduler")

EXTENDER_NAME = "Extender"
# Node, who takes it away, why, and whether removing pods would not help.
Objection = tuple[str, str, str, bool]


class _Asked:
    """Whom plugins and extenders take away; nodes are shown to plugins when they come up, and once."""

    def __init__(self, plugins: Sequence[Plugin], pod: Object, table: NodeTable) -> None:
        self.table = table
        self.objections: dict[str, Objection] = {}
        self._plugins = [one for one in plugins if one.overrides("filter")]
        self._pod = pod
        self._seen: set[str] = set()

    def about(self, names: Sequence[str]) -> None:
        """Note the first reason that a plugin has against each of these nodes."""
        new = [name for name in names if name not in self._seen]
        self._seen.update(new)
        for plugin in self._plugins:
            new = [name for name in new if name not in self.objections]
            if new:
                for name, why in zip(new, reasons(plugin, self._pod, self.table.take(new)), strict=True):
                    if why:
                        self.objections[name] = (name, plugin.name, why, not isinstance(why, Curable))

    @property
    def minds_pods(self) -> bool:
        """Return whether somebody may think otherwise of a node when pods leave it."""
        return any(one.minds_pods for one in self._plugins)

    def agrees(self, name: str, gone: frozenset[str]) -> bool:
        """Return whether all plugins would take the node if these pods left it."""
        table = self.table.without(name, gone)
        return not any(reasons(one, self._pod, table)[0] for one in self._plugins if one.minds_pods)

    def everywhere(self) -> list[Objection]:
        """Return what there is against all nodes, those included that the engine refuses: preemption must not free them in vain."""
        self.about(self.table.names)
        return list(self.objections.values())


class Steps:
    """Those who have a say, and the engine. `raw_node` and `raw_pod` return an object's JSON by name and by `namespace/name`."""

    def __init__(
        self,
        settings: Settings,
        engine: native.Scheduler,
        raw_node: Callable[[str], bytes | None],
        raw_pod: Callable[[str], bytes | None],
        draws: Random,
        built_in: Sequence[Enabled] = (),
    ) -> None:
        """`built_in` run in every profile that does not leave them out, before those of `settings`."""
        self._plugins: Mapping[str, Sequence[Enabled]] = settings.plugins
        self._without_built_in = settings.without_devices
        self._built_in = built_in
        self._extenders = [Extender(one) for one in settings.extenders]
        self._engine = engine
        self._raw_node = raw_node
        self._raw_pod = raw_pod
        self._draws = draws
        # Nodes as plugins see them, as long as their bytes stay the same.
        self._nodes: dict[str, tuple[bytes, Object]] = {}

    def concerns(self, scheduler_name: str, raw: bytes) -> bool:
        """Return whether somebody has a say about a pod (its JSON)."""
        return bool(self._enabled(scheduler_name, raw)) or (bool(self._extenders) and bool(self._interested(orjson.loads(raw))))

    async def pre_bind(self, scheduler_name: str, raw: bytes, node: str) -> None:
        """Let plugins write what must be written before the pod is bound. Raises PluginError, ApiError, OSError."""
        pod: Object = orjson.loads(raw)
        for one in self._enabled(scheduler_name, raw):
            try:
                await one.plugin.pre_bind(pod, node)
            except (ApiError, OSError):
                raise
            except Exception as error:
                raise PluginError(f'running PreBind plugin "{one.plugin.name}": {error}') from error

    def unreserve(self, scheduler_name: str, uid: str) -> None:
        """Let plugins forget a pod that could not be bound."""
        for one in reversed((*self._built_in, *self._plugins.get(scheduler_name, ()))):
            one.plugin.unreserve(uid)

    async def decide(
        self, scheduler_name: str, raw: bytes, is_wanted: Callable[[], bool], *, preempts: bool = True
    ) -> native.Decision | None:
        """Return the engine's decision, with the pod assumed if it got a node; None when it is no longer wanted. Without `preempts`
        nobody has to make room.

        Raises PluginError and ExtenderError in upstream's words."""
        pod: Object = orjson.loads(raw)
        enabled = self._enabled(scheduler_name, raw)
        is_nominated, feasible = self._engine.survey(raw)
        for one in enabled:
            if words := refusal(one.plugin, pod):
                return self._engine.refuse(raw, [], everywhere=(one.plugin.name, words))
        asked = _Asked([one.plugin for one in enabled if one.filters], pod, NodeTable(self._engine, self._node))
        left = await self._filter(pod, feasible, asked)
        if is_nominated and not left:
            left = await self._filter(pod, self._engine.feasible(raw), asked)
        if not left:
            if not preempts:
                return self._engine.refuse(raw, asked.everywhere(), preempts=False)
            return await self._refuse(raw, pod, asked, is_wanted)
        extra, was_scored = [0] * len(left), False
        if len(left) > 1:
            extra, was_scored = await self._score(pod, left, enabled, asked.table)
        if not is_wanted():
            return None
        # Where an extender scored, upstream draws among equals.
        seed = self._draws.getrandbits(63) | 1 if was_scored else 0
        decision = self._engine.choose(raw, left, extra, seed=seed)
        if decision is None:
            return self._engine.refuse(raw, asked.everywhere())
        self._reserve(pod, decision, enabled)
        return decision

    async def bind(self, pod: Object, node: str) -> bool:
        """Let an extender bind the pod; return whether one did. Raises ExtenderError."""
        for extender in self._interested(pod):
            if not extender.config.bind_verb:
                continue
            try:
                await extender.bind(pod, node)
            except ExtenderError as error:
                if not extender.config.is_ignorable:
                    raise
                log.info("extender left out", extender=extender.name, error=str(error))
            else:
                return True
        return False

    async def close(self) -> None:
        """Close the connections to extenders."""
        for extender in self._extenders:
            await extender.close()

    def _enabled(self, scheduler_name: str, raw: bytes) -> list[Enabled]:
        """Return the plugins that have a say about a pod, in order."""
        built_in = () if scheduler_name in self._without_built_in else self._built_in
        return [one for one in (*built_in, *self._plugins.get(scheduler_name, ())) if one.plugin.concerns(raw)]

    def _reserve(self, pod: Object, decision: native.Decision, enabled: Sequence[Enabled]) -> None:
        """Let plugins note where the pod goes; when one cannot, the pod does not go there."""
        for one in enabled:
            try:
                one.plugin.reserve(pod, decision.node)
            except Exception as error:
                for other in reversed(enabled):
                    other.plugin.unreserve(pod["metadata"].get("uid", ""))
                self._engine.forget([decision.key])
                raise PluginError(f'running Reserve plugin "{one.plugin.name}": {error}') from error

    def forget_node(self, name: str) -> None:
        """A node is gone."""
        self._nodes.pop(name, None)

    def _node(self, name: str) -> Object:
        raw = self._raw_node(name) or b"{}"
        known = self._nodes.get(name)
        if known is None or known[0] is not raw:
            known = self._nodes[name] = raw, orjson.loads(raw)
        return known[1]

    def _interested(self, pod: Object) -> list[Extender]:
        return [one for one in self._extenders if one.is_interested(pod)]

    def _objects(self, nodes: Sequence[str]) -> dict[str, bytes]:
        return {name: raw for name in nodes if (raw := self._raw_node(name)) is not None}

    async def _filter(self, pod: Object, feasible: Sequence[str], asked: _Asked) -> list[str]:
        """Return what plugins and extenders leave, noting who takes what away."""
        asked.about(feasible)
        objections = asked.objections
        left = [name for name in feasible if name not in objections]
        for extender in self._interested(pod):
            objects = self._objects(left)
            left = [name for name in left if name in objects]
            if not left:
                break
            try:
                answer = await extender.filter(pod, left, objects)
            except ExtenderError as error:
                if not extender.config.is_ignorable:
                    raise
                log.info("extender left out", extender=extender.name, error=str(error))
                continue
            for name in left:
                if name not in answer.nodes:
                    # A node that is left out without a word counts for nothing, and preemption does not try it.
                    objections[name] = (name, EXTENDER_NAME, "", True)
            objections |= {name: (name, EXTENDER_NAME, why, False) for name, why in answer.failed.items()}
            objections |= {name: (name, EXTENDER_NAME, why, True) for name, why in answer.unresolvable.items()}
            left = answer.nodes
        return left

    async def _score(self, pod: Object, left: list[str], enabled: Sequence[Enabled], table: NodeTable) -> tuple[list[int], bool]:
        """Return what is added to the engine's scores, and whether an extender scored."""
        extra = [0] * len(left)
        some = table.take(left)
        for one in enabled:
            if one.weight:
                extra = [total + one.weight * score for total, score in zip(extra, scores(one.plugin, pod, some), strict=True)]
        objects = self._objects(left)
        known = [name for name in left if name in objects]
        asked = [one for one in self._interested(pod) if one.config.prioritize_verb]
        answers = await asyncio.gather(*(one.prioritize(pod, known, objects) for one in asked), return_exceptions=True)
        was_scored = False
        for extender, answer in zip(asked, answers, strict=True):
            if isinstance(answer, ExtenderError):
                log.info("extender did not score", extender=extender.name, error=str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                was_scored |= any(name in answer for name in left)
                extra = [total + answer.get(name, 0) for total, name in zip(extra, left, strict=True)]
        return extra, was_scored

    async def _refuse(self, raw: bytes, pod: Object, asked: _Asked, is_wanted: Callable[[], bool]) -> native.Decision | None:
        objections = asked.everywhere()
        extenders = [one for one in self._interested(pod) if one.config.preempt_verb]
        if not extenders and not asked.minds_pods:
            return self._engine.refuse(raw, objections)
        if asked.minds_pods:
            victims, hopeless = self._agreed_victims(raw, objections, asked)
            known = {one[0]: one for one in objections}
            for node in hopeless:
                _, plugin, reason, _ = known.get(node, (node, "", "", False))
                known[node] = (node, plugin, reason, True)
            objections = list(known.values())
        else:
            victims = {node: (gone, count) for node, gone, count in self._engine.victims(raw, objections)}
        if not victims:
            return self._engine.refuse(raw, objections)
        for extender in extenders:
            try:
                victims = await self._agree(extender, pod, victims)
            except ExtenderError as error:
                if not extender.config.is_ignorable:
                    raise
                log.info("extender left out", extender=extender.name, error=str(error))
            if not victims:
                break
        if not is_wanted():
            return None
        return self._engine.refuse(raw, objections, allowed=[(node, gone, count) for node, (gone, count) in victims.items()])

    def _agreed_victims(
        self, raw: bytes, objections: Sequence[Objection], asked: _Asked
    ) -> tuple[dict[str, tuple[list[tuple[str, str]], int]], list[str]]:
        """Return who would have to leave each node for the engine and all plugins to take the pod there, and the nodes where that does
        not help. Mirrors SelectVictimsOnNode."""
        found: dict[str, tuple[list[tuple[str, str]], int]] = {}
        hopeless: list[str] = []
        for node, potential in self._engine.curable(raw, objections):

            def fits(gone: frozenset[str], node: str = node) -> bool:
                return self._engine.fits_without(raw, node, sorted(gone)) and asked.agrees(node, gone)

            gone = frozenset(key for key, _, _ in potential)
            if not gone:
                continue
            if not fits(gone):
                hopeless.append(node)
                continue
            victims: list[tuple[str, str]] = []
            violations = 0
            for key, uid, is_protected in potential:
                if not fits(gone - {key}):
                    victims.append((key, uid))
                    violations += is_protected
                else:
                    gone -= {key}
            if victims:
                found[node] = (victims, violations)
        return found, hopeless

    async def _agree(
        self, extender: Extender, pod: Object, victims: Mapping[str, tuple[list[tuple[str, str]], int]]
    ) -> dict[str, tuple[list[tuple[str, str]], int]]:
        """Return which of the victims an extender agrees to."""
        pods = {key: self._raw_pod(key) or b"{}" for gone, _ in victims.values() for key, _ in gone}
        agreed: dict[str, tuple[list[tuple[str, str]], int]] = {}
        for node, (uids, violations) in (await extender.preempt(pod, victims, pods)).items():
            keys = {uid: key for key, uid in self._engine.pods_on(node)}
            for uid in uids:
                if uid not in keys:
                    words = f"claims to preempt pod (UID: &{{{uid}}}) on node: {node}, but the pod is not found on that node"
                    raise ExtenderError(f"extender: {extender.name} {words}")
            if uids:
                agreed[node] = ([(keys[uid], uid) for uid in uids], violations)
            elif not extender.config.is_ignorable:
                raise ExtenderError(f'expected at least one victim pod on node "{node}"')
        return agreed
