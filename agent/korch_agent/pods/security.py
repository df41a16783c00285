"""securityContext of pods and containers, as the runtime wants it: pure translation.

A container's own settings win over the pod's. Mirrors kubelet's kuberuntime/security_context.go and securitycontext.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from korch_agent.cri.protocol import Image, Namespaces, Seccomp, Security
from korch_agent.pods.observed import Pod, full_name

MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/interrupts", "/sys/firmware", "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class ConfigError(Exception):
    """A container cannot be made from its spec; `reason` is its waiting reason."""

    def __init__(self, message: str, reason: str = "CreateContainerConfigError") -> None:
        super().__init__(message)
        self.reason = reason


def namespaces(pod: Pod, *, target_id: str = "") -> Namespaces:
    """Return the namespaces that the pod's containers share."""
    spec = pod["spec"]
    pid = "NODE" if spec.get("hostPID") else "POD" if spec.get("shareProcessNamespace") else "CONTAINER"
    return Namespaces(
        network="NODE" if spec.get("hostNetwork") else "POD",
        pid="TARGET" if target_id else pid,
        ipc="NODE" if spec.get("hostIPC") else "POD",
        target_id=target_id,
    )


def sandbox_security(pod: Pod) -> Security:
    """Return the sandbox's security context; it is privileged when one of its containers is."""
    context = pod["spec"].get("securityContext") or {}
    containers = [*(pod["spec"].get("initContainers") or []), *(pod["spec"].get("containers") or [])]
    return Security(
        namespaces=namespaces(pod),
        privileged=any((one.get("securityContext") or {}).get("privileged") for one in containers),
        user=context.get("runAsUser"),
        group=context.get("runAsGroup") if context.get("runAsUser") is not None else None,
        supplemental_groups=_groups(context),
        seccomp=_profile(context.get("seccompProfile")) or Seccomp(),
    )


def container_security(pod: Pod, container: Mapping[str, Any], image: Image, *, target_id: str = "") -> Security:
    """Return a container's security context. Raises ConfigError when it must not run as root and would."""
    shared = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}

    def pick(name: str) -> Any:
        value = own.get(name)
        return shared.get(name) if value is None else value

    user, username = pick("runAsUser"), ""
    if user is None:
        user, username = image.user, image.username
        if user is None and not username:
            user = 0
    if pick("runAsNonRoot"):
        _require_non_root(pod, container, pick("runAsUser"), image)
    privileged = bool(own.get("privileged"))
    unmasked = privileged or own.get("procMount") == "Unmasked"
    capabilities = own.get("capabilities") or {}
    return Security(
        namespaces=namespaces(pod, target_id=target_id),
        privileged=privileged,
        user=user,
        username=username,
        group=pick("runAsGroup"),
        supplemental_groups=_groups(shared),
        strict_groups=shared.get("supplementalGroupsPolicy") == "Strict",
        read_only_root=bool(own.get("readOnlyRootFilesystem")),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        add_capabilities=tuple(capabilities.get("add") or ()),
        drop_capabilities=tuple(capabilities.get("drop") or ()),
        masked_paths=() if unmasked else MASKED_PATHS,
        readonly_paths=() if unmasked else READONLY_PATHS,
        seccomp=_profile(own.get("seccompProfile") or shared.get("seccompProfile")),
        apparmor=_profile(own.get("appArmorProfile") or shared.get("appArmorProfile")),
    )


def fs_group(pod: Pod) -> int | None:
    """Return the group that owns the pod's volumes, or None."""
    return (pod["spec"].get("securityContext") or {}).get("fsGroup")


def _groups(context: Mapping[str, Any]) -> tuple[int, ...]:
    groups = [int(one) for one in context.get("supplementalGroups") or []]
    if context.get("fsGroup") is not None:
        groups.append(int(context["fsGroup"]))
    return tuple(groups)


def _profile(profile: Mapping[str, Any] | None) -> Seccomp | None:
    if not profile:
        return None
    sort = profile.get("type")
    if sort not in ("RuntimeDefault", "Unconfined", "Localhost"):
        return None
    return Seccomp(type=sort, localhost_ref=profile.get("localhostProfile") or "")


def _require_non_root(pod: Pod, container: Mapping[str, Any], user: int | None, image: Image) -> None:
    where = f'(pod: "{full_name(pod)}", container: {container["name"]})'
    if user is not None:
        if user == 0:
            raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
        return
    if image.user == 0 or (image.user is None and not image.username):
        raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
    if image.user is None:
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({image.username}), cannot verify user is non-root {where}"
        )
