"""IngressClass: a kind of ingress controller, with its parameters."""

from __future__ import annotations

from korch.api.errors import Cause, forbidden_field, invalid, not_supported, required
from korch.api.meta import at
from korch.api.names import is_dns_label, is_dns_subdomain, is_path_segment, is_qualified_name
from korch.api.validation import check_immutable, too_long
from korch.resources.columns import AGE, NAME, NONE, cell, text
from korch.resources.resource import Object, Resource, Strategy

_CONTROLLER_MAX = 250


def default(obj: Object) -> None:
    """Fill in an IngressClass, in place: parameters are cluster-wide unless said otherwise."""
    parameters = at(obj, "spec", "parameters")
    if parameters is not None and not parameters.get("scope"):
        parameters["scope"] = "Cluster"


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with an IngressClass. Mirrors validateIngressClassSpec."""
    causes: list[Cause] = []
    controller = at(obj, "spec", "controller") or ""
    if not controller:
        causes.append(required("spec.controller"))
    elif len(controller) > _CONTROLLER_MAX:
        causes.append(too_long("spec.controller", _CONTROLLER_MAX))
    elif "/" not in controller or is_qualified_name("/".join([controller.partition("/")[0], "x"])):
        causes.append(invalid("spec.controller", controller, 'must be a domain-prefixed path (such as "acme.io/foo")'))
    parameters = at(obj, "spec", "parameters")
    if parameters is not None:
        _check_parameters(causes, parameters, "spec.parameters")
    return causes


def _check_parameters(causes: list[Cause], parameters: Object, path: str) -> None:
    if parameters.get("apiGroup") is not None:
        causes += [invalid(f"{path}.apiGroup", parameters["apiGroup"], why) for why in is_dns_subdomain(parameters["apiGroup"])]
    for field in ("kind", "name"):
        value = parameters.get(field) or ""
        if not value:
            causes.append(required(f"{path}.{field}", f"{field} is required"))
        causes += [invalid(f"{path}.{field}", value, why) for why in is_path_segment(value)] if value else []
    scope, namespace = parameters.get("scope") or "", parameters.get("namespace")
    if scope not in ("Cluster", "Namespace"):
        causes.append(not_supported(f"{path}.scope", scope, ("Cluster", "Namespace")))
    if scope == "Namespace":
        if not namespace:
            causes.append(required(f"{path}.namespace", '`parameters.scope` is set to "Namespace"'))
        causes += [invalid(f"{path}.namespace", namespace, why) for why in is_dns_label(namespace)] if namespace else []
    if scope == "Cluster" and namespace is not None:
        causes.append(forbidden_field(f"{path}.namespace", '`parameters.scope` is set to "Cluster"'))


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes the controller."""
    causes: list[Cause] = []
    check_immutable(causes, at(new, "spec", "controller"), at(old, "spec", "controller"), "spec.controller")
    return causes


def _parameters(obj: Object) -> str:
    parameters = at(obj, "spec", "parameters")
    if not parameters:
        return NONE
    group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
    return f"{parameters.get('kind') or ''}{group}/{parameters.get('name') or ''}"


RESOURCE = Resource(
    group="networking.k8s.io",
    version="v1",
    kind="IngressClass",
    plural="ingressclasses",
    singular="ingressclass",
    schema="io.k8s.api.networking.v1.IngressClass",
    namespaced=False,
    strategy=Strategy(default=default, validate=validate, validate_update=validate_update, has_generation=True),
    columns=(
        NAME,
        text("Controller", "spec", "controller", description="Who serves its ingresses."),
        cell("Parameters", _parameters, description="Where its settings are."),
        AGE,
    ),
)
