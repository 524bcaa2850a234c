"""The merge of partials is the fold of their events, in any order and any grouping."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmeter import rollup, sketch
from modelmeter.packer import sort_order
from modelmeter.rollup import EVENTS, FIELDS, Ints, Rollups
from modelmeter.window import DAY, HOUR, MINUTE

many = settings(max_examples=150, deadline=None, derandomize=True, database=None)
METRIC = 7
EXACT = ("stream", "metric", "window", "count", "min", "max", "first_at", "last_at", "last", "sketch")

values = st.one_of(
    st.floats(-1e3, 1e3),
    st.just(math.nan),
    st.sampled_from([0.0, 1.0, -1.0, 5e-324, 1e9 + 0.1, 1e9 + 0.2, 1e-9]),
)
instants = st.one_of(st.integers(0, 3 * DAY), st.integers(0, 2 * MINUTE), st.sampled_from([0, 1, MINUTE - 1, MINUTE]))
event_lists = st.lists(st.tuples(st.integers(1, 3), instants, values), min_size=1, max_size=40)
Events = list[tuple[int, int, float]]


def fold(events: Events, width: int = MINUTE) -> Rollups:
    """Partials of events as the worker makes them: stream, time and value each."""
    stream = np.array([event[0] for event in events], np.int32)
    timestamp = np.array([event[1] for event in events], np.int64)
    column = np.array([event[2] for event in events], np.float64)
    order = sort_order(stream, timestamp)
    if order is not None:
        stream, timestamp, column = stream[order], timestamp[order], column[order]
    window = timestamp - timestamp % width
    starts = rollup.group_starts(stream, window)
    return rollup.concat(
        [
            rollup.fold_events(stream, window, timestamp, starts),
            rollup.fold_metric(stream, METRIC, window, timestamp, column, starts),
        ]
    )


def assert_same(found: Rollups, wanted: Rollups, events: Events) -> None:
    assert len(found) == len(wanted)
    for field in EXACT:
        assert list(getattr(found, field)) == list(getattr(wanted, field)), field
    size = max((abs(event[2]) for event in events if not math.isnan(event[2])), default=0.0)
    slack = 1e-13 * (len(events) + 1)
    np.testing.assert_allclose(found.sum, wanted.sum, rtol=1e-13, atol=slack * size)
    np.testing.assert_allclose(found.deviation, wanted.deviation, rtol=1e-9, atol=slack * size * size)


@many
@given(event_lists, st.lists(st.integers(0, 4), min_size=40, max_size=40), st.randoms(use_true_random=False))
def test_partials_of_any_split_merged_in_any_order_are_the_fold_of_all_events(
    events: Events, piles: list[int], random: Any
) -> None:
    wanted = rollup.merge(fold(events))
    split = [[event for event, pile in zip(events, piles, strict=False) if pile == number] for number in range(5)]
    parts = [fold(pile) for pile in split if pile]
    random.shuffle(parts)
    assert_same(rollup.merge(rollup.concat(parts)), wanted, events)
    while len(parts) > 1:  # any tree
        random.shuffle(parts)
        parts = [rollup.merge(rollup.concat(parts[:2])), *parts[2:]]
    assert_same(rollup.merge(parts[0]), wanted, events)


@many
@given(event_lists)
def test_events_in_any_order_fold_to_the_same(events: Events) -> None:
    assert_same(fold(events[::-1]), fold(events), events)


@many
@given(event_lists, st.sampled_from([HOUR, DAY]))
def test_merging_coarsened_partials_is_folding_by_coarser_windows(events: Events, width: int) -> None:
    wanted = rollup.merge(fold(events, width))
    assert_same(rollup.merge(rollup.coarsen(fold(events), width)), wanted, events)
    step = rollup.merge(rollup.coarsen(fold(events), HOUR))
    assert_same(rollup.merge(rollup.coarsen(step, width)), wanted, events)


@many
@given(event_lists)
def test_a_fold_is_what_numpy_says_of_each_group(events: Events) -> None:
    merged = rollup.merge(fold(events))
    seen = 0
    for row in range(len(merged)):
        stream, start = merged.stream[row], merged.window[row]
        inside = [event for event in events if event[0] == stream and start <= event[1] < start + MINUTE]
        if merged.metric[row] == EVENTS:
            assert merged.count[row] == len(inside)
            assert (merged.first_at[row], merged.last_at[row]) == (min(inside)[1], max(e[1] for e in inside))
            seen += len(inside)
            continue
        inside = [event for event in inside if not math.isnan(event[2])]
        column = np.array([event[2] for event in inside])
        assert merged.count[row] == len(inside)
        assert (merged.min[row], merged.max[row]) == (column.min(), column.max())
        assert merged.first_at[row] == min(event[1] for event in inside)
        assert merged.last_at[row] == max(event[1] for event in inside)
        assert merged.last[row] == max((event[1], event[2]) for event in inside)[1]
        size = float(np.abs(column).max())
        assert merged.sum[row] == pytest.approx(math.fsum(column), rel=1e-12, abs=1e-13 * len(inside) * size)
        deviation = math.fsum((column - column.mean()) ** 2)
        assert merged.deviation[row] == pytest.approx(deviation, rel=1e-9, abs=1e-13 * len(inside) * size * size)
        assert merged.sketch[row] == sketch.encode(sketch.sketch_of(column))
    assert seen == len(events)


@many
@given(event_lists)
def test_a_merge_over_streams_and_windows_is_the_fold_of_all_as_one(events: Events) -> None:
    wanted = rollup.merge(fold([(0, instant, value) for _, instant, value in events], 1000 * DAY))
    assert_same(rollup.merge(fold(events), by_stream=False, by_window=False), wanted, events)


def test_of_several_values_at_the_last_time_the_largest_is_the_last_in_any_order() -> None:
    events: Events = [(1, 5, 2.0), (1, 5, 3.0), (1, 5, -1.0), (1, 4, 9.0)]
    for turned in (events, events[::-1]):
        assert fold(turned).last[1] == 3.0
        assert rollup.merge(rollup.concat([fold([event]) for event in turned])).last[1] == 3.0


def test_deviations_of_large_and_near_values_do_not_cancel() -> None:
    column = 1e9 + np.array([0.0, 0.5, 1.0, 1.5])
    parts = [fold([(1, number, float(value))]) for number, value in enumerate(column)]
    merged = rollup.merge(rollup.concat(parts))
    assert rollup.stats(merged, 1, ()).stddev == pytest.approx(float(np.std(column)), rel=1e-9)


def test_a_window_holds_its_start_and_not_its_end() -> None:
    assert fold([(1, MINUTE - 1, 1.0), (1, MINUTE, 1.0)]).window.tolist() == [0, MINUTE, 0, MINUTE]


def test_absent_values_make_no_partial() -> None:
    assert fold([(1, 0, math.nan)]).metric.tolist() == [EVENTS]
    found = fold([(1, 0, math.nan), (1, MINUTE, 1.0), (2, 0, math.nan), (3, 0, 2.0)])
    assert found.stream[found.metric == METRIC].tolist() == [1, 3]


def test_stats_are_none_where_float64_ends_and_never_nan() -> None:
    merged = rollup.merge(fold([(1, 0, 1.7e308), (1, 1, 1.7e308), (1, 2, 1.7e308), (1, 3, -1e308)]))
    found = rollup.stats(merged, 1, (0, 0.25, 0.5, 1))
    assert (found.count, found.min, found.max, found.last) == (4, -1e308, 1.7e308, -1e308)
    assert found.mean is None
    assert found.stddev is None
    assert list(found.quantiles) == ["0", "0.25", "0.5", "1"]
    assert all(math.isfinite(value) for value in found.quantiles.values())


def test_quantiles_that_differ_have_names_that_differ() -> None:
    names = rollup.stats(fold([(1, 0, 1.0)]), 1, (0.5, 0.9999999, 1.0, 0.0, 1)).quantiles
    assert list(names) == ["0.5", "0.9999999", "1", "0"]


def test_the_mean_is_never_outside_the_values() -> None:
    for count in range(1, 30):
        found = rollup.stats(fold([(1, number, 0.1) for number in range(count)]), 1, ())
        assert found.mean == 0.1


def test_selecting_and_joining_keep_rows_as_they_are() -> None:
    found = fold([(1, 0, 1.0), (2, 0, 2.0), (3, 0, 3.0)])
    mask = found.metric == METRIC
    again = rollup.concat([rollup.select(found, ~mask), rollup.select(found, mask)])
    for field in (*FIELDS, "sketch"):
        assert list(getattr(again, field)) == list(getattr(found, field))
    assert len(rollup.merge(rollup.EMPTY)) == 0


@many
@given(st.lists(st.tuples(st.integers(-5, 70_000), st.integers(0, 5)), max_size=30))
def test_the_workers_order_is_the_stable_one_by_stream_then_time(events: list[tuple[int, int]]) -> None:
    stream: Any = np.array([event[0] for event in events], np.int32)
    timestamp: Ints = np.array([event[1] for event in events], np.int64)
    order = sort_order(stream, timestamp)
    found = list(range(len(events))) if order is None else order.tolist()
    assert found == sorted(range(len(events)), key=events.__getitem__)
