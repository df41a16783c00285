"""Readers of recorded workloads: korch's own columns, and the public traces of Alibaba, Azure and Google (Borg).

Every reader gives a `Workload` whose first task comes at second 0 or later, ordered by arrival. A row from which something is missing
ends the reading with file, line and reason, or is counted in `Workload.skipped` when gaps are to be skipped. Traces that speak of
shares of a machine are scaled by a `Machine`.
"""

from korch.lab.traces.read import FORMATS, read_trace
from korch.lab.traces.scale import Machine

__all__ = ["FORMATS", "Machine", "read_trace"]
