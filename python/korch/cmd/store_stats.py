"""`korch store stats`: how large the store is and what it holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click
import orjson

from korch._core import native
from korch.cmd.layout import Layout
from korch.cmd.stored import STATS_PATH, ask_server, data_dir_option, opened


def figures(store: native.Store) -> dict[str, Any]:
    """Return the store's own figures, and objects and bytes by resource."""
    objects: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    page = store.range(b"/registry/")
    for key, value in zip(page.keys, page.values, strict=True):
        group, _, rest = key.decode(errors="replace").removeprefix("/registry/").partition("/")
        resource = f"{group}/{rest.partition('/')[0]}"
        objects[resource] += 1
        sizes[resource] += len(value)
    resources = {name: {"objects": count, "bytes": sizes[name]} for name, count in sorted(objects.items())}
    return {**store.stats(), "resources": resources}


@click.command()
@click.argument("path", required=False, type=click.Path(exists=True))
@data_dir_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def stats(path: str | None, data_dir: str | None, output: str) -> None:
    """Show how large a store is and what it holds: PATH (a backup, or the directory of a store), or the cluster's, running or not."""
    layout = Layout.at(data_dir)
    try:
        if path is None and not layout.store.is_dir():
            raise native.StoreLocked
        with opened(Path(path) if path else layout.store) as store:
            found = figures(store)
    except native.StoreLocked:
        if path is not None:
            raise click.ClickException(f"{path} is in use: name its data directory with --data-dir instead") from None
        found = orjson.loads(ask_server(layout, STATS_PATH))
    if output == "json":
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    resources = found.pop("resources")
    for name, figure in found.items():
        click.echo(f"{name:24} {figure:>14,}")
    click.echo(f"\n{'RESOURCE':44} {'OBJECTS':>9} {'BYTES':>13}")
    for name, one in sorted(resources.items(), key=lambda item: -item[1]["bytes"]):
        click.echo(f"{name:44} {one['objects']:>9,} {one['bytes']:>13,}")
