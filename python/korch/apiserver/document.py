"""A document that the server makes once and sends many times: discovery and OpenAPI.

Its ETag is the hash of its bytes, so a client that has it already gets 304 and no body.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import orjson

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Document:
    """Encoded bytes with their content type. `etag` is quoted, ready for the header."""

    body: bytes
    content_type: str = JSON
    etag: str = ""

    @property
    def hash(self) -> str:
        return self.etag.strip('"')


@dataclass(frozen=True, slots=True)
class Answer:
    """A response in plain values, for whatever web framework sends it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


def encode(value: Any, content_type: str = JSON) -> Document:
    """Return the document of a JSON value, hashed."""
    return hashed(orjson.dumps(value), content_type)


def hashed(body: bytes, content_type: str) -> Document:
    """Return the document of bytes that are encoded already."""
    return Document(body, content_type, f'"{hashlib.sha256(body).hexdigest().upper()}"')


def answer(document: Document, *, if_none_match: str = "", cache_control: str = "no-cache, private") -> Answer:
    """Return 200 with the body, or 304 when `if_none_match` (the request's header) names this very document."""
    headers = {"ETag": document.etag, "Vary": "Accept", "Cache-Control": cache_control}
    known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    if document.etag in known or "*" in known:
        return Answer(304, headers)
    return Answer(200, headers | {"Content-Type": document.content_type}, document.body)


@dataclass(slots=True)
class GenerationCache:
    """Documents by key, all forgotten when the catalogue's generation moves on."""

    _generation: int = -1
    _documents: dict[Hashable, Document] = field(default_factory=dict)

    def get(self, generation: int, key: Hashable, make: Callable[[], Document]) -> Document:
        """Return the document under `key`, made by `make` when it is new or of an older generation."""
        if generation != self._generation:
            self._documents.clear()
            self._generation = generation
        found = self._documents.get(key)
        if found is None:
            found = self._documents[key] = make()
        return found
