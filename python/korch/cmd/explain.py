"""`korch explain pod NAME`: why a pod is on its node, or why it is on none."""

from __future__ import annotations

import asyncio

import click
import orjson

from korch.api.errors import ApiError
from korch.cli.explain import explain_table
from korch.client.kubeconfig import load
from korch.scheduler.config import read_config
from korch.scheduler.explain import explain_pod


@click.group()
def explain() -> None:
    """Say why the scheduler decides as it does."""


@explain.command()
@click.argument("name")
@click.option("-n", "--namespace", help="The pod's namespace; that of the kubeconfig's context by default.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--limit", default=50, show_default=True, help="Show this many nodes in the table; 0 for all.")
@click.option("--config", "config_file", type=click.Path(exists=True, dir_okay=False), help="A KubeSchedulerConfiguration to decide by.")
@click.option("--kubeconfig", default="", help="A kubeconfig file; $KUBECONFIG or ~/.kube/config by default.")
def pod(name: str, namespace: str | None, output: str, limit: int, config_file: str | None, kubeconfig: str) -> None:
    """Show every plugin's word on every node for a pod: who refuses it and why, and what each score is before and after normalising."""

    async def work() -> str:
        config = load(kubeconfig)
        chosen = namespace or config.namespace()
        async with config.client(user_agent="korch-explain") as client:
            matrix = await explain_pod(client, chosen, name, config=read_config(config_file) if config_file else None)
        return orjson.dumps(matrix, option=orjson.OPT_INDENT_2).decode() if output == "json" else explain_table(matrix, limit=limit)

    try:
        click.echo(asyncio.run(work()))
    except ApiError as error:
        raise click.ClickException(error.message) from error
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
