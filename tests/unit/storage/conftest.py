"""A store in memory and one on disk; every test of this room that takes `storage` runs against both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from korch.runtime.context import Runtime
from korch.storage import Storage


@pytest.fixture(params=["memory", "disk"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    opened = Storage.open(str(tmp_path / "store") if request.param == "disk" else None, Runtime())
    yield opened
    await opened.close()
