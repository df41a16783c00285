"""The command `korch`: a group whose subcommands are imported only when they are called, so that the command line starts fast."""

from __future__ import annotations

import importlib

import click

# Subcommand -> module and attribute of its click command, in the order in which help shows them.
_COMMANDS = {
    "up": "korch.cmd.up:up",
    "down": "korch.cmd.down:down",
    "status": "korch.cmd.status:status",
    "node": "korch.cmd.node:node",
    "image": "korch.cmd.image:image",
    "server": "korch.cmd.server:server",
    "controller-manager": "korch.cmd.controller_manager:controller_manager",
    "scheduler": "korch.cmd.scheduler:scheduler",
    "proxy": "korch.cmd.proxy:proxy",
}
_HELP = {
    "up": "Start a cluster on this machine and wait until it is ready.",
    "down": "Stop the cluster and take back everything it changed on this machine.",
    "status": "Show what runs and whether it is ready.",
    "node": "Stop and start single nodes of a cluster on this machine.",
    "image": "Import container images into the nodes of this machine.",
    "server": "Run the API server, with controllers and scheduler unless told otherwise.",
    "controller-manager": "Run the controllers against a server.",
    "scheduler": "Run the scheduler against a server.",
    "proxy": "Run the service proxy of one node.",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _HELP[name]) for name in _COMMANDS])


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="korch-cluster", prog_name="korch")
def main() -> None:
    """Kubernetes, small, fast, embeddable and understandable."""
