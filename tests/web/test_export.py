"""Exports: every event once, bit for bit, oldest first, in every form; loaded again they give the same answers."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from modelmeter.compactor import Compactor
from modelmeter.condition import parse
from modelmeter.config import Config
from modelmeter.reader import Event, Question, Reader, export
from modelmeter.window import DAY, HOUR, LATEST, SECOND, Span, to_rfc3339
from tests.history import NOON, bits, check_models, check_summary, event, labels_of, random_events, random_span, store
from tests.web.conftest import Served, serve
from tests.web.test_ingest import check_problem

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
NDJSON = "application/x-ndjson"
FORMS = {NDJSON: ".ndjson", "text/csv": ".csv", ARROW: ".arrow", PARQUET: ".parquet"}
QUOTED = {'odd ,":null': 1.0}  # Polars cannot read a CSV header that has a quote in it
ODD = {"odd ,:null": 1.0, "}x": -0.0, "tiny": 5e-324, "huge": 1.2e307, "third": 1 / 3}


@pytest.fixture
def other_database(postgres: str, template_database: str) -> Iterator[str]:
    name = f"{template_database}_other"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY wal_log".encode())
    try:
        yield make_conninfo(postgres, dbname=name)
    finally:
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def some_events(seed: int, count: int = 500, *, form: str = "text/csv") -> list[Event]:
    metrics = ODD if form == "text/csv" else ODD | QUOTED
    rng = np.random.default_rng(seed)
    events = random_events(rng, count)
    events += [
        event(NOON + n, labels=labels_of("A", "v1", note='a,"b"\n{c}', nul=f',"drift":null{n}'), **metrics)
        for n in range(3)
    ]
    return [one for one in events if dict(one.labels)["name"] == "A"]


def read(form: str, content: bytes) -> list[Event]:
    """What a stranger reads from it."""
    if form == NDJSON:
        rows = [json.loads(line) for line in content.decode().splitlines()]
    else:
        if form == ARROW:
            frame = pl.read_ipc_stream(io.BytesIO(content))
        elif form == PARQUET:
            frame = pl.read_parquet(io.BytesIO(content))
        else:
            frame = pl.read_csv(content, schema_overrides={"version": pl.String}, infer_schema_length=None)
        if frame["timestamp"].dtype != pl.String:
            frame = frame.with_columns(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
        rows = frame.to_dicts()
    found = []
    for row in rows:
        timestamp = pl.Series([row.pop("timestamp")]).str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us")
        labels = {name: value for name, value in row.items() if isinstance(value, str)}
        metrics = {name: float(value) for name, value in row.items() if isinstance(value, (int, float))}
        found.append(Event(tuple(sorted(labels.items())), int(timestamp.cast(pl.Int64)[0]), metrics))
    return found


@pytest.mark.parametrize("form", [*FORMS])
def test_every_event_comes_once_bit_for_bit_and_oldest_first(served: Served, form: str) -> None:
    events = some_events(1, form=form)
    store(served.database_url, *events[::2])
    with Reader(served.database_url) as reader:
        compactor = Compactor(Config(database_url=served.database_url))
        while compactor.run_once(NOON + 10 * DAY):
            pass
        compactor.close()
        store(served.database_url, *events[1::2])
        answer = served.client.get("/events/A?start=0", headers={"accept": form})
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, form)
        assert answer.headers["modelmeter-events"] == str(len(events))
        found = read(form, answer.content)
        times = [one.timestamp for one in found]
        assert times == sorted(times)
        assert sorted(map(bits, found)) == sorted(map(bits, events))
        assert sorted(map(bits, found)) == sorted(map(bits, reader.events("A", None, Span(0, LATEST), {}, 10_000)))


@pytest.mark.parametrize("form", [NDJSON, ARROW])
def test_what_is_exported_can_be_posted_into_another_database(served: Served, other_database: str, form: str) -> None:
    events = some_events(2, form=form)
    store(served.database_url, *events)
    exported = served.client.get("/events/A?start=0", headers={"accept": form}).content
    with serve(other_database) as other:
        answer = other.post(exported, content_type=form)
        assert (answer.json()["accepted"], answer.json()["rejected"]) == (len(events), 0)
        other.store()
        check_same_answers(served, other, events)


@pytest.mark.parametrize("form", [NDJSON, "text/csv", PARQUET])
def test_what_is_exported_can_be_loaded_into_another_database(
    served: Served, other_database: str, form: str, tmp_path: Path
) -> None:
    events = some_events(3, 300, form=form)
    store(served.database_url, *events)
    file = tmp_path / f"events{FORMS[form]}"
    file.write_bytes(served.client.get("/events/A?start=0", headers={"accept": form}).content)
    with serve(other_database) as other:
        command = [sys.executable, "-m", "modelmeter", "etl", "load", str(file), "--url", other.url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert f"{len(events):,} events acknowledged" in done.stdout
        other.store()
        check_same_answers(served, other, events)


def check_same_answers(served: Served, other: Served, events: list[Event]) -> None:
    rng = np.random.default_rng(0)
    with Reader(other.database_url) as reader:
        check_models(reader, events)
        for _ in range(10):
            check_summary(reader, events, "A", None, random_span(rng), {})
    found = [
        sorted(map(bits, read(NDJSON, one.client.get("/events/A?start=0", headers={"accept": NDJSON}).content)))
        for one in (served, other)
    ]
    assert found[0] == found[1]


def test_an_absent_field_is_absent_from_a_line(served: Served) -> None:
    events: list[dict[str, Any]] = [
        {"name": "m", "version": "1", "timestamp": "2026-01-31T12:00:00Z", "env": "prod", "a": 1},
        {"name": "m", "version": "2", "timestamp": "2026-01-31T12:00:01Z", "b": 2.5},
    ]
    served.post(json.dumps(events))
    served.store()
    lines = served.client.get("/events/m?start=0", headers={"accept": NDJSON}).text.splitlines()
    for line, one in zip(lines, events, strict=True):
        moment = one["timestamp"].replace("Z", ".000000Z")
        assert json.loads(line) == {**one, "timestamp": moment}
        assert [*json.loads(line)][:3] == ["name", "version", "timestamp"]
    assert served.client.get("/events/m/2?start=0", headers={"accept": "text/csv"}).text.splitlines() == [
        "name,version,timestamp,b",
        "m,2,2026-01-31T12:00:01.000000Z,2.5",
    ]


def test_matchers_conditions_spans_and_limits_hold_for_every_form(served: Served) -> None:
    events = some_events(4)
    store(served.database_url, *events)
    span = Span(NOON - 13 * HOUR - 7, NOON + HOUR + 3)
    condition = parse("drift>=0 and latency<90")
    wanted = [
        one
        for one in events
        if span.start <= one.timestamp < span.end
        and dict(one.labels).get("env", "").startswith("p")
        and condition.holds_for(one.metrics)
    ]
    assert len(wanted) > 10
    address = (
        f"/events/A?start={to_rfc3339(span.start)}&end={to_rfc3339(span.end)}"
        '&match={env=~"p.*"}&where=drift>=0 and latency<90'
    )
    for form in FORMS:
        answer = served.client.get(address, headers={"accept": form})
        assert "modelmeter-events" not in answer.headers
        assert sorted(map(bits, read(form, answer.content))) == sorted(map(bits, wanted))
        first = read(form, served.client.get(f"{address}&limit=7", headers={"accept": form}).content)
        assert [one.timestamp for one in first] == sorted(one.timestamp for one in wanted)[:7]
    newest = served.client.get(f"{address}&limit=7").json()["events"]
    assert [one["timestamp"] for one in newest] == [
        to_rfc3339(instant) for instant in sorted((one.timestamp for one in wanted), reverse=True)[:7]
    ]


def test_no_events_are_an_empty_table(served: Served) -> None:
    store(served.database_url, event(NOON, labels=labels_of(env="prod"), drift=1))
    for form in FORMS:
        answer = served.client.get(f"/events/Mistral?end={to_rfc3339(NOON)}", headers={"accept": form})
        assert answer.status_code == 200
        assert read(form, answer.content) == []
    check_problem(served.client.get("/events/Mistrl", headers={"accept": PARQUET}), 404)
    check_problem(served.client.get("/events/Mistral", headers={"accept": "image/png"}), 406)


def test_events_that_are_no_longer_kept_raw_are_not_left_out_silently(served: Served) -> None:
    store(served.database_url, event(NOON, drift=1), event(NOON + DAY, drift=2))
    with psycopg.connect(served.database_url) as connection:
        connection.execute("DELETE FROM modelmeter.chunk WHERE start_at < '2026-03-02'")
    found = check_problem(served.client.get("/events/Mistral?start=0", headers={"accept": NDJSON}), 422)
    assert found["raw_from"] == "2026-03-02T00:00:00Z"
    answer = served.client.get(f"/events/Mistral?start={found['raw_from']}", headers={"accept": NDJSON})
    assert len(answer.text.splitlines()) == 1


def test_a_large_day_is_exported_in_bounded_parts(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_EVENTS_AT_ONCE", 500)
    monkeypatch.setattr(export, "_EVENTS_OF_SLICE", 3000)
    rng = np.random.default_rng(5)
    events = [
        event(NOON + int(rng.integers(0, 6 * HOUR)), labels=labels_of(env=str(n % 3)), drift=n) for n in range(20_000)
    ]
    events.sort(key=lambda one: one.timestamp)
    for part in range(0, 20_000, 1000):
        store(database_url, *events[part : part + 1000])
    with (
        Reader(database_url) as reader,
        reader.exporting(Question("Mistral", None, Span(NOON, NOON + DAY), {})) as found,
    ):
        assert found.events == 20_000
        frames = list(found.frames())
    assert max(frame.height for frame in frames) <= 3000
    whole = pl.concat(frames)
    assert whole["timestamp"].is_sorted()
    assert sorted(whole["drift"].to_list()) == list(range(20_000))


def test_one_export_too_many_is_told_to_wait_and_an_abandoned_one_lets_go(database_url: str) -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(size=120_000)
    events = [event(NOON + n * SECOND // 2, drift=value) for n, value in enumerate(values.tolist())]
    store(database_url, *events)
    with serve(database_url, export_limit=1) as served:
        for form in FORMS:
            with served.client.stream("GET", "/events/Mistral?start=0", headers={"accept": form}) as first:
                parts = first.iter_raw(chunk_size=1000)
                assert next(parts)
                if form == NDJSON:  # the others are too small to be still under way for sure
                    answer = check_problem(served.client.get("/events/Mistral", headers={"accept": form}), 429)
                    assert "MODELMETER_EXPORT_LIMIT" in answer["detail"]
            served.wait_until(
                lambda form=form: (
                    served.client.get("/events/Mistral?limit=1&start=0", headers={"accept": form}).status_code == 200
                )  # type: ignore[misc]
            )
