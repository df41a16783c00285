#!/usr/bin/env bash
# Make the virtual environment and put both distributions into it, editable: schema, gRPC stubs, extension.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if [ ! -x "$VENV/bin/python" ]; then
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "korch needs Python 3.11 or newer" >&2; exit 1; }
  "$python" -m venv "$VENV"
fi
stamp=$VENV/.requirements
wanted=$(cat pyproject.toml agent/pyproject.toml | sha256sum)
if [ "$(cat "$stamp" 2> /dev/null)" != "$wanted" ]; then
  "$VENV/bin/python" -m pip install -q --disable-pip-version-check --upgrade "pip>=25.1" uv
  "$VENV/bin/uv" pip install -q --python "$VENV/bin/python" --group schema --group lint --group test --group agent -r pyproject.toml \
    "maturin>=1.16,<2"
fi
"$VENV/bin/python" agent/build_stubs.py
rust=$(cat Cargo.toml Cargo.lock $(git ls-files -co --exclude-standard rust) pyproject.toml | sha256sum)
if [ "$(cat "$VENV/.extension" 2> /dev/null)" != "$rust" ] || [ ! -e python/korch/_core/_native.abi3.so ]; then
  "$VENV/bin/maturin" develop --quiet --profile release --uv
  echo "$rust" > "$VENV/.extension"
fi
if [ ! -s python/korch/resources/schema.json.gz ]; then
  PYTHONPATH=python "$VENV/bin/python" -m korch.resources.build_schema
fi
if [ "$(cat "$stamp" 2> /dev/null)" != "$wanted" ]; then
  "$VENV/bin/uv" pip install -q --python "$VENV/bin/python" --no-deps --no-build-isolation -e agent
  echo "$wanted" > "$stamp"
fi
