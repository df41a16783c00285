"""Import of image archives into containerd without its command line tool.

An archive (an OCI layout or a `docker save` tar) is blobs and a list of names. Each blob is written to containerd's content
store under its digest, labelled with what it refers to so that garbage collection keeps the whole tree, and each name then
gets an image record that points at its manifest. A lease protects the blobs in between. containerd unpacks lazily, when the
first container is created from the image.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from korch.runtime.log import get_logger
from korch_agent.cri.generated import (
    containerd_content_pb2,
    containerd_content_pb2_grpc,
    containerd_images_pb2,
    containerd_images_pb2_grpc,
    containerd_leases_pb2,
    containerd_leases_pb2_grpc,
)
from korch_agent.cri.grpc import unix_channel

NAMESPACE = "k8s.io"
CHUNK_BYTES = 1024 * 1024
CALL_TIMEOUT_S = 60.0
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")

log = get_logger("images")


class BadArchive(ValueError):
    """The file is not an image archive that can be imported."""


async def import_images(socket: str, tar_path: str | Path) -> list[str]:
    """Import every image of the archive into the containerd behind `socket`; return their names.

    Raises BadArchive, OSError, or grpc's AioRpcError when containerd refuses.
    """
    channel = unix_channel(socket)
    try:
        with tarfile.open(tar_path) as archive:
            return await _Import(channel, archive, f"korch-import-{os.getpid()}-{Path(tar_path).name}").run()
    except tarfile.TarError as error:
        raise BadArchive(f"{tar_path}: {error}") from error
    finally:
        await channel.close()


def normalize(name: str) -> str:
    """Return the full form of an image name: `busybox` is `docker.io/library/busybox:latest`. Mirrors distribution's reference."""
    domain, slash, rest = name.partition("/")
    if not slash or ("." not in domain and ":" not in domain and domain != "localhost"):
        domain, rest = "docker.io", name if slash else f"library/{name}"
    if domain == "index.docker.io":
        domain = "docker.io"
    if domain == "docker.io" and "/" not in rest:
        rest = f"library/{rest}"
    tail = rest.rsplit("/", 1)[-1]
    return f"{domain}/{rest}" if ":" in tail or "@" in tail else f"{domain}/{rest}:latest"


class _Import:
    """One archive on its way into one containerd."""

    def __init__(self, channel: grpc.aio.Channel, archive: tarfile.TarFile, lease: str) -> None:
        self._archive = archive
        self._members = {member.name.removeprefix("./"): member for member in archive.getmembers()}
        self._content: Any = containerd_content_pb2_grpc.ContentStub(channel)
        self._images: Any = containerd_images_pb2_grpc.ImagesStub(channel)
        self._leases: Any = containerd_leases_pb2_grpc.LeasesStub(channel)
        self._lease = lease
        self._metadata = (("containerd-namespace", NAMESPACE), ("containerd-lease", lease))

    async def run(self) -> list[str]:
        await self._take_lease()
        try:
            if "manifest.json" in self._members:
                return await self._import_docker()
            if "index.json" in self._members:
                return await self._import_oci()
            raise BadArchive("neither manifest.json nor index.json is in the archive")
        finally:
            request = containerd_leases_pb2.DeleteRequest(id=self._lease)
            await self._leases.Delete(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S)

    async def _take_lease(self) -> None:
        labels = {"containerd.io/gc.expire": "2100-01-01T00:00:00Z"}
        request = containerd_leases_pb2.CreateRequest(id=self._lease, labels=labels)
        try:
            await self._leases.Create(request, metadata=self._metadata[:1], timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise

    async def _import_docker(self) -> list[str]:
        names: list[str] = []
        for entry in json.loads(self._read("manifest.json")):
            config = self._read(entry["Config"])
            layers = [self._layer(name) for name in entry["Layers"]]
            for member, descriptor in layers:
                await self._write(descriptor["digest"], descriptor["size"], self._chunks(member), {})
            config_digest = _digest(config)
            await self._write(config_digest, len(config), _one(config), {})
            manifest = {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": OCI_CONFIG, "digest": config_digest, "size": len(config)},
                "layers": [descriptor for _, descriptor in layers],
            }
            target = await self._write_manifest(json.dumps(manifest).encode(), OCI_MANIFEST, manifest)
            for tag in entry.get("RepoTags") or []:
                names.append(await self._name(normalize(tag), target))
        return names

    def _layer(self, name: str) -> tuple[tarfile.TarInfo, dict[str, Any]]:
        member = self._member(name)
        digest = hashlib.sha256()
        first = b""
        for chunk in self._blocks(member):
            first = first or chunk[:2]
            digest.update(chunk)
        media_type = OCI_LAYER_GZIP if first == b"\x1f\x8b" else OCI_LAYER
        return member, {"mediaType": media_type, "digest": f"sha256:{digest.hexdigest()}", "size": member.size}

    async def _import_oci(self) -> list[str]:
        names: list[str] = []
        for descriptor in json.loads(self._read("index.json"))["manifests"]:
            annotations = descriptor.get("annotations") or {}
            name = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name")
            await self._copy_tree(descriptor)
            if name:
                target = containerd_images_pb2.Descriptor(
                    media_type=descriptor["mediaType"], digest=descriptor["digest"], size=descriptor["size"]
                )
                names.append(await self._name(normalize(name), target))
        return names

    async def _copy_tree(self, descriptor: dict[str, Any]) -> None:
        """Copy a manifest or an index and what hangs on it, leaves first."""
        raw = self._read(_blob(descriptor["digest"]))
        parsed = json.loads(raw)
        if descriptor["mediaType"] in INDEX_TYPES:
            for child in parsed["manifests"]:
                if _blob(child["digest"]) in self._members:
                    await self._copy_tree(child)
            labels = {f"containerd.io/gc.ref.content.m.{n}": one["digest"] for n, one in enumerate(parsed["manifests"])}
            await self._write(descriptor["digest"], len(raw), _one(raw), labels)
            return
        for one in (parsed["config"], *parsed["layers"]):
            await self._write(one["digest"], one["size"], self._chunks(self._member(_blob(one["digest"]))), {})
        await self._write_manifest(raw, descriptor["mediaType"], parsed)

    async def _write_manifest(self, raw: bytes, media_type: str, parsed: dict[str, Any]) -> containerd_images_pb2.Descriptor:
        labels = {"containerd.io/gc.ref.content.config": parsed["config"]["digest"]}
        labels |= {f"containerd.io/gc.ref.content.l.{n}": layer["digest"] for n, layer in enumerate(parsed["layers"])}
        digest = _digest(raw)
        await self._write(digest, len(raw), _one(raw), labels)
        return containerd_images_pb2.Descriptor(media_type=media_type, digest=digest, size=len(raw))

    async def _write(self, digest: str, size: int, chunks: AsyncIterator[bytes], labels: dict[str, str]) -> None:
        """Write one blob under its digest; one that is there already is left alone."""
        try:
            request = containerd_content_pb2.InfoRequest(digest=digest)
            await self._content.Info(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S)
            return
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise

        async def requests() -> AsyncIterator[containerd_content_pb2.WriteContentRequest]:
            offset, reference = 0, f"{self._lease}-{digest}"
            async for chunk in chunks:
                yield containerd_content_pb2.WriteContentRequest(
                    action=containerd_content_pb2.WRITE, ref=reference, total=size, expected=digest, offset=offset, data=chunk
                )
                offset += len(chunk)
            yield containerd_content_pb2.WriteContentRequest(
                action=containerd_content_pb2.COMMIT, ref=reference, total=size, expected=digest, offset=offset, labels=labels
            )

        try:
            async for _ in self._content.Write(requests(), metadata=self._metadata):
                pass
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise

    async def _name(self, name: str, target: containerd_images_pb2.Descriptor) -> str:
        labels = {"io.cri-containerd.image": "managed"}
        image = containerd_images_pb2.Image(name=name, target=target, labels=labels)
        try:
            request = containerd_images_pb2.CreateImageRequest(image=image)
            await self._images.Create(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
            update = containerd_images_pb2.UpdateImageRequest(image=image)
            await self._images.Update(update, metadata=self._metadata, timeout=CALL_TIMEOUT_S)
        log.info("image imported", image=name, digest=target.digest)
        return name

    def _member(self, name: str) -> tarfile.TarInfo:
        member = self._members.get(name)
        # `docker save` stores a layer that two images share once, and a link to it elsewhere.
        while member is not None and (member.issym() or member.islnk()):
            target = member.linkname if member.islnk() else str(Path(member.name).parent / member.linkname)
            member = self._members.get(_clean(target))
        if member is None:
            raise BadArchive(f"{name} is not in the archive")
        return member

    def _read(self, name: str) -> bytes:
        return b"".join(self._blocks(self._member(name)))

    def _blocks(self, member: tarfile.TarInfo) -> list[bytes] | Any:
        stream = self._archive.extractfile(member)
        if stream is None:
            raise BadArchive(f"{member.name} is not a file")
        return iter(lambda: stream.read(CHUNK_BYTES), b"")

    async def _chunks(self, member: tarfile.TarInfo) -> AsyncIterator[bytes]:
        for chunk in self._blocks(member):
            yield chunk


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _clean(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return "/".join(parts)
