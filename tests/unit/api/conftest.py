"""The schema file is a build product: tests build it when the tree has none."""

import pytest

from korch._core import native
from korch.resources import openapi


@pytest.fixture(scope="session")
def schema() -> native.Schema:
    if not openapi.SCHEMA_PATH.exists():
        from korch.resources import build_schema

        build_schema.build()
    return openapi.native_schema()
