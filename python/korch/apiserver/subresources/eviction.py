"""`pods/eviction`: a polite deletion. The request names the pod and, inside, the options of its deletion.

Pods that have ended or are being deleted are simply deleted. Disruption budgets are looked at by whoever serves that kind; while
it is not served, nothing forbids an eviction. Mirrors registry/core/pod/storage/eviction.go.
"""

from __future__ import annotations

from typing import Any

from korch.api.errors import BadRequest
from korch.apiserver.encoding import dump, success
from korch.apiserver.options import RemovalOptions, WriteOptions, removal_options
from korch.apiserver.pipeline import Outcome, Pipeline, Target

Object = dict[str, Any]

SCHEMA = "io.k8s.api.policy.v1.Eviction"


async def create(pipeline: Pipeline, target: Target, body: bytes, options: WriteOptions) -> Outcome:
    """Delete the pod as the Eviction says. Raises NotFound, Conflict (preconditions), BadRequest."""
    warnings: list[str] = []
    eviction = pipeline.codec.decode_as(SCHEMA, "Eviction", "policy/v1", body, options.field_validation, warnings)
    named = eviction["metadata"].get("name") or target.name
    if named != target.name:
        raise BadRequest("name in URL does not match name in Eviction object")
    removal = RemovalOptions(is_dry_run=options.is_dry_run)
    if eviction.get("deleteOptions"):
        removal = removal_options({}, dump(eviction["deleteOptions"]))
    main = Target(resource=target.resource, namespace=target.namespace, name=target.name, user=target.user)
    await pipeline.delete(main, removal)
    return Outcome(dump(success()), 201, warnings)
