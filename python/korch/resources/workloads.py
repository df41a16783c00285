"""Rules that all workloads share: the selector, the template that it must match, how a rollout may proceed.

Mirrors kubernetes' pkg/apis/apps/validation.
"""

from __future__ import annotations

from collections.abc import Sequence

from korch.api.errors import Cause, forbidden_field, invalid, not_supported, required
from korch.api.meta import at
from korch.api.validation import (
    SELECTOR_MISMATCH,
    check_immutable,
    check_int_or_percent,
    check_label_selector,
    check_not_negative,
    is_empty_selector,
    is_zero,
    percent_of,
    selector_matches,
)
from korch.resources.podspec.validation import check_pod_template
from korch.resources.resource import Object


def check_selector_and_template(causes: list[Cause], spec: Object, kind: str, *, empty: str, path: str = "spec") -> None:
    """Check `selector` and `template` of a workload whose pods always restart. `kind` and `empty` are for the messages."""
    selector = spec.get("selector")
    if selector is None:
        causes.append(required(f"{path}.selector"))
    else:
        check_label_selector(causes, selector, f"{path}.selector")
        if is_empty_selector(selector):
            causes.append(invalid(f"{path}.selector", selector, f"empty selector is invalid for {empty}"))
    check_template(causes, spec, selector, kind, path=path)


def check_template(causes: list[Cause], spec: Object, selector: Object | None, kind: str, *, path: str = "spec") -> None:
    """Check `template`: there is one, its labels match `selector`, and its pods always restart."""
    template = spec.get("template")
    if template is None:
        causes.append(required(f"{path}.template"))
        return
    labels = at(template, "metadata", "labels")
    if selector is not None and not is_empty_selector(selector) and not selector_matches(selector, labels):
        causes.append(invalid(f"{path}.template.metadata.labels", labels or {}, SELECTOR_MISMATCH))
    check_pod_template(causes, template, f"{path}.template")
    policy = at(template, "spec", "restartPolicy")
    if policy != "Always":
        causes.append(not_supported(f"{path}.template.spec.restartPolicy", policy or "", ("Always",)))
    if at(template, "spec", "activeDeadlineSeconds") is not None:
        where = f"{path}.template.spec.activeDeadlineSeconds"
        causes.append(forbidden_field(where, f"activeDeadlineSeconds in {kind} is not Supported"))


def check_counts(causes: list[Cause], spec: Object, fields: Sequence[str], *, path: str = "spec") -> None:
    """Check that none of these numbers is negative."""
    for field in fields:
        check_not_negative(causes, spec.get(field), f"{path}.{field}")


def check_rolling_update(causes: list[Cause], rolling_update: Object, path: str, *, both_zero: str) -> None:
    """Check maxUnavailable and maxSurge; `both_zero` is the message when neither lets the rollout move."""
    unavailable, surge = rolling_update.get("maxUnavailable"), rolling_update.get("maxSurge")
    check_int_or_percent(causes, unavailable, f"{path}.maxUnavailable")
    check_int_or_percent(causes, surge, f"{path}.maxSurge")
    if is_zero(unavailable) and is_zero(surge):
        causes.append(invalid(f"{path}.maxUnavailable", unavailable, both_zero))
    if (percent_of(unavailable) or 0) > 100:
        causes.append(invalid(f"{path}.maxUnavailable", unavailable, "must not be greater than 100%"))


def validate_immutable_selector(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes the selector of a workload, which apps/v1 does not allow."""
    causes: list[Cause] = []
    check_immutable(causes, at(new, "spec", "selector"), at(old, "spec", "selector"), "spec.selector")
    return causes
