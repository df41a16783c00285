"""`korch down`: end the cluster and take back what it changed on this machine, even after its supervisor was killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

import click

from korch.cmd.control import ask
from korch.cmd.layout import Layout
from korch.cmd.process import end_processes
from korch.cmd.process_record import recorded_processes, start_time
from korch.cmd.underlay import Underlay

_STOP_TIMEOUT_S = 90


@click.command()
@click.option("--data-dir", help="The cluster's data directory. Default /var/lib/korch as root.")
@click.option("--purge", is_flag=True, help="Remove the data directory too.")
def down(data_dir: str | None, purge: bool) -> None:
    """Stop the cluster and take back everything it changed on this machine."""
    layout = Layout.at(data_dir)
    if not layout.root.exists():
        click.echo(f"Nothing to stop: there is no {layout.root}")
        return
    stopped = asyncio.run(_stop_supervisor(layout))
    left = _clean_up(layout)
    if purge:
        shutil.rmtree(layout.root)
    click.echo("Stopped." if stopped or left else "Nothing was running.")


async def _stop_supervisor(layout: Layout) -> bool:
    state = ask(layout, {"do": "status"})
    if state is None:
        return False
    pid = state["supervisor"]["pid"]
    began = start_time(pid)
    ask(layout, {"do": "stop"})
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while start_time(pid) == began and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    if start_time(pid) == began:
        await end_processes([pid], grace_s=2)
    return True


def _clean_up(layout: Layout) -> bool:
    """End what a killed supervisor left: children, containers, mounts, the underlay. Return whether there was anything."""
    left = recorded_processes(layout.processes)
    agents = [pid for name, pid in left.items() if name.startswith("agent-")]
    asyncio.run(end_processes(agents, grace_s=10))
    if os.geteuid() == 0:
        nodes = sorted((layout.root / "nodes").glob("*")) if (layout.root / "nodes").exists() else []
        if nodes:
            from korch_agent.containerd import teardown

            for directory in nodes:
                teardown(directory, _namespace_of(layout, directory.name))
        Underlay(layout.cluster_id, layout.machine_changes).remove()
    asyncio.run(end_processes([pid for pid in left.values() if pid not in agents], grace_s=10))
    for file in (layout.processes, layout.control_socket, layout.api_socket):
        file.unlink(missing_ok=True)
    return bool(left)


def _namespace_of(layout: Layout, node: str) -> str:
    path = Path(f"/run/netns/korch-{layout.cluster_id}-{node}")
    return str(path) if path.exists() else ""
