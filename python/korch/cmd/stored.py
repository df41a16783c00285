"""Where the tools of `korch store` read from: a running server, through its admin kubeconfig, or a data directory that nobody uses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from korch._core import native
from korch.api.errors import ApiError
from korch.cmd.layout import Layout

BACKUP_PATH = "/korch/v1/store/backup"
STATS_PATH = "/korch/v1/store/stats"

data_dir_option = click.option("--data-dir", help="The cluster's data directory. Default /var/lib/korch as root.")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[native.Store]:
    """Give the store in a directory that no process uses, or in a backup, read to the last checksum. Nothing is changed.
    Raises click.ClickException, naming file and offset when something is damaged; native.StoreLocked."""
    if not path.exists():
        raise click.ClickException(f"{path} does not exist")
    try:
        store = native.Store.inspect(str(path))
    except native.StoreCorrupt as error:
        raise click.ClickException(str(error)) from error
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{path} cannot be read: {error}") from error
    try:
        yield store
    finally:
        store.close()


def ask_server(layout: Layout, path: str) -> bytes:
    """Return the answer of the server that uses this data directory. Raises click.ClickException."""
    from korch.client.kubeconfig import client_from_kubeconfig

    async def ask() -> bytes:
        async with client_from_kubeconfig(layout.kubeconfig, user_agent="korch-store") as client:
            return await client.raw("GET", path)

    try:
        return asyncio.run(ask())
    except (ApiError, OSError, ValueError) as error:
        raise click.ClickException(f"the server that uses {layout.root} does not answer: {error}") from error


def fetch_backup(layout: Layout, target: Path) -> None:
    """Have the running server write a backup and bring it to `target`, which appears whole or not at all. Raises click.ClickException."""
    from korch.client.kubeconfig import client_from_kubeconfig

    async def fetch(draft: Path) -> None:
        async with client_from_kubeconfig(layout.kubeconfig, user_agent="korch-store") as client:
            with draft.open("wb") as out:
                async for chunk in client.download(BACKUP_PATH):
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())

    draft = target.with_name(f".{target.name}.draft")
    try:
        asyncio.run(fetch(draft))
        draft.chmod(0o600)
        draft.replace(target)
    except (ApiError, OSError, ValueError) as error:
        raise click.ClickException(f"no backup from the server that uses {layout.root}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


def write_backup(layout: Layout, target: Path) -> None:
    """Write a consistent backup to `target`, from the running server if there is one. Raises click.ClickException."""
    if target.exists():
        raise click.ClickException(f"{target} exists")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not layout.store.is_dir():
        # A server whose datastore is etcd keeps nothing here, but answers.
        fetch_backup(layout, target)
        return
    try:
        with opened(layout.store) as store, tempfile.TemporaryDirectory(dir=target.parent, prefix=".korch-backup-") as directory:
            _, name = store.backup(directory)
            written = Path(directory) / name
            written.chmod(0o600)
            written.replace(target)
    except native.StoreLocked:
        fetch_backup(layout, target)


@contextlib.contextmanager
def readable(layout: Layout, source: str) -> Iterator[native.Store]:
    """Give the store of `source` (a backup or a store's directory, "" for this cluster's, running or not). Raises click.ClickException."""
    if source:
        try:
            with opened(Path(source)) as store:
                yield store
        except native.StoreLocked as error:
            raise click.ClickException(f"{error}; name its data directory with --data-dir instead") from error
        return
    with tempfile.TemporaryDirectory(prefix="korch-store-") as directory:
        backup = Path(directory) / "backup"
        write_backup(layout, backup)
        with opened(backup) as store:
            yield store
