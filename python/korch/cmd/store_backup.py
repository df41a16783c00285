"""`korch store backup`: everything stored, as of one revision, in one file."""

from __future__ import annotations

from pathlib import Path

import click

from korch.cmd.layout import Layout
from korch.cmd.stored import data_dir_option, opened, write_backup


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@data_dir_option
def backup(file: str, data_dir: str | None) -> None:
    """Write everything stored to FILE, Secrets included, while the server runs or when it does not.

    The file is readable by its owner only, appears whole or not at all, and is read back before this says that it is there.
    """
    target = Path(file).absolute()
    write_backup(Layout.at(data_dir), target)
    with opened(target) as store:
        objects, revision = len(store.range(b"").keys), store.revision()
    click.echo(f"{target}: {objects} objects at revision {revision}, {target.stat().st_size} bytes")
