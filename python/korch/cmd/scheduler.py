"""`korch scheduler`: the scheduler as a process of its own; of several, the one that holds the lease works."""

from __future__ import annotations

import click

from korch.api.features import Features
from korch.client.informer import Informers
from korch.client.kubeconfig import client_from_kubeconfig
from korch.cmd.feature_options import feature_options
from korch.cmd.remote import credentials, lead, remote_options, run_component
from korch.runtime.context import Runtime
from korch.scheduler.config import leader_election, read_config
from korch.scheduler.scheduler import Scheduler


@click.command()
@remote_options
@click.option("--scheduler-name", default="default-scheduler", show_default=True, help="Which pods are ours: spec.schedulerName.")
@click.option(
    "--leader-elect/--no-leader-elect", default=None, help="Work only while holding a Lease. Default: as the configuration says, or yes."
)
@click.option(
    "--leader-elect-resource-name",
    default="",
    help="Which Lease in kube-system. Default: as the configuration says, or kube-scheduler for the default scheduler's pods, else the "
    "scheduler's name.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False),
    help="A KubeSchedulerConfiguration; its profiles say which pods are ours.",
)
@feature_options()
def scheduler(
    kubeconfig: str | None,
    server: str | None,
    token: str | None,
    data_dir: str | None,
    log_level: str,
    scheduler_name: str,
    leader_elect: bool | None,
    leader_elect_resource_name: str,
    config_file: str | None,
    features: Features,
) -> None:
    """Run the scheduler against a server."""
    try:
        config = read_config(config_file) if config_file else None
        election = leader_election(config, scheduler_name)
    except ValueError as error:
        raise click.ClickException(str(error)) from error

    async def work() -> None:
        runtime = Runtime()
        path = await credentials("scheduler", kubeconfig=kubeconfig, server=server, token=token, data_dir=data_dir)
        client = client_from_kubeconfig(path, user_agent="korch-scheduler")

        async def schedule() -> None:
            informers = Informers(client, runtime)
            await Scheduler(client, informers, runtime, scheduler_name=scheduler_name, config=config, features=features).run()

        async with client:
            if election.is_wanted if leader_elect is None else leader_elect:
                await lead(client, leader_elect_resource_name or election.lease, runtime, schedule)
            else:
                await schedule()

    run_component(work, log_level=log_level)
