"""A CronJob makes a Job a tick, each once, no more at a time than it may, and makes up for one of those that it missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.unit.controllers.cluster import Cluster, cluster_story
from tests.unit.controllers.conftest import World, simulate

from korch.api.cron import Schedule
from korch.api.errors import NotFound
from korch.api.gvk import CRON_JOBS, EVENTS, JOBS, PODS
from korch.controllers.cronjob import SCHEDULED_AT, CronJobController, due, job_for, next_turn_s
from korch.runtime.clock import parse_rfc3339, rfc3339

Object = dict[str, Any]
# Virtual time begins on Friday, 15 January 2027, at 08:00.
EIGHT = 1_800_000_000.0


def times(text: str, count: int, start: str, zone: str = "") -> list[str]:
    known = ZoneInfo(zone) if zone else UTC
    schedule = Schedule.parse(text, known)
    moment: float | None = parse_rfc3339(start)
    found = []
    for _ in range(count):
        assert moment is not None
        moment = schedule.next(moment)
        found.append("never" if moment is None else datetime.fromtimestamp(moment, known).strftime("%a %m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*/15 * * * *", ["Fri 01-15 08:15", "Fri 01-15 08:30", "Fri 01-15 08:45"]),
        ("0 9-17/4 * * 1-5", ["Fri 01-15 09:00", "Fri 01-15 13:00", "Fri 01-15 17:00"]),
        ("30 8 * * sun", ["Sun 01-17 08:30", "Sun 01-24 08:30", "Sun 01-31 08:30"]),
        # Both day fields restricted: either will do.
        ("0 0 13 * fri", ["Fri 01-22 00:00", "Fri 01-29 00:00", "Fri 02-05 00:00"]),
        ("0 0 1 */6 *", ["Thu 07-01 00:00", "Sat 01-01 00:00", "Sat 07-01 00:00"]),
        ("59 23 31 12 *", ["Fri 12-31 23:59", "Sun 12-31 23:59", "Mon 12-31 23:59"]),
        ("0 12 29 2 ?", ["Tue 02-29 12:00", "Sun 02-29 12:00", "Fri 02-29 12:00"]),
        ("5/20 8 * jan *", ["Fri 01-15 08:05", "Fri 01-15 08:25", "Fri 01-15 08:45"]),
        ("@daily", ["Sat 01-16 00:00", "Sun 01-17 00:00", "Mon 01-18 00:00"]),
        ("@every 90m", ["Fri 01-15 09:30", "Fri 01-15 11:00", "Fri 01-15 12:30"]),
    ],
)
def test_schedules_are_due_when_cron_says(text: str, expected: list[str]) -> None:
    assert times(text, 3, "2027-01-15T08:00:00Z") == expected


def test_a_date_that_never_comes_is_never_due() -> None:
    assert Schedule.parse("0 0 30 2 *").next(EIGHT) is None


def test_a_time_zone_moves_the_schedule_and_its_clock_changes_count() -> None:
    assert times("30 8 * * *", 1, "2027-01-15T08:00:00Z", "America/New_York") == ["Fri 01-15 08:30"]
    assert Schedule.parse("30 8 * * *", ZoneInfo("America/New_York")).next(EIGHT) == EIGHT + 5.5 * 3600
    # 02:30 is left out on 14 March 2027, and 01:30 comes twice on 7 November.
    assert times("30 2 * * *", 2, "2027-03-13T08:00:00Z", "America/New_York") == ["Mon 03-15 02:30", "Tue 03-16 02:30"]
    assert times("30 1 * * *", 3, "2027-11-07T05:00:00Z", "America/New_York") == ["Sun 11-07 01:30", "Sun 11-07 01:30", "Mon 11-08 01:30"]
    assert times("0 0 * * *", 2, "2027-03-13T08:00:00Z", "America/New_York") == ["Sun 03-14 00:00", "Mon 03-15 00:00"]


def cron_job(schedule: str = "*/10 * * * *", *, last: float | None = None, made: float = EIGHT, **spec: Any) -> Object:
    status = {"lastScheduleTime": rfc3339(last)} if last is not None else {}
    meta = {"name": "c", "namespace": "d", "uid": "c-uid", "creationTimestamp": rfc3339(made)}
    template = {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}
    return {"metadata": meta, "spec": {"schedule": schedule, "jobTemplate": template, **spec}, "status": status}


@pytest.mark.parametrize(
    ("job", "later_s", "last_s", "missed"),
    [
        (cron_job(), 599, None, 0),
        (cron_job(), 600, 600, 0),
        (cron_job(last=EIGHT), 1250, 1200, 2),
        (cron_job(last=EIGHT), 600 * 101 + 1, 600 * 101, 101),
        # A deadline leaves only what lies within it.
        (cron_job(last=EIGHT, startingDeadlineSeconds=300), 600 * 101 + 400, None, 0),
        (cron_job(last=EIGHT, startingDeadlineSeconds=500), 600 * 101 + 400, 600 * 101, 0),
        # Times that lie unevenly, 8:30, 12:30 and 16:30: as upstream, what lies more than a period back is not looked for.
        (cron_job("30 8-16/4 * * 1-5"), 11 * 3600, 8.5 * 3600, 3),
        (cron_job("30 8-16/4 * * 1-5"), 24 * 3600, None, 6),
    ],
)
def test_what_was_missed_is_found_by_the_last_of_it(job: Object, later_s: float, last_s: float | None, missed: int) -> None:
    found = due(job, Schedule.parse(job["spec"]["schedule"]), EIGHT + later_s, with_deadline=True)
    assert (found.last, found.missed) == (None if last_s is None else EIGHT + last_s, missed)


def test_the_next_turn_comes_just_after_the_next_time() -> None:
    schedule = Schedule.parse("*/10 * * * *")
    assert next_turn_s(cron_job(), schedule, EIGHT + 30) == pytest.approx(570.1)
    assert next_turn_s(cron_job(last=EIGHT + 600), schedule, EIGHT + 630) == pytest.approx(570.1)


def test_a_job_is_named_after_its_minute_and_bears_its_time() -> None:
    made = job_for(cron_job(timeZone="Asia/Tokyo"), {"kind": "CronJob"}, EIGHT + 600)
    assert made["metadata"]["name"] == f"c-{int(EIGHT + 600) // 60}"
    assert made["metadata"]["annotations"] == {SCHEDULED_AT: "2027-01-15T17:10:00+09:00"}
    assert job_for(cron_job(), {}, EIGHT)["metadata"]["annotations"] == {SCHEDULED_AT: "2027-01-15T08:00:00Z"}


class Crons:
    """A world with the CronJob controller in it; Jobs end when a test says so."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def make(self, schedule: str = "*/10 * * * *", **spec: Any) -> None:
        wanted = cron_job(schedule, **{"concurrencyPolicy": "Allow", **spec})
        await self.world.make(CRON_JOBS, {"metadata": {"name": "c"}, "spec": wanted["spec"]})

    async def jobs(self) -> list[str]:
        """Return for which minute after eight each Job is, oldest first."""
        names = [one["metadata"]["name"] for one in await self.world.all(JOBS)]
        return sorted(f"8:{int(name.removeprefix('c-')) - int(EIGHT) // 60:02d}" for name in names)

    async def end(self, minute: int, condition: str = "Complete") -> None:
        name = f"c-{int(EIGHT) // 60 + minute}"
        now = self.world.now()
        status: Object = {"startTime": now, "conditions": [{"type": condition, "status": "True"}]}
        if condition == "Complete":
            status["completionTime"] = now
        await self.world.change(JOBS, name, {"status": status}, subresource="status")

    async def status(self) -> Object:
        found = (await self.world.get(CRON_JOBS, "c")).get("status") or {}
        return {**found, "active": [one["name"].removeprefix("c-") for one in found.get("active") or ()]}

    async def said(self, reason: str) -> list[str]:
        await asyncio.sleep(5)
        return [one["message"] for one in await self.world.all(EVENTS) if one["reason"] == reason]


def story(tell: Callable[[Crons], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    async def told(world: World) -> None:
        async with world.running(CronJobController(world.client, world.informers, world.runtime)):
            await tell(Crons(world))

    def test() -> None:
        simulate(told)

    test.__doc__ = tell.__doc__
    return test


@story
async def test_every_tick_makes_one_job_and_the_status_tells_of_it(crons: Crons) -> None:
    await crons.make()
    await asyncio.sleep(599)
    assert await crons.jobs() == []
    await asyncio.sleep(5)
    assert await crons.jobs() == ["8:10"]
    status = await crons.status()
    assert status == {"active": [str(int(EIGHT) // 60 + 10)], "lastScheduleTime": "2027-01-15T08:10:00Z"}
    await crons.end(10)
    assert await crons.said("SawCompletedJob") == ["Saw completed job: c-30000010, condition: Complete"]
    status = await crons.status()
    assert (status["active"], status["lastSuccessfulTime"]) == ([], "2027-01-15T08:10:04Z")
    await asyncio.sleep(1800)
    assert await crons.jobs() == ["8:10", "8:20", "8:30", "8:40"]
    assert await crons.said("SuccessfulCreate") == [f"Created job c-{30000000 + minute}" for minute in (10, 20, 30, 40)]
    (job, *_) = await crons.world.all(JOBS)
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("CronJob", "c", True)


@story
async def test_forbid_waits_for_the_running_job_and_makes_up_for_the_last_time_that_was_missed(crons: Crons) -> None:
    await crons.make(concurrencyPolicy="Forbid")
    await asyncio.sleep(1950)
    assert await crons.jobs() == ["8:10"]
    assert "Not starting job because prior execution is running and concurrency policy is Forbid" in await crons.said("JobAlreadyActive")
    await crons.end(10)
    await asyncio.sleep(2)
    assert await crons.jobs() == ["8:10", "8:30"]
    assert (await crons.status())["lastScheduleTime"] == "2027-01-15T08:30:00Z"


@story
async def test_replace_deletes_the_running_job(crons: Crons) -> None:
    await crons.make(concurrencyPolicy="Replace")
    await asyncio.sleep(1250)
    assert await crons.jobs() == ["8:20"]
    assert await crons.said("SuccessfulDelete") == ["Deleted job c-30000010"]
    assert (await crons.status())["active"] == ["30000020"]


@story
async def test_a_suspended_one_makes_nothing_and_later_only_the_last(crons: Crons) -> None:
    await crons.make(suspend=True)
    await asyncio.sleep(3000)
    assert await crons.jobs() == []
    await crons.world.change(CRON_JOBS, "c", {"spec": {"suspend": False}})
    await asyncio.sleep(5)
    assert await crons.jobs() == ["8:50"]


@story
async def test_what_is_later_than_the_deadline_is_not_made(crons: Crons) -> None:
    await crons.make(suspend=True, startingDeadlineSeconds=60)
    await asyncio.sleep(700)
    await crons.world.change(CRON_JOBS, "c", {"spec": {"suspend": False}})
    await asyncio.sleep(5)
    assert await crons.jobs() == []
    await asyncio.sleep(500)
    assert await crons.jobs() == ["8:20"]


@story
async def test_too_many_missed_times_are_told_of_and_the_last_is_made(crons: Crons) -> None:
    await crons.make("* * * * *", suspend=True)
    await asyncio.sleep(60 * 101 + 5)
    await crons.world.change(CRON_JOBS, "c", {"spec": {"suspend": False}})
    assert await crons.said("TooManyMissedTimes") == [
        "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
    ]
    assert await crons.jobs() == ["8:101"]


@story
async def test_history_keeps_the_newest_of_each_kind(crons: Crons) -> None:
    await crons.make("* * * * *", successfulJobsHistoryLimit=2, failedJobsHistoryLimit=1)
    await asyncio.sleep(5)
    for minute in range(1, 8):
        await asyncio.sleep(60)
        await crons.end(minute, "Failed" if minute in (2, 5) else "Complete")
    await asyncio.sleep(5)
    assert await crons.jobs() == ["8:05", "8:06", "8:07"]
    assert (await crons.status())["lastSuccessfulTime"].startswith("2027-01-15T08:07:")


@story
async def test_a_job_that_vanished_is_taken_off_the_list(crons: Crons) -> None:
    await crons.make()
    await asyncio.sleep(605)
    await crons.world.delete(JOBS, "c-30000010")
    assert await crons.said("MissingJob") == ["Active job went missing: c-30000010"]
    assert (await crons.status())["active"] == []
    assert await crons.jobs() == []


@story
async def test_a_lost_answer_makes_no_second_job(crons: Crons) -> None:
    lost: list[str] = []
    create = crons.world.client.create

    async def losing(resource: Any, body: Any, **where: Any) -> bytes:
        answer = await create(resource, body, **where)
        if resource == JOBS and not lost:
            lost.append("answer")
            raise ConnectionResetError("the answer is lost")
        return answer

    crons.world.client.create = losing  # type: ignore[method-assign]
    await crons.make()
    await asyncio.sleep(660)
    assert lost and await crons.jobs() == ["8:10"]
    assert (await crons.status())["active"] == ["30000010"]


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        (
            {"schedule": "*/10 * * * *", "timeZone": "Mars/Olympus"},
            "UnknownTimeZone",
            'invalid timeZone: "Mars/Olympus": unknown time zone',
        ),
        ({"schedule": "99 * * * *"}, "UnparseableSchedule", 'unparseable schedule: "99 * * * *" : '),
        ({"schedule": "0 0 30 2 *"}, "InvalidSchedule", "invalid schedule: 0 0 30 2 * : "),
    ],
)
def test_a_schedule_that_cannot_be_kept_is_told_of(spec: Object, reason: str, message: str) -> None:
    async def tell(crons: Crons) -> None:
        await crons.make(**spec)
        (said,) = set(await crons.said(reason))
        assert said.startswith(message)
        assert await crons.jobs() == []

    story(tell)()


def test_in_a_whole_cluster_pods_run_and_what_is_deleted_takes_all_with_it() -> None:
    async def tell(cluster: Cluster) -> None:
        wanted = cron_job("* * * * *")["spec"]
        await cluster.client.create(CRON_JOBS, {"metadata": {"name": "c"}, "spec": wanted}, namespace="default")

        async def pods() -> list[Object]:
            return [one for one in await cluster.all(PODS) if one["metadata"]["name"].startswith("c-")]

        await cluster.until(lambda: at_least(pods, 2))
        await cluster.client.delete(CRON_JOBS, "c", namespace="default")
        await cluster.until(lambda: none(pods))
        with pytest.raises(NotFound):
            await cluster.client.get(CRON_JOBS, "c", namespace="default")

    async def at_least(pods: Any, count: int) -> bool:
        return len(await pods()) >= count

    async def none(pods: Any) -> bool:
        return not await pods()

    cluster_story(tell)
