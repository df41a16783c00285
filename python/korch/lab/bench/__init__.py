"""Scheduling benchmarks: workloads in the files of Kubernetes' scheduler_perf, run unchanged against the engine alone or a whole cluster.

`source` reads YAML and remembers lines, `template` is the part of Go's text/template that such files use, `operation` the op codes,
`configuration` the test cases and workloads, `plan` one workload with everything resolved and checked. `player` plays a plan on a stage:
`engine_stage` has the Rust engine and the queue, `cluster_stage` a whole control plane. `ledger` sees what becomes of pods,
`collector` measures, `result` holds and writes what was measured, `comparison` sets two results side by side.
"""
