"""Write `schema.json.gz`: what Kubernetes v1.37 says about its own kinds, in one compact file that ships in the wheel.

Run as `python -m korch.resources.build_schema` when building; never imported at run time. Two published packages are read:

- kubernetes-validate carries the OpenAPI v2 definitions, rewritten for JSON Schema validators. The rewrites are undone here:
  optional types became `[type, "null"]`, references moved to `#/$defs/`, `apiVersion` and `kind` got an `enum`, and
  IntOrString and Quantity became a `oneOf`.
- lightkube-models declares each resource in Python: group, version, kind, plural, scope, verbs, and the kind that a
  subresource's body has. Its modules are parsed, not imported, since they need a runtime that is not installed.

Trap: JSONSchemaProps has properties that are named `type`, `$ref` and `enum`; a property's name is never a keyword.
"""

from __future__ import annotations

import ast
import gzip
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from korch.resources.openapi import SCHEMA_PATH

KUBERNETES_VERSION = "1.37.0"

_SCHEMA_VALUED = ("items", "additionalProperties", "not")
_INT_OR_STRING = {
    "description": "An integer or a string, such as a port's number or name, or an absolute number or a percentage.",
    "format": "int-or-string",
    "type": "string",
}
_QUANTITY = {
    "description": "A fixed-point number with a decimal or binary suffix, such as 250m, 1.5 or 64Mi. Written as a string or a number.",
    "type": "string",
}
_WRITTEN_BY_HAND = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": _INT_OR_STRING,
    "io.k8s.apimachinery.pkg.api.resource.Quantity": _QUANTITY,
}
# How the client library's names of methods map to the verbs of the API.
_VERBS = {"post": "create", "put": "update", "global_list": "list", "global_watch": "watch"}


def build(target: Path = SCHEMA_PATH) -> Path:
    """Write the file and return its path. Blocks for about a second. Raises FileNotFoundError when a source package is missing."""
    document = {"definitions": read_definitions(), "resources": read_resources()}
    raw = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    # No timestamp in the header: equal inputs give an equal file.
    target.write_bytes(gzip.compress(raw, compresslevel=9, mtime=0))
    return target


def read_definitions() -> dict[str, Any]:
    """Return the OpenAPI v2 definitions by name, such as `io.k8s.api.core.v1.Pod`, as the API server would publish them."""
    path = _package("kubernetes_validate") / "kubernetes-json-schema" / f"v{KUBERNETES_VERSION}-local" / "_definitions.json"
    definitions = json.loads(path.read_bytes())["$defs"]
    return {name: _WRITTEN_BY_HAND.get(name) or restore(schema) for name, schema in definitions.items()}


def restore(schema: dict[str, Any]) -> dict[str, Any]:
    """Return one schema with the rewrites undone, recursively. Property names are left alone."""
    restored: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "enum":
            continue
        if key == "type" and isinstance(value, list):
            restored[key] = next(name for name in value if name != "null")
        elif key == "$ref":
            restored[key] = value.replace("#/$defs/", "#/definitions/")
        elif key == "properties":
            restored[key] = {name: restore(child) for name, child in value.items()}
        elif key in _SCHEMA_VALUED and isinstance(value, dict):
            restored[key] = restore(value)
        else:
            restored[key] = value
    return restored


def read_resources() -> list[dict[str, Any]]:
    """Return every built-in resource, ordered by group, version and plural.

    Each has group, version, kind, plural, namespaced, verbs and subresources; a subresource has name, verbs and the
    group, version and kind of its body.
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    subresources: list[tuple[tuple[str, str, str], dict[str, Any]]] = []
    for path in sorted((_package("lightkube") / "resources").glob("*_v*.py")):
        for base, info in _api_infos(path):
            group, version, kind = info["resource"]
            verbs: list[str] = sorted({str(_VERBS.get(verb, verb)) for verb in info["verbs"]})
            if "action" in info:
                parent = info.get("parent", info["resource"])
                body = {"name": info["action"], "group": group, "version": version, "kind": kind, "verbs": verbs}
                subresources.append(((parent[0], parent[1], info["plural"]), body))
            else:
                found[group, version, info["plural"]] = {
                    "group": group,
                    "version": version,
                    "kind": kind,
                    "plural": info["plural"],
                    "namespaced": base.startswith("Namespaced"),
                    "verbs": verbs,
                    "subresources": [],
                }
    for owner, body in subresources:
        found[owner]["subresources"].append(body)
    for resource in found.values():
        resource["subresources"].sort(key=lambda body: body["name"])
    return [found[key] for key in sorted(found)]


def _api_infos(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name of the first base class, keyword arguments of `_api_info`) of every class in a module."""
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for statement in node.body:
            if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call)):
                continue
            base = node.bases[0]
            name = base.attr if isinstance(base, ast.Attribute) else ""
            yield name, {keyword.arg: _constant(keyword.value) for keyword in statement.value.keywords if keyword.arg}


def _constant(node: ast.expr) -> Any:
    """Return a literal's value; a call such as `ResourceDef("apps", "v1", "Deployment")` becomes the tuple of its arguments."""
    if isinstance(node, ast.Call):
        return tuple(ast.literal_eval(argument) for argument in node.args)
    return ast.literal_eval(node)


def _package(name: str) -> Path:
    """Return the directory of an installed package without importing it (importing would cost memory, or fail)."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(f"package {name} is not installed: it is in the dependency group `schema`")
    return Path(next(iter(found.submodule_search_locations)))


if __name__ == "__main__":
    written = build()
    print(f"wrote {written} ({written.stat().st_size:,} bytes)")
