"""CRI v1 over gRPC: the real container runtime behind the seam of `cri.protocol`.

One channel over a Unix socket carries every call. Values are translated here and nowhere else. containerd 1.6 does not
implement GetContainerEvents, so changes are learned from containerd's own event stream, which every version has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio
import msgspec

from korch_agent.cri import protocol as p
from korch_agent.cri.generated import containerd_events_pb2, containerd_events_pb2_grpc, cri_pb2, cri_pb2_grpc

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
# Seconds for calls that only look something up, and for those that start or stop something.
LOOKUP_TIMEOUT_S = 30.0
WORK_TIMEOUT_S = 240.0
PULL_TIMEOUT_S = 1800.0
POD_UID_LABEL = "io.kubernetes.pod.uid"

_STATES: dict[int, p.ContainerState] = {0: "created", 1: "running", 2: "exited", 3: "unknown"}
_PROPAGATION = {
    "private": "PROPAGATION_PRIVATE",
    "host_to_container": "PROPAGATION_HOST_TO_CONTAINER",
    "bidirectional": "PROPAGATION_BIDIRECTIONAL",
}


def unix_channel(socket: str) -> grpc.aio.Channel:
    """Return a channel to the Unix socket at the path `socket`."""
    return grpc.aio.insecure_channel(
        f"unix:{socket}",
        options=[
            ("grpc.default_authority", "localhost"),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.initial_reconnect_backoff_ms", 100),
        ],
    )


class GrpcRuntime:
    """A `Runtime` that speaks to the CRI socket at the path `socket`."""

    def __init__(self, socket: str) -> None:
        self._channel = unix_channel(socket)
        self._runtime: Any = cri_pb2_grpc.RuntimeServiceStub(self._channel)
        self._images: Any = cri_pb2_grpc.ImageServiceStub(self._channel)
        self._events: Any = containerd_events_pb2_grpc.EventsStub(self._channel)

    async def close(self) -> None:
        """Close the channel; pending calls fail."""
        await self._channel.close()

    async def version(self) -> p.Version:
        answer = await _call(self._runtime.Version(cri_pb2.VersionRequest(version="v1"), timeout=LOOKUP_TIMEOUT_S))
        return p.Version(
            runtime_name=answer.runtime_name,
            runtime_version=answer.runtime_version,
            runtime_api_version=answer.runtime_api_version,
        )

    async def conditions(self) -> list[p.Condition]:
        answer = await _call(self._runtime.Status(cri_pb2.StatusRequest(), timeout=LOOKUP_TIMEOUT_S))
        return [p.Condition(type=one.type, status=one.status, reason=one.reason, message=one.message) for one in answer.status.conditions]

    async def run_sandbox(self, config: p.SandboxConfig) -> str:
        request = cri_pb2.RunPodSandboxRequest(config=_sandbox_config(config), runtime_handler=config.runtime_handler)
        return (await _call(self._runtime.RunPodSandbox(request, timeout=WORK_TIMEOUT_S))).pod_sandbox_id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        request = cri_pb2.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
        await _call_or_gone(self._runtime.StopPodSandbox(request, timeout=WORK_TIMEOUT_S))

    async def remove_sandbox(self, sandbox_id: str) -> None:
        request = cri_pb2.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
        await _call_or_gone(self._runtime.RemovePodSandbox(request, timeout=WORK_TIMEOUT_S))

    async def sandbox_status(self, sandbox_id: str, *, verbose: bool = False) -> p.Sandbox:
        request = cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=verbose)
        answer = await _call(self._runtime.PodSandboxStatus(request, timeout=LOOKUP_TIMEOUT_S))
        status = answer.status
        ips = (status.network.ip, *(one.ip for one in status.network.additional_ips))
        return _sandbox(status, ips=tuple(ip for ip in ips if ip), pid=_pid(answer.info))

    async def list_sandboxes(self, *, uid: str = "") -> list[p.Sandbox]:
        selector = {POD_UID_LABEL: uid} if uid else {}
        request = cri_pb2.ListPodSandboxRequest(filter=cri_pb2.PodSandboxFilter(label_selector=selector))
        answer = await _call(self._runtime.ListPodSandbox(request, timeout=LOOKUP_TIMEOUT_S))
        return [_sandbox(one) for one in answer.items]

    async def create_container(self, sandbox_id: str, config: p.ContainerConfig, sandbox: p.SandboxConfig) -> str:
        request = cri_pb2.CreateContainerRequest(
            pod_sandbox_id=sandbox_id, config=_container_config(config), sandbox_config=_sandbox_config(sandbox)
        )
        return (await _call(self._runtime.CreateContainer(request, timeout=WORK_TIMEOUT_S))).container_id

    async def start_container(self, container_id: str) -> None:
        await _call(self._runtime.StartContainer(cri_pb2.StartContainerRequest(container_id=container_id), timeout=WORK_TIMEOUT_S))

    async def stop_container(self, container_id: str, grace_s: int) -> None:
        request = cri_pb2.StopContainerRequest(container_id=container_id, timeout=grace_s)
        await _call_or_gone(self._runtime.StopContainer(request, timeout=WORK_TIMEOUT_S + grace_s))

    async def remove_container(self, container_id: str) -> None:
        request = cri_pb2.RemoveContainerRequest(container_id=container_id)
        await _call_or_gone(self._runtime.RemoveContainer(request, timeout=WORK_TIMEOUT_S))

    async def list_containers(self, *, uid: str = "", sandbox_id: str = "") -> list[p.Container]:
        selector = {POD_UID_LABEL: uid} if uid else {}
        wanted = cri_pb2.ContainerFilter(label_selector=selector, pod_sandbox_id=sandbox_id)
        answer = await _call(self._runtime.ListContainers(cri_pb2.ListContainersRequest(filter=wanted), timeout=LOOKUP_TIMEOUT_S))
        return [_container(one) for one in answer.containers]

    async def container_status(self, container_id: str, *, verbose: bool = False) -> p.ContainerStatus:
        request = cri_pb2.ContainerStatusRequest(container_id=container_id, verbose=verbose)
        answer = await _call(self._runtime.ContainerStatus(request, timeout=LOOKUP_TIMEOUT_S))
        return _container_status(answer.status, pid=_pid(answer.info))

    async def update_resources(self, container_id: str, resources: p.Resources) -> None:
        request = cri_pb2.UpdateContainerResourcesRequest(container_id=container_id, linux=_resources(resources))
        await _call(self._runtime.UpdateContainerResources(request, timeout=LOOKUP_TIMEOUT_S))

    async def reopen_log(self, container_id: str) -> None:
        request = cri_pb2.ReopenContainerLogRequest(container_id=container_id)
        await _call(self._runtime.ReopenContainerLog(request, timeout=LOOKUP_TIMEOUT_S))

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> p.ExecResult:
        # CRI counts whole seconds; the call itself gets a little longer, so that the runtime is the one to kill the command.
        whole = max(1, round(timeout_s)) if timeout_s > 0 else 0
        request = cri_pb2.ExecSyncRequest(container_id=container_id, cmd=list(command), timeout=whole)
        try:
            answer = await _call(self._runtime.ExecSync(request, timeout=whole + 10.0 if whole else None))
        except p.CriError as error:
            if error.code == "DEADLINE_EXCEEDED" or "timeout" in error.message:
                raise p.ExecTimeout(f"command {' '.join(command)!r} timed out") from error
            raise
        return p.ExecResult(stdout=answer.stdout, stderr=answer.stderr, exit_code=answer.exit_code)

    async def exec_url(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        request = cri_pb2.ExecRequest(
            container_id=container_id, cmd=list(command), tty=tty, stdin=stdin, stdout=stdout, stderr=stderr and not tty
        )
        return (await _call(self._runtime.Exec(request, timeout=LOOKUP_TIMEOUT_S))).url

    async def attach_url(self, container_id: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        request = cri_pb2.AttachRequest(container_id=container_id, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr and not tty)
        return (await _call(self._runtime.Attach(request, timeout=LOOKUP_TIMEOUT_S))).url

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        request = cri_pb2.PortForwardRequest(pod_sandbox_id=sandbox_id, port=list(ports))
        return (await _call(self._runtime.PortForward(request, timeout=LOOKUP_TIMEOUT_S))).url

    async def list_images(self) -> list[p.Image]:
        answer = await _call(self._images.ListImages(cri_pb2.ListImagesRequest(), timeout=LOOKUP_TIMEOUT_S))
        return [_image(one) for one in answer.images]

    async def image(self, name: str) -> p.Image | None:
        request = cri_pb2.ImageStatusRequest(image=cri_pb2.ImageSpec(image=name))
        answer = await _call(self._images.ImageStatus(request, timeout=LOOKUP_TIMEOUT_S))
        return _image(answer.image) if answer.HasField("image") else None

    async def pull_image(self, name: str, auth: p.Auth | None = None) -> str:
        request = cri_pb2.PullImageRequest(image=cri_pb2.ImageSpec(image=name))
        if auth is not None:
            request.auth.CopyFrom(cri_pb2.AuthConfig(**msgspec.structs.asdict(auth)))
        return (await _call(self._images.PullImage(request, timeout=PULL_TIMEOUT_S))).image_ref

    async def remove_image(self, name: str) -> None:
        request = cri_pb2.RemoveImageRequest(image=cri_pb2.ImageSpec(image=name))
        await _call_or_gone(self._images.RemoveImage(request, timeout=LOOKUP_TIMEOUT_S))

    async def image_filesystems(self) -> list[p.FilesystemUsage]:
        answer = await _call(self._images.ImageFsInfo(cri_pb2.ImageFsInfoRequest(), timeout=LOOKUP_TIMEOUT_S))
        return [
            p.FilesystemUsage(mountpoint=one.fs_id.mountpoint, used_bytes=one.used_bytes.value, inodes_used=one.inodes_used.value)
            for one in answer.image_filesystems
        ]

    async def events(self) -> AsyncIterator[str]:
        request = containerd_events_pb2.SubscribeRequest(filters=['namespace==k8s.io,topic~="^/tasks/"'])
        try:
            async for envelope in self._events.Subscribe(request):
                yield envelope.topic
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error


async def _call(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _translate(error) from error


async def _call_or_gone(call: Any) -> None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise _translate(error) from error


def _translate(error: grpc.aio.AioRpcError) -> Exception:
    code, message = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return ConnectionError(f"the container runtime does not answer: {message}")
    if code is grpc.StatusCode.NOT_FOUND:
        return p.CriNotFound(message)
    return p.CriError(code.name, message)


def _pid(info: Any) -> int:
    if "info" not in info:
        return 0
    found = msgspec.json.decode(info["info"]).get("pid", 0)
    return int(found or 0)


def _namespaces(value: p.Namespaces) -> cri_pb2.NamespaceOption:
    return cri_pb2.NamespaceOption(network=value.network, pid=value.pid, ipc=value.ipc, target_id=value.target_id)


def _profile(value: p.Seccomp) -> cri_pb2.SecurityProfile:
    return cri_pb2.SecurityProfile(profile_type=value.type, localhost_ref=value.localhost_ref)


def _resources(value: p.Resources) -> cri_pb2.LinuxContainerResources:
    return cri_pb2.LinuxContainerResources(
        cpu_period=value.cpu_period,
        cpu_quota=value.cpu_quota,
        cpu_shares=value.cpu_shares,
        memory_limit_in_bytes=value.memory_limit,
        oom_score_adj=value.oom_score_adj,
        unified=dict(value.unified),
    )


def _sandbox_config(config: p.SandboxConfig) -> cri_pb2.PodSandboxConfig:
    security = config.security
    context = cri_pb2.LinuxSandboxSecurityContext(
        namespace_options=_namespaces(security.namespaces),
        readonly_rootfs=security.read_only_root,
        supplemental_groups=list(security.supplemental_groups),
        privileged=security.privileged,
    )
    if security.user is not None:
        context.run_as_user.value = security.user
    if security.group is not None:
        context.run_as_group.value = security.group
    if security.seccomp is not None:
        context.seccomp.CopyFrom(_profile(security.seccomp))
    message = cri_pb2.PodSandboxConfig(
        metadata=cri_pb2.PodSandboxMetadata(name=config.name, uid=config.uid, namespace=config.namespace, attempt=config.attempt),
        hostname=config.hostname,
        log_directory=config.log_directory,
        port_mappings=[
            cri_pb2.PortMapping(
                protocol=one.protocol,
                container_port=one.container_port,
                host_port=one.host_port,
                host_ip=one.host_ip,
            )
            for one in config.ports
        ],
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        linux=cri_pb2.LinuxPodSandboxConfig(cgroup_parent=config.cgroup_parent, security_context=context, sysctls=dict(config.sysctls)),
    )
    if config.dns is not None:
        message.dns_config.CopyFrom(
            cri_pb2.DNSConfig(servers=list(config.dns.servers), searches=list(config.dns.searches), options=list(config.dns.options))
        )
    return message


def _container_config(config: p.ContainerConfig) -> cri_pb2.ContainerConfig:
    return cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name=config.name, attempt=config.attempt),
        image=cri_pb2.ImageSpec(image=config.image, user_specified_image=config.user_image),
        command=list(config.command),
        args=list(config.args),
        working_dir=config.working_dir,
        envs=[cri_pb2.KeyValue(key=key, value=value.encode(errors="surrogateescape")) for key, value in config.envs],
        mounts=[
            cri_pb2.Mount(
                container_path=one.container_path,
                host_path=one.host_path,
                readonly=one.readonly,
                propagation=_PROPAGATION[one.propagation],
            )
            for one in config.mounts
        ],
        devices=[
            cri_pb2.Device(container_path=one.container_path, host_path=one.host_path, permissions=one.permissions)
            for one in config.devices
        ],
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        log_path=config.log_path,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        tty=config.tty,
        linux=cri_pb2.LinuxContainerConfig(resources=_resources(config.resources), security_context=_container_security(config.security)),
    )


def _container_security(security: p.Security) -> cri_pb2.LinuxContainerSecurityContext:
    context = cri_pb2.LinuxContainerSecurityContext(
        capabilities=cri_pb2.Capability(
            add_capabilities=list(security.add_capabilities), drop_capabilities=list(security.drop_capabilities)
        ),
        privileged=security.privileged,
        namespace_options=_namespaces(security.namespaces),
        run_as_username=security.username,
        readonly_rootfs=security.read_only_root,
        supplemental_groups=list(security.supplemental_groups),
        no_new_privs=security.no_new_privileges,
        masked_paths=list(security.masked_paths),
        readonly_paths=list(security.readonly_paths),
        supplemental_groups_policy="Strict" if security.strict_groups else "Merge",
    )
    if security.user is not None:
        context.run_as_user.value = security.user
    if security.group is not None:
        context.run_as_group.value = security.group
    if security.seccomp is not None:
        context.seccomp.CopyFrom(_profile(security.seccomp))
    if security.apparmor is not None:
        context.apparmor.CopyFrom(_profile(security.apparmor))
    return context


def _sandbox(message: Any, *, ips: tuple[str, ...] = (), pid: int = 0) -> p.Sandbox:
    return p.Sandbox(
        id=message.id,
        name=message.metadata.name,
        namespace=message.metadata.namespace,
        uid=message.metadata.uid,
        attempt=message.metadata.attempt,
        is_ready=message.state == cri_pb2.SANDBOX_READY,
        created_at=message.created_at,
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        ips=ips,
        pid=pid,
    )


def _container(message: Any) -> p.Container:
    return p.Container(
        id=message.id,
        sandbox_id=message.pod_sandbox_id,
        name=message.metadata.name,
        attempt=message.metadata.attempt,
        image=message.image.image,
        image_ref=message.image_ref,
        state=_STATES.get(message.state, "unknown"),
        created_at=message.created_at,
        labels=dict(message.labels),
        annotations=dict(message.annotations),
    )


def _container_status(message: Any, *, pid: int = 0) -> p.ContainerStatus:
    return p.ContainerStatus(
        id=message.id,
        name=message.metadata.name,
        attempt=message.metadata.attempt,
        state=_STATES.get(message.state, "unknown"),
        created_at=message.created_at,
        started_at=message.started_at,
        finished_at=message.finished_at,
        exit_code=message.exit_code,
        image=message.image.image,
        image_ref=message.image_ref,
        reason=message.reason,
        message=message.message,
        log_path=message.log_path,
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        pid=pid,
    )


def _image(message: Any) -> p.Image:
    return p.Image(
        id=message.id,
        tags=tuple(message.repo_tags),
        digests=tuple(message.repo_digests),
        size=message.size,
        user=message.uid.value if message.HasField("uid") else None,
        username=message.username,
    )
