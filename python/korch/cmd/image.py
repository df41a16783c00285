"""`korch image import FILE...`: put image archives into every node of this machine, now and whenever one starts."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import click

from korch.cmd.control import ask
from korch.cmd.layout import Layout


@click.group()
def image() -> None:
    """Import container images into the nodes of this machine."""


@image.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data-dir", help="The cluster's data directory.")
def import_(files: tuple[Path, ...], data_dir: str | None) -> None:
    """Import OCI or docker image archives (tar) into every node of this machine."""
    layout = Layout.at(data_dir)
    layout.make()
    for file in files:
        kept = layout.images / file.name
        if file.resolve() != kept.resolve():
            shutil.copyfile(file, kept)
    asyncio.run(_import_into_running(layout, files))


async def _import_into_running(layout: Layout, files: tuple[Path, ...]) -> None:
    state = ask(layout, {"do": "status"})
    sockets = [
        (node["name"], node["containerd"]["socket"]) for node in (state or {}).get("nodes", []) if node.get("containerd", {}).get("pid")
    ]
    if not sockets:
        click.echo("No node runs; the images will be imported when one starts.")
        return
    from korch_agent.containerd import import_images

    for name, socket in sockets:
        for file in files:
            for imported in await import_images(socket, file):
                click.echo(f"{name}: {imported}")
