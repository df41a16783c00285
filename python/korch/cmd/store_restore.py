"""`korch store restore`: a data directory out of a backup."""

from __future__ import annotations

import click

from korch._core import native
from korch.cmd.layout import Layout
from korch.cmd.stored import data_dir_option


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@data_dir_option
def restore(file: str, data_dir: str | None) -> None:
    """Make the store of a data directory, which must have none yet, out of FILE.

    Certificates and tokens are not part of a backup: keep the directory `pki` and the file `token` too, or clients have to join anew.
    """
    layout = Layout.at(data_dir)
    layout.make()
    try:
        revision = native.Store.restore(file, str(layout.store))
    except (native.StoreError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{layout.store}: restored at revision {revision}")
