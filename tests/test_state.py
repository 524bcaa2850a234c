"""The state of a question: while it is the same, so is the answer, whatever was stored, folded, corrected or passed."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest

from modelmeter.compactor import Compactor
from modelmeter.condition import parse
from modelmeter.config import Config
from modelmeter.matcher import Matcher
from modelmeter.reader import Answer, Limits, Question, Reader
from modelmeter.window import DAY, HOUR, MINUTE, SECOND, Span
from tests.history import BY_HOUR, BY_MINUTE, NOON, Random, event, labels_of, random_events, store

EVERY = Limits()
TABLES = ("chunk", "rollup_partial_1m", "rollup_partial_1h", "rollup_1m", "rollup_1h", "rollup_1d")


@pytest.fixture
def reader(database_url: str) -> Iterator[Reader]:
    reader = Reader(database_url)
    yield reader
    reader.close()


def ask(reader: Reader, question: Question) -> tuple[str, Answer]:
    with reader.asking(question, EVERY) as asked:
        return asked.state, asked.answer()


def comparable(answer: Answer) -> object:
    """All but the last bits of sums, which depend on their order."""
    cells = answer.cells
    exact = (answer.group, answer.window, answer.events, cells.row, cells.count, cells.min, cells.max, cells.last)
    return (
        answer.groups,
        answer.metrics,
        [column.tolist() for column in exact],
        np.round(cells.mean, 6).tolist(),
        cells.quantiles.tolist(),
    )


def questions(now: int) -> dict[str, Question]:
    """By name; the spans of some end now."""
    whole = Question("A", None, Span(NOON - DAY, NOON + DAY), {}, quantiles=(0.5, 0.9))
    recent = replace(whole, span=Span(now - 6 * HOUR - 7, now + 1))
    return {
        "whole": whole,
        "past": replace(whole, span=Span(NOON - DAY, NOON - 5 * HOUR - 3 * SECOND)),
        "minutes": replace(whole, span=Span(NOON - 90 * MINUTE, NOON), step=MINUTE, by=("env",)),
        "one metric": replace(whole, metrics=("drift",), step=HOUR),
        "matched": replace(whole, matchers=(Matcher("env", "=~", "p.*"),)),
        "where": replace(whole, where=parse("latency>5"), metrics=("drift",)),
        "recent": recent,
        "recent by env": replace(recent, by=("env",)),
    }


def correct(url: str, rng: Random) -> None:
    """The events of a day and of some streams are taken away, and others are told instead."""
    day = NOON - NOON % DAY + int(rng.integers(-1, 2)) * DAY
    with psycopg.connect(url) as connection:
        streams = [row[0] for row in connection.execute("SELECT stream_id FROM modelmeter.stream")]
        streams = [stream for stream in streams if rng.random() < 0.5]
        for table in TABLES:
            column = "start_at" if table == "chunk" else "window_start"
            connection.execute(
                f"DELETE FROM modelmeter.{table} WHERE stream_id = ANY(%s) AND {column} >= to_timestamp(%s) "
                f"AND {column} < to_timestamp(%s)".encode(),
                (streams, day // SECOND, (day + DAY) // SECOND),
            )
    store(url, *random_events(rng, 5, days=1))


@pytest.mark.parametrize("seed", range(2))
def test_the_same_state_never_has_another_answer(database_url: str, reader: Reader, seed: int) -> None:
    rng = np.random.default_rng(seed)
    compactor = Compactor(Config(database_url=database_url))
    store(database_url, *random_events(rng, 300, days=2))
    remembered: dict[tuple[str, str], object] = {}
    now = NOON
    same = 0
    for _ in range(30):
        choice = rng.random()
        if choice < 0.25:
            store(
                database_url,
                *random_events(rng, int(rng.integers(1, 4)), days=2),
                **(BY_HOUR, BY_MINUTE)[rng.integers(2)],
            )
        elif choice < 0.45:
            compactor.run_once(NOON + int(rng.integers(-1, 3)) * DAY)
        elif choice < 0.55:
            correct(database_url, rng)
        elif choice < 0.7:
            now += int(rng.choice([1, SECOND, MINUTE, HOUR]))
        for name, question in questions(now).items():
            state, answer = ask(reader, question)
            found = comparable(answer)
            same += (name, state) in remembered
            assert remembered.setdefault((name, state), found) == found, name
    compactor.close()
    assert same > 40, "the states tell nothing if they are never the same"


def test_values_corrected_in_place_of_the_old_ones_change_the_state(database_url: str, reader: Reader) -> None:
    question = Question("Mistral", None, Span(NOON - DAY, NOON + DAY), {})
    states = set()
    for value in (1.0, 2.0, 1.0):
        with psycopg.connect(database_url) as connection:
            for table in TABLES:
                connection.execute(f"DELETE FROM modelmeter.{table}".encode())
        store(database_url, event(NOON, drift=value))
        states.add(ask(reader, question)[0])
    assert len(states) == 3


def test_time_that_passes_over_no_event_leaves_the_state(database_url: str, reader: Reader) -> None:
    events = [event(NOON + number * 11 * MINUTE, drift=number) for number in range(5)]
    store(database_url, *events, event(NOON, labels=labels_of("Other")), **BY_HOUR)

    def state(start: int, end: int) -> str:
        return ask(reader, Question("Mistral", None, Span(start, end), {}))[0]

    assert state(NOON - HOUR, NOON + HOUR) == state(NOON - HOUR + 1, NOON + HOUR + 7 * MINUTE)
    assert state(NOON - HOUR, NOON + HOUR) != state(NOON + 1, NOON + HOUR)
    assert state(NOON - HOUR, NOON + 40 * MINUTE) != state(NOON - HOUR, NOON + 50 * MINUTE)
    before = state(NOON - HOUR, NOON + HOUR)
    store(database_url, event(NOON, labels=labels_of("Other")), event(NOON + 2 * HOUR))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("VACUUM (FREEZE, ANALYZE) modelmeter.rollup_partial_1h")
    assert state(NOON - HOUR, NOON + HOUR) == before
    store(database_url, event(NOON))
    assert state(NOON - HOUR, NOON + HOUR) != before


def test_the_catalog_has_a_state_of_its_own(database_url: str, reader: Reader) -> None:
    seen: list[Any] = []
    compactor = Compactor(Config(database_url=database_url))
    rng = np.random.default_rng(3)
    for _ in range(6):
        for _ in range(2):
            state = reader.catalog_state()
            seen.append((state, reader.models()))
        store(database_url, *random_events(rng, 3))
        seen.append((reader.catalog_state(), reader.models()))
        compactor.run_once(NOON + 10 * DAY)
    compactor.close()
    models: dict[str, Any] = {}
    for state, found in seen:
        assert models.setdefault(state, found) == found
    assert len(models) < len(seen)
