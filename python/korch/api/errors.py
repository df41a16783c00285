"""Outcomes that a caller must handle, each carrying the Kubernetes `Status` that goes over the wire.

Mirrors apimachinery's `api/errors`: reasons, HTTP codes and messages are upstream's, so that clients which look at any
of them behave the same. Faults of network and disk are not here (`ConnectionError`, `OSError`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Cause:
    """One entry of `status.details.causes`: `field` is a path such as `spec.containers[0].image`."""

    reason: str
    message: str
    field: str

    def line(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def required(field: str, detail: str = "") -> Cause:
    return Cause("FieldValueRequired", "Required value" + (f": {detail}" if detail else ""), field)


def invalid(field: str, value: object, detail: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: {_render(value)}: {detail}", field)


def not_supported(field: str, value: object, supported: Sequence[str]) -> Cause:
    listed = ", ".join(f'"{one}"' for one in supported)
    return Cause("FieldValueNotSupported", f"Unsupported value: {_render(value)}: supported values: {listed}", field)


def duplicate(field: str, value: object) -> Cause:
    return Cause("FieldValueDuplicate", f"Duplicate value: {_render(value)}", field)


def forbidden_field(field: str, detail: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {detail}", field)


def too_long(field: str, limit: int) -> Cause:
    return Cause("FieldValueTooLong", f"Too long: may not be more than {limit} bytes", field)


def type_invalid(field: str, value: object, detail: str) -> Cause:
    return Cause("FieldValueTypeInvalid", f"Invalid value: {_render(value)}: {detail}", field)


def _render(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, (dict, list)):
        import orjson

        return orjson.dumps(value).decode()
    return quoted(value) if isinstance(value, str) else str(value)


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def quoted(text: str) -> str:
    """Return `text` in double quotes with escapes, as Go's %q prints it."""
    return '"' + "".join(_ESCAPES.get(char) or (char if char.isprintable() else _escaped(ord(char))) for char in text) + '"'


def _escaped(code: int) -> str:
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class ApiError(Exception):
    """A Kubernetes failure `Status`: HTTP `code`, `reason`, `message`, `details`, and headers to send with it."""

    def __init__(
        self, code: int, reason: str, message: str, *, details: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.headers = dict(headers or {})

    def status(self) -> dict[str, Any]:
        """Return the `Status` object, ready to encode."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details:
            body["details"] = self.details
        body["code"] = self.code
        return body

    @staticmethod
    def from_status(status: Mapping[str, Any]) -> ApiError:
        """Return the typed error for a `Status` that came over the wire; unknown reasons give a plain ApiError."""
        reason = str(status.get("reason") or "")
        error_class = _BY_REASON.get(reason, ApiError)
        error = error_class.__new__(error_class)
        ApiError.__init__(
            error,
            int(status.get("code") or 500),
            reason or "InternalError",
            str(status.get("message") or ""),
            details=status.get("details"),
        )
        return error


def _target(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def _details(name: str, group: str, kind: str, **more: object) -> dict[str, Any]:
    base: dict[str, Any] = {}
    if name:
        base["name"] = name
    if group:
        base["group"] = group
    if kind:
        base["kind"] = kind
    return base | {key: value for key, value in more.items() if value}


class NotFound(ApiError):
    def __init__(self, group: str, plural: str, name: str) -> None:
        super().__init__(404, "NotFound", f'{_target(group, plural)} "{name}" not found', details=_details(name, group, plural))


class NoSuchPath(NotFound):
    """Nothing is served at this path. Over the wire it cannot be told from a missing object, so here it is one too."""

    def __init__(self) -> None:
        ApiError.__init__(self, 404, "NotFound", "the server could not find the requested resource")


class AlreadyExists(ApiError):
    def __init__(self, group: str, plural: str, name: str) -> None:
        super().__init__(409, "AlreadyExists", f'{_target(group, plural)} "{name}" already exists', details=_details(name, group, plural))


OPTIMISTIC_LOCK = "the object has been modified; please apply your changes to the latest version and try again"


class Conflict(ApiError):
    def __init__(self, group: str, plural: str, name: str, why: str = OPTIMISTIC_LOCK) -> None:
        super().__init__(
            409,
            "Conflict",
            f'Operation cannot be fulfilled on {_target(group, plural)} "{name}": {why}',
            details=_details(name, group, plural),
        )


class Invalid(ApiError):
    """422: `causes` name every wrong field. `kind` is the Kind, as upstream prints it."""

    def __init__(self, group: str, kind: str, name: str, causes: Sequence[Cause]) -> None:
        lines = [cause.line() for cause in causes]
        listed = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
        wire = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
        target = f"{kind}.{group}" if group else kind
        super().__init__(422, "Invalid", f'{target} "{name}" is invalid: {listed}', details=_details(name, group, kind, causes=wire))


class BadRequest(ApiError):
    def __init__(self, message: str) -> None:
        super().__init__(400, "BadRequest", message)


class Unauthorized(ApiError):
    def __init__(self, message: str = "Unauthorized") -> None:
        super().__init__(401, "Unauthorized", message)


class Forbidden(ApiError):
    def __init__(self, group: str, plural: str, name: str, why: str) -> None:
        quoted = f' "{name}"' if name else ""
        super().__init__(403, "Forbidden", f"{_target(group, plural)}{quoted} is forbidden: {why}", details=_details(name, group, plural))


class MethodNotAllowed(ApiError):
    def __init__(self, message: str = "the server does not allow this method on the requested resource") -> None:
        super().__init__(405, "MethodNotAllowed", message)


class NotAcceptable(ApiError):
    def __init__(self, message: str) -> None:
        super().__init__(406, "NotAcceptable", message)


class Gone(ApiError):
    """410 Gone, reason Gone: what was asked for is permanently away."""

    def __init__(self, message: str) -> None:
        super().__init__(410, "Gone", message)


class Expired(ApiError):
    """410 Gone, reason Expired: the resourceVersion lies below the compaction floor; list again."""

    def __init__(self, message: str) -> None:
        super().__init__(410, "Expired", message)


class UnsupportedMediaType(ApiError):
    def __init__(self, message: str) -> None:
        super().__init__(415, "UnsupportedMediaType", message)


class RequestEntityTooLarge(ApiError):
    def __init__(self, message: str) -> None:
        super().__init__(413, "RequestEntityTooLarge", message)


class TooManyRequests(ApiError):
    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(
            429, "TooManyRequests", message, details={"retryAfterSeconds": retry_after_s}, headers={"Retry-After": str(retry_after_s)}
        )


class ServiceUnavailable(ApiError):
    def __init__(self, message: str) -> None:
        super().__init__(503, "ServiceUnavailable", message)


class Timeout(ApiError):
    def __init__(self, message: str) -> None:
        super().__init__(504, "Timeout", message)


class InternalError(ApiError):
    def __init__(self, message: str) -> None:
        super().__init__(500, "InternalError", f"Internal error occurred: {message}")


_BY_REASON: dict[str, type[ApiError]] = {
    "NotFound": NotFound,
    "AlreadyExists": AlreadyExists,
    "Conflict": Conflict,
    "Invalid": Invalid,
    "BadRequest": BadRequest,
    "Unauthorized": Unauthorized,
    "Forbidden": Forbidden,
    "MethodNotAllowed": MethodNotAllowed,
    "NotAcceptable": NotAcceptable,
    "Gone": Gone,
    "Expired": Expired,
    "UnsupportedMediaType": UnsupportedMediaType,
    "RequestEntityTooLarge": RequestEntityTooLarge,
    "TooManyRequests": TooManyRequests,
    "ServiceUnavailable": ServiceUnavailable,
    "Timeout": Timeout,
    "InternalError": InternalError,
}
