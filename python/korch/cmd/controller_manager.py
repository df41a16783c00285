"""`korch controller-manager`: the controllers as a process of their own; of several, the one that holds the lease works."""

from __future__ import annotations

import asyncio

import click

from korch.api.features import Features
from korch.client.informer import Informers
from korch.client.kubeconfig import client_from_kubeconfig
from korch.cmd.feature_options import feature_options
from korch.cmd.remote import authority_of, credentials, lead, remote_options, run_component
from korch.controllers import ControllerConfig, all_controllers
from korch.runtime.context import Runtime


@click.command("controller-manager")
@remote_options
@click.option("--cluster-cidr", default="10.244.0.0/16", show_default=True, help="Pod network of the whole cluster.")
@click.option("--node-monitor-grace-period", default=50.0, show_default=True, help="Seconds of silence after which a node is NotReady.")
@feature_options()
def controller_manager(
    kubeconfig: str | None,
    server: str | None,
    token: str | None,
    data_dir: str | None,
    log_level: str,
    cluster_cidr: str,
    node_monitor_grace_period: float,
    features: Features,
) -> None:
    """Run the controllers against a server."""

    async def work() -> None:
        runtime = Runtime()
        path = await credentials("controller-manager", kubeconfig=kubeconfig, server=server, token=token, data_dir=data_dir)
        client = client_from_kubeconfig(path, user_agent="korch-controller-manager")
        config = ControllerConfig(
            root_ca_pem=authority_of(path).decode(),
            cluster_cidr=cluster_cidr,
            node_monitor_grace_period_s=node_monitor_grace_period,
            features=features,
        )

        async def control() -> None:
            informers = Informers(client, runtime)
            async with asyncio.TaskGroup() as tasks:
                for controller in all_controllers(client, informers, runtime, config):
                    tasks.create_task(controller.run(), name=controller.name)

        async with client:
            await lead(client, "kube-controller-manager", runtime, control)

    run_component(work, log_level=log_level)
