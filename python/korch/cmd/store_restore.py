"""`korch store restore`: a data directory out of a backup."""

from __future__ import annotations

import click

from korch._core import native
from korch.cmd.layout import Layout
from korch.cmd.stored import data_dir_option


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@data_dir_option
@click.option("--datastore", default="", help="Refused: etcd is restored by its own tools, see below.")
def restore(file: str, data_dir: str | None, datastore: str) -> None:
    """Make the store of a data directory, which must have none yet, out of FILE.

    A backup of any cluster becomes a log on disk, also one of a cluster on etcd; it cannot be put into etcd, because objects carry the
    revisions at which the store wrote them, and etcd chooses its own. Save and restore etcd with `etcdctl snapshot save` and `restore`.

    Certificates and tokens are not part of a backup: keep the directory `pki` and the file `token` too, or clients have to join anew.
    """
    if datastore:
        raise click.ClickException(
            "a backup is restored into a log on disk, not into etcd: revisions in etcd are etcd's own. "
            "Save and restore etcd with `etcdctl snapshot save` and `etcdctl snapshot restore`."
        )
    layout = Layout.at(data_dir)
    layout.make()
    try:
        revision = native.Store.restore(file, str(layout.store))
    except (native.StoreError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{layout.store}: restored at revision {revision}")
