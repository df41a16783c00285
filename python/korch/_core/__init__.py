"""Typed facade over the native extension: the only place that names `_native`."""

from korch._core import _native as native

__all__ = ["native"]
