"""`korch status`: what runs, and whether it is ready. Exit code 0 when ready, 1 when not, 3 when nothing runs."""

from __future__ import annotations

import sys
from typing import Any

import click
import orjson

from korch.cmd.control import ask
from korch.cmd.layout import Layout


@click.command()
@click.option("--data-dir", help="The cluster's data directory. Default /var/lib/korch as root.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(data_dir: str | None, output: str) -> None:
    """Show what runs and whether it is ready."""
    layout = Layout.at(data_dir)
    try:
        state = ask(layout, {"do": "status"}, timeout_s=5)
    except TimeoutError:
        state = _stopped(layout) | {"state": "not ready", "problems": ["the supervisor does not answer"]}
    state = state or _stopped(layout)
    if output == "json":
        click.echo(orjson.dumps(state, option=orjson.OPT_INDENT_2))
    else:
        _print(state)
    sys.exit(0 if state["ready"] else 3 if state["state"] == "stopped" else 1)


def _stopped(layout: Layout) -> dict[str, Any]:
    return {
        "state": "stopped",
        "ready": False,
        "problems": [],
        "url": "",
        "kubeconfig": str(layout.kubeconfig) if layout.kubeconfig.exists() else "",
        "dataDir": str(layout.root),
        "server": {"pid": 0, "url": ""},
        "nodes": [],
        "components": [],
    }


def _print(state: dict[str, Any]) -> None:
    click.echo(f"{state['state']}" + (f" at {state['url']}" if state["url"] else ""))
    for problem in state["problems"]:
        click.echo(f"  ! {problem}")
    if state["kubeconfig"]:
        click.echo(f"kubeconfig: {state['kubeconfig']}")
    for title, rows in (("nodes", state["nodes"]), ("components", state["components"])):
        if rows:
            click.echo(f"{title}:")
        for row in rows:
            pid = f"  pid {row['pid']}" if row.get("pid") else ""
            click.echo(f"  {row['name']:<28} {row['state']}{pid}")
