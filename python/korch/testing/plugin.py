"""The pytest plugin: `async def test_x(cluster)` runs once for every seed, on virtual time, and says how to run a failing seed again.

    @pytest.mark.sim(faults=None, controllers={"node_monitor_grace_period_s": 20})
    async def test_lost_node_is_replaced(cluster): ...

`serve_cluster` starts servers as processes instead, for tests of other programs: see `korch.testing.served`.

Options: `--sim-seeds N` (how many seeds, from `--sim-base` on) and `--sim-seed S` (just this one; may be repeated). `seeds.txt` beside
a test file lists seeds that once failed, one `test_name seed story` a line; they run first, always. The marker takes the fields of
SimConfig (`controllers` as a dict of ControllerConfig's fields) and `seeds`, the number of seeds for one test.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from korch.runtime.log import ROOT

if TYPE_CHECKING:
    # Importing the whole control plane takes a second; sessions without simulations shall not pay for it.
    from korch.testing.cluster import SimCluster, SimConfig
    from korch.testing.served import ServedCluster

SEEDS_DEFAULT = 3
REGRESSIONS_NAME = "seeds.txt"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("korch", "korch: simulated clusters")
    group.addoption("--sim-seeds", type=int, default=None, help=f"seeds for every simulation (default {SEEDS_DEFAULT})")
    group.addoption("--sim-base", type=int, default=1, help="the first of those seeds")
    group.addoption("--sim-seed", type=int, action="append", default=[], help="run just this seed; may be given several times")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sim(**options): how the simulated cluster of a test is made: fields of SimConfig, and `seeds`")


def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: object) -> list[pytest.Function] | None:
    """Turn a coroutine test that takes `cluster` into a plain one that runs it in a simulation."""
    if not (collector.funcnamefilter(name) and inspect.iscoroutinefunction(obj)):
        return None
    if "cluster" not in inspect.signature(obj).parameters:
        return None
    run = _in_simulation(obj)
    items = list(collector._genfunctions(name, run))
    for item in items:
        # Parametrized items look their function up by name, and would find the coroutine again.
        item.obj = run
    return items


def _in_simulation(story: Callable[..., Any]) -> Callable[..., None]:
    @functools.wraps(story)
    def run(**arguments: Any) -> None:
        cluster: SimCluster = arguments["cluster"]
        cluster.run(lambda _started: story(**arguments))

    return run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cluster" not in metafunc.fixturenames:
        return
    config = metafunc.config
    marker = metafunc.definition.get_closest_marker("sim")
    chosen: list[int] = config.getoption("--sim-seed") or []
    if not chosen:
        asked = config.getoption("--sim-seeds")
        count = asked if asked is not None else (marker.kwargs.get("seeds") if marker else None) or SEEDS_DEFAULT
        base: int = config.getoption("--sim-base") or 1
        chosen = [*regressions(Path(metafunc.definition.path), metafunc.function.__name__), *range(base, base + count)]
    seeds = list(dict.fromkeys(chosen))
    metafunc.parametrize("cluster", seeds, ids=[f"seed={seed}" for seed in seeds], indirect=True)


def regressions(test_file: Path, test_name: str) -> list[int]:
    """Return the seeds that `seeds.txt` beside the test file names for this test."""
    listed = test_file.parent / REGRESSIONS_NAME
    if not listed.exists():
        return []
    lines = [line.split(maxsplit=2) for line in listed.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return [int(parts[1]) for parts in lines if parts[0] == test_name]


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Generator[SimCluster]:
    """A simulated cluster for the test's seed; it is started before the test's first line and checked after its last."""
    from korch.testing.cluster import SimCluster

    logger = logging.getLogger(ROOT)
    before = logger.level
    logger.setLevel(logging.WARNING)
    made = SimCluster(request.param, _config(request.node.get_closest_marker("sim")))
    request.node.stash[_CLUSTER] = made
    yield made
    logger.setLevel(before)


@pytest.fixture
def serve_cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[Callable[..., ServedCluster]]:
    """Start real servers: `serve_cluster(sim_nodes=1, options=())` returns one at once, and all of them end with the test."""
    from korch.testing.served import ServedCluster

    started: list[ServedCluster] = []

    def start(**given: Any) -> ServedCluster:
        started.append(ServedCluster(tmp_path_factory.mktemp("cluster"), **given))
        return started[-1]

    try:
        yield start
    finally:
        for one in started:
            one.stop()


_CLUSTER: pytest.StashKey[SimCluster] = pytest.StashKey()


def _config(marker: pytest.Mark | None) -> SimConfig:
    from korch.controllers import ControllerConfig
    from korch.testing.cluster import SimConfig

    options = dict(marker.kwargs) if marker else {}
    options.pop("seeds", None)
    if isinstance(options.get("controllers"), dict):
        options["controllers"] = ControllerConfig(**options["controllers"])
    return SimConfig(**options)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any]:
    outcome = yield
    report = outcome.get_result()
    made = item.stash.get(_CLUSTER, None)
    if made is not None and report.when == "call" and report.failed:
        name = getattr(item, "originalname", item.name)
        again = f"pytest {item.path.relative_to(item.config.rootpath)} -k {name} --sim-seed {made.seed}"
        report.sections.append(("simulation", f"{made.report()}\nrun it again: {again}"))
