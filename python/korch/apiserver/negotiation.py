"""Which form of an answer the client accepts: the object itself, a Table, or metadata alone; always as JSON.

Mirrors apiserver's pkg/endpoints/handlers/negotiation: media ranges in order of preference, each may carry
`as=Table;g=meta.k8s.io;v=v1`; a range that cannot be served is passed over, and 406 is the answer when none is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from korch.api.errors import NotAcceptable

# What the answer to one object (or a watch event) and to a list can be turned into.
OBJECT_FORMS = ("Table", "PartialObjectMetadata")
LIST_FORMS = ("Table", "PartialObjectMetadataList")
_META_VERSIONS = ("v1", "v1beta1")


@dataclass(frozen=True, slots=True)
class Form:
    """An answer's form. `kind` is "" (as it is), Table, PartialObjectMetadata or PartialObjectMetadataList, in `version` of
    meta.k8s.io; `media` is json or yaml."""

    kind: str = ""
    version: str = "v1"
    media: str = "json"


PLAIN = Form()


@dataclass(frozen=True, slots=True)
class _Range:
    type: str
    parameters: dict[str, str]
    quality: float


@lru_cache(maxsize=512)
def negotiate(accept: str, *, forms: tuple[str, ...], allow_yaml: bool = True) -> Form:
    """Return the best form that `accept` (the header, "" when absent) and this endpoint agree on. Raises NotAcceptable."""
    if not accept.strip():
        return PLAIN
    for one in _ranges(accept):
        if one.quality == 0:
            continue
        form = _form(one, forms=forms, allow_yaml=allow_yaml)
        if form is not None:
            return form
    raise NotAcceptable("only the following media types are accepted: application/json, application/yaml")


def media_types(accept: str) -> list[str]:
    """Return the media types that an Accept header names, the preferred first, in lower case and without those it refuses (q=0)."""
    return [one.type for one in _ranges(accept) if one.quality]


def _ranges(accept: str) -> list[_Range]:
    found: list[_Range] = []
    for text in accept.split(","):
        pieces = [piece.strip() for piece in text.split(";")]
        parameters: dict[str, str] = {}
        for piece in pieces[1:]:
            key, _, value = piece.partition("=")
            parameters[key.strip()] = value.strip().strip('"')
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 1.0
        found.append(_Range(pieces[0].lower(), parameters, quality))
    return sorted(found, key=lambda one: -one.quality)


def _form(one: _Range, *, forms: tuple[str, ...], allow_yaml: bool) -> Form | None:
    if one.type in ("application/json", "application/*", "*/*"):
        media = "json"
    elif one.type == "application/yaml" and allow_yaml:
        media = "yaml"
    else:
        return None
    wanted = one.parameters.get("as", "")
    if not wanted:
        return Form(media=media)
    version = one.parameters.get("v", "")
    if wanted not in forms or version not in _META_VERSIONS or one.parameters.get("g") != "meta.k8s.io":
        return None
    return Form(wanted, version, media)
