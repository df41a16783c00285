"""PriorityLevelConfiguration: how many requests of one priority are served at once, and how the others wait."""

from __future__ import annotations

from korch.api.errors import Cause, forbidden_field, invalid, not_supported, required
from korch.api.meta import at
from korch.api.names import is_path_segment
from korch.resources.columns import AGE, NAME, NONE, text
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Column, Object, Resource, Strategy
from korch.resources.subresources import STATUS

_QUEUING = {"queues": 64, "handSize": 8, "queueLengthLimit": 50}
_QUEUES_MAX = 10_000_000


def default(obj: Object) -> None:
    """Fill in a PriorityLevelConfiguration, in place."""
    spec = fill(obj, "spec", {})
    if spec.get("type") == "Exempt":
        exempt = fill(spec, "exempt", {})
        for field in ("nominalConcurrencyShares", "lendablePercent"):
            if exempt.get(field) is None:
                exempt[field] = 0
    limited = spec.get("limited")
    if limited is None:
        return
    if limited.get("nominalConcurrencyShares") is None:
        limited["nominalConcurrencyShares"] = 30
    if limited.get("lendablePercent") is None:
        limited["lendablePercent"] = 0
    queuing = at(limited, "limitResponse", "queuing")
    if queuing is not None:
        for field, value in _QUEUING.items():
            if not queuing.get(field):
                queuing[field] = value


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a PriorityLevelConfiguration. Mirrors ValidatePriorityLevelConfigurationSpec."""
    causes: list[Cause] = []
    spec, name = obj.get("spec") or {}, at(obj, "metadata", "name") or ""
    kind = spec.get("type") or ""
    if (name == "exempt") != (kind == "Exempt"):
        why = "type must be 'Exempt' if and only if name is 'exempt'"
        causes.append(invalid("spec.type", kind, why))
    if kind == "Exempt":
        if spec.get("limited") is not None:
            causes.append(forbidden_field("spec.limited", "must be nil if the type is not Limited"))
        _check_shares(causes, spec.get("exempt") or {}, "spec.exempt")
    elif kind == "Limited":
        if spec.get("exempt") is not None:
            causes.append(forbidden_field("spec.exempt", "must be nil if the type is Limited"))
        if spec.get("limited") is None:
            causes.append(required("spec.limited", "must not be empty when type is Limited"))
        else:
            _check_limited(causes, spec["limited"], "spec.limited")
    else:
        causes.append(not_supported("spec.type", kind, ("Exempt", "Limited")))
    return causes


def _check_shares(causes: list[Cause], part: Object, path: str, *, least: int = 0) -> None:
    shares, lendable = part.get("nominalConcurrencyShares"), part.get("lendablePercent")
    if shares is not None and shares < least:
        causes.append(invalid(f"{path}.nominalConcurrencyShares", shares, "must be a non-negative integer"))
    if lendable is not None and not 0 <= lendable <= 100:
        causes.append(invalid(f"{path}.lendablePercent", lendable, "must be between 0 and 100, inclusive"))


def _check_limited(causes: list[Cause], limited: Object, path: str) -> None:
    _check_shares(causes, limited, path)
    borrowing = limited.get("borrowingLimitPercent")
    if borrowing is not None and borrowing < 0:
        causes.append(invalid(f"{path}.borrowingLimitPercent", borrowing, "if specified, must be a non-negative integer"))
    response = limited.get("limitResponse") or {}
    kind, queuing, where = response.get("type") or "", response.get("queuing"), f"{path}.limitResponse"
    if kind == "Reject":
        if queuing is not None:
            causes.append(forbidden_field(f"{where}.queuing", "must be nil if limited.limitResponse.type is not Limited"))
    elif kind == "Queue":
        if queuing is None:
            causes.append(required(f"{where}.queuing", "must not be empty if limited.limitResponse.type is Limited"))
        else:
            _check_queuing(causes, queuing, f"{where}.queuing")
    else:
        causes.append(not_supported(f"{where}.type", kind, ("Queue", "Reject")))


def _check_queuing(causes: list[Cause], queuing: Object, path: str) -> None:
    for field in ("queueLengthLimit", "queues", "handSize"):
        value = queuing.get(field) or 0
        if value <= 0:
            causes.append(invalid(f"{path}.{field}", value, "must be positive"))
    queues, hand = queuing.get("queues") or 0, queuing.get("handSize") or 0
    if queues > _QUEUES_MAX:
        causes.append(invalid(f"{path}.queues", queues, f"must not be greater than {_QUEUES_MAX}"))
    if hand > queues:
        causes.append(invalid(f"{path}.handSize", hand, f"should not be greater than queues ({queues})"))


def _limit(name: str, *path: str, description: str) -> Column:
    def value(obj: Object, _now: float) -> str:
        found = at(obj, "spec", "limited", *path)
        return NONE if found is None else str(found)

    return Column(name, value, description=description)


def _shares(obj: Object, _now: float) -> str:
    part = at(obj, "spec", "limited") or at(obj, "spec", "exempt") or {}
    found = part.get("nominalConcurrencyShares")
    return NONE if found is None else str(found)


RESOURCE = Resource(
    group="flowcontrol.apiserver.k8s.io",
    version="v1",
    kind="PriorityLevelConfiguration",
    plural="prioritylevelconfigurations",
    singular="prioritylevelconfiguration",
    schema="io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
    namespaced=False,
    strategy=Strategy(default=default, validate=validate, validate_name=is_path_segment, has_status=True, has_generation=True),
    subresources=(STATUS,),
    columns=(
        NAME,
        text("Type", "spec", "type", description="Whether it is limited at all."),
        Column("NominalConcurrencyShares", _shares, description="Its share of the server."),
        _limit("Queues", "limitResponse", "queuing", "queues", description="In how many queues its requests wait."),
        _limit("HandSize", "limitResponse", "queuing", "handSize", description="How many of them a flow may use."),
        _limit("QueueLengthLimit", "limitResponse", "queuing", "queueLengthLimit", description="How many wait in each."),
        AGE,
    ),
)
