#!/usr/bin/env bash
# Every check that needs no running program: format, lint, types, import rules, stubs of the extension.
set -euo pipefail
cd "$(dirname "$0")/.."
"$VENV/bin/ruff" format --check .
"$VENV/bin/ruff" check .
"$VENV/bin/lint-imports"
"$VENV/bin/pyright" --pythonpath "$VENV/bin/python"
(cd python && "$VENV/bin/stubtest" korch._core._native --allowlist ../tests/stubtest-allowlist.txt)
cargo fmt --check
cargo clippy --release --all-targets --quiet -- -D warnings
