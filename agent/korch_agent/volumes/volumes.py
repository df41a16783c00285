"""The volumes of every pod: set up, kept up to date, taken away.

Volumes lie below `<data dir>/pods/<uid>/volumes/<name>`; those that must not touch the disk (secrets, tokens, projected ones) share
one tmpfs per pod, an emptyDir in memory has its own. `mount` is idempotent and is called again when an object it shows has
changed: files are replaced atomically, and only when they differ. A volume that cannot be set up raises VolumeError, which
keeps the pod pending.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from korch.api.gvk import CONFIG_MAPS, SECRETS, ResourceRef
from korch.runtime.offload import Offload
from korch_agent import mounts
from korch_agent.objects import Objects
from korch_agent.pods.environment import Sources
from korch_agent.pods.observed import Pod
from korch_agent.pods.resources import quantity
from korch_agent.pods.security import fs_group
from korch_agent.volumes import atomic
from korch_agent.volumes.payload import DEFAULT_MODE, VolumeError, config_map_files, downward_files, secret_files
from korch_agent.volumes.tokens import Tokens

TOKEN_MODE_OWNED = 0o600


class Mounted(msgspec.Struct, frozen=True):
    """Where a volume lies on the machine, and whether containers may write to it at all."""

    path: str
    readonly: bool = False


class Volumes:
    """The volumes of one node's pods below `pods_dir`."""

    def __init__(self, pods_dir: Path, objects: Objects, tokens: Tokens, offload: Offload) -> None:
        self._pods_dir = pods_dir
        self._objects = objects
        self._tokens = tokens
        self._offload = offload

    def pod_dir(self, uid: str) -> Path:
        """Return the directory that holds everything of one pod."""
        return self._pods_dir / uid

    async def mount(self, pod: Pod, sources: Sources) -> dict[str, Mounted]:
        """Set up or refresh all volumes; return them by name. Raises VolumeError, or ApiError and ConnectionError of lookups."""
        mounted: dict[str, Mounted] = {}
        for volume in pod["spec"].get("volumes") or []:
            try:
                mounted[volume["name"]] = await self._mount_one(pod, volume, sources)
            except VolumeError as error:
                raise VolumeError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error
            except (OSError, ValueError) as error:
                if isinstance(error, ConnectionError):
                    raise
                raise VolumeError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error
        return mounted

    async def unmount(self, uid: str) -> None:
        """Take away all volumes and files of a pod. Nothing there is no error."""
        self._tokens.forget(uid)
        await self._offload.run(_take_away, self.pod_dir(uid))

    async def unmount_volumes(self, uid: str) -> None:
        """Take away the volumes of a pod that has ended; its other files stay until it is deleted."""
        self._tokens.forget(uid)
        await self._offload.run(_take_away, self.pod_dir(uid) / "volumes")
        await self._offload.run(_take_away, self.pod_dir(uid) / "memory")

    def next_renewal(self, uid: str) -> float | None:
        """Return when the pod's volumes must be refreshed although nothing changed, or None."""
        return self._tokens.next_renewal(uid)

    def kept_pods(self) -> list[str]:
        """Return the uids of all pods that have a directory."""
        return sorted(os.listdir(self._pods_dir)) if self._pods_dir.is_dir() else []

    async def _mount_one(self, pod: Pod, volume: Mapping[str, Any], sources: Sources) -> Mounted:
        uid = pod["metadata"]["uid"]
        directory = self.pod_dir(uid) / "volumes" / volume["name"]
        group = fs_group(pod)
        if "hostPath" in volume:
            return Mounted(await self._offload.run(_host_path, volume["hostPath"]))
        if "emptyDir" in volume:
            await self._offload.run(_empty_dir, directory, volume["emptyDir"] or {}, group)
            return Mounted(str(directory))
        if "configMap" in volume:
            files = await self._files(pod, {"configMap": volume["configMap"]}, _mode(volume["configMap"]), sources)
        elif "secret" in volume:
            source = volume["secret"] | {"name": volume["secret"].get("secretName", "")}
            files = await self._files(pod, {"secret": source}, _mode(source), sources)
            directory = self._in_memory(uid, volume["name"])
        elif "downwardAPI" in volume:
            files = await self._files(pod, {"downwardAPI": volume["downwardAPI"]}, _mode(volume["downwardAPI"]), sources)
            directory = self._in_memory(uid, volume["name"])
        elif "projected" in volume:
            files: dict[str, atomic.File] = {}
            for source in volume["projected"].get("sources") or []:
                files |= await self._files(pod, source, _mode(volume["projected"]), sources)
            directory = self._in_memory(uid, volume["name"])
        else:
            sort = next((key for key in volume if key != "name"), "unknown")
            raise VolumeError(f"no volume plugin matched: {sort}")
        await self._offload.run(_write_files, directory, files, group)
        return Mounted(str(directory), readonly=True)

    def _in_memory(self, uid: str, name: str) -> Path:
        return self.pod_dir(uid) / "memory" / name

    async def _files(self, pod: Pod, source: Mapping[str, Any], mode: int, sources: Sources) -> dict[str, atomic.File]:
        namespace = pod["metadata"]["namespace"]
        if source.get("configMap") is not None:
            one = source["configMap"]
            found = await self._objects.get(CONFIG_MAPS, namespace, one.get("name", ""))
            return config_map_files(one, found, namespace=namespace, mode=mode)
        if source.get("secret") is not None:
            one = source["secret"]
            found = await self._objects.get(SECRETS, namespace, one.get("name", ""))
            return secret_files(one, found, namespace=namespace, mode=mode)
        if source.get("downwardAPI") is not None:
            return downward_files(pod, source["downwardAPI"].get("items") or [], sources, mode=mode)
        if source.get("serviceAccountToken") is not None:
            one = source["serviceAccountToken"]
            token = await self._tokens.get(pod, one)
            if fs_group(pod) is not None:
                return {one["path"]: atomic.File(token.encode(), TOKEN_MODE_OWNED)}
            # Readable for its user alone when all containers share one, else for everybody in the pod.
            user = _only_user(pod)
            return {one["path"]: atomic.File(token.encode(), TOKEN_MODE_OWNED if user is not None else mode, user)}
        raise VolumeError(f"unsupported projected source: {', '.join(source)}")


def objects_of(pod: Pod) -> set[tuple[ResourceRef, str]]:
    """Return the ConfigMaps and Secrets that the pod's volumes show."""
    found: set[tuple[ResourceRef, str]] = set()
    for volume in pod["spec"].get("volumes") or []:
        for source in [volume, *((volume.get("projected") or {}).get("sources") or [])]:
            if source.get("configMap"):
                found.add((CONFIG_MAPS, source["configMap"].get("name", "")))
            if source.get("secret"):
                found.add((SECRETS, source["secret"].get("secretName") or source["secret"].get("name") or ""))
    return {(resource, name) for resource, name in found if name}


def _mode(source: Mapping[str, Any]) -> int:
    mode = source.get("defaultMode")
    return DEFAULT_MODE if mode is None else int(mode)


def _only_user(pod: Pod) -> int | None:
    shared = (pod["spec"].get("securityContext") or {}).get("runAsUser")
    containers = [*(pod["spec"].get("initContainers") or []), *(pod["spec"].get("containers") or [])]
    users = {(one.get("securityContext") or {}).get("runAsUser", shared) for one in containers}
    return users.pop() if len(users) == 1 else None


def _host_path(source: Mapping[str, Any]) -> str:
    path, sort = Path(source["path"]), source.get("type") or ""
    if sort == "DirectoryOrCreate" and not path.exists():
        path.mkdir(parents=True, mode=0o755)
    elif sort == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    checks: dict[str, tuple[Callable[[int], bool], str]] = {
        "Directory": (stat.S_ISDIR, "directory"),
        "DirectoryOrCreate": (stat.S_ISDIR, "directory"),
        "File": (stat.S_ISREG, "file"),
        "FileOrCreate": (stat.S_ISREG, "file"),
        "Socket": (stat.S_ISSOCK, "socket"),
        "CharDevice": (stat.S_ISCHR, "character device"),
        "BlockDevice": (stat.S_ISBLK, "block device"),
    }
    if sort in checks:
        fits, noun = checks[sort]
        if not path.exists() or not fits(path.stat().st_mode):
            raise VolumeError(f"hostPath type check failed: {path} is not a {noun}")
    return str(path)


def _empty_dir(directory: Path, source: Mapping[str, Any], group: int | None) -> None:
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    if source.get("medium") == "Memory" and not mounts.is_mounted(directory):
        mounts.mount_tmpfs(directory, size_bytes=int(quantity(source.get("sizeLimit"))), mode=0o777)
        is_new = True
    if is_new:
        if group is not None:
            os.chown(directory, -1, group)
            directory.chmod(0o2777)
        else:
            directory.chmod(0o777)


def _write_files(directory: Path, files: Mapping[str, atomic.File], group: int | None) -> None:
    if directory.parent.name == "memory" and not mounts.is_mounted(directory.parent):
        directory.parent.mkdir(parents=True, exist_ok=True)
        mounts.mount_tmpfs(directory.parent)
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    if group is not None:
        # Whoever is in the group may read.
        files = {path: atomic.File(one.content, one.mode | 0o440, one.user) for path, one in files.items()}
        os.chown(directory, -1, group)
    if is_new:
        directory.chmod(0o2777 if group is not None else 0o777)
    atomic.write(directory, files, group=group)


def _take_away(directory: Path) -> None:
    for point in mounts.mounts_below(directory):
        mounts.unmount(point)
    shutil.rmtree(directory, ignore_errors=True)
