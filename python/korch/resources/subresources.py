"""Subresources that many kinds share, as discovery shows them."""

from __future__ import annotations

from korch.resources.resource import Subresource

STATUS = Subresource(name="status", verbs=("get", "patch", "update"))
SCALE = Subresource(name="scale", verbs=("get", "patch", "update"), group="autoscaling", version="v1", kind="Scale")

_PROXY_VERBS = ("create", "delete", "get", "patch", "update")
_STREAM_VERBS = ("create", "get")


def proxy(kind: str) -> Subresource:
    """Return the proxy subresource whose options are of `kind`."""
    return Subresource(name="proxy", verbs=_PROXY_VERBS, kind=kind)


def stream(name: str, kind: str) -> Subresource:
    """Return a subresource that upgrades the connection (exec, attach, portforward), its options of `kind`."""
    return Subresource(name=name, verbs=_STREAM_VERBS, kind=kind)
