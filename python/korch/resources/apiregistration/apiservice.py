"""APIService: who serves a group and version, this server itself or one behind a Service."""

from __future__ import annotations

from korch.api.conditions import get_condition
from korch.api.errors import Cause, forbidden_field, invalid, required
from korch.api.meta import at
from korch.api.names import is_dns_1035_label, is_dns_label, is_dns_subdomain, is_path_segment
from korch.resources.columns import AGE, NAME, cell
from korch.resources.resource import Context, Object, Resource, Strategy
from korch.resources.subresources import STATUS
from korch.runtime.clock import rfc3339

SERVICE_PORT = 443


def default(obj: Object) -> None:
    """Fill in an APIService, in place."""
    service = at(obj, "spec", "service")
    if service is not None and service.get("port") is None:
        service["port"] = SERVICE_PORT


def prepare_create(obj: Object, context: Context) -> None:
    """A group and version of this server's own is available from the start."""
    obj["status"] = {}
    if at(obj, "spec", "service") is None:
        available = {"type": "Available", "status": "True", "lastTransitionTime": rfc3339(context.now)}
        obj["status"]["conditions"] = [available | {"reason": "Local", "message": "Local APIServices are always available"}]


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with an APIService. Mirrors ValidateAPIService."""
    causes: list[Cause] = []
    spec, name = obj.get("spec") or {}, at(obj, "metadata", "name") or ""
    group, version = spec.get("group") or "", spec.get("version") or ""
    wanted = f"{version}.{group}"
    if name != wanted:
        causes.append(invalid("metadata.name", name, f'must be `spec.version+"."+spec.group`: "{wanted}"'))
    if not group:
        if version != "v1":
            causes.append(required("spec.group", "only v1 may have an empty group and it better be legacy kube"))
    else:
        causes += [invalid("spec.group", group, why) for why in is_dns_subdomain(group)]
    causes += [invalid("spec.version", version, why) for why in is_dns_1035_label(version)]
    least = spec.get("groupPriorityMinimum") or 0
    if not 0 < least <= 20000:
        causes.append(invalid("spec.groupPriorityMinimum", least, "must be positive and less than 20000"))
    priority = spec.get("versionPriority") or 0
    if not 0 < priority <= 1000:
        causes.append(invalid("spec.versionPriority", priority, "must be positive and less than 1000"))
    service = spec.get("service")
    if service is None:
        if spec.get("caBundle"):
            causes.append(
                invalid("spec.caBundle", "local APIServices may not have a caBundle", "local APIServices may not have a caBundle")
            )
        if spec.get("insecureSkipTLSVerify"):
            causes.append(forbidden_field("spec.insecureSkipTLSVerify", "local APIServices may not have insecureSkipTLSVerify"))
        return causes
    for field, check in (("namespace", is_dns_label), ("name", is_path_segment)):
        value = service.get(field) or ""
        if not value:
            causes.append(required(f"spec.service.{field}"))
        causes += [invalid(f"spec.service.{field}", value, why) for why in check(value)] if value else []
    if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
        causes.append(invalid("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present"))
    return causes


def _service(obj: Object) -> str:
    service = at(obj, "spec", "service")
    return f"{service.get('namespace') or ''}/{service.get('name') or ''}" if service else "Local"


def _available(obj: Object) -> str:
    condition = get_condition(obj, "Available")
    if condition is None:
        return "Unknown"
    status = condition.get("status") or ""
    return status if status == "True" else f"{status} ({condition.get('reason') or ''})"


RESOURCE = Resource(
    group="apiregistration.k8s.io",
    version="v1",
    kind="APIService",
    plural="apiservices",
    singular="apiservice",
    schema="io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
    categories=("api-extensions",),
    namespaced=False,
    strategy=Strategy(
        default=default,
        prepare_create=prepare_create,
        validate=validate,
        validate_name=is_path_segment,
        has_status=True,
        keeps_status_on_create=True,
    ),
    subresources=(STATUS,),
    columns=(
        NAME,
        cell("Service", _service, description="Who serves it."),
        cell("Available", _available, description="Whether it is served."),
        AGE,
    ),
)
