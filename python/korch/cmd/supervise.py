"""The supervisor's process: `python -m korch.cmd.supervise DATA_DIR NODES SIM_NODES BIND KUBECONFIG [SERVER_OPTION...]`."""

from __future__ import annotations

import asyncio
import signal
import sys

from korch.cmd.layout import Layout
from korch.cmd.supervisor import ClusterOptions, Supervisor
from korch.runtime.context import Runtime
from korch.runtime.log import configure


async def supervise(layout: Layout, options: ClusterOptions) -> None:
    """Run a cluster until SIGTERM or SIGINT, or until `korch down` asks for the end."""
    supervisor = Supervisor(layout, options, Runtime())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    await supervisor.run()


def main(arguments: list[str]) -> None:
    """Parse the positional arguments that `korch up` passes and run."""
    data_dir, nodes, sim_nodes, bind, kubeconfig, *server_arguments = arguments
    configure()
    options = ClusterOptions(
        nodes=int(nodes), sim_nodes=int(sim_nodes), bind=bind, extra_kubeconfig=kubeconfig, server_arguments=tuple(server_arguments)
    )
    asyncio.run(supervise(Layout.at(data_dir), options))


if __name__ == "__main__":
    main(sys.argv[1:])
