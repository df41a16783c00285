"""What the components that run apart from the server share: finding it, proving who they are, leading one at a time."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click

from korch.api.errors import ApiError
from korch.client.http import HttpClient
from korch.client.join import Role, join
from korch.client.kubeconfig import load
from korch.client.lease import LeaderElector
from korch.cmd.layout import Layout
from korch.runtime.context import Runtime
from korch.runtime.log import configure


def remote_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --kubeconfig, --server, --token, --data-dir and --log-level to a click command."""
    for option in (
        click.option("--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])),
        click.option("--data-dir", help="Where credentials obtained by --token are kept."),
        click.option("--token", help="The join token, used with --server the first time."),
        click.option("--server", help="URL of the API server, such as https://10.0.0.1:6443."),
        click.option("--kubeconfig", help="A kubeconfig file, instead of --server and --token."),
    ):
        command = option(command)
    return command


async def credentials(role: Role, *, kubeconfig: str | None, server: str | None, token: str | None, data_dir: str | None) -> Path:
    """Return the kubeconfig of the server that the options name, joining it first if need be. Raises click.UsageError, ValueError."""
    if kubeconfig:
        return Path(kubeconfig)
    if not server:
        raise click.UsageError("give --kubeconfig, or --server with --token")
    directory = Layout.at(data_dir).root / role
    if not token and not (directory / "kubeconfig").exists():
        raise click.UsageError(f"--server needs --token until {directory} holds credentials")
    return await join(server, token, socket.gethostname().lower(), [], directory, role=role) if token else directory / "kubeconfig"


def run_component(work: Callable[[], Awaitable[None]], *, log_level: str) -> None:
    """Run `work()` in a fresh event loop until it ends or SIGTERM or SIGINT cancels it. Blocks. Raises click.ClickException."""
    configure(level=log_level)

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await work()
        except asyncio.CancelledError:
            return

    try:
        asyncio.run(main())
    except ApiError as error:
        raise click.ClickException(f"the server refuses: {error.message}") from error
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


async def lead(client: HttpClient, name: str, runtime: Runtime, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work()` while this process holds the Lease kube-system/`name`; ends when the lease is lost, for a restart."""
    identity = f"{socket.gethostname()}_{os.getpid()}_{runtime.rng.uid()}"
    await LeaderElector(client, name, identity, runtime).run(work)


def authority_of(kubeconfig: Path) -> bytes:
    """Return the CA certificate (PEM) that a kubeconfig trusts. Raises KubeconfigError, OSError."""
    document = load(kubeconfig)
    cluster = document.clusters[document.contexts[document.current_context]["cluster"]]
    if "certificate-authority-data" in cluster:
        return base64.b64decode(cluster["certificate-authority-data"])
    return Path(cluster["certificate-authority"]).read_bytes()
