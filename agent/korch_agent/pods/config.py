"""From a pod's spec to what the runtime is asked to run: the sandbox's and each container's configuration. Pure but for paths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from korch_agent.cri.protocol import ContainerConfig, Image, Mount, PortMapping, Propagation, SandboxConfig
from korch_agent.pods import files
from korch_agent.pods.environment import expand
from korch_agent.pods.observed import (
    CONTAINER_HASH,
    CONTAINER_NAME,
    CONTAINER_RESOURCES,
    POD_GRACE,
    POD_NAME,
    POD_NAMESPACE,
    POD_UID,
    RESTART_COUNT,
    TERMINATION_PATH,
    TERMINATION_POLICY,
    Pod,
    container_hash,
    resources_key,
)
from korch_agent.pods.resources import cgroup_path, container_resources
from korch_agent.pods.security import ConfigError, container_security, sandbox_security
from korch_agent.pods.subpath import resolve
from korch_agent.volumes.volumes import Mounted

PROPAGATION: dict[str, Propagation] = {
    "None": "private",
    "HostToContainer": "host_to_container",
    "Bidirectional": "bidirectional",
}
SAFE_SYSCTLS = (
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
)  # fmt: skip


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What containers are told about the node they run on."""

    node_name: str
    data_dir: Path
    cgroup_root: str
    cluster_dns: str = ""
    cluster_domain: str = "cluster.local"
    host_ips: tuple[str, ...] = ()
    memory_capacity: int = 0

    @property
    def pods_dir(self) -> Path:
        return self.data_dir / "pods"

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"


def labels_of(pod: Pod) -> dict[str, str]:
    """Return the labels by which a pod's sandboxes and containers are found again."""
    meta = pod["metadata"]
    return {POD_NAME: meta["name"], POD_NAMESPACE: meta["namespace"], POD_UID: meta["uid"]}


def sandbox_config(pod: Pod, node: NodeConfig, *, attempt: int) -> SandboxConfig:
    """Return the configuration of the pod's sandbox."""
    meta, spec = pod["metadata"], pod["spec"]
    hostname, qualified = files.hostname_of(pod, cluster_domain=node.cluster_domain)
    if spec.get("setHostnameAsFQDN") and qualified:
        hostname = qualified
    sysctls = {one["name"]: one["value"] for one in (spec.get("securityContext") or {}).get("sysctls") or []}
    ports = () if spec.get("hostNetwork") else tuple(_port_mappings(pod))
    return SandboxConfig(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        attempt=attempt,
        hostname="" if spec.get("hostNetwork") else hostname,
        log_directory=str(files.log_directory(node.logs_dir, pod)),
        dns=files.dns_of(pod, cluster_dns=node.cluster_dns, cluster_domain=node.cluster_domain),
        ports=ports,
        labels=(meta.get("labels") or {}) | labels_of(pod),
        annotations=dict(meta.get("annotations") or {}),
        cgroup_parent=f"{node.cgroup_root}/{cgroup_path(pod)}",
        sysctls=sysctls,
        security=sandbox_security(pod),
    )


def _port_mappings(pod: Pod) -> list[PortMapping]:
    sidecars = [one for one in pod["spec"].get("initContainers") or [] if one.get("restartPolicy") == "Always"]
    return [
        PortMapping(
            protocol=port.get("protocol") or "TCP",
            container_port=port["containerPort"],
            host_port=port["hostPort"],
            host_ip=port.get("hostIP") or "",
        )
        for container in (*sidecars, *(pod["spec"].get("containers") or []))
        for port in container.get("ports") or []
        if port.get("hostPort")
    ]


def container_config(
    pod: Pod,
    container: Mapping[str, Any],
    node: NodeConfig,
    *,
    image: Image,
    environment: list[tuple[str, str]],
    volumes: Mapping[str, Mounted],
    restarts: int,
    target_id: str = "",
) -> ContainerConfig:
    """Return the configuration of one instance of a container. Raises ConfigError. Makes the directories of its own files."""
    values = dict(environment)
    pod_dir = node.pods_dir / pod["metadata"]["uid"]
    mounts = [_volume_mount(one, volumes, values) for one in container.get("volumeMounts") or []]
    taken = {mount.container_path for mount in mounts}
    hosts = pod_dir / "etc-hosts"
    if hosts.exists() and "/etc/hosts" not in taken:
        mounts.append(Mount(container_path="/etc/hosts", host_path=str(hosts)))
    termination_path = container.get("terminationMessagePath") or files.TERMINATION_PATH_DEFAULT
    if termination_path not in taken:
        message = files.termination_file(pod_dir, container["name"], restarts)
        message.parent.mkdir(parents=True, exist_ok=True)
        message.write_bytes(b"")
        message.chmod(0o666)
        mounts.append(Mount(container_path=termination_path, host_path=str(message)))
    own_logs = files.log_directory(node.logs_dir, pod) / container["name"]
    own_logs.mkdir(parents=True, exist_ok=True)
    return ContainerConfig(
        name=container["name"],
        attempt=restarts,
        image=image.id,
        user_image=container.get("image", ""),
        command=tuple(expand(one, values.get) for one in container.get("command") or []),
        args=tuple(expand(one, values.get) for one in container.get("args") or []),
        working_dir=container.get("workingDir") or "",
        envs=tuple(environment),
        mounts=tuple(mounts),
        labels=labels_of(pod) | {CONTAINER_NAME: container["name"]},
        annotations={
            CONTAINER_HASH: container_hash(container),
            RESTART_COUNT: str(restarts),
            CONTAINER_RESOURCES: resources_key(container),
            TERMINATION_PATH: termination_path,
            TERMINATION_POLICY: container.get("terminationMessagePolicy") or "File",
            POD_GRACE: str(pod["spec"].get("terminationGracePeriodSeconds", 30)),
        },
        log_path=f"{container['name']}/{restarts}.log",
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        resources=container_resources(pod, container, memory_capacity=node.memory_capacity),
        security=container_security(pod, container, image, target_id=target_id),
    )


def _volume_mount(mount: Mapping[str, Any], volumes: Mapping[str, Mounted], values: Mapping[str, str]) -> Mount:
    volume = volumes.get(mount["name"])
    if volume is None:
        raise ConfigError(f'volume "{mount["name"]}" is not mounted')
    sub_path = mount.get("subPath") or ""
    if mount.get("subPathExpr"):
        missing: list[str] = []

        def look(name: str) -> str | None:
            if name not in values:
                missing.append(name)
            return values.get(name)

        sub_path = expand(mount["subPathExpr"], look)
        if missing:
            raise ConfigError(f"missing value for {missing[0]!r} in subPathExpr")
    host_path = Path(volume.path)
    if sub_path:
        host_path = resolve(host_path, sub_path, create=not volume.readonly)
    return Mount(
        container_path=mount["mountPath"] if mount["mountPath"].startswith("/") else f"/{mount['mountPath']}",
        host_path=str(host_path),
        readonly=bool(mount.get("readOnly")) or volume.readonly,
        propagation=PROPAGATION.get(mount.get("mountPropagation") or "None", "private"),
    )
