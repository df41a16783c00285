"""`korch scheduler`: the scheduler as a process of its own; of several, the one that holds the lease works."""

from __future__ import annotations

import click

from korch.client.informer import Informers
from korch.client.kubeconfig import client_from_kubeconfig
from korch.cmd.remote import credentials, lead, remote_options, run_component
from korch.runtime.context import Runtime
from korch.scheduler.config import read_config
from korch.scheduler.scheduler import Scheduler


@click.command()
@remote_options
@click.option("--scheduler-name", default="default-scheduler", show_default=True, help="Which pods are ours: spec.schedulerName.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False),
    help="A KubeSchedulerConfiguration; its profiles say which pods are ours.",
)
def scheduler(
    kubeconfig: str | None,
    server: str | None,
    token: str | None,
    data_dir: str | None,
    log_level: str,
    scheduler_name: str,
    config_file: str | None,
) -> None:
    """Run the scheduler against a server."""
    try:
        config = read_config(config_file) if config_file else None
    except ValueError as error:
        raise click.ClickException(str(error)) from error

    async def work() -> None:
        runtime = Runtime()
        path = await credentials("scheduler", kubeconfig=kubeconfig, server=server, token=token, data_dir=data_dir)
        client = client_from_kubeconfig(path, user_agent="korch-scheduler")

        async def schedule() -> None:
            informers = Informers(client, runtime)
            await Scheduler(client, informers, runtime, scheduler_name=scheduler_name, config=config).run()

        async with client:
            await lead(client, "kube-scheduler", runtime, schedule)

    run_component(work, log_level=log_level)
