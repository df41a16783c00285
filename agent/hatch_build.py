"""Hatchling's hook: the wheel ships the generated gRPC stubs, which no checkout holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubsHook(BuildHookInterface):
    """Compiles the proto files before the files of the package are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        try:
            import build_stubs
        finally:
            sys.path.remove(self.root)
        build_stubs.build(Path(self.root))
