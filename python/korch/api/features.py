"""Feature gates: what upstream has but does not switch on by itself. Only gates that change something here are known.

Names, defaults and stages are v1.37's. A gate that is off leaves no trace: its kinds are not served and its fields are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

# Gate -> field of `Features`. All of them are beta, and off, in v1.37.
GATES = {"GenericWorkload": "generic_workload"}
_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")
# Versions of the API that are served when they are asked for, each with the gate that it needs.
OPTIONAL_VERSIONS = {"scheduling.k8s.io/v1beta1": "generic_workload"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Which gates are on, and which optional versions of the API are (`--runtime-config`)."""

    # Workload and PodGroup, and the scheduling of groups as one.
    generic_workload: bool = False
    versions: frozenset[str] = frozenset()

    def serves(self, version: str) -> bool:
        """Return whether an optional version (`group/version`) is served: it was asked for and its gate is on."""
        return version in self.versions and bool(getattr(self, OPTIONAL_VERSIONS[version]))


def read_features(gates: Iterable[str], runtime_config: Iterable[str] = ()) -> Features:
    """Return what `--feature-gates` and `--runtime-config` say, each a list of `A=true,B=false`. Raises ValueError in upstream's words."""
    features = Features()
    pairs = [_pair(one) for text in gates for one in text.split(",") if one]
    # What is said of one gate counts more than what is said of all.
    for name, value in sorted(pairs, key=lambda pair: pair[0] not in ("AllAlpha", "AllBeta")):
        if name == "AllBeta":
            features = replace(features, **dict.fromkeys(GATES.values(), value))
        elif name in GATES:
            features = replace(features, **{GATES[name]: value})
        elif name != "AllAlpha":
            raise ValueError(f"unrecognized feature gate: {name}")
    return replace(features, versions=_versions(runtime_config))


def _versions(runtime_config: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    pairs = [_pair(one, if_missing=True) for text in runtime_config for one in text.split(",") if one]
    for name, value in sorted(pairs, key=lambda pair: not pair[0].startswith("api/")):
        if name in ("api/all", "api/beta"):
            named = set(OPTIONAL_VERSIONS)
        elif name in OPTIONAL_VERSIONS:
            named = {name}
        elif name in ("api/ga", "api/alpha"):
            continue
        else:
            raise ValueError(f"unknown api groups {name.partition('/')[0]}")
        found = found | named if value else found - named
    return frozenset(found)


def _pair(text: str, *, if_missing: bool | None = None) -> tuple[str, bool]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        if if_missing is None:
            raise ValueError(f"missing bool value for {name}")
        return name, if_missing
    if value not in _TRUE + _FALSE:
        raise ValueError(f'invalid value of {name}={value}, err: strconv.ParseBool: parsing "{value}": invalid syntax')
    return name, value in _TRUE
