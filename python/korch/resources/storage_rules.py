"""What persistent volumes, claims and storage classes share: access modes, volume modes, how they are shown."""

from __future__ import annotations

from collections.abc import Sequence

from korch.api.errors import Cause, invalid, not_supported, required

ACCESS_MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")
_SHORT = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def shown_modes(modes: Sequence[str] | None) -> str:
    """Return access modes as kubectl prints them: `RWO,ROX`."""
    return ",".join(short for mode, short in _SHORT.items() if mode in (modes or ()))


def check_access_modes(causes: list[Cause], modes: Sequence[str] | None, path: str) -> None:
    """Check that there is an access mode, and that ReadWriteOncePod stands alone."""
    if not modes:
        causes.append(required(path, "at least 1 access mode is required"))
    for mode in modes or ():
        if mode not in ACCESS_MODES:
            causes.append(not_supported(path, mode, sorted(ACCESS_MODES)))
    if modes and "ReadWriteOncePod" in modes and len(modes) > 1:
        causes.append(Cause("FieldValueForbidden", "Forbidden: may not use ReadWriteOncePod with other access modes", path))


def check_volume_mode(causes: list[Cause], mode: str | None, path: str) -> None:
    """Check the volume mode; none is right."""
    if mode is not None and mode not in VOLUME_MODES:
        causes.append(not_supported(path, mode, VOLUME_MODES))


def immutable_after_creation(new: object, old: object, path: str, why: str) -> list[Cause]:
    """Return a Forbidden cause when a part of the spec has changed."""
    return [Cause("FieldValueForbidden", f"Forbidden: {why}", path)] if new != old else []


def check_qualified(causes: list[Cause], reasons: Sequence[str], value: str, path: str) -> None:
    """Add one Invalid cause for each reason."""
    causes += [invalid(path, value, why) for why in reasons]
