#!/usr/bin/env bash
# All tests: Rust units, then Python units, models, simulations, contracts, golden files, then real processes.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --release --lib --quiet
"$VENV/bin/python" scripts/clients.py
"$VENV/bin/python" -m pytest tests -m "not e2e" -n 2 --dist loadgroup
"$VENV/bin/python" -m pytest tests -m e2e
