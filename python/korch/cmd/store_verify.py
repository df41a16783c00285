"""`korch store verify`: whether every byte is as it was written."""

from __future__ import annotations

from pathlib import Path

import click

from korch._core import native
from korch.cmd.layout import Layout
from korch.cmd.stored import data_dir_option, opened


@click.command()
@click.argument("path", required=False, type=click.Path(exists=True))
@data_dir_option
def verify(path: str | None, data_dir: str | None) -> None:
    """Read every checksum of PATH: a backup, or the directory of a store. Without PATH: the store of the data directory.

    Ends with 1 and names the file and the offset when something is damaged. Nothing is changed. A store that a server is using
    cannot be verified; its backup can.
    """
    target = Path(path) if path else Layout.at(data_dir).store
    try:
        with opened(target) as store:
            stats, objects = store.stats(), len(store.range(b"").keys)
    except native.StoreLocked as error:
        raise click.ClickException(f"{error}: make a backup with `korch store backup`, and verify that") from error
    click.echo(f"{target}: sound, {objects} keys, revisions {stats['compacted_revision']} to {stats['revision']}")
    if torn := stats["torn_bytes"]:
        click.echo(f"The log ends in {torn} bytes of a write that was never answered; the next start cuts them.")
