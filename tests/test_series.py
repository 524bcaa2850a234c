"""PromQL on Postgres says what it says over the same raw events in memory: any expression, at any moment.

The histories are random; MODELMETER_TEST_SEED repeats one.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from modelmeter.compactor import Compactor
from modelmeter.config import Config
from modelmeter.matcher import Matcher
from modelmeter.partitioner import Partitioner
from modelmeter.promql import Limits, QueryFailed, Result, evaluate_instant, evaluate_range
from modelmeter.promql.errors import TooMuchData
from modelmeter.promql.source import Floats, Folded, Ints, Source, Statistic
from modelmeter.reader import Event, Reader
from modelmeter.series import Catalog, SeriesSource
from modelmeter.window import DAY, HOUR, LATEST, MINUTE, SECOND, Span
from tests.history import BY_HOUR, NOON, Random, Storing, event, labels_of, message_of, random_events, send, store
from tests.promql.memory_source import MemorySource
from tests.promql.test_prometheus_agrees import difference

LATER = NOON + 30 * DAY
SEED = int(os.environ.get("MODELMETER_TEST_SEED", "1"))
FOLDED = ("avg", "sum", "min", "max", "count", "stddev", "stdvar", "last", "present", "absent", "ts_of_last", "first")
EXPRESSIONS = (
    *(f"{name}_over_time({{metric}}[{{range}}])" for name in FOLDED),
    *(f"{name}_over_time({{metric}}[{{range}}])" for name in ("ts_of_first", "mad", "ts_of_max")),
    "avg_over_time({metric}[{range}] offset {shift})",
    "sum_over_time({metric}[{range}] offset -{shift})",
    "max_over_time({metric}[{range}] @ {at})",
    "last_over_time({metric}[{range}] @ end() offset {shift})",
    "min_over_time({metric}[{range}] @ start())",
    "{metric}",
    "{metric} offset {shift}",
    "{metric} @ {at}",
    "timestamp({metric})",
    '{metric}{{env="prod"}}',
    '{metric}{{env=""}}',
    '{metric}{{env!="prod",name=~"A|B"}}',
    'count_over_time({metric}{{env=~"p.*"}}[{range}])',
    'count_over_time({metric}{{env!~"p.+"}}[{range}])',
    'sum_over_time({{__name__=~"drift|score",version="v1"}}[{range}])',
    'count_over_time({metric}{{name="nobody"}}[{range}])',
    "count_over_time(nothing[{range}])",
    'absent({metric}{{name="nobody"}})',
    "sum by (version) (count_over_time({metric}[{range}]))",
    "sum without (env) (sum_over_time({metric}[{range}])) / sum without (env) (count_over_time({metric}[{range}]))",
    "topk(2, avg_over_time({metric}[{range}]))",
    "topk(1, count_over_time({metric}[{range}]))",
    "bottomk by (name) (1, max_over_time({metric}[{range}]))",
    "max_over_time(avg_over_time({metric}[{range}])[2h:10m])",
    "count_over_time({metric}[3h:7m])",
    "avg_over_time({metric}[1h:] @ end())",
    "rate({metric}[{range}])",
    "changes({metric}[{range}])",
    "{metric} > 0 and on (name, version, env) score",
    *(
        f'{name}({{metric}}{{{{version="v2"}}}}[{{range}}], {{metric}}{{{{version="v1"}}}}[{{range}}], "version")'
        for name in ("psi", "ks", "js", "wasserstein")
    ),
    "psi({metric}[{range}], {metric}[2d] offset 1d)",
    "quantile_over_time({q}, {metric}[{range}])",
)
RANGES = ("90s", "5m", "7m", "1h", "3h", "1d", "2d", "30d")


def in_memory(events: Sequence[Event]) -> MemorySource:
    points: dict[tuple[tuple[str, str], ...], list[tuple[int, float]]] = {}
    for one in events:
        for metric, value in one.metrics.items():
            points.setdefault((("__name__", metric), *one.labels), []).append((one.timestamp, value))
    source = MemorySource()
    for labels, own in points.items():
        source.add(dict(labels), sorted(own))  # of several at one time the largest is the last
    return source


def off_borders(events: Sequence[Event]) -> list[Event]:
    return [replace(one, timestamp=one.timestamp + 7) if one.timestamp % MINUTE == 0 else one for one in events]


class Stored:
    """Asks Postgres, one snapshot a question. `folds` counts the selectors that rollups answered."""

    def __init__(self, url: str) -> None:
        self.reader = Reader(url)
        self.catalog = Catalog()
        self.folds = 0

    def ask(self, query: str, steps: tuple[int, ...], exact_limit: int = 0, sample_limit: int = 50_000_000) -> Result:
        with self.reader.snapshot() as connection:
            source = Counting(connection, self.catalog, exact_limit, sample_limit)
            result = evaluate(query, steps, source, Limits(samples=sample_limit))
            self.folds += source.count
            return result


class Counting(SeriesSource):
    """Counts how often folds sufficed."""

    count = 0

    def fold(
        self,
        matchers: Sequence[Matcher],
        range_: int,
        ends: Ints,
        statistics: frozenset[Statistic],
        quantile: Floats | None,
    ) -> Folded | None:
        found = super().fold(matchers, range_, ends, statistics, quantile)
        self.count += found is not None
        return found


def evaluate(query: str, steps: tuple[int, ...], source: Source, limits: Limits | None = None) -> Result:
    if len(steps) == 1:
        return evaluate_instant(query, steps[0], source, limits)
    return evaluate_range(query, steps[0], steps[1], steps[2], source, limits)


@pytest.fixture
def stored(database_url: str) -> Iterator[Stored]:
    stored = Stored(database_url)
    yield stored
    stored.reader.close()


@pytest.fixture
def compactor(database_url: str) -> Iterator[Compactor]:
    compactor = Compactor(Config(database_url=database_url, chunk_target_events=64))
    yield compactor
    compactor.close()


def random_steps(rng: Random) -> tuple[int, ...]:
    """An instant, or start, end and step; on the grid of a resolution or off it."""
    width = (MINUTE, HOUR, DAY)[rng.integers(3)]
    at = NOON + int(rng.integers(-DAY, 2 * DAY))
    at -= at % width
    if rng.random() < 0.3:
        at += int(rng.integers(1, 59 * SECOND))
    if rng.random() < 0.4:
        return (at,)
    step = int(rng.choice([width, width, 5 * MINUTE, 7 * SECOND + 3, HOUR]))
    return (at, at + step * int(rng.integers(0, 40)), step)


def random_query(rng: Random, expression: str) -> str:
    return expression.format(
        metric=rng.choice(["drift", "latency", "score"]) if "quantile" not in expression else "latency",
        range=rng.choice(RANGES),
        shift=rng.choice(["1m", "2h", "1d", "11s"]),
        at=(NOON + int(rng.choice([0, HOUR, 61 * SECOND]))) // SECOND,
        q=rng.choice(["0", "0.5", "0.95", "1", "1.5"]),
    )


def check(stored: Stored, memory: MemorySource, query: str, steps: tuple[int, ...], exact_limit: int) -> None:
    refusal = None
    try:
        wanted = evaluate(query, steps, memory)
    except QueryFailed as error:
        refusal = error.detail
    if refusal is not None:
        with pytest.raises(QueryFailed, match=re.escape(refusal)):
            stored.ask(query, steps, exact_limit)
        return
    found = stored.ask(query, steps, exact_limit)
    sketched = any("histograms" in info for info in found.infos)
    assert not sketched or ("quantile_over_time" in query and exact_limit == 0), query
    if sketched:
        assert close_to(found, wanted), (query, steps)
    else:
        left, right = json.loads(found.data_json()), json.loads(wanted.data_json())
        assert difference(left, right) is None, (query, steps, difference(left, right))


def close_to(found: Result, wanted: Result) -> bool:
    """The same series at the same steps, positive values within 1.1 %."""
    columns = []
    for one in (found, wanted):
        answer = json.loads(one.data_json())["result"]
        points = [
            (json.dumps(row["metric"]), at, float(value))
            for row in answer
            for at, value in row.get("values", [row.get("value")])
        ]
        columns.append(sorted(points))
    left, right = columns
    return [one[:2] for one in left] == [one[:2] for one in right] and all(
        abs(a[2] - b[2]) <= 0.011 * b[2] for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("rate", [0, 2, 1e9], ids=["minutely", "mixed", "hourly"])
@pytest.mark.parametrize("borders", [True, False], ids=["on borders", "off borders"])
def test_any_expression_at_any_moment_of_any_history_is_what_the_raw_events_say(
    database_url: str, stored: Stored, compactor: Compactor, rate: float, *, borders: bool
) -> None:
    rng = np.random.default_rng([SEED, int(rate), borders])
    coming = random_events(rng, 500)
    if not borders:
        coming = off_borders(coming)
    have: list[Event] = []
    with Storing(database_url, minutely_rate=rate) as storing:
        while coming:
            size = int(rng.integers(60, 200))
            new, coming = coming[:size], coming[size:]
            have += new
            send(database_url, message_of(*new))
            storing.run()
            for _ in range(int(rng.integers(0, 30))):
                if not compactor.run_once(LATER):
                    break
            memory = in_memory(have)
            for expression in EXPRESSIONS:
                query, steps = random_query(rng, expression), random_steps(rng)
                check(stored, memory, query, steps, int(rng.choice([0, 10**9])))
    assert stored.folds > (20 if borders else 60)


def answer(result: Result) -> dict[str, object]:
    """Values by labels, and their times left out."""
    rows = json.loads(result.data_json())["result"]
    return {
        ",".join(
            f"{name}={value}" for name, value in sorted(row["metric"].items()) if name not in ("name", "version")
        ): (float(row["value"][1]) if "value" in row else [float(value) for _, value in row["values"]])
        for row in rows
    }


@pytest.mark.parametrize("rate", [0, 1e9])
def test_of_events_at_one_time_all_count_and_the_largest_is_the_last(
    database_url: str, stored: Stored, rate: float
) -> None:
    events = [event(NOON + 30 * SECOND, drift=value) for value in (2, 9, 4)]
    for one in events:
        send(database_url, message_of(one))
        with Storing(database_url, minutely_rate=rate) as storing:
            storing.run()
    grid = (NOON, NOON + 6 * MINUTE, MINUTE)
    odd = (NOON + 7, NOON + 6 * MINUTE, MINUTE + 1)
    for query, value in (("drift", 9), ("count_over_time(drift[5m])", 3), ("sum_over_time(drift[5m])", 15)):
        for steps in (grid, odd):
            (values,) = answer(stored.ask(query, steps)).values()
            assert values == [value] * 5
        (at_once,) = answer(stored.ask(query, (NOON + MINUTE,))).values()
        assert at_once == value
    (first,) = answer(stored.ask("first_over_time(drift[5m])", (NOON + MINUTE,))).values()
    assert first == 2


def test_the_deviation_in_a_window_survives_that_others_are_far_away(database_url: str, stored: Stored) -> None:
    rng = np.random.default_rng(SEED)
    values = np.concatenate([rng.normal(level, 1e-3, 300) for level in (0, 1e6, 2e6)])
    times = NOON + 1 + np.arange(900) * 12 * SECOND  # an hour at each level
    events = [event(int(at), value=float(value)) for at, value in zip(times, values, strict=True)]
    store(database_url, *events)
    memory = in_memory(events)
    for range_, steps in (("1h", (NOON + HOUR, NOON + 6 * HOUR, HOUR)), ("30m", (NOON, NOON + 3 * HOUR, 5 * MINUTE))):
        query = f"stddev_over_time(value[{range_}])"
        (found,) = answer(stored.ask(query, steps)).values()
        (wanted,) = answer(evaluate(query, steps, memory)).values()
        assert found == pytest.approx(wanted, rel=1e-6)
    assert stored.folds == 2


def test_a_query_beyond_the_limit_is_refused_before_it_fills_the_memory(database_url: str, stored: Stored) -> None:
    store(database_url, *(event(NOON + 1 + number * 9 * SECOND, drift=1, score=2) for number in range(400)))
    grid = (NOON, NOON + HOUR, MINUTE)
    for query in (
        "drift[1h]",
        "avg_over_time(drift[1h])",
        "psi(drift[1h], drift[1h] offset 10m)",
        "quantile_over_time(0.5, drift[1h])",
    ):
        with pytest.raises(TooMuchData):
            stored.ask(query, (NOON + HOUR,) if query == "drift[1h]" else grid, sample_limit=60)
    assert answer(stored.ask("count_over_time(drift[1h])", (NOON + HOUR,), sample_limit=60))


def test_a_query_of_too_many_rollups_is_refused_before_they_are_read(
    database_url: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(database_url, *(event(NOON + 1 + number * HOUR, drift=1) for number in range(60)), **BY_HOUR)
    steps = (NOON + HOUR, NOON + 60 * HOUR, HOUR)
    monkeypatch.setattr("modelmeter.series._LEAST_ROWS", 60)
    assert answer(stored.ask("count_over_time(drift[1h])", steps, sample_limit=900))
    monkeypatch.setattr("modelmeter.series._LEAST_ROWS", 59)
    with pytest.raises(TooMuchData):
        stored.ask("count_over_time(drift[1h])", steps, sample_limit=900)


def test_times_that_no_database_can_name_are_answered_too(database_url: str, stored: Stored) -> None:
    store(database_url, event(1, drift=5), event(NOON, drift=6))
    cases: dict[str, tuple[int, ...]] = {
        "last_over_time(drift[1d] offset 100000d)": (NOON,),
        "sum_over_time(drift[1h] offset 1d)": (0, 6 * HOUR, HOUR),
        "sum_over_time(drift[1h])": (0, 6 * HOUR, HOUR),
        "sum_over_time(drift[1d] offset -1000000d)": (0, 10 * DAY, DAY),
        "drift offset -3000000d": (NOON,),
        "sum_over_time(drift[9000y])": (LATEST,),
        "sum_over_time(drift[1d])": (LATEST - 9 * DAY, LATEST, DAY),
        "rate(drift[1d])": (LATEST,),
    }
    memory = in_memory([event(1, drift=5), event(NOON, drift=6)])
    for query, steps in cases.items():
        assert answer(stored.ask(query, steps)) == answer(evaluate(query, steps, memory)), query


def test_a_stream_that_was_committed_after_a_later_one_is_seen(
    database_url: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelmeter.series._COUNT_SECONDS", -1)
    store(database_url, event(NOON, labels=labels_of(version="v1")), event(NOON, labels=labels_of(version="v2")))
    stored.ask("drift", (NOON,))
    stored.catalog._streams.pop(min(stored.catalog._streams))
    assert json.loads(stored.ask("count(drift)", (NOON,)).data_json())["result"][0]["value"][1] == "2"


def test_the_series_of_selectors_are_those_with_events_in_these_days(database_url: str, stored: Stored) -> None:
    store(
        database_url,
        event(NOON, drift=1, score=1),
        event(NOON - 3 * DAY, labels=labels_of(version="v0"), drift=1),
    )
    drift, all_ = (Matcher("__name__", "=", "drift"),), (Matcher("name", "=", "Mistral"),)
    with stored.reader.snapshot() as connection:
        source = SeriesSource(connection, stored.catalog, 0)
        assert [dict(one)["version"] for one in source.series([drift], Span(0, LATEST))] == ["v0", "v1"]
        assert [dict(one)["__name__"] for one in source.series([drift, all_], Span(NOON, NOON + 1))] == [
            "drift",
            "score",
        ]
        assert source.series([all_], Span(NOON + DAY, NOON + 2 * DAY)) == []


@pytest.mark.parametrize(("rate", "width"), [(0, MINUTE), (1e9, HOUR)], ids=["minutely", "hourly"])
def test_where_raw_samples_are_retired_windows_widen_to_what_is_left_and_the_answer_says_so(
    database_url: str, stored: Stored, compactor: Compactor, rate: float, width: int
) -> None:
    rng = np.random.default_rng([SEED, 7])
    old, off = NOON - 35 * DAY, 17 * SECOND + 3
    dense = np.arange(old - 3 * HOUR, old + 14 * HOUR, 7 * SECOND)  # on both sides of any border there are events
    times = np.unique(np.concatenate((dense + 1, NOON - 40 * DAY + rng.integers(0, 40 * DAY, 500))))
    events = [
        event(int(at), labels=labels_of(version=version), latency=float(rng.lognormal(2, 0.6)))
        for at in times[times % MINUTE > 0]
        for version in ("v1", "v2")
    ]
    memory = in_memory(events)
    store(database_url, *events, minutely_rate=rate)
    while compactor.run_once(NOON + DAY):
        pass
    partitioner = Partitioner(Config(database_url=database_url))
    while partitioner.run_once(NOON):
        pass
    partitioner.close()
    names = ("count", "sum", "max", "stddev", "last", "quantile")
    queries = [f"{name}_over_time({'0.5, ' if name == 'quantile' else ''}latency[{{}}])" for name in names]
    for query in queries:
        for steps, range_ in (
            ((old,), "2h"),
            ((old, old + 5 * HOUR, HOUR), "2h"),
            ((old, old + 12 * HOUR, HOUR), "1h"),
        ):
            text = query.format(range_)
            found = stored.ask(text, steps)
            wanted = evaluate(text, steps, memory)
            check_close(found, wanted, text)
            assert not any("retired" in info for info in found.infos)
            moved = tuple(one + 31 * MINUTE + off for one in steps[:2]) + steps[2:]
            found = stored.ask(text, moved)
            assert any(f"whole windows of {'1m' if width == MINUTE else '1h'}" in one for one in found.infos)
            snapped = tuple(one - one % width for one in moved[:2]) + steps[2:]
            check_close(at_steps(found), at_steps(evaluate(text, snapped, memory)), text)
    late = NOON + 31 * MINUTE + off
    half = stored.ask("count_over_time(latency[35d])", (late,))
    (value, *_) = answer(half).values()
    assert any("retired" in one for one in half.infos)
    border = late - 35 * DAY
    assert value == sum(one.timestamp > border - border % width for one in events) / 2
    recent = stored.ask("count_over_time(latency[9d])", (NOON - off,))
    assert not recent.infos
    check(stored, memory, "count_over_time(latency[9d])", (NOON - off,), 0)
    raw = stored.ask("changes(latency[2h])", (old,))
    assert any("retired" in one for one in raw.infos)


def at_steps(result: Result) -> Result:
    """Its times numbered."""
    return replace(result, times=np.arange(result.times.size))


def check_close(found: Result, wanted: Result, query: str) -> None:
    left, right = (
        sorted(
            (json.dumps(row["metric"]), at, float(value))
            for row in json.loads(one.data_json())["result"]
            for at, value in row.get("values", [row.get("value")])
        )
        for one in (found, wanted)
    )
    assert [one[:2] for one in left] == [one[:2] for one in right], query
    bound = 0.02 if "quantile" in query else 1e-9
    np.testing.assert_allclose(
        [one[2] for one in left], [one[2] for one in right], rtol=bound, atol=1e-9, err_msg=query
    )
