#!/usr/bin/env bash
# Run every benchmark; each writes its result with machine facts to benches/results.
set -euo pipefail
cd "$(dirname "$0")/../benches/python"
for bench in bench_up bench_api bench_etcd_front bench_datastore bench_simulate bench_sim_nodes; do "$VENV/bin/python" "$bench.py"; done
if [ "$(id -u)" = 0 ]; then "$VENV/bin/python" bench_pod_start.py; fi
if ls bench_store.py > /dev/null 2>&1; then "$VENV/bin/python" -m pytest -q bench_store.py --benchmark-only --benchmark-json=../results/store.json; fi
if [ -n "${KORCH_SCHEDULER_PERF:-}" ]; then "$VENV/bin/python" bench_scheduler_perf.py; fi
