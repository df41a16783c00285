"""Feature gates are spelled, defaulted and refused as upstream does."""

from __future__ import annotations

import pytest

from korch.api.features import Features, read_features

VERSION = "scheduling.k8s.io/v1beta1"


def test_everything_is_off_by_itself() -> None:
    assert read_features([]) == Features()
    assert not Features().serves(VERSION)


def test_a_version_is_served_when_it_and_its_gate_are_on() -> None:
    assert read_features(["GenericWorkload=true"], [f"{VERSION}=true"]).serves(VERSION)
    assert read_features(["GenericWorkload=T"], ["api/all=true"]).serves(VERSION)
    assert not read_features(["GenericWorkload=true"]).serves(VERSION)
    assert not read_features(["GenericWorkload=0"], [VERSION]).serves(VERSION)
    assert not read_features(["GenericWorkload=true"], [f"{VERSION}=false,api/beta=true"]).serves(VERSION)


def test_what_is_said_of_one_gate_counts_more_than_what_is_said_of_all() -> None:
    assert read_features(["AllBeta=true"]).generic_workload
    assert not read_features(["GenericWorkload=false,AllBeta=true"]).generic_workload
    assert not read_features(["AllAlpha=true"]).generic_workload


@pytest.mark.parametrize(
    ("gates", "versions", "words"),
    [
        (["Nonsense=true"], [], "unrecognized feature gate: Nonsense"),
        (["GenericWorkload"], [], "missing bool value for GenericWorkload"),
        (["GenericWorkload=yes"], [], 'invalid value of GenericWorkload=yes, err: strconv.ParseBool: parsing "yes": invalid syntax'),
        ([], ["example.com/v1=true"], "unknown api groups example.com"),
    ],
)
def test_what_cannot_be_is_refused_in_upstreams_words(gates: list[str], versions: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=r"^.+$") as caught:
        read_features(gates, versions)
    assert str(caught.value) == words
