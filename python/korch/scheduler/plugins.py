"""Scheduler plugins written in Python: they filter and score all nodes in one call, beside the engine's own plugins.

    class NearTheData(Plugin):
        name = "NearTheData"

        def __init__(self, args: Mapping[str, Any]) -> None:
            self._rack = args["rack"]

        def filter(self, pod: Object, nodes: NodeTable) -> Sequence[str]:
            return ["" if rack == self._rack else "node(s) are far from the data" for rack in nodes.labels("rack")]

        def score(self, pod: Object, nodes: NodeTable) -> Sequence[int]:
            total, used = nodes.allocatable("cpu"), nodes.requested("cpu")
            return [int(100 * in_use / there) for in_use, there in zip(used, total)]

A plugin runs in the profiles of a KubeSchedulerConfiguration that enable its name. Its class is found in the registry that `Scheduler`
is given, or, as `module:attribute`, in the profile's pluginConfig, whose other arguments go to it:

    pluginConfig:
    - name: NearTheData
      args: {plugin: "mycompany.placement:NearTheData", rack: r7}

Whatever a plugin raises is the error of the pod that is being scheduled, and of no other. Calls come from the event loop, one at a time:
a plugin must not block. Preemption is tried on nodes that plugins refused for a `Curable` reason, and takes only pods away whose leaving
satisfies plugins as well. Mirrors kube-scheduler's framework, batch-wise.
"""

from __future__ import annotations

import importlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from korch._core import native

Object = dict[str, Any]
MAX_NODE_SCORE = 100
# The argument that names a plugin's class in pluginConfig.
ENTRY_POINT = "plugin"


class Curable(str):
    """A reason that goes when pods leave the node: preemption tries such a node, and asks again with pods thought away."""


class NodeTable:
    """The nodes of a call, as columns: entry i of each is about node i of `names`. Made for one call; keep nothing of it."""

    def __init__(
        self,
        engine: native.Scheduler,
        decoded: Callable[[str], Object],
        names: Sequence[str] | None = None,
        *,
        all_of: NodeTable | None = None,
        gone: frozenset[str] = frozenset(),
    ) -> None:
        # Pods (`namespace/name`) that are thought away, because they might have to leave; not empty only in tables of one node.
        self.gone = gone
        self._engine = engine
        self._decoded = decoded
        self._all_of = all_of
        self.names: Sequence[str] = names if names is not None else engine.table([])[0]
        self._columns: dict[str, tuple[memoryview[float], memoryview[float]]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def take(self, names: Sequence[str]) -> NodeTable:
        """Return the table of some of the nodes."""
        return NodeTable(self._engine, self._decoded, names, all_of=self._all_of or self)

    def without(self, name: str, gone: frozenset[str]) -> NodeTable:
        """Return the table of one node as if these of its pods had left."""
        return NodeTable(self._engine, self._decoded, (name,), gone=gone)

    def allocatable(self, resource: str) -> memoryview[float]:
        """Return what nodes have, as doubles (numpy.frombuffer takes it without a copy): thousandths of a CPU, else bytes or pieces."""
        return self._column(resource)[0]

    def requested(self, resource: str) -> memoryview[float]:
        """Return what the pods on the nodes request of it, those included that are about to be bound; as `allocatable`."""
        return self._column(resource)[1]

    def labels(self, key: str) -> list[str | None]:
        """Return a label's value on each node, None where it is missing."""
        return [(self.node(at).get("metadata") or {}).get("labels", {}).get(key) for at in range(len(self))]

    def node(self, at: int) -> Object:
        """Return a whole Node object, which must not be changed. Decoded when it is first asked for."""
        return self._decoded(self.names[at])

    def _column(self, resource: str) -> tuple[memoryview[float], memoryview[float]]:
        found = self._columns.get(resource)
        if found is None:
            found = self._columns[resource] = self._gather(resource) if self._all_of is not None else self._read(resource)
        return found

    def _read(self, resource: str) -> tuple[memoryview[float], memoryview[float]]:
        if self.gone:
            amounts = self._engine.amount_without(self.names[0], resource, sorted(self.gone)) or (0.0, 0.0)
            return memoryview(array("d", amounts[:1])), memoryview(array("d", amounts[1:]))
        names, [(has, used)] = self._engine.table([resource])
        self.names = names
        return memoryview(has).cast("d"), memoryview(used).cast("d")

    def _gather(self, resource: str) -> tuple[memoryview[float], memoryview[float]]:
        assert self._all_of is not None
        has, used = self._all_of._column(resource)
        place = {name: at for at, name in enumerate(self._all_of.names)}
        rows = [place[name] for name in self.names]
        return memoryview(array("d", [has[row] for row in rows])), memoryview(array("d", [used[row] for row in rows]))


class Plugin:
    """Base of plugins; what is not overridden does nothing. `name` is what configurations call it."""

    name = ""
    # Whether `filter` may answer differently when pods leave a node; only then is preemption tried pod by pod.
    minds_pods = True

    def concerns(self, pod: bytes) -> bool:
        """Return whether the plugin has anything to say about a pod (its JSON); the others are decided faster, in batches."""
        return True

    def pre_filter(self, pod: Object) -> str:
        """Return why no node at all will do, or ""."""
        return ""

    def filter(self, pod: Object, nodes: NodeTable) -> Sequence[str]:
        """Return for each node the reason why it will not do, or ""; a reason is counted in the pod's condition, and a `Curable` one
        may go when pods leave (`nodes.gone`)."""
        return ()

    def score(self, pod: Object, nodes: NodeTable) -> Sequence[int]:
        """Return for each of the feasible nodes a score from 0 to 100, which the profile's weight multiplies."""
        return ()

    def reserve(self, pod: Object, node: str) -> None:
        """Take note that the pod goes to the node, before anything is written."""

    def unreserve(self, uid: str) -> None:
        """Forget what `reserve` noted about the pod with this uid, because it could not be bound; also called when nothing was noted."""

    async def pre_bind(self, pod: Object, node: str) -> None:
        """Write what must be written before the pod is bound. Raises whatever makes the attempt fail."""

    def overrides(self, method: str) -> bool:
        """Return whether the plugin does something at this point."""
        return getattr(type(self), method) is not getattr(Plugin, method)


Factory = Callable[[Mapping[str, Any]], Plugin]


class PluginError(Exception):
    """A plugin failed; the words are kube-scheduler's around the plugin's own."""


def load(entry_point: str) -> Factory:
    """Return the class or function at `module:attribute`. Raises ValueError that says what is missing."""
    module, _, attribute = entry_point.partition(":")
    if not module or not attribute:
        raise ValueError(f"{entry_point!r} is not module:attribute")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot load {entry_point!r}: {error}") from error
    if not callable(found):
        raise ValueError(f"{entry_point!r} is not callable")
    return cast(Factory, found)


def refusal(plugin: Plugin, pod: Object) -> str:
    """Return the plugin's words for why no node will do, or "". Raises PluginError."""
    try:
        return plugin.pre_filter(pod)
    except Exception as error:
        raise PluginError(f'running PreFilter plugin "{plugin.name}": {_words(error)}') from error


def reasons(plugin: Plugin, pod: Object, nodes: NodeTable) -> Sequence[str]:
    """Return the plugin's reason against each node. Raises PluginError."""
    try:
        found = plugin.filter(pod, nodes)
        if len(found) != len(nodes):
            raise ValueError(f"{len(found)} answers for {len(nodes)} nodes")
    except Exception as error:
        raise PluginError(f'running "{plugin.name}" filter plugin: {_words(error)}') from error
    return found


def scores(plugin: Plugin, pod: Object, nodes: NodeTable) -> Sequence[int]:
    """Return the plugin's score of each node, 0 to 100. Raises PluginError."""
    try:
        found = plugin.score(pod, nodes)
        if len(found) != len(nodes):
            raise ValueError(f"{len(found)} scores for {len(nodes)} nodes")
        whole = [int(one) for one in found]
    except Exception as error:
        raise PluginError(f'running Score plugins: plugin "{plugin.name}" failed with: {_words(error)}') from error
    for one in whole:
        if not 0 <= one <= MAX_NODE_SCORE:
            words = (
                f'plugin "{plugin.name}" returns an invalid score {one}, it should in the range of [0, {MAX_NODE_SCORE}] after normalizing'
            )
            raise PluginError(f"applying score defaultWeights on Score plugins: {words}")
    return whole


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
