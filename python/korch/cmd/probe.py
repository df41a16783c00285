"""Looking at the cluster from outside: GET requests over TLS with the admin's certificate, as any client would send them.

Built on the standard library's blocking client, used from a thread, so that the supervisor stays small.
"""

from __future__ import annotations

import http.client
import ssl
from typing import Any

import orjson

from korch.api.errors import ApiError
from korch.cmd.layout import Layout


class Probe:
    """One kept connection to the API server at `bind` (HOST:PORT). Not for several threads at once."""

    def __init__(self, layout: Layout, bind: str, *, timeout_s: float) -> None:
        host, _, port = bind.rpartition(":")
        context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
        context.load_cert_chain(layout.pki / "admin.crt", layout.pki / "admin.key")
        self._connection = http.client.HTTPSConnection(_dialled(host), int(port), timeout=timeout_s, context=context)

    def get(self, path: str) -> bytes:
        """Return the body of a GET. Raises ApiError for a refusal, ConnectionError or TimeoutError when there is no answer. Blocks."""
        connection = self._connection
        try:
            connection.request("GET", path, headers={"Accept": "application/json"})
            response = connection.getresponse()
            body = response.read()
        except http.client.HTTPException as error:
            connection.close()
            raise ConnectionError(str(error) or type(error).__name__) from error
        except OSError:
            connection.close()
            raise
        if response.status >= 400:
            raise _refusal(response.status, body)
        return body

    def json(self, path: str) -> Any:
        """Return the document of a GET. Raises as `get` does. Blocks."""
        return orjson.loads(self.get(path))

    def close(self) -> None:
        self._connection.close()


def _dialled(host: str) -> str:
    """Return the address at which a server that listens on `host` answers this machine."""
    return {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))


def _refusal(status: int, body: bytes) -> ApiError:
    try:
        return ApiError.from_status(orjson.loads(body))
    except (orjson.JSONDecodeError, KeyError, AttributeError):
        return ApiError(status, "", body[:2000].decode(errors="replace").strip())
