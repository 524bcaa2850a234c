"""The views say what the API says, at every moment; a sketch in SQL is the sketch in Python."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.history import BY_MINUTE, NOON, QUANTILES, event, labels_of, random_events, store

from modelmeter import compactor as compactor_module
from modelmeter import sketch
from modelmeter.compactor import Compactor
from modelmeter.config import Config
from modelmeter.reader import Event, Reader
from modelmeter.window import DAY, HOUR, MINUTE, Span, to_datetime, to_micros

Connection = psycopg.Connection[tuple[Any, ...]]

DOCS = Path(__file__).parent.parent.parent / "docs"
LATER = NOON + 30 * DAY
LARGEST, SMALLEST = 1.7976931348623157e308, 5e-324

finite = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-100, 100),
    st.floats(1, 1.2),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, SMALLEST, -SMALLEST, 2.2250738585072014e-308, LARGEST, -LARGEST]),
)
groups = st.lists(st.lists(finite, max_size=40), min_size=1, max_size=6).filter(any)  # without a value, none is stored
some = settings(max_examples=60, deadline=None, derandomize=True, database=None)

# Many values in one bin: the counts take one, two or four bytes.
CROWDS = [[1.5] * 300 + [2.5], [-1.5] * 70_000 + [0.0, 3.0] * 300, [1e-9, 1e9] * 200]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def one(connection: Connection, query: str, *parameters: object) -> Any:
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def sketches_of(values: Sequence[Sequence[float]]) -> list[sketch.Sketch]:
    return [sketch.sketch_of(np.array(some, np.float64)) for some in values]


def test_a_merge_in_sql_is_the_stored_form_of_the_merge_in_python(connection: Connection) -> None:
    @some
    @given(groups)
    @example(CROWDS)
    @example([[], [0.0]])
    def holds(values: list[list[float]]) -> None:
        parts = sketches_of(values)
        encoded = [sketch.encode(part) for part in parts]
        assert one(connection, "SELECT modelmeter.merge(s) FROM unnest(%s::bytea[]) AS s", encoded) == sketch.encode(
            sketch.merge(parts)
        )

    holds()


def test_counts_of_eight_bytes_merge_too(connection: Connection) -> None:
    many = sketch.Sketch(7, np.array([2**40, 0, 3]), 2**33, -9, np.array([2**31]))
    encoded = sketch.encode(many)
    merged = one(connection, "SELECT modelmeter.merge(s) FROM unnest(%s::bytea[]) AS s", [encoded, encoded])
    assert merged == sketch.encode(sketch.merge([many, many]))


def test_a_merge_of_merges_is_the_merge_of_all(connection: Connection) -> None:
    rng = np.random.default_rng(5)
    encoded = [sketch.encode(sketch.sketch_of(rng.normal(0, 3, 200))) for _ in range(12)]
    nested = one(
        connection,
        "SELECT modelmeter.merge(m) FROM (SELECT modelmeter.merge(s) AS m FROM unnest(%s::bytea[]) WITH ORDINALITY"
        " AS u (s, i) GROUP BY i %% 3) AS merged",
        encoded,
    )
    assert nested == one(connection, "SELECT modelmeter.merge(s) FROM unnest(%s::bytea[]) AS s", encoded)


def test_what_counts_events_only_has_an_empty_sketch(connection: Connection) -> None:
    assert one(connection, "SELECT modelmeter.merge(s) FROM unnest(ARRAY[''::bytea, '']) AS s") == b""
    assert one(connection, "SELECT modelmeter.quantile(0.5, '')") is None
    assert one(connection, "SELECT modelmeter.merge(s) FROM unnest(ARRAY[]::bytea[]) AS s") is None


def test_a_quantile_in_sql_is_the_one_in_python(connection: Connection) -> None:
    @some
    @given(st.lists(finite, min_size=1, max_size=60), st.lists(st.floats(0, 1), max_size=4))
    @example(CROWDS[1], [0.3])
    @example([-LARGEST, LARGEST], [0.25])
    @example([0.0, SMALLEST], [0.5])
    def holds(values: list[float], qs: list[float]) -> None:
        array = np.array(values, np.float64)
        its_sketch = sketch.sketch_of(array)
        asked = [*QUANTILES, *qs]
        for low, high, query in (
            (float(array.min()), float(array.max()), "modelmeter.quantile(q, %s, %s, %s)"),
            (-np.inf, np.inf, "modelmeter.quantile(q, %s)"),
        ):
            bounds = (low, high) if np.isfinite(low) else ()
            rows = connection.execute(
                f"SELECT {query} FROM unnest(%s::float8[]) WITH ORDINALITY AS u (q, i) ORDER BY i".encode(),
                (sketch.encode(its_sketch), *bounds, asked),
            ).fetchall()
            expected = sketch.quantiles(its_sketch, asked, low, high) if bounds else unbounded(its_sketch, asked)
            assert [row[0] for row in rows] == pytest.approx(expected, rel=1e-12, abs=1e-280)

    holds()


def unbounded(its_sketch: sketch.Sketch, qs: list[float]) -> list[float]:
    """sketch.quantiles between the middles of the outermost bins."""
    values = np.concatenate(
        (
            -sketch.value_of(its_sketch.negative_offset + np.flatnonzero(its_sketch.negative_counts))[::-1],
            [0.0] if its_sketch.zeros else [],
            sketch.value_of(its_sketch.offset + np.flatnonzero(its_sketch.counts)),
        )
    )
    return sketch.quantiles(its_sketch, qs, float(values[0]), float(values[-1]))


@pytest.mark.parametrize("q", [-0.1, 1.5, float("nan")])
def test_a_quantile_that_is_none_is_refused(connection: Connection, q: float) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match=r"q: .* is not between 0 and 1"):
        connection.execute("SELECT modelmeter.quantile(%s::float8, '')", (q,))


def test_bins_hold_the_values_between_their_borders(connection: Connection) -> None:
    @some
    @given(st.lists(finite, max_size=60))
    @example(CROWDS[1])
    def holds(values: list[float]) -> None:
        array = np.array(values, np.float64)
        rows = connection.execute(
            "SELECT * FROM modelmeter.bins(%s)", (sketch.encode(sketch.sketch_of(array)),)
        ).fetchall()
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)
        assert sum(row[2] for row in rows) == array.size
        for lower, upper, count in rows:
            slack = 1e-12 * max(abs(lower), min(abs(upper), LARGEST))
            within = (array >= lower - slack) & (array <= upper + slack)
            assert within.sum() >= count > 0
            assert lower < upper or abs(upper) < 1e-320  # zeros; and below, floats are farther apart than bins

    holds()


VIEWS = {"stats_1m": MINUTE, "stats_1h": HOUR, "stats_1d": DAY}


def check_views(reader: Reader, connection: Connection, spans: dict[str, list[Span]]) -> None:
    """Windows added up in SQL against the API's answer for the same span."""
    quantiles = ", ".join(f"modelmeter.quantile({q}, modelmeter.merge(sketch), min(min), max(max))" for q in QUANTILES)
    for view, its_spans in spans.items():
        for span in its_spans:
            for name, version, labels in (("A", "v1", "{}"), ("B", None, '{"env": "prod"}')):
                rows = connection.execute(
                    "SELECT metric, sum(count)::bigint, sum(sum) / sum(count),"
                    f" modelmeter.stddev(count, sum, deviation), min(min), max(max), modelmeter.last(last, last_at),"
                    f" {quantiles} FROM modelmeter.{view}"
                    " WHERE name = %s AND version = coalesce(%s, version) AND labels @> %s::jsonb"
                    " AND window_start >= %s AND window_start < %s GROUP BY metric".encode(),
                    (name, version, labels, to_datetime(span.start), to_datetime(span.end)),
                ).fetchall()
                its_labels = {"env": "prod"} if "env" in labels else {}
                summary = reader.stats(name, version, span, its_labels, None, QUANTILES)
                assert {row[0] for row in rows} == set(summary.metrics)
                for metric, count, mean, stddev, low, high, last, *found in rows:
                    stats = summary.metrics[metric]
                    assert (count, low, high, last) == (stats.count, stats.min, stats.max, stats.last)
                    size = max(abs(low), abs(high))
                    assert mean == pytest.approx(stats.mean, rel=1e-9, abs=1e-12 * size)
                    assert stddev == pytest.approx(stats.stddev, rel=1e-9, abs=1e-9 * size)
                    assert found == pytest.approx([*stats.quantiles.values()], rel=1e-12)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_views_answer_as_the_api_does_before_during_and_after_compaction(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(compactor_module, "_STEP_PARTIALS", 150)
    rng = np.random.default_rng(seed)
    coming = random_events(rng, 240)
    days = Span(NOON - NOON % DAY - 2 * DAY, NOON - NOON % DAY + 2 * DAY)
    noon = Span(NOON - 2 * MINUTE, NOON + 3 * MINUTE)
    spans = {
        "stats_1d": [days, Span(days.start + 2 * DAY, days.end)],
        "stats_1h": [days, Span(NOON - 5 * HOUR, NOON + HOUR)],
    }
    settings: dict[str, Any] = {}
    if seed == 1:  # every stream is fast, so the minutes are complete
        settings = BY_MINUTE
        spans["stats_1m"] = [noon, days]
    reader = Reader(database_url)
    compactor = Compactor(Config(database_url=database_url))
    try:
        for start in range(0, len(coming), 80):
            store(database_url, *coming[start : start + 80], **settings)
            check_views(reader, connection, spans)
            compactor.run_once(LATER)
            check_views(reader, connection, spans)
        while compactor.run_once(LATER):
            pass
        check_views(reader, connection, spans)
        versions = connection.execute(
            "SELECT name, version, events, first_at, last_at FROM modelmeter.model_version ORDER BY name, version"
        ).fetchall()
        assert [
            (name, version, events, to_micros(first), to_micros(last))
            for name, version, events, first, last in versions
        ] == [(model.name, model.version, model.events, model.first_at, model.last_at) for model in reader.models()]
    finally:
        compactor.close()
        reader.close()


def test_a_row_of_a_view_is_one_window_of_one_series(database_url: str, connection: Connection) -> None:
    labels = labels_of(env="prod")
    store(database_url, *(event(NOON + number, labels=labels, drift=number) for number in (0, 1, 5)), **BY_MINUTE)
    store(database_url, event(NOON + HOUR - 1, labels=labels, drift=-2), event(NOON, drift=9), **BY_MINUTE)
    rows = connection.execute(
        "SELECT name, version, labels, metric, window_start, count, mean, stddev, min, max, last, first_at, last_at,"
        " sum, modelmeter.quantile(0.5, sketch, min, max) FROM modelmeter.stats_1h WHERE labels ? 'env'"
    ).fetchall()
    noon = to_datetime(NOON)
    assert rows == [
        (
            "Mistral", "v1", dict(labels), "drift", noon, 4, 1.0, pytest.approx(np.std([0, 1, 5, -2]), rel=1e-12),
            -2, 5, -2, noon, to_datetime(NOON + HOUR - 1), 4.0, pytest.approx(0.5, rel=0.011),
        )
    ]  # fmt: skip


def test_numbers_at_the_ends_of_the_range_break_no_view(database_url: str, connection: Connection) -> None:
    values = [LARGEST, -LARGEST, 1e200, SMALLEST, -SMALLEST, 0.0, 1e-200]
    for number, value in enumerate(values):
        metrics = {"drift": value, f"m{number}": value}
        store(database_url, Event(labels_of(), NOON + number, metrics))
        store(database_url, event(NOON + 10 + number, drift=value, huge=LARGEST, tiny=1e-200))
    rows = {
        row[0]: row[1:]
        for row in connection.execute("SELECT metric, count, mean, stddev, min, max FROM modelmeter.stats_1h")
    }
    assert rows["drift"][0] == 14
    assert rows["drift"][3:] == (-LARGEST, LARGEST)
    assert rows["huge"] == (7, None, None, LARGEST, LARGEST)
    assert rows["tiny"] == (7, 1e-200, 0, 1e-200, 1e-200)
    for number, value in enumerate(values):
        assert rows[f"m{number}"] == (1, value, 0, value, value)


def test_a_condition_on_the_model_reaches_the_index(database_url: str, connection: Connection) -> None:
    names = [labels_of(f"m{number}") for number in range(200)]
    store(database_url, *(event(NOON + hour * HOUR, labels=labels) for labels in names for hour in range(24)))
    compactor = Compactor(Config(database_url=database_url))
    while compactor.run_once(LATER):
        pass
    compactor.close()
    connection.execute("ANALYZE")
    plan = "\n".join(
        row[0]
        for row in connection.execute(
            "EXPLAIN SELECT * FROM modelmeter.stats_1h WHERE name = 'm7' AND version = 'v1' AND metric = 'drift'"
            " AND window_start >= '2026-03-01T12:00Z'"
        )
    )
    assert "Seq Scan on rollup_1h" not in plan
    assert "Index Cond" in plan


def examples() -> list[str]:
    return re.findall(r"^```sql\n(.*?)^```$", (DOCS / "sql.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)


READER = next(text for text in examples() if "CREATE ROLE" in text)


@pytest.mark.parametrize("text", [text for text in examples() if text != READER], ids=lambda text: text[7:40])
def test_every_example_in_the_page_runs_and_finds_something(
    database_url: str, connection: Connection, text: str
) -> None:
    now = one(connection, "SELECT now()")
    labels = labels_of(env="prod")
    store(
        database_url,
        *(
            event(to_micros(now), labels=labels, prediction_accuracy=0.9, inference_time=value)
            for value in (1.0, 2.0, 8.0)
        ),
    )
    text = re.sub(r"\$__timeFilter\((\w+)\)", r"\1 BETWEEN now() - interval '1 day' AND now()", text)
    assert connection.execute(text.encode()).fetchall()


def test_the_role_in_the_page_reads_the_views_and_nothing_else(database_url: str, connection: Connection) -> None:
    role = "modelmeter_reader_test"
    connection.execute(f"DROP ROLE IF EXISTS {role}".encode())
    store(database_url, event(NOON))
    for statement in READER.replace("modelmeter_reader", role).split(";\n"):
        if statement.strip():
            connection.execute(statement.encode())
    try:
        connection.execute(f"SET SESSION AUTHORIZATION {role}".encode())
        for view in ("model_version", *VIEWS):
            connection.execute(f"SELECT * FROM modelmeter.{view}".encode())
        assert one(connection, "SELECT modelmeter.quantile(0.5, modelmeter.merge(sketch)) FROM modelmeter.stats_1d")
        for table in ("stream", "queue", "rollup_1h", "chunk"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT * FROM modelmeter.{table}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO modelmeter.metric (name) VALUES ('x')")
    finally:
        connection.execute("RESET SESSION AUTHORIZATION")
        connection.execute(f"DROP OWNED BY {role}".encode())
        connection.execute(f"DROP ROLE {role}".encode())
