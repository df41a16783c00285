#!/usr/bin/env bash
# Build both wheels into wheels/: the control plane (abi3, with the extension and the schemas) and the agent (pure Python).
set -euo pipefail
cd "$(dirname "$0")/.."
[ -s python/korch/resources/schema.json.gz ] || PYTHONPATH=python "$VENV/bin/python" -m korch.resources.build_schema
"$VENV/bin/maturin" build --quiet --profile dist --out wheels
"$VENV/bin/python" -m pip wheel -q --no-deps --wheel-dir wheels ./agent
