"""The engine decides as the slow reference does, on random clusters: placements by placement, ties included."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from reference import PREFERRED, REQUIRED, Cluster, Object, request

from korch._core import native

ZONE, RACK, HOSTNAME = "topology.kubernetes.io/zone", "rack", "kubernetes.io/hostname"
CLUSTERS = 60


class World:
    """Random things from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, *options: Any) -> Any:
        return self.random.choice(options)

    def node(self, number: int) -> Object:
        # No zone label: the visiting order is then the order of arrival, and zones are spread by another key.
        found = {HOSTNAME: f"n{number}", "region": self.pick("r1", "r2", "r3"), "disk": self.pick("ssd", "hdd")}
        if self.chance(0.5):
            found[RACK] = self.pick("k1", "k2")
        taints = [{"key": key, "value": "v", "effect": self.pick("NoSchedule", "PreferNoSchedule")} for key in "ab" if self.chance(0.2)]
        allocatable = {"cpu": self.pick("2", "3900m", "8"), "memory": self.pick("4Gi", "7900Mi", "16Gi"), "pods": self.pick("3", "10")}
        return {"metadata": {"name": f"n{number}", "labels": found}, "spec": {"taints": taints}, "status": {"allocatable": allocatable}}

    def selector(self) -> Object:
        if self.chance(0.1):
            # A key that no selector may have named when pods that carry it were placed.
            return {"matchExpressions": [{"key": "turn", "operator": self.pick("Exists", "In", "NotIn"), "values": ["1", "2", "5"]}]}
        if self.chance(0.7):
            return {"matchLabels": {"app": self.pick("x", "y")}}
        return {"matchExpressions": [{"key": "app", "operator": self.pick("In", "NotIn", "Exists"), "values": ["x"]}]}

    def node_term(self) -> Object:
        return {
            "matchExpressions": [{"key": self.pick("disk", RACK), "operator": self.pick("In", "NotIn"), "values": [self.pick("ssd", "k1")]}]
        }

    def pod_term(self) -> Object:
        term: Object = {"topologyKey": self.pick("region", RACK, HOSTNAME), "labelSelector": self.selector()}
        if self.chance(0.2):
            term["namespaces"] = ["other"]
        elif self.chance(0.2):
            term["namespaceSelector"] = self.pick({}, {"matchLabels": {"team": "red"}})
        return term

    def affinity(self) -> Object:
        found: Object = {}
        if self.chance(0.4):
            node = found["nodeAffinity"] = {PREFERRED: [{"weight": self.pick(1, 30), "preference": self.node_term()}]}
            if self.chance(0.4):
                node[REQUIRED] = {"nodeSelectorTerms": [self.node_term(), self.node_term()]}
        for kind in ("podAffinity", "podAntiAffinity"):
            if self.chance(0.3):
                found[kind] = {PREFERRED: [{"weight": self.pick(1, 50), "podAffinityTerm": self.pod_term()}]}
                if self.chance(0.4):
                    found[kind][REQUIRED] = [self.pod_term()]
        return found

    def constraint(self) -> Object:
        one: Object = {"maxSkew": self.pick(1, 2), "topologyKey": self.pick("region", RACK, HOSTNAME), "labelSelector": self.selector()}
        one["whenUnsatisfiable"] = self.pick("DoNotSchedule", "ScheduleAnyway")
        if one["whenUnsatisfiable"] == "DoNotSchedule" and self.chance(0.3):
            one["minDomains"] = self.pick(2, 4)
        return one

    def pod(self, name: str) -> Object:
        requests = {
            key: value for key, value in (("cpu", self.pick("100m", "333m", "1")), ("memory", self.pick("64Mi", "1Gi"))) if self.chance(0.8)
        }
        container: Object = {"name": "c", "resources": {"requests": requests}}
        if self.chance(0.1):
            container["ports"] = [{"hostPort": self.pick(80, 81)}]
        spec: Object = {"containers": [container], "affinity": self.affinity()}
        if self.chance(0.3):
            spec["topologySpreadConstraints"] = [self.constraint() for _ in range(self.pick(1, 2))]
        if self.chance(0.4):
            spec["tolerations"] = [{"key": self.pick("a", "b"), "operator": "Exists"}]
        meta = {"name": name, "namespace": self.pick("d", "d", "other"), "uid": name, "labels": {"app": self.pick("x", "y", "z")}}
        return {"metadata": meta, "spec": spec}


@pytest.mark.parametrize("seed", range(CLUSTERS))
def test_every_decision_is_the_references(seed: int) -> None:
    world = World(seed)
    nodes = [world.node(number) for number in range(world.pick(1, 5, 12))]
    namespaces = {"d": {"team": "red"}, "other": {"team": "blue"}}
    cluster = Cluster(nodes, namespaces)
    engine = native.Scheduler()
    others = [orjson.dumps({"kind": "Namespace", "metadata": {"name": name, "labels": found}}) for name, found in namespaces.items()]
    engine.upsert([orjson.dumps(one) for one in nodes], [], others)
    shapes = [world.pod("shape") for _ in range(4)]
    for turn in range(20):
        shape = world.pick(*shapes)
        labels = shape["metadata"]["labels"] | {"turn": str(turn)}
        pod = shape | {"metadata": shape["metadata"] | {"name": f"p{turn}", "uid": f"p{turn}", "labels": labels}}
        expected = cluster.choose(pod)
        (found,) = engine.schedule([orjson.dumps(pod)], now_ms=0, seed=0)
        assert found.node == (expected["metadata"]["name"] if expected else ""), f"seed {seed}, turn {turn}: {found.message}"
        if expected is not None:
            cluster.place(pod, expected)
        if world.chance(0.1) and cluster.pods:
            gone = cluster.pods.pop(world.random.randrange(len(cluster.pods)))[0]["metadata"]
            engine.remove("Pod", [f"{gone['namespace']}/{gone['name']}"])
    for node in nodes:
        there = cluster.on(node)
        assert len(there) <= int(node["status"]["allocatable"]["pods"])
        assert sum(request(one, "cpu") for one in there) <= {"2": 2000, "3900m": 3900, "8": 8000}[node["status"]["allocatable"]["cpu"]]
