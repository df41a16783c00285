"""What runs inside the namespaces of `netns.py`: an answering server, a client, and the proxy. Speaks lines of JSON."""

from __future__ import annotations

import json
import selectors
import socket
import sys
from typing import Any

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def serve(protocol: str, port: int, addresses: list[str]) -> None:
    selector = selectors.DefaultSelector()
    for address in addresses:
        server = socket.socket(socket.AF_INET, KINDS[protocol])
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        if protocol == "tcp":
            server.listen(64)
        selector.register(server, selectors.EVENT_READ, address)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            server: Any = key.fileobj
            if protocol == "tcp":
                connection, client = server.accept()
                connection.sendall(f"{key.data} {client[0]}".encode())
                connection.close()
            else:
                _, client = server.recvfrom(100)
                server.sendto(f"{key.data} {client[0]}".encode(), client)


def ask(protocol: str, address: str, port: int, times: int, source_port: int) -> list[str]:
    answers: list[str] = []
    for _ in range(times):
        with socket.socket(socket.AF_INET, KINDS[protocol]) as client:
            client.settimeout(3)
            if source_port:
                client.bind(("", source_port))
            try:
                client.connect((address, port))
                if protocol == "udp":
                    client.send(b"?")
                answers.append(client.recv(100).decode())
            except OSError as error:
                answers.append(type(error).__name__)
    return answers


def proxy() -> None:
    from korch._core import native

    engine = native.Proxy("here")
    print("ready", flush=True)
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        if method == "update":
            arguments = [[json.dumps(one).encode() for one in objects] for objects in arguments]
        try:
            print(json.dumps({"result": getattr(engine, method)(*arguments)}), flush=True)
        except (OSError, ValueError) as error:
            print(json.dumps({"error": str(error)}), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", protocol, port, *addresses]:
            serve(protocol, int(port), addresses)
        case ["ask", protocol, address, port, times, source_port]:
            print(json.dumps(ask(protocol, address, int(port), int(times), int(source_port))))
        case _:
            proxy()
