"""`namespaces/finalize`: the namespace controller's word that its part of the clean-up is done. Only `spec.finalizers` changes.

Mirrors registry/core/namespace/storage (FinalizeREST).
"""

from __future__ import annotations

from typing import Any

from korch.apiserver import objects
from korch.resources.resource import Context, Resource

Object = dict[str, Any]


def prepare(_resource: Resource, new: Object, old: Object, _context: Context) -> None:
    """Let `spec.finalizers` through and nothing else."""
    finalizers = (new.get("spec") or {}).get("finalizers") or []
    objects.keep_system_fields(new, old)
    for field in ("status", "spec"):
        if field in old:
            new[field] = old[field]
    managed = new["metadata"].get("managedFields")
    new["metadata"] = dict(old["metadata"], resourceVersion=new["metadata"].get("resourceVersion", ""))
    if managed:
        new["metadata"]["managedFields"] = managed
    new["spec"] = dict(old.get("spec") or {}, finalizers=finalizers)
    if not finalizers:
        del new["spec"]["finalizers"]
