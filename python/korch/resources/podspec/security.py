"""The pod security standards baseline and restricted: what a pod must not ask for, told as upstream tells it.

A check returns "" or `REASON (DETAIL)`. Mirrors k8s.io/pod-security-admission/policy, versions of the standards aside: the latest hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from korch.api.meta import annotations_of, at
from korch.resources.resource import Object

LEVELS = ("baseline", "restricted")

_BASELINE_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP",
        "SETUID", "SYS_CHROOT",
    }
)  # fmt: skip
_SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_rmem", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_wmem",
    }
)  # fmt: skip
_SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_RESTRICTED_VOLUMES = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"}
)
_APPARMOR_PREFIX = "container.apparmor.security.beta.kubernetes.io/"


def violations(level: str, pod: Object) -> str:
    """Return what of `level` a pod (or template) violates, joined by commas in upstream's order; "" when it meets it."""
    checks = _BASELINE if level == "baseline" else _RESTRICTED
    return ", ".join(found for check in checks if (found := check(pod)))


def _containers(pod: Object) -> Iterator[Object]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from at(pod, "spec", kind) or ()


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{one}"' for one in names)


def _plural(word: str, names: list[str]) -> str:
    return f"{word}{'s' if len(names) > 1 else ''} {_quoted(names)}"


def _named(pod: Object, is_bad: Callable[[Object], Any]) -> list[str]:
    return [one.get("name") or "" for one in _containers(pod) if is_bad(one.get("securityContext") or {})]


def _allow_privilege_escalation(pod: Object) -> str:
    if _is_windows(pod):
        return ""
    names = _named(pod, lambda context: context.get("allowPrivilegeEscalation") is not False)
    why = f"({_plural('container', names)} must set securityContext.allowPrivilegeEscalation=false)"
    return f"allowPrivilegeEscalation != false {why}" if names else ""


def _app_armor(pod: Object) -> str:
    bad = [
        f'{key}="{value}"'
        for key, value in sorted(annotations_of(pod).items())
        if key.startswith(_APPARMOR_PREFIX) and value not in ("", "runtime/default") and not value.startswith("localhost/")
    ]
    holders = [("pod", at(pod, "spec", "securityContext") or {})]
    holders += [(f'container "{one.get("name")}"', one.get("securityContext") or {}) for one in _containers(pod)]
    types = [who for who, context in holders if at(context, "appArmorProfile", "type") == "Unconfined"]
    if not bad and not types:
        return ""
    told = [f"annotation {'s' if len(bad) > 1 else ''}{', '.join(bad)}"] if bad else []
    told += [f'{" and ".join(types)} must not set AppArmor profile type to "Unconfined"'] if types else []
    return f"forbidden AppArmor profile{'s' if len(bad) + len(types) > 1 else ''} ({'; '.join(told)})"


def _baseline_capabilities(pod: Object) -> str:
    bad: dict[str, set[str]] = {}
    for container in _containers(pod):
        extra = {one for one in at(container, "securityContext", "capabilities", "add") or () if one not in _BASELINE_CAPABILITIES}
        if extra:
            bad[container.get("name") or ""] = extra
    if not bad:
        return ""
    listed = _quoted(sorted(set().union(*bad.values())))
    return f"non-default capabilities ({_plural('container', list(bad))} must not include {listed} in securityContext.capabilities.add)"


def _restricted_capabilities(pod: Object) -> str:
    if _is_windows(pod):
        return ""
    undropped = _named(pod, lambda context: "ALL" not in (at(context, "capabilities", "drop") or ()))
    adding: dict[str, set[str]] = {}
    for container in _containers(pod):
        extra = {one for one in at(container, "securityContext", "capabilities", "add") or () if one != "NET_BIND_SERVICE"}
        if extra:
            adding[container.get("name") or ""] = extra
    told: list[str] = []
    if undropped:
        told.append(f'{_plural("container", undropped)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        listed = _quoted(sorted(set().union(*adding.values())))
        told.append(f"{_plural('container', list(adding))} must not include {listed} in securityContext.capabilities.add")
    return f"unrestricted capabilities ({'; '.join(told)})" if told else ""


def _host_namespaces(pod: Object) -> str:
    found = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if at(pod, "spec", field)]
    return f"host namespaces ({', '.join(found)})" if found else ""


def _host_path(pod: Object) -> str:
    names = [one.get("name") or "" for one in at(pod, "spec", "volumes") or () if one.get("hostPath") is not None]
    return f"hostPath volumes ({_plural('volume', names)})" if names else ""


def _host_ports(pod: Object) -> str:
    names: list[str] = []
    ports: set[int] = set()
    for container in _containers(pod):
        used = [port["hostPort"] for port in container.get("ports") or () if port.get("hostPort")]
        if used:
            names.append(container.get("name") or "")
            ports.update(used)
    if not names:
        return ""
    word, listed = "hostPorts" if len(ports) > 1 else "hostPort", ", ".join(str(one) for one in sorted(ports))
    return f"hostPort ({_plural('container', names)} uses {word} {listed})"


def _host_probes(pod: Object) -> str:
    names: list[str] = []
    for container in _containers(pod):
        handlers = [container.get(probe) or {} for probe in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += [at(container, "lifecycle", hook) or {} for hook in ("postStart", "preStop")]
        if any(at(one, kind, "host") for one in handlers for kind in ("httpGet", "tcpSocket")):
            names.append(container.get("name") or "")
    return f"probe or lifecycle host ({_plural('container', names)} uses a host in probes or lifecycle hooks)" if names else ""


def _privileged(pod: Object) -> str:
    names = _named(pod, lambda context: context.get("privileged"))
    return f"privileged ({_plural('container', names)} must not set securityContext.privileged=true)" if names else ""


def _proc_mount(pod: Object) -> str:
    if at(pod, "spec", "hostUsers") is False:
        return ""
    names = _named(pod, lambda context: context.get("procMount") not in (None, "", "Default"))
    types = sorted({at(one, "securityContext", "procMount") for one in _containers(pod)} - {None, "", "Default"})
    return f"procMount ({_plural('container', names)} must not set securityContext.procMount to {_quoted(types)})" if names else ""


def _restricted_volumes(pod: Object) -> str:
    bad: list[str] = []
    kinds: set[str] = set()
    for volume in at(pod, "spec", "volumes") or ():
        sources = {key for key, value in volume.items() if key != "name" and value is not None}
        if sources - _RESTRICTED_VOLUMES:
            bad.append(volume.get("name") or "")
            kinds |= sources - _RESTRICTED_VOLUMES
    if not bad:
        return ""
    word = "types" if len(kinds) > 1 else "type"
    return f"restricted volume types ({_plural('volume', bad)} uses restricted volume {word} {_quoted(sorted(kinds))})"


def _run_as_non_root(pod: Object) -> str:
    if at(pod, "spec", "hostUsers") is False:
        return ""
    pod_says = at(pod, "spec", "securityContext", "runAsNonRoot")
    explicit = _named(pod, lambda context: context.get("runAsNonRoot") is False)
    implicit = [] if pod_says else _named(pod, lambda context: context.get("runAsNonRoot") is None)
    told: list[str] = []
    if pod_says is False:
        told.append("pod must not set securityContext.runAsNonRoot=false")
    if explicit:
        told.append(f"{_plural('container', explicit)} must not set securityContext.runAsNonRoot=false")
    if told:
        return f"runAsNonRoot != true ({'; '.join(told)})"
    return f"runAsNonRoot != true (pod or {_plural('container', implicit)} must set securityContext.runAsNonRoot=true)" if implicit else ""


def _run_as_user(pod: Object) -> str:
    if at(pod, "spec", "hostUsers") is False:
        return ""
    told = ["pod must not set runAsUser=0"] if at(pod, "spec", "securityContext", "runAsUser") == 0 else []
    names = _named(pod, lambda context: context.get("runAsUser") == 0)
    told += [f"{_plural('container', names)} must not set runAsUser=0"] if names else []
    return f"runAsUser=0 ({' and '.join(told)})" if told else ""


def _profiles(pod: Object) -> Iterator[tuple[str, str | None]]:
    yield "pod", at(pod, "spec", "securityContext", "seccompProfile", "type")
    for container in _containers(pod):
        yield container.get("name") or "", at(container, "securityContext", "seccompProfile", "type")


def _baseline_seccomp(pod: Object) -> str:
    bad = [who for who, profile in _profiles(pod) if profile == "Unconfined"]
    if not bad:
        return ""
    told = ["pod"] if bad[0] == "pod" else []
    names = [one for one in bad if one != "pod"]
    told += [_plural("container", names)] if names else []
    return f'seccompProfile ({" and ".join(told)} must not set securityContext.seccompProfile.type to "Unconfined")'


def _restricted_seccomp(pod: Object) -> str:
    if _is_windows(pod):
        return ""
    good = ("RuntimeDefault", "Localhost")
    (_, pod_profile), *containers = list(_profiles(pod))
    explicit = [who for who, profile in containers if profile is not None and profile not in good]
    told: list[str] = []
    if pod_profile is not None and pod_profile not in good:
        told.append(f'pod must not set securityContext.seccompProfile.type to "{pod_profile}"')
    if explicit:
        types = sorted({profile for _, profile in containers if profile is not None and profile not in good})
        told.append(f"{_plural('container', explicit)} must not set securityContext.seccompProfile.type to {_quoted(types)}")
    if told:
        return f"seccompProfile ({'; '.join(told)})"
    implicit = [] if pod_profile in good else [who for who, profile in containers if profile is None]
    if not implicit:
        return ""
    names = _plural("container", implicit)
    return f'seccompProfile (pod or {names} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'


def _selinux(pod: Object) -> str:
    found: set[str] = set()
    for holder in ({"securityContext": at(pod, "spec", "securityContext")}, *_containers(pod)):
        options = at(holder, "securityContext", "seLinuxOptions") or {}
        if (options.get("type") or "") not in _SELINUX_TYPES:
            found.add(f'type "{options["type"]}"')
        for field in ("user", "role"):
            if options.get(field):
                found.add(f"{field} may not be set")
    return f"seLinuxOptions ({'; '.join(sorted(found))})" if found else ""


def _sysctls(pod: Object) -> str:
    names = [one.get("name") or "" for one in at(pod, "spec", "securityContext", "sysctls") or () if one.get("name") not in _SAFE_SYSCTLS]
    return f"forbidden sysctls ({', '.join(names)})" if names else ""


def _windows_host_process(pod: Object) -> str:
    names = _named(pod, lambda context: at(context, "windowsOptions", "hostProcess"))
    pod_says = at(pod, "spec", "securityContext", "windowsOptions", "hostProcess")
    told = (["pod"] if pod_says else []) + ([_plural("container", names)] if names else [])
    return f"hostProcess ({' and '.join(told)} must not set securityContext.windowsOptions.hostProcess=true)" if told else ""


def _is_windows(pod: Object) -> bool:
    return at(pod, "spec", "os", "name") == "windows"


# In the order of the checks' identifiers, as upstream reports them.
_BASELINE = (
    _app_armor,
    _baseline_capabilities,
    _host_namespaces,
    _host_path,
    _host_ports,
    _host_probes,
    _privileged,
    _proc_mount,
    _baseline_seccomp,
    _selinux,
    _sysctls,
    _windows_host_process,
)
_RESTRICTED = (
    _allow_privilege_escalation,
    _app_armor,
    _restricted_capabilities,
    _host_namespaces,
    _host_ports,
    _host_probes,
    _privileged,
    _proc_mount,
    _restricted_volumes,
    _run_as_non_root,
    _run_as_user,
    _restricted_seccomp,
    _selinux,
    _sysctls,
    _windows_host_process,
)
