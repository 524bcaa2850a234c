"""The arithmetic of the overview against SciPy and a plain loop."""

import numpy as np
import pytest
from scipy import stats

from modelmeter import rollup
from modelmeter.rollup import Rollups, fold_events, fold_metric, group_starts
from modelmeter.web.dashboard import overview
from modelmeter.web.dashboard.overview import Change, Places, Row, Trend
from modelmeter.window import DAY, HOUR
from tests.history import NOON

METRIC = 7


def folded(stream: int, timestamps: list[int], values: list[float], width: int = HOUR) -> Rollups:
    at, what = np.array(timestamps, np.int64), np.array(values)
    order = np.argsort(at)
    at, what = at[order], what[order]
    ids = np.full(at.size, stream, np.int32)
    windows = at - at % width
    starts = group_starts(windows)
    return rollup.concat([fold_events(ids, windows, at, starts), fold_metric(ids, METRIC, windows, at, what, starts)])


def places(*streams: int) -> Places:
    return Places(
        np.array(streams, np.int64), np.arange(len(streams)), np.array([rollup.EVENTS, METRIC], np.int64), len(streams)
    )


def spread(rng: np.random.Generator, count: int, start: int, mean: float) -> tuple[list[int], list[float]]:
    return (start + rng.integers(0, DAY, count)).tolist(), rng.normal(mean, 1, count).tolist()


def test_sums_of_many_partials_are_those_of_the_values() -> None:
    rng = np.random.default_rng(1)
    times, values = spread(rng, 500, NOON, 1e6)
    sums = overview.sum_up(rollup.concat([folded(1, times, values), folded(9, times, values)]), places(1, 2))
    assert sums.count.tolist() == [[500, 500], [0, 0]]
    assert sums.mean[0, 1] == pytest.approx(np.mean(values))
    assert sums.deviation[0, 1] == pytest.approx(500 * np.var(values), rel=1e-9)
    assert np.isnan(sums.mean[1, 1])


def test_a_change_is_cohens_d_and_sure_when_welch_is() -> None:
    rng = np.random.default_rng(2)
    for shift in (0.0, 0.05, 0.3, -1.0):
        one, other = rng.normal(5 + shift, 1, 400), rng.normal(5, 2, 300)
        times = [NOON + place for place in range(400)]
        now = overview.sum_up(folded(1, times, one.tolist()), places(1))
        before = overview.sum_up(folded(1, times[:300], other.tolist()), places(1))
        effect, sure = overview.compare(now, before)
        pooled = np.sqrt((400 * one.var() + 300 * other.var()) / 698)
        assert effect[0, 1] == pytest.approx((one.mean() - other.mean()) / pooled)
        t = stats.ttest_ind(one, other, equal_var=False).statistic
        assert bool(sure[0, 1]) == (abs(t) > 4 and abs(effect[0, 1]) > 0.1)


def test_few_samples_and_missing_sides_are_never_sure() -> None:
    few = overview.sum_up(folded(1, [NOON, NOON + 1], [1.0, 1.1]), places(1, 2))
    more = overview.sum_up(folded(1, [NOON, NOON + 1], [9.0, 9.1]), places(1, 2))
    effect, sure = overview.compare(few, more)
    assert not sure.any()
    assert np.isnan(effect[1, 1])


def test_a_gap_yesterday_is_no_change_where_there_is_a_rhythm_of_the_day() -> None:
    rng = np.random.default_rng(3)
    hours = np.repeat(np.arange(24), 60)
    times = NOON - NOON % DAY + hours * HOUR + rng.integers(0, HOUR, hours.size)
    values = 10 + 5 * np.sin(hours / 24 * 2 * np.pi) + rng.normal(0, 0.1, hours.size)
    today = folded(1, times.tolist(), values.tolist())
    kept = hours < 9  # then nothing came
    yesterday = folded(1, (times[kept] - DAY).tolist(), values[kept].tolist())
    plain = overview.compare(overview.sum_up(today, places(1)), overview.sum_up(yesterday, places(1)))
    assert plain[1][0, 1], "the example should fool a comparison of whole days"
    now, before = overview.sum_up_alike(today, yesterday, places(1), DAY, HOUR)
    effect, sure = overview.compare(now, before)
    assert now.count[0, 1] == before.count[0, 1] == kept.sum()
    assert not sure[0, 1]
    assert effect[0, 1] == pytest.approx(0, abs=1e-9)


def test_a_version_is_compared_with_the_one_before_it_in_the_same_hours() -> None:
    both = rollup.concat([folded(1, [NOON, NOON + HOUR], [1.0, 3.0]), folded(2, [NOON + HOUR], [5.0])])
    here = places(1, 2)
    now, before = overview.sum_up_alike(both, both, here, 0, HOUR, here.moved({1: 0}))
    assert now.mean[1, 1] == 5.0
    assert before.mean[1, 1] == 3.0  # of stream 1, and only the hour in which both were there
    assert np.isnan(before.mean[0, 1])


def test_the_trend_is_the_mean_of_each_step() -> None:
    rows = folded(1, [NOON, NOON + 1, NOON + 2 * HOUR, NOON + 9 * HOUR], [1.0, 3.0, 7.0, 100.0])
    trend = overview.trend_of(rows, places(1), NOON, 2 * HOUR, 3)
    np.testing.assert_equal(trend.mean[0, 1], [2.0, 7.0, np.nan])
    assert trend.count[0, 1].tolist() == [2, 1, 0]


def trend(*values: float) -> Trend:
    means = np.array(values)[None, None, :]
    return Trend(np.where(np.isnan(means), 0.0, 5.0), means)


def test_since_names_the_step_of_a_jump_and_none_of_a_slope_or_of_noise() -> None:
    rng = np.random.default_rng(4)
    level = rng.normal(0, 0.01, 40)
    assert overview.since(trend(*(level + np.where(np.arange(40) >= 27, -0.5, 0.0)))).item() == 27
    assert overview.since(trend(*level)).item() == -1
    assert overview.since(trend(*(level + np.linspace(0, 5, 40)))).item() == -1
    gap = np.where((np.arange(40) > 10) & (np.arange(40) < 20), np.nan, level)
    assert overview.since(trend(*(gap + np.where(np.arange(40) >= 30, 1.0, 0.0)))).item() == 30


def test_the_previous_version_is_by_number_else_by_age() -> None:
    assert overview.previous_versions([("v10", 1), ("v2", 5), ("v1", 9)]) == {"v2": "v1", "v10": "v2"}
    assert overview.previous_versions([("a9c", 30), ("0ff", 10), ("77d", 20)]) == {"77d": "0ff", "a9c": "77d"}
    assert overview.previous_versions([("v1", 1)]) == {}


def test_only_a_sure_change_in_the_wrong_direction_is_bad() -> None:
    effect = np.array([[-2.0, -2.0, -2.0, np.nan]])
    sure = np.array([[True, True, False, False]])
    assert overview.badness(effect, sure, np.array([1.0, -1.0, 1.0, 1.0])).tolist() == [[2.0, 0.0, 0.0, 0.0]]
    assert overview.badness(effect, sure, np.zeros(4)).tolist() == [[0.0] * 4]


def row(name: str, worse: float, *states: str, events: int = 5) -> Row:
    cell = overview.Cell("m", 1.0, np.zeros(3), None, None, 1, worse, None)
    return Row(name, "v1", events, np.zeros(3), NOON, None, {"m": cell}, list(states))


def test_what_fires_comes_first_then_what_got_worse_most() -> None:
    rows = [row("fine", 0), row("worse", 0.5), row("worst", 3), row("fires", 0, "firing"), row("quiet", 0, events=0)]
    rows.append(row("pends", 0, "pending"))
    assert [one.name for one in sorted(rows, key=overview.rank)] == [
        "fires", "pends", "worst", "worse", "fine", "quiet",
    ]  # fmt: skip
    assert [one.state for one in rows] == ["ok", "ok", "ok", "firing", "silent", "pending"]


def test_a_ratio_of_nothing_is_none() -> None:
    assert Change(0.0, 1.0, 9.0, sure=True).ratio is None
    assert Change(-2.0, -1.0, 9.0, sure=True).ratio == 0.5
