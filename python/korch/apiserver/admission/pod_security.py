"""PodSecurity: a namespace's labels say which pod security standard its pods must meet, and of which they are warned.

Labels are pod-security.kubernetes.io/enforce, audit and warn, each privileged, baseline or restricted. Pods are refused; workloads
that would make such pods are only warned about. Mirrors plugin/pkg/admission/security/podsecurity with k8s.io/pod-security-admission.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from korch.api.errors import Forbidden, Invalid, invalid
from korch.api.meta import at, labels_of
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.audit.record import annotate
from korch.apiserver.records import Records
from korch.resources.core import namespace
from korch.resources.podspec.security import LEVELS, violations

if TYPE_CHECKING:
    from korch.apiserver.pod_recipes import PodFacts

Object = dict[str, Any]

_PREFIX = "pod-security.kubernetes.io/"
_MODES = ("enforce", "audit", "warn")
# Where kinds that make pods keep their template.
_TEMPLATES: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "podtemplates"): ("template",),
    ("", "replicationcontrollers"): ("spec", "template"),
    ("apps", "daemonsets"): ("spec", "template"),
    ("apps", "deployments"): ("spec", "template"),
    ("apps", "replicasets"): ("spec", "template"),
    ("apps", "statefulsets"): ("spec", "template"),
    ("batch", "cronjobs"): ("spec", "jobTemplate", "spec", "template"),
    ("batch", "jobs"): ("spec", "template"),
}


class PodSecurity:
    """Holds pods, templates and the labels of namespaces to the standards."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def admit(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for a pod that its namespace does not allow; warn about what it does not want."""
        resource = request.resource
        if request.obj is None or request.operation == "DELETE":
            return
        if request.concerns("", "namespaces"):
            _check_labels(request)
            return
        is_pod = not resource.group and resource.plural == "pods" and request.subresource in ("", "ephemeralcontainers")
        template_path = _TEMPLATES.get((resource.group, resource.plural))
        if (request.subresource and not is_pod) or (not is_pod and template_path is None):
            return
        if is_pod and request.old is not None and not _is_significant(request.obj, request.old):
            return
        labels = self._labels(request.namespace)
        if not labels:
            return
        pod = request.obj if is_pod else at(request.obj, *(template_path or ()))
        if not isinstance(pod, dict):
            return
        self._evaluate(request, pod, labels, is_pod=is_pod)

    def _evaluate(self, request: AdmissionRequest, pod: Object, labels: dict[str, str], *, is_pod: bool) -> None:
        enforced, warned = labels.get(f"{_PREFIX}enforce", "privileged"), labels.get(f"{_PREFIX}warn", "privileged")
        if is_pod:
            annotate(f"{_PREFIX}enforce-policy", f"{enforced}:{labels.get(f'{_PREFIX}enforce-version', 'latest')}")
        audited = labels.get(f"{_PREFIX}audit", "privileged")
        if audited in LEVELS and (found := violations(audited, pod)):
            version = labels.get(f"{_PREFIX}audit-version", "latest")
            annotate(f"{_PREFIX}audit-violations", f'would violate PodSecurity "{audited}:{version}": {found}')
        if is_pod and enforced in LEVELS and (found := violations(enforced, pod)):
            version = labels.get(f"{_PREFIX}enforce-version", "latest")
            name = request.name or at(pod, "metadata", "generateName") or ""
            raise Forbidden("", "pods", name, f'violates PodSecurity "{enforced}:{version}": {found}')
        if warned in LEVELS and (found := violations(warned, pod)):
            version = labels.get(f"{_PREFIX}warn-version", "latest")
            request.warnings.append(f'would violate PodSecurity "{warned}:{version}": {found}')

    def pod_footing(self, pod: PodFacts) -> object | None:
        """Return that the namespace asks for nothing; where it does, each pod is looked at."""
        return None if self._labels(pod.namespace) else True

    def _labels(self, name: str) -> dict[str, str]:
        found = self._records.storage.get(namespace.RESOURCE.key("", name))
        # Most namespaces say nothing about it, so most writes decode nothing here.
        if found is None or _PREFIX.encode() not in found.value:
            return {}
        return {key: value for key, value in labels_of(orjson.loads(found.value)).items() if key.startswith(_PREFIX)}


def _is_significant(new: Object, old: Object) -> bool:
    """Whether an update of a pod can change what the standards say: images and metadata cannot."""
    return any(at(new, "spec", field) != at(old, "spec", field) for field in ("ephemeralContainers", "containers", "initContainers"))


def _check_labels(request: AdmissionRequest) -> None:
    labels, before = labels_of(request.obj or {}), labels_of(request.old or {})
    causes = [
        invalid(f"metadata.labels[{_PREFIX}{mode}]", labels[f"{_PREFIX}{mode}"], "must be one of privileged, baseline, restricted")
        for mode in _MODES
        if labels.get(f"{_PREFIX}{mode}", "privileged") not in ("privileged", *LEVELS)
        and labels.get(f"{_PREFIX}{mode}") != before.get(f"{_PREFIX}{mode}")
    ]
    if causes:
        raise Invalid("", "Namespace", request.name, causes)
