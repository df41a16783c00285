"""A KubeSchedulerConfiguration is read from YAML, and what is wrong in it is named with its file."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from korch._core import native
from korch.scheduler.config import Election, leader_election, read_config, settings

HEAD = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"


def test_profiles_are_read(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(HEAD + "percentageOfNodesToScore: 0\nprofiles:\n- schedulerName: a\n- schedulerName: b\n")
    assert native.Scheduler(read_config(file)).profiles() == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: Pod\napiVersion: v1\n", 'no kind "Pod" is registered for version "v1"'),
        (HEAD + "percentageOfNodesToScore: 101\n", "percentageOfNodesToScore: Invalid value"),
        (HEAD + "profiles:\n- plugins:\n    score:\n      enabled: [{name: Nope}]\n", 'profiles[0].plugins: Invalid value: "Nope"'),
        ("a: [", "while parsing"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ValueError) as caught:
        read_config(file)
    assert str(caught.value).startswith(f"{file}: ") and words in str(caught.value)


@pytest.mark.parametrize(
    ("config", "name", "expected"),
    [
        (None, "default-scheduler", Election(True, "kube-scheduler")),
        (None, "mine", Election(True, "mine")),
        ({}, "mine", Election(True, "kube-scheduler")),
        ({"profiles": [{"schedulerName": "a"}, {"schedulerName": "b"}]}, "", Election(True, "a")),
        ({"leaderElection": {"leaderElect": False}}, "", Election(False, "kube-scheduler")),
        ({"leaderElection": {"resourceName": "other"}}, "", Election(True, "other")),
    ],
)
def test_schedulers_of_different_pods_hold_different_leases(config: dict[str, object] | None, name: str, expected: Election) -> None:
    assert leader_election(None if config is None else orjson.dumps(config), name) == expected


def test_resources_that_an_extender_counts_are_not_counted_by_the_scheduler() -> None:
    extender = {"urlPrefix": "http://x", "managedResources": [{"name": "x.io/chip", "ignoredByScheduler": True}, {"name": "x.io/port"}]}
    profile = {"pluginConfig": [{"name": "NodeResourcesFit", "args": {"ignoredResourceGroups": ["y.io"]}}]}
    read = settings(orjson.dumps({"extenders": [extender], "profiles": [profile]}))
    [changed] = orjson.loads(read.engine or b"")["profiles"]
    args = {"ignoredResourceGroups": ["y.io"], "ignoredResources": ["x.io/chip"]}
    assert changed["pluginConfig"] == [{"name": "NodeResourcesFit", "args": args}]
