from itertools import pairwise
from typing import cast

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from modelmeter.etl import demo
from modelmeter.etl.sender import ARROW, NDJSON, Sender, SenderPool, Tally
from modelmeter.window import DAY, HOUR, MINUTE, SECOND, to_datetime
from tests.etl.stub import Fault, Stub

NOON = 1_795_435_200 * SECOND  # 2026-11-23T12:00:00Z


def of(version: tuple[str, str]) -> pl.Expr:
    return (pl.col("name") == version[0]) & (pl.col("version") == version[1])


def mean(frame: pl.DataFrame, column: str) -> float:
    return cast("float", frame[column].mean())


def test_the_same_seed_makes_the_same_events_and_another_seed_others() -> None:
    once, again = (demo.demo_events(3, 1, NOON, NOON + MINUTE, 50) for _ in range(2))
    assert_frame_equal(once, again)
    assert not once.equals(demo.demo_events(3, 2, NOON, NOON + MINUTE, 50))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 45 * SECOND), st.integers(0, 45 * SECOND), st.integers(1, len(demo.MODELS)))
def test_events_are_the_same_however_the_time_is_cut(first: int, second: int, models: int) -> None:
    story = demo.story_of(NOON, NOON + MINUTE)
    start, middle, end = NOON, NOON + first, NOON + first + second
    whole = demo.demo_events(models, 1, start, end, 20, story=story)
    parts = [demo.demo_events(models, 1, *part, 20, story=story) for part in ((start, middle), (middle, end))]
    assert_frame_equal(whole, pl.concat(parts))


def test_events_are_in_order_within_the_time_and_well_formed() -> None:
    events = demo.demo_events(3, 1, NOON + 7, NOON + 10 * MINUTE + 3, 20)
    micros = events["timestamp"].to_physical()
    assert micros.is_sorted()
    assert micros.is_between(NOON + 7, NOON + 10 * MINUTE + 3, closed="left").all()
    assert events.null_count().sum_horizontal().item() == 0
    assert events["prediction_accuracy"].is_between(0, 1).all()
    assert (events["drift"] >= 0).all()
    assert (events["inference_time"] > 0).all()
    assert events.select("name", "version").n_unique() == 6


def test_the_incident_collapses_one_version_for_a_while_and_no_other() -> None:
    events = demo.demo_events(3, 1, NOON, NOON + HOUR, 20)
    incident = demo.story_of(NOON, NOON + HOUR).incident
    inside = pl.col("timestamp").is_between(to_datetime(incident.start), to_datetime(incident.end), closed="left")
    broken = of(demo.incident_version(3))
    during, rest = events.filter(broken & inside), events.filter(~(broken & inside))
    assert during.height > 500
    assert (during["prediction_accuracy"] < 0.3).mean() == pytest.approx(1, abs=0.002)
    assert (rest["prediction_accuracy"] < 0.3).mean() == pytest.approx(0, abs=0.001)
    before = events.filter(broken & ~inside)
    assert mean(during, "inference_time") > 3 * mean(before, "inference_time")


def test_the_drifting_version_gets_worse_and_the_others_do_not() -> None:
    events = demo.demo_events(3, 1, NOON, NOON + HOUR, 40)
    drifting = of(demo.drifting_version(3))
    quarters = [
        events.filter(pl.col("timestamp").to_physical().is_between(start, start + HOUR // 4, closed="left"))
        for start in range(NOON, NOON + HOUR, HOUR // 4)
    ]
    bad = [quarter.filter(drifting) for quarter in quarters]
    assert all(mean(later, "drift") > mean(sooner, "drift") * 1.1 for sooner, later in pairwise(bad))
    assert all(
        mean(later, "prediction_accuracy") < mean(sooner, "prediction_accuracy") - 0.03
        for sooner, later in pairwise(bad)
    )
    good = [quarter.filter(~drifting & ~of(demo.incident_version(3))) for quarter in quarters]
    assert all(mean(quarter, "drift") == pytest.approx(0.1, abs=0.005) for quarter in good)


def test_the_rate_is_a_days_mean_with_a_busy_afternoon() -> None:
    midnight = NOON - 12 * HOUR
    day = demo.demo_events(2, 1, midnight, midnight + DAY, 0.5)
    assert day.height == pytest.approx(0.5 * 86_400, rel=0.02)
    night, afternoon = (day.filter(pl.col("timestamp").dt.hour() == hour) for hour in (2, 14))
    assert afternoon.height > 2 * night.height
    assert mean(afternoon, "inference_time") > mean(night, "inference_time")


def test_no_time_gives_no_events_but_their_columns() -> None:
    empty = demo.demo_events(3, 1, NOON, NOON, 20)
    assert empty.is_empty()
    assert empty.schema == demo.demo_events(3, 1, NOON, NOON + MINUTE, 20).schema


def test_a_run_sends_each_event_of_its_plan_once_through_faults(stub: Stub) -> None:
    plan = demo.Plan(models=3, seed=1, rate=300, start=NOON, end=NOON + SECOND, history=5 * MINUTE)
    stub.on_request = lambda number: Fault(0, is_counted=True) if number % 4 == 1 else None
    tally = Tally()
    advanced: list[int] = []
    with Sender(stub.url, first_wait_seconds=0.001) as sender, SenderPool(sender) as pool:
        demo.run(plan, pool, tally, advanced.append)
    expected = [
        demo.demo_events(3, 1, *span, 300, story=plan.story)
        for span in ((NOON - 5 * MINUTE, NOON), (NOON, NOON + SECOND))
    ]
    kept = stub.events
    assert tally.accepted == sum(advanced) == kept.height == sum(frame.height for frame in expected)
    assert plan.expected_events == pytest.approx(kept.height, rel=0.02)
    numbers = ["prediction_accuracy", "drift", "inference_time"]
    assert_frame_equal(kept.select(numbers), pl.concat(expected).select(numbers))
    assert {request["Content-Type"] for request in stub.requests} == {ARROW, NDJSON}


def test_the_incident_is_in_the_live_part_if_there_is_one() -> None:
    live = demo.Plan(models=1, seed=1, rate=1, start=NOON, end=NOON + MINUTE, history=HOUR).story
    assert NOON < live.incident.start < live.incident.end < NOON + MINUTE
    assert live.drift.start == NOON - HOUR
    past = demo.Plan(models=1, seed=1, rate=1, start=NOON, end=NOON, history=HOUR).story
    assert NOON - HOUR < past.incident.start < past.incident.end < NOON
