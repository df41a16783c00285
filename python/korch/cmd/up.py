"""`korch up`: a cluster on this machine, returning (or saying so) only when it is truly ready."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from korch.cmd.control import ask
from korch.cmd.datastore_options import hand_on_datastore
from korch.cmd.feature_options import hand_on_features
from korch.cmd.layout import Layout
from korch.cmd.process_record import recorded_processes

_READY_TIMEOUT_S = 180
# The supervisor answers as soon as all is ready, at the latest after this long; in between we see whether it still lives.
_WAIT_S = 2.0
_SOCKET_POLL_S = 0.01
_NODE_TOOLS = ("containerd", "runc", "ip", "nft", "nsenter")


@click.command()
@click.option(
    "--nodes",
    type=click.IntRange(0, 50),
    default=None,
    help="Real nodes, each with a containerd of its own (needs root). Default 1 as root.",
)
@click.option("--sim-nodes", type=click.IntRange(0, 100_000), default=None, help="Simulated nodes. Default 3 without root.")
@click.option("--data-dir", help="Where everything is kept. Default /var/lib/korch as root.")
@click.option("--bind", default="127.0.0.1:6443", show_default=True, help="HOST:PORT of the API server.")
@click.option("--etcd-listen", default="", help="HOST:PORT for the etcd API of the store, over TLS; see pki/etcd in the data directory.")
@click.option("--kubeconfig", help="Write the admin kubeconfig here too.")
@click.option("--detach", is_flag=True, help="Return when the cluster is ready and let it run on.")
@click.option(
    "--server-option",
    "server_options",
    multiple=True,
    help="An option handed on to `korch server`, such as --node-monitor-grace-period=10.",
)
@hand_on_datastore
@hand_on_features
def up(
    nodes: int | None,
    sim_nodes: int | None,
    data_dir: str | None,
    bind: str,
    etcd_listen: str,
    kubeconfig: str | None,
    detach: bool,
    server_options: tuple[str, ...],
    datastore_arguments: tuple[str, ...],
    feature_arguments: tuple[str, ...],
) -> None:
    """Start a cluster on this machine and wait until it is ready."""
    is_root = os.geteuid() == 0
    if nodes is None and sim_nodes is None:
        nodes, sim_nodes = (1, 0) if is_root else (0, 3)
        if not is_root:
            click.echo("Not root: containers need it, so the nodes are simulated.", err=True)
    nodes, sim_nodes = nodes or 0, sim_nodes or 0
    if nodes and not is_root:
        raise click.UsageError("--nodes needs root: real nodes run containers. Use --sim-nodes, or run as root.")
    _check_bind(bind)
    if nodes:
        _check_tools()
    layout = Layout.at(data_dir)
    layout.make()
    running = recorded_processes(layout.processes)
    if running:
        raise click.ClickException(
            f"a cluster already runs in {layout.root} ({', '.join(sorted(running))}); see `korch status`, end it with `korch down`"
        )
    if etcd_listen:
        server_options = (*server_options, f"--etcd-listen={etcd_listen}")
    arguments = [
        str(nodes),
        str(sim_nodes),
        bind,
        (kubeconfig and str(Path(kubeconfig).resolve())) or "",
        *datastore_arguments,
        *feature_arguments,
        *server_options,
    ]
    log_file = layout.logs / "supervisor.log"
    with log_file.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "korch.cmd.supervise", str(layout.root), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    if not detach:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: process.send_signal(signal.SIGTERM))
    _wait_ready(layout, process, log_file)
    if kubeconfig:
        target = Path(kubeconfig).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(layout.kubeconfig.read_bytes())
        target.chmod(0o600)
    click.echo(f"Ready at https://{bind}")
    click.echo(f"  export KUBECONFIG={kubeconfig or layout.kubeconfig}")
    click.echo("  kubectl get pods -A")
    if not detach:
        sys.exit(process.wait())


def _check_bind(bind: str) -> None:
    host, _, port = bind.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{bind!r} is not HOST:PORT", param_hint="--bind")


def _check_tools() -> None:
    """Refuse before anything is started when something that real nodes need is missing."""
    if importlib.util.find_spec("korch_agent") is None:
        raise click.ClickException("real nodes need the package korch-agent: install it, or use --sim-nodes")
    missing = [tool for tool in _NODE_TOOLS if shutil.which(tool) is None]
    if missing:
        raise click.ClickException(f"real nodes need {', '.join(missing)}: install them, or use --sim-nodes")


def _wait_ready(layout: Layout, process: subprocess.Popen[bytes], log_file: Path) -> None:
    deadline, problems = time.monotonic() + _READY_TIMEOUT_S, []
    while time.monotonic() < deadline:
        if process.poll() is not None:
            tail = "\n".join(log_file.read_text(errors="replace").splitlines()[-15:])
            raise click.ClickException(f"the supervisor ended with code {process.returncode}:\n{tail}")
        state = ask(layout, {"do": "wait", "seconds": _WAIT_S})
        if state is None:
            # It does not listen yet.
            time.sleep(_SOCKET_POLL_S)
        elif state["ready"]:
            return
        else:
            problems = state["problems"]
    process.send_signal(signal.SIGTERM)
    process.wait()
    raise click.ClickException(f"not ready after {_READY_TIMEOUT_S} s, stopped again. Open problems:\n  " + "\n  ".join(problems))
