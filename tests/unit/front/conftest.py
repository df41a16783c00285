"""Fixtures of the front door's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from door import Certificate, Door, issue

from korch._core import native


@pytest.fixture(scope="session")
def authority() -> Certificate:
    return issue("korch-ca")


@pytest.fixture(params=[False, True], ids=["socket", "memory"])
def door(request: pytest.FixtureRequest, tmp_path: Path, authority: Certificate) -> Iterator[Door]:
    server = issue("kube-apiserver", authority)
    front = native.Front(
        bind=["127.0.0.1:0"],
        upstream=str(tmp_path / "app.sock"),
        idle_timeout_ms=2_000,
        **server.written(tmp_path, authority),
    )
    (address,) = front.start()
    yield Door(front, address, authority, issue("alice", authority), tmp_path, request.param)
    front.stop()
