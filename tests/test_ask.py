"""Questions against NumPy over the raw events: any span, step, grouping and condition; late events; compaction."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmeter.compactor import Compactor
from modelmeter.condition import parse
from modelmeter.config import Config
from modelmeter.errors import NotFound, Unanswerable
from modelmeter.fold import cover
from modelmeter.matcher import Matcher
from modelmeter.partitioner import Partitioner
from modelmeter.reader import Answer, Event, Limits, Question, Reader
from modelmeter.reader.answer import take_page
from modelmeter.reader.ask import resolution_of
from modelmeter.window import DAY, HOUR, LATEST, MINUTE, SECOND, Span, floor
from tests.history import (
    BY_HOUR,
    BY_MINUTE,
    NOON,
    QUANTILES,
    Random,
    Storing,
    event,
    labels_of,
    message_of,
    random_events,
    random_span,
    send,
    store,
)

STEPS = (None, 7 * SECOND, 90 * SECOND, MINUTE, 5 * MINUTE, HOUR, 3 * HOUR + 30 * MINUTE, DAY, 7 * DAY)
MATCHERS = (
    (),
    (Matcher("env", "=", "prod"),),
    (Matcher("env", "=", ""),),
    (Matcher("env", "!=", "prod"), Matcher("version", "=~", "v.*")),
    (Matcher("env", "!~", "t.+"),),
    (Matcher("__name__", "=~", "drift|score"),),
)
CONDITIONS = (None, None, "latency>8", "score!=0 and drift<=0.5", "score==2", "drift>=0 and latency<10 and score>-2")


@pytest.fixture
def reader(database_url: str) -> Iterator[Reader]:
    reader = Reader(database_url)
    yield reader
    reader.close()


def random_question(rng: Random) -> Question:
    where = CONDITIONS[rng.integers(len(CONDITIONS))]
    span = random_span(rng)
    steps = [step for step in STEPS if step is None or (span.end - span.start) // step < 5000]
    by: tuple[str, ...] = ((), ("version",), ("version", "env"), ("name", "nothing"))[rng.integers(4)]
    return Question(
        ("A", None)[rng.integers(2)],
        None,
        span,
        {},
        MATCHERS[rng.integers(len(MATCHERS))],
        (None, ("drift",), ("latency", "score"))[rng.integers(3)],
        QUANTILES,
        by,
        steps[rng.integers(len(steps))],
        None if where is None else parse(where),
        bool(rng.random() < 0.3),
    )


def wanted_rows(question: Question, events: Sequence[Event]) -> dict[tuple[tuple[str, ...], int], list[Event]]:
    """The events that the question is about, by group and window: one by one, plainly."""
    step = question.step or LATEST
    found: dict[tuple[tuple[str, ...], int], list[Event]] = {}
    for one in events:
        labels = dict(one.labels)
        wanted = {"name": question.name, "version": question.version, **question.labels}
        if any(value is not None and labels.get(name, "") != value for name, value in wanted.items()):
            continue
        if not question.span.start <= one.timestamp < question.span.end:
            continue
        on_labels = [matcher for matcher in question.matchers if matcher.name != "__name__"]
        if not all(matcher.matches([labels.get(matcher.name, "")])[0] for matcher in on_labels):
            continue
        if question.where and not all(
            comparison.metric in one.metrics and comparison.holds(np.array([one.metrics[comparison.metric]]))[0]
            for comparison in question.where.comparisons
        ):
            continue
        group = tuple(labels.get(name, "") for name in question.by)
        found.setdefault((group, one.timestamp - one.timestamp % step), []).append(one)
    return found


def chosen_metrics(question: Question, events: Sequence[Event]) -> list[str]:
    names = {name for one in events for name in one.metrics}
    if question.metrics is not None:
        names &= set(question.metrics)
    for matcher in question.matchers:
        if matcher.name == "__name__":
            names = {name for name in names if matcher.matches([name])[0]}
    return sorted(names)


def check_answer(question: Question, answer: Answer, events: Sequence[Event]) -> None:
    wanted = wanted_rows(question, events)
    keys = [
        (answer.groups[group], window)
        for group, window in zip(answer.group.tolist(), answer.window.tolist(), strict=True)
    ]
    assert keys == sorted(wanted)
    cells = answer.cells
    cell = 0
    for row, key in enumerate(keys):
        having = wanted[key]
        assert answer.events[row] == len(having)
        for metric in chosen_metrics(question, having):
            values = np.array([one.metrics[metric] for one in having if metric in one.metrics])
            assert (cells.row[cell], answer.metrics[cells.metric[cell]]) == (row, metric)
            size = float(np.abs(values).max())
            assert cells.count[cell] == values.size
            assert (cells.min[cell], cells.max[cell]) == (values.min(), values.max())
            assert cells.mean[cell] == pytest.approx(values.mean(), rel=1e-9, abs=1e-12 * size)
            assert cells.stddev[cell] == pytest.approx(values.std(), rel=1e-9, abs=1e-9 * size)
            newest = max(one.timestamp for one in having if metric in one.metrics)
            assert cells.last[cell] == max(
                one.metrics[metric] for one in having if one.timestamp == newest and metric in one.metrics
            )
            true = np.quantile(values, QUANTILES)
            if question.exact:
                assert cells.quantiles[cell].tolist() == true.tolist()
            else:
                ordered = np.sort(values)
                for q, value in zip(QUANTILES, cells.quantiles[cell].tolist(), strict=True):
                    rank = int(q * (values.size - 1))
                    beside = np.abs(ordered[rank : rank + 2]).max()
                    assert abs(value - np.quantile(values, q)) <= 0.011 * beside
            cell += 1
    assert cell == cells.row.size


@pytest.mark.parametrize("seed", range(3))
def test_any_question_has_the_answer_of_the_raw_events(database_url: str, reader: Reader, seed: int) -> None:
    rng = np.random.default_rng(seed)
    events = random_events(rng, 900)
    store(database_url, *events[:600])
    compactor = Compactor(Config(database_url=database_url))
    stored = events[:600]
    for late in (events[600:750], events[750:]):
        for _ in range(25):
            question = random_question(rng)
            check_answer(question, reader.ask(question), stored)
        compactor.run_once(NOON + 10 * DAY)
        store(database_url, *late, **(BY_MINUTE, BY_HOUR)[rng.integers(2)])
        stored = stored + late
        for _ in range(25):
            question = random_question(rng)
            check_answer(question, reader.ask(question), stored)
        while compactor.run_once(NOON + 10 * DAY):
            pass
    compactor.close()
    for _ in range(25):
        question = random_question(rng)
        check_answer(question, reader.ask(question), stored)


def everything(**changes: object) -> Question:
    return replace(Question("Mistral", None, Span(NOON - DAY, NOON + DAY), {}, quantiles=(0.5,)), **changes)  # type: ignore[arg-type]


def test_the_resolution_is_the_coarsest_that_was_read(database_url: str, reader: Reader) -> None:
    store(database_url, *(event(NOON + number * 10 * MINUTE) for number in range(50)))
    day = NOON - NOON % DAY
    for step, resolution in ((None, "1d"), (DAY, "1d"), (6 * HOUR, "1h"), (5 * MINUTE, "1m"), (30 * SECOND, "raw")):
        assert reader.ask(everything(step=step, span=Span(day, day + DAY))).resolution == resolution
    assert reader.ask(everything(span=Span(day, day + 5 * HOUR))).resolution == "1h"
    assert reader.ask(everything(span=Span(NOON + 1, NOON + HOUR - 1))).resolution == "1m"
    assert reader.ask(everything(exact=True)).resolution == "raw"
    assert reader.ask(everything(where=parse("drift>0"))).resolution == "raw"


@given(st.integers(0, 3 * DAY), st.integers(1, 3 * DAY), st.sampled_from((LATEST, DAY, HOUR, MINUTE)), st.booleans())
def test_the_resolution_is_that_of_the_plan(start: int, length: int, step: int, even: bool) -> None:
    """A border on the grid, or one microsecond after it, cuts nothing."""
    start = NOON + (floor(start, HOUR) + start % 3 if even else start)
    span = Span(start, start + (floor(length, HOUR) + length % 3 + 1 if even else length))
    coarsest = next(width for width in (DAY, HOUR, MINUTE) if step % width == 0)
    tables = {table for table, *_ in cover(span, coarsest).ranges}
    assert resolution_of(span, step) == next((one for one in ("1d", "1h", "1m") if f"rollup_{one}" in tables), "raw")


def test_what_is_over_a_limit_is_refused_with_what_to_do(database_url: str, reader: Reader) -> None:
    events = [event(NOON + n * SECOND, labels=labels_of(user=str(n % 20)), drift=n, latency=n) for n in range(400)]
    store(database_url, *events, **BY_MINUTE)
    for limits, question, said in (
        (Limits(groups=19), everything(by=("user",)), "by: these are 20 groups, over the limit of 19"),
        (Limits(points=47), everything(step=HOUR), "step: these are 48 windows, over the limit of 47"),
        (
            Limits(points=50),
            everything(step=MINUTE, span=Span(NOON, NOON + 10 * MINUTE), by=("user",)),
            "points|windows",
        ),
        (Limits(samples=799), everything(exact=True), "800 raw samples, over the limit of 799"),
        (Limits(samples=799), everything(where=parse("drift>1")), "800 raw samples"),
        (Limits(rollups=100), everything(step=MINUTE), "more than 100 rollups"),
    ):
        with pytest.raises(Unanswerable, match=said):
            reader.ask(question, limits)
    enough = Limits(groups=20, points=2880, rollups=1000, samples=800)
    for question in (everything(by=("user",)), everything(step=MINUTE), everything(exact=True)):
        assert reader.ask(question, enough).events.sum() == 400


def test_raw_events_that_are_gone_are_said_and_never_left_out(database_url: str, reader: Reader) -> None:
    early, late = NOON - 3 * DAY, NOON + DAY
    events = [event(early, drift=1), event(NOON, drift=2), event(NOON + 1, drift=3), event(late, drift=4)]
    store(database_url, *events, **BY_HOUR)
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM modelmeter.chunk WHERE start_at < '2026-03-01T12:00:01Z'")
    whole = everything(span=Span(early - DAY, late + DAY))
    assert reader.ask(whole).events.tolist() == [4]
    for question in (replace(whole, exact=True), replace(whole, where=parse("drift>0"))):
        with pytest.raises(Unanswerable, match="of 2 of 3 days are no longer kept") as caught:
            reader.ask(question)
        assert caught.value.extra["raw_from"] == "2026-03-02T00:00:00Z"
        kept = replace(question, span=Span(NOON - NOON % DAY + DAY, late + DAY))
        assert reader.ask(kept).events.tolist() == [1]
    with pytest.raises(Unanswerable, match="3 events of this span are no longer kept in windows this small"):
        reader.ask(replace(whole, step=5 * MINUTE))
    assert reader.ask(replace(whole, step=HOUR)).events.tolist() == [1, 2, 1]


def test_an_unknown_model_metric_or_condition_is_not_found(database_url: str, reader: Reader) -> None:
    store(database_url, event(NOON, drift=1))
    for question in (
        everything(name="Mistrl"),
        everything(version="v9"),
        everything(metrics=("drifd",)),
        everything(where=parse("drifd>1")),
    ):
        with pytest.raises(NotFound):
            reader.ask(question)
    assert len(reader.ask(everything(name=None, matchers=(Matcher("name", "=", "nobody"),)))) == 0


def test_pages_hold_every_row_once_even_when_rows_come_in_between(database_url: str, reader: Reader) -> None:
    rng = np.random.default_rng(9)
    events = random_events(rng, 400)
    store(database_url, *events)
    question = everything(name=None, by=("version", "env"), step=HOUR, span=Span(NOON - 2 * DAY, NOON + 2 * DAY))
    whole = reader.ask(question)
    for limit in (1, 7, 100, len(whole), len(whole) + 1):
        seen: list[tuple[object, ...]] = []
        cursor = None
        while True:
            page, cursor = take_page(reader.ask(question), cursor, limit)
            assert len(page) <= limit
            assert page.cells.row.size == 0 or page.cells.row[-1] == len(page) - 1
            seen += [
                (page.groups[group], window, count)
                for group, window, count in zip(
                    page.group.tolist(), page.window.tolist(), page.events.tolist(), strict=True
                )
            ]
            if cursor is None:
                break
        assert seen == [
            (whole.groups[group], window, count)
            for group, window, count in zip(
                whole.group.tolist(), whole.window.tolist(), whole.events.tolist(), strict=True
            )
        ]
    _, cursor = take_page(whole, None, 5)
    rest, _ = take_page(whole, cursor, None)
    store(database_url, event(NOON - DAY, labels=labels_of(version="a-new-first-group")))
    again, _ = take_page(reader.ask(question), cursor, None)
    assert again.events.tolist() == rest.events.tolist()


def test_the_worker_may_store_while_questions_are_answered(database_url: str, reader: Reader) -> None:
    """One snapshot an answer: the events of a row and those of its metrics are of one state."""
    question = everything(step=MINUTE, by=("version",))
    with Storing(database_url, claim_limit_events=10) as storing:
        for number in range(30):
            send(database_url, message_of(*(event(NOON + number * SECOND + n, drift=n) for n in range(10))))
            if number % 3 == 0:
                storing.run()
                answer = reader.ask(question)
                assert answer.events.sum() == answer.cells.count.sum() == (number + 1) * 10


def test_where_finer_data_is_retired_the_ends_are_whole_windows_and_the_answer_says_so(database_url: str) -> None:
    hour = (time.time_ns() // 1000 - 100 * DAY) // HOUR * HOUR
    store(database_url, event(hour + 15 * MINUTE, drift=1), event(hour + 45 * MINUTE, drift=2))
    recent = (time.time_ns() // 1000 - 2 * DAY) // HOUR * HOUR
    store(database_url, event(recent + 15 * MINUTE, drift=1), event(recent + 45 * MINUTE, drift=2))
    partitioner = Partitioner(Config(database_url=database_url, retention_raw="30d"))
    while partitioner.run_once(time.time_ns() // 1000):
        pass
    partitioner.close()
    reader = Reader(database_url)
    try:
        for start, count, widened in ((hour, 2, HOUR), (recent, 1, 0)):
            span = Span(start + 30 * MINUTE, start + 5 * HOUR)
            answer = reader.ask(Question(None, None, span, {}))
            assert (answer.events.sum(), answer.widened) == (count, widened)
            assert reader.ask(Question(None, None, Span(start, start + 5 * HOUR), {})).widened == 0
    finally:
        reader.close()
