"""A small network of namespaces: a client and a server behind a node that runs the service proxy, and what talks across it.

    client 10.1.0.2 --- 10.1.0.1 node 10.2.0.1 --- 10.2.0.2 .. 10.2.0.9 server

Everything is made under names of its own and taken away again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CLIENT, SERVER = "10.1.0.2", "10.2.0.2"
NODE = "10.1.0.1"
SERVER_ADDRESSES = [f"10.2.0.{last}" for last in range(2, 10)]


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


class Network:
    """The three namespaces. Close it."""

    def __init__(self) -> None:
        self._stem = f"korch-t-{os.getpid()}"
        self._children: list[subprocess.Popen[str]] = []
        self.node, self.client, self.server = (f"{self._stem}-{one}" for one in ("n", "c", "s"))
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        for name in (self.node, self.client, self.server):
            run("ip", "netns", "add", name)
            self.inside(name, "ip", "link", "set", "lo", "up")
        for name, addresses in ((self.client, [CLIENT]), (self.server, SERVER_ADDRESSES)):
            side = "c" if name == self.client else "s"
            run("ip", "-n", self.node, "link", "add", side, "type", "veth", "peer", "name", "eth0", "netns", name)
            gateway = addresses[0].rsplit(".", 1)[0] + ".1"
            run("ip", "-n", self.node, "address", "add", f"{gateway}/24", "dev", side)
            run("ip", "-n", self.node, "link", "set", side, "up")
            for address in addresses:
                run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "route", "add", "default", "via", gateway)
        # Cluster addresses need some route on the node for its own connections; a real node has its default route.
        run("ip", "-n", self.node, "route", "add", "default", "via", CLIENT)
        redirects = [f"net.ipv4.conf.{one}.send_redirects=0" for one in ("all", "c", "s")]
        self.inside(self.node, "sysctl", "-qw", "net.ipv4.ip_forward=1", *redirects)

    def inside(self, name: str, *command: str, check: bool = True) -> str:
        """Run a command in a namespace and return its output."""
        return run("nsenter", f"--net=/run/netns/{name}", *command, check=check)

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """Start `talk.py` with these arguments in a namespace; it speaks lines of JSON."""
        command = ["nsenter", f"--net=/run/netns/{name}", sys.executable, str(HERE / "talk.py"), *arguments]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        return child

    def serve(self, protocol: str, port: int, *addresses: str) -> None:
        """Answer at each address of the server with that address and the client's, as `address client`."""
        self.start(self.server, "serve", protocol, str(port), *addresses)

    def ask(self, name: str, protocol: str, address: str, port: int, *, times: int = 1, source_port: int = 0) -> list[str]:
        """Connect `times` times from a namespace and return the answers; a failure is the name of its error."""
        arguments = ("ask", protocol, address, str(port), str(times), str(source_port))
        return json.loads(self.inside(name, sys.executable, str(HERE / "talk.py"), *arguments))

    def close(self) -> None:
        for child in self._children:
            child.kill()
            child.wait()
        for name in (self.node, self.client, self.server):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class NodeProxy:
    """A `Proxy` of the extension in a process of its own on the node."""

    def __init__(self, network: Network) -> None:
        self._child = network.start(network.node, "proxy")

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the proxy and return its answer."""
        assert self._child.stdin is not None and self._child.stdout is not None
        print(json.dumps([method, *arguments]), file=self._child.stdin, flush=True)
        answer = json.loads(self._child.stdout.readline())
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer["result"]

    def die(self) -> None:
        """Kill the process without a word."""
        self._child.kill()
        self._child.wait()
