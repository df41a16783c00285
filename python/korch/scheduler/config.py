"""Reading a KubeSchedulerConfiguration: YAML or JSON in, the JSON that the engine checks and follows out."""

from __future__ import annotations

from pathlib import Path

import orjson
import yaml

from korch._core import native


def read_config(path: str | Path) -> bytes:
    """Return the file's KubeSchedulerConfiguration as JSON. Raises ValueError that names the file and what is wrong in it, OSError."""
    try:
        read = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}") from error
    config = orjson.dumps(read)
    try:
        native.Scheduler(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return config
