"""`korch node stop|start NAME`: take a node of this machine away as a power cut would, and bring it back."""

from __future__ import annotations

from typing import Any

import click

from korch.cmd.control import ask
from korch.cmd.layout import Layout


@click.group()
def node() -> None:
    """Stop and start single nodes of a cluster on this machine."""


def _ask(data_dir: str | None, request: dict[str, Any]) -> None:
    layout = Layout.at(data_dir)
    answer = ask(layout, request)
    if answer is None:
        raise click.ClickException(f"no cluster runs in {layout.root}")
    if "error" in answer:
        raise click.ClickException(answer["error"])
    click.echo(f"node {request['name']}: {answer['state']}")


@node.command()
@click.argument("name")
@click.option("--data-dir", help="The cluster's data directory.")
def stop(name: str, data_dir: str | None) -> None:
    """Kill the agent and the containerd of a node and keep them down."""
    _ask(data_dir, {"do": "stop-node", "name": name})


@node.command()
@click.argument("name")
@click.option("--data-dir", help="The cluster's data directory.")
def start(name: str, data_dir: str | None) -> None:
    """Start a stopped node again."""
    _ask(data_dir, {"do": "start-node", "name": name})
