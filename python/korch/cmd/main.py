"""The command `korch`: a group whose subcommands are imported only when they are called, so that the command line starts fast."""

from __future__ import annotations

import gc

import click

from korch.cmd.lazy import LazyGroup

# Objects that may be made before the collector looks for cycles. Decoded documents have hundreds of containers and no cycles, and by
# default every second write would start a collection. Set here, because importing makes many objects too.
gc.set_threshold(50_000, 20, 50)

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
    "explain": "korch.cmd.explain:explain",
    "snapshot": "korch.cmd.snapshot:snapshot",
    "simulate": "korch.cmd.simulate:simulate",
    "proxy": "korch.cmd.proxy:proxy",
    "store": "korch.cmd.store:store",
    "bench": "korch.cmd.bench:bench",
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
    "explain": "Say why a pod is on its node, or why it is on none.",
    "snapshot": "Write what scheduling depends on in a cluster to a file.",
    "simulate": "Run workloads on virtual time: fit, capacity, policies, drains.",
    "proxy": "Run the service proxy of one node.",
    "store": "Serve, back up, restore, check and read the store.",
    "bench": "Measure scheduling with the workloads of Kubernetes' scheduler_perf.",
}


@click.group(cls=LazyGroup, targets=_COMMANDS, summaries=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="korch-cluster", prog_name="korch")
def main() -> None:
    """Kubernetes, small, fast, embeddable and understandable."""
