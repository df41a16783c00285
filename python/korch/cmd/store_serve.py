"""`korch store serve`: the store alone, spoken to as etcd. etcdctl, client libraries of etcd and a kube-apiserver connect to it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from urllib.parse import urlsplit

import click

from korch._core import native
from korch.runtime.log import configure, get_logger

_CHECK_EVERY_S = 5.0
_STOP_GRACE_S = 2.0

log = get_logger("store")


@click.command()
@click.option("--data-dir", required=True, type=click.Path(file_okay=False, path_type=Path), help="The store's directory, made if missing.")
@click.option(
    "--listen-client", "listen", multiple=True, default=("127.0.0.1:2379",), show_default=True, help="HOST:PORT; may be given again."
)
@click.option("--advertise-client", "advertise", multiple=True, help="URL under which clients reach it. Default: where it listens.")
@click.option("--listen-metrics", default="", help="HOST:PORT for /metrics and /health, in the clear.")
@click.option("--name", default="default", show_default=True, help="The member's name.")
@click.option(
    "--cert-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM certificate: speak TLS. Read anew when it changes.",
)
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="PEM key of the certificate.")
@click.option(
    "--trusted-ca-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM authorities: clients must show a certificate of one of them.",
)
@click.option("--watch-progress-notify-interval", default=600.0, show_default=True, help="Seconds between progress notes of quiet watches.")
@click.option("--threads", default=0, help="Threads that serve clients. Default: half as many as there are processors.")
@click.option("--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"]))
def serve(
    data_dir: Path,
    listen: tuple[str, ...],
    advertise: tuple[str, ...],
    listen_metrics: str,
    name: str,
    cert_file: Path | None,
    key_file: Path | None,
    trusted_ca_file: Path | None,
    watch_progress_notify_interval: float,
    threads: int,
    log_level: str,
) -> None:
    """Serve a directory as etcd does, until SIGTERM or SIGINT."""
    configure(level=log_level)
    if (cert_file is None) != (key_file is None):
        raise click.UsageError("--cert-file and --key-file go together")
    if trusted_ca_file is not None and cert_file is None:
        raise click.UsageError("--trusted-ca-file needs --cert-file and --key-file")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopping.set())
    store = native.Store(str(data_dir))
    front = native.EtcdFront(
        store,
        bind=[_address(one) for one in listen],
        metrics_bind=_address(listen_metrics) if listen_metrics else "",
        name=name,
        client_urls=list(advertise),
        certificate_file=cert_file,
        key_file=key_file,
        client_ca_file=trusted_ca_file,
        threads=threads or max(1, (os.cpu_count() or 1) // 2),
        progress_every_ms=int(watch_progress_notify_interval * 1000),
    )
    try:
        log.info("etcd API served", addresses=front.start(), revision=store.revision())
        failures = 0
        while not stopping.wait(_CHECK_EVERY_S):
            if (found := store.stats()["snapshot_failures"]) > failures:
                log.error("no snapshot could be written, the log keeps growing", failures=found)
                failures = found
        log.info("stopping")
    finally:
        front.stop(int(_STOP_GRACE_S * 1000))
        store.close()


def _address(given: str) -> str:
    """Return HOST:PORT of an address, or of a URL as etcd's flags take them."""
    return urlsplit(given).netloc if "://" in given else given
