"""`korch proxy`: the service proxy of one node as a process of its own."""

from __future__ import annotations

from pathlib import Path

import click

from korch.client.informer import Informers
from korch.client.kubeconfig import client_from_kubeconfig
from korch.cmd.remote import run_component
from korch.proxy.service import Mode, ServiceProxy
from korch.runtime.context import Runtime


async def run(kubeconfig: Path | str, node_name: str, *, mode: Mode = "auto", cluster_cidr: str = "", healthz: str = "") -> None:
    """Serve the node's connections until cancelled; the kernel's table stays."""
    runtime = Runtime()
    client = client_from_kubeconfig(Path(kubeconfig), user_agent="korch-proxy")
    async with client:
        await ServiceProxy(client, Informers(client, runtime), runtime, node_name, mode, cluster_cidr=cluster_cidr, healthz=healthz).run()


async def cleanup() -> None:
    """Remove what a proxy left in the kernel of this network namespace."""
    from korch._core import native

    await Runtime().offload.run(native.Proxy.cleanup)


@click.command()
@click.option("--kubeconfig", help="A kubeconfig file that names the server.")
@click.option("--node-name", default="", help="The node whose endpoints are local; empty on a machine that is no node.")
@click.option("--mode", default="auto", show_default=True, type=click.Choice(["auto", "nftables", "userspace"]))
@click.option("--cluster-cidr", default="", help="The range of pod addresses: others that use a cluster IP have their source hidden.")
@click.option("--healthz", default="", help="host:port to answer /healthz at.")
@click.option("--cleanup", "only_cleanup", is_flag=True, help="Remove what a proxy left in the kernel, and exit.")
@click.option("--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"]))
def proxy(kubeconfig: str | None, node_name: str, mode: Mode, cluster_cidr: str, healthz: str, only_cleanup: bool, log_level: str) -> None:
    """Run the service proxy of one node."""
    if only_cleanup:
        run_component(cleanup, log_level=log_level)
        return
    if not kubeconfig:
        raise click.UsageError("give --kubeconfig")
    run_component(
        lambda: run(kubeconfig, node_name, mode=mode, cluster_cidr=cluster_cidr, healthz=healthz),
        log_level=log_level,
    )
