"""A KubeSchedulerConfiguration is read from YAML, and what is wrong in it is named with its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from korch._core import native
from korch.scheduler.config import read_config

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
