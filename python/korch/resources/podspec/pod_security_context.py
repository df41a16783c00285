"""What a pod's own security context may say. Mirrors ValidatePodSecurityContext and validateSysctls in pkg/apis/core/validation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from korch.api.errors import Cause, duplicate, invalid, required
from korch.api.validation import check_enum

_ID_MAX = 2**31 - 1
_ID_RANGE = f"must be between 0 and {_ID_MAX}, inclusive"
_SYSCTL_LENGTH_MAX = 253
_SYSCTL_SEGMENT = r"[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL_PATTERN = rf"^({_SYSCTL_SEGMENT}[\./])*{_SYSCTL_SEGMENT}$"
_SYSCTL = re.compile(_SYSCTL_PATTERN)
# Sysctls that the kernel keeps for each network or IPC namespace.
_NETWORK_PREFIX = "net."
_IPC_PREFIX = "fs.mqueue."
_SHARED_MEMORY = ("kernel.shm", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced")
_IPC_NAMES = frozenset({"kernel.sem", *_SHARED_MEMORY, "kernel.msg", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni"})
_SECCOMP_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")


def check_pod_security_context(causes: list[Cause], spec: Mapping[str, Any], path: str) -> None:
    """Add what is wrong with `spec.securityContext`; `path` is that of the spec."""
    context: Mapping[str, Any] = spec.get("securityContext") or {}
    where = f"{path}.securityContext"
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        _check_id(causes, context.get(field), f"{where}.{field}")
    for position, group in enumerate(context.get("supplementalGroups") or ()):
        _check_id(causes, group, f"{where}.supplementalGroups[{position}]")
    for field, choices in (("fsGroupChangePolicy", ("Always", "OnRootMismatch")), ("supplementalGroupsPolicy", ("Merge", "Strict"))):
        if context.get(field) is not None:
            check_enum(causes, context[field], f"{where}.{field}", choices)
    check_seccomp_profile(causes, context.get("seccompProfile"), f"{where}.seccompProfile")
    _check_sysctls(causes, context.get("sysctls") or (), spec, f"{where}.sysctls")
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        causes.append(invalid(f"{path}.shareProcessNamespace", True, detail))


def check_seccomp_profile(causes: list[Cause], profile: Mapping[str, Any] | None, path: str) -> None:
    """Add what is wrong with a seccomp profile, of a pod or of a container."""
    if profile is None:
        return
    kind, local = profile.get("type") or "", profile.get("localhostProfile")
    if not kind:
        causes.append(required(f"{path}.type", "type is required when seccompProfile is set"))
        return
    check_enum(causes, kind, f"{path}.type", _SECCOMP_TYPES)
    if kind == "Localhost" and local is None:
        causes.append(required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost"))
    elif kind != "Localhost" and local is not None:
        causes.append(invalid(f"{path}.localhostProfile", local, "can only be set when seccomp type is Localhost"))


def _check_id(causes: list[Cause], value: Any, path: str) -> None:
    if value is not None and not 0 <= value <= _ID_MAX:
        causes.append(invalid(path, value, _ID_RANGE))


def _check_sysctls(causes: list[Cause], sysctls: Sequence[Mapping[str, Any]], spec: Mapping[str, Any], path: str) -> None:
    seen: set[str] = set()
    for position, sysctl in enumerate(sysctls):
        name, where = sysctl.get("name") or "", f"{path}[{position}].name"
        if not name:
            causes.append(required(where))
        elif len(name) > _SYSCTL_LENGTH_MAX or not _SYSCTL.match(name):
            causes.append(invalid(where, name, f"must have at most {_SYSCTL_LENGTH_MAX} characters and match regex {_SYSCTL_PATTERN}"))
        elif name in seen:
            causes.append(duplicate(where, name))
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith(_NETWORK_PREFIX):
            causes.append(invalid(where, name, "may not be specified when 'hostNetwork' is true"))
        elif spec.get("hostIPC") and (dotted.startswith(_IPC_PREFIX) or dotted in _IPC_NAMES):
            causes.append(invalid(where, name, "may not be specified when 'hostIPC' is true"))
        seen.add(name)
