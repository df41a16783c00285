"""`korch store`: what an operator does with the database itself. Each subcommand is a file of its own, `store_NAME.py`."""

from __future__ import annotations

import click

from korch.cmd.lazy import LazyGroup

# Subcommand -> module and attribute of its click command, in the order in which help shows them.
_COMMANDS = {
    "serve": "korch.cmd.store_serve:serve",
    "backup": "korch.cmd.store_backup:backup",
    "restore": "korch.cmd.store_restore:restore",
    "verify": "korch.cmd.store_verify:verify",
    "stats": "korch.cmd.store_stats:stats",
    "export": "korch.cmd.store_export:export",
}
_HELP = {
    "serve": "Serve the store alone, spoken to as etcd.",
    "backup": "Write everything stored to one file, while the server runs or when it does not.",
    "restore": "Make a data directory out of a backup.",
    "verify": "Read every checksum of a data directory or a backup.",
    "stats": "Show how large the store is and what it holds.",
    "export": "Print every stored object as one line of JSON.",
}


@click.group(cls=LazyGroup, targets=_COMMANDS, summaries=_HELP)
def store() -> None:
    """Serve, back up, restore, check and read the store."""
