"""Admission: plugins that see every write after authorization; they fill in, or refuse.

Each plugin is one file, named as upstream names it. They run in the order of the list that the server gives to the
pipeline, between defaulting and validation, without awaiting: what they read of the store is still true when the write commits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from korch.apiserver.identity import User
from korch.resources.resource import Resource

Object = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class AdmissionRequest:
    """A write about to happen. `obj` may be changed in place; `old` is what is stored. Either is None where there is none."""

    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
    resource: Resource
    namespace: str
    name: str
    subresource: str
    user: User
    obj: Object | None = None
    old: Object | None = None
    is_dry_run: bool = False
    # What the client is told beside the answer.
    warnings: list[str] = field(default_factory=list)

    def concerns(self, group: str, plural: str) -> bool:
        """Whether the request is about the main resource `plural` of `group`."""
        return self.resource.plural == plural and self.resource.group == group and not self.subresource


class Admission(Protocol):
    """One admission plugin."""

    def admit(self, request: AdmissionRequest) -> None:
        """Fill in `request.obj`, or raise an ApiError to refuse the write."""
        ...
