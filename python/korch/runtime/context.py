"""The bundle of seams that a composition root hands to every component."""

from __future__ import annotations

from dataclasses import dataclass, field

from korch.runtime.clock import Clock, LoopClock, RealClock
from korch.runtime.offload import InlineOffload, Offload, ThreadOffload
from korch.runtime.rng import Rng


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Clock, randomness and threads of one process (or of one simulated process)."""

    clock: Clock = field(default_factory=RealClock)
    rng: Rng = field(default_factory=Rng)
    offload: Offload = field(default_factory=ThreadOffload)


def simulated(seed: int) -> Runtime:
    """Return a deterministic runtime: virtual time of the running loop, streams from `seed`, no threads."""
    return Runtime(clock=LoopClock(), rng=Rng(seed), offload=InlineOffload())
