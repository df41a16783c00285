"""`korch store export`: every stored object as JSON, for people and for other programs."""

from __future__ import annotations

import click

from korch.cmd.layout import Layout
from korch.cmd.stored import data_dir_option, readable

_SECRETS = b"/registry/core/secrets/"
# Not objects of the API: allocations, and the keys by which several servers are one cluster.
_INTERNAL = (b"/registry/ranges/", b"/registry/korch.io/bootstrap")
_PAGE = 1_000


@click.command()
@click.argument("path", required=False, type=click.Path(exists=True))
@data_dir_option
@click.option("--json", "as_json", is_flag=True, required=True, help="One object a line, as it is stored, in the order of keys.")
@click.option(
    "--include-secrets", is_flag=True, help="Print Secrets too; without this they are left out, and a line on standard error says so."
)
def export(path: str | None, data_dir: str | None, as_json: bool, include_secrets: bool) -> None:
    """Print every object of PATH (a backup, or the directory of a store), or of the cluster's store, running or not, as of one revision."""
    del as_json
    left_out = 0
    with readable(Layout.at(data_dir), path or "") as store:
        start: bytes | None = b""
        while start is not None:
            page = store.range(b"/registry/", start=start, limit=_PAGE)
            for key, value in zip(page.keys, page.values, strict=True):
                if key.startswith(_INTERNAL):
                    continue
                if key.startswith(_SECRETS) and not include_secrets:
                    left_out += 1
                    continue
                click.echo(value)
            start = page.next
    if left_out:
        click.echo(f"{left_out} Secrets were left out; --include-secrets prints them.", err=True)
