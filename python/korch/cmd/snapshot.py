"""`korch snapshot`: a cluster's state as far as scheduling depends on it, in a file, without secrets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from korch.api.errors import ApiError
from korch.client.kubeconfig import load
from korch.lab.snapshot import take, write


@click.command()
@click.option("--kubeconfig", default="", help="A kubeconfig file; $KUBECONFIG or ~/.kube/config by default.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The file to write.")
def snapshot(kubeconfig: str, output: Path) -> None:
    """Write nodes, pods and what else scheduling depends on to a file, from any Kubernetes cluster.

    Secrets and ConfigMaps are not read; environment variables, commands and annotations are left out."""

    async def work() -> int:
        async with load(kubeconfig).client(user_agent="korch-snapshot") as client:
            found = await take(client)
        write(found, output)
        return len(found["items"])

    try:
        count = asyncio.run(work())
    except ApiError as error:
        raise click.ClickException(error.message) from error
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{count} objects in {output}", err=True)
