"""Runs workloads one after the other, each on a stage of its own, and says how each went."""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager
from typing import Literal

from korch.lab.bench.cluster_stage import ClusterStage
from korch.lab.bench.engine_stage import EngineStage
from korch.lab.bench.plan import Plan
from korch.lab.bench.player import Player, PlayError
from korch.lab.bench.progress import Progress
from korch.lab.bench.result import Outcome, items_of, verdicts
from korch.lab.bench.stage import Stage
from korch.runtime.context import Runtime

Level = Literal["engine", "cluster"]


async def run_plan(plan: Plan, level: Level, *, directory: str | None = None, within_s: float = 600.0) -> Outcome:
    """Play a plan and return how it went; what fails on the way is the outcome's `error`. `directory` makes the cluster's store durable."""
    if plan.unsupported:
        return Outcome(name=plan.name, level=level, error=f"not supported: {plan.unsupported}", warnings=plan.warnings)
    began = time.monotonic()
    error, measurements = "", []
    async with _stage(plan, level, directory) as stage:
        try:
            measurements = await Player(plan, stage, Progress(), within_s).play()
        except PlayError as failed:
            error = str(failed)
    if error:
        return Outcome(name=plan.name, level=level, error=error, duration_s=time.monotonic() - began, warnings=plan.warnings)
    items = [item for one in measurements for item in items_of(one)]
    return Outcome(
        name=plan.name,
        level=level,
        items=items,
        measurements=measurements,
        verdicts=verdicts(plan.workload, items),
        duration_s=time.monotonic() - began,
        warnings=plan.warnings,
    )


def _stage(plan: Plan, level: Level, directory: str | None) -> AbstractAsyncContextManager[Stage]:
    if level == "engine":
        return EngineStage.open(plan.scheduler_config, Runtime())
    has_groups = plan.workload.feature_gates.get("GenericWorkload", False)
    return ClusterStage.open(plan.scheduler_config, Runtime(), directory=directory, has_pod_groups=has_groups)
