"""The command line's words for the datastore, apart from what they need, so that a command which only hands them on starts fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

STORE_OPTIONS = (
    click.option(
        "--datastore", default="", help="A cluster of etcd to keep everything in: etcd://HOST:PORT,HOST:PORT. Default: a log on disk."
    ),
    click.option("--etcd-cafile", default="", help="PEM file: who signed the certificates of etcd's members."),
    click.option("--etcd-certfile", default="", help="PEM file: the certificate by which etcd knows this server."),
    click.option("--etcd-keyfile", default="", help="PEM file: its key."),
    click.option("--etcd-prefix", default="/registry", show_default=True, help="What the keys in etcd begin with."),
    click.option("--token", default="", help="The token of the cluster that this server joins as another server, used the first time."),
)
ELECTION_OPTIONS = (
    click.option(
        "--leader-elect/--no-leader-elect",
        default=None,
        help="Run controllers and scheduler only while holding their Lease. Default: with --datastore.",
    ),
    click.option("--leader-elect-lease-duration", default=15.0, show_default=True, help="Seconds of silence after which another may lead."),
    click.option(
        "--leader-elect-renew-deadline", default=10.0, show_default=True, help="Seconds without renewal after which a leader stops."
    ),
    click.option("--leader-elect-retry-period", default=2.0, show_default=True, help="Seconds between tries to lead or to renew."),
)


_NAMES = ("datastore", "etcd_cafile", "etcd_certfile", "etcd_keyfile", "etcd_prefix", "token")


def hand_on_datastore(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which store to a click command, whose function takes those that were given as `datastore_arguments`,
    a tuple for another command line. Raises click.UsageError for a datastore that cannot be."""

    def gather(**given: Any) -> Any:
        values = {name: given.pop(name) for name in _NAMES}
        if not values["datastore"]:
            return command(datastore_arguments=(), **given)
        from korch.storage.etcd import parse_datastore

        files = {"ca_file": values["etcd_cafile"], "cert_file": values["etcd_certfile"], "key_file": values["etcd_keyfile"]}
        try:
            parse_datastore(values["datastore"], prefix=values["etcd_prefix"], **files)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        return command(datastore_arguments=tuple(f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value), **given)

    gather.__doc__, gather.__name__ = command.__doc__, command.__name__
    inherited = getattr(command, "__click_params__", [])
    for option in reversed(STORE_OPTIONS):
        gather = option(gather)
    gather.__click_params__ = [*inherited, *gather.__click_params__]  # type: ignore[attr-defined]
    return gather
