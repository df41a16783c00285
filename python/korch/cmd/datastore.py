"""Which store a server uses, and what several servers on one store need: the same options, the same keys, one leader."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import click

from korch._core import native
from korch.client.lease import LeaderElector, Timing
from korch.client.protocol import Client
from korch.cmd.datastore_options import ELECTION_OPTIONS, STORE_OPTIONS
from korch.cmd.layout import Layout
from korch.runtime.context import Runtime
from korch.storage import EtcdOptions, EtcdStorage, Storage, parse_datastore


@dataclass(frozen=True, slots=True, kw_only=True)
class DatastoreOptions:
    """What the command line says. `etcd` is None for a store of this server's own; `token` "" when none is given."""

    etcd: EtcdOptions | None = None
    token: str = ""
    is_elected: bool = False
    timing: Timing = field(default_factory=Timing)


def datastore_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --datastore, --etcd-*, --token and --leader-elect-* to a click command, whose function takes them as `datastore`."""

    def gather(
        *,
        datastore: str,
        etcd_cafile: str,
        etcd_certfile: str,
        etcd_keyfile: str,
        etcd_prefix: str,
        token: str,
        leader_elect: bool | None,
        leader_elect_lease_duration: float,
        leader_elect_renew_deadline: float,
        leader_elect_retry_period: float,
        **others: Any,
    ) -> Any:
        files = {"ca_file": etcd_cafile, "cert_file": etcd_certfile, "key_file": etcd_keyfile}
        try:
            etcd = parse_datastore(datastore, prefix=etcd_prefix, **files) if datastore else None
            timing = Timing(
                lease_duration_s=leader_elect_lease_duration,
                renew_deadline_s=leader_elect_renew_deadline,
                retry_period_s=leader_elect_retry_period,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        is_elected = leader_elect if leader_elect is not None else etcd is not None
        return command(datastore=DatastoreOptions(etcd=etcd, token=token, is_elected=is_elected, timing=timing), **others)

    gather.__doc__ = command.__doc__
    gather.__name__ = command.__name__
    for option in reversed((*STORE_OPTIONS, *ELECTION_OPTIONS)):
        gather = option(gather)
    gather.__click_params__ = getattr(command, "__click_params__", []) + gather.__click_params__  # type: ignore[attr-defined]
    return gather


def open_storage(layout: Layout, options: DatastoreOptions, runtime: Runtime) -> Storage:
    """Open the store that the options name. Blocks. Raises click.ClickException."""
    if options.etcd is None:
        return Storage.open(str(layout.store), runtime)
    try:
        return EtcdStorage.connect(options.etcd, runtime)
    except (native.DatastoreError, OSError, ValueError) as error:
        where = ",".join(options.etcd.endpoints)
        raise click.ClickException(f"the etcd cluster at {where} cannot be used: {error.args[0] if error.args else error}") from error


class Leadership:
    """Runs work while this process leads, or always when nobody is elected."""

    def __init__(self, options: DatastoreOptions, runtime: Runtime) -> None:
        self._options = options
        self._runtime = runtime
        self.identity = f"{socket.gethostname()}_{os.getpid()}_{runtime.rng.uid()}"
        self._electors: dict[str, LeaderElector] = {}

    async def run(self, client: Client, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work()`, each time this process has won the Lease kube-system/`name`; returns only when cancelled."""
        if not self._options.is_elected:
            await work()
            return
        elector = LeaderElector(client, name, self.identity, self._runtime, timing=self._options.timing)
        self._electors[name] = elector
        await elector.run(work)

    def is_standing_by(self, name: str) -> bool:
        """Whether another process may lead `name`."""
        elector = self._electors.get(name)
        return elector is not None and not elector.is_leader
