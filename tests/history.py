"""Made-up events, the messages that carry them, and what a plain fold of them in NumPy says."""

import asyncio
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import psycopg
import pytest

from modelmeter.batch import Batch, Labels
from modelmeter.config import Config
from modelmeter.message import Keyed, Message, encode, id_of_key, new_id
from modelmeter.reader import Event, Model, Reader
from modelmeter.rollup import Stats
from modelmeter.store.queue import PostgresConsumer, PostgresProducer
from modelmeter.store.writer import Catalog
from modelmeter.window import DAY, HOUR, MINUTE, SECOND, Span
from modelmeter.worker import OnStored, OnStoring, Stored, Worker

NOON = 1_772_366_400 * SECOND
"""2026-03-01T12:00:00Z"""

Random = np.random.Generator


def labels_of(name: str = "Mistral", version: str = "v1", **more: str) -> Labels:
    return tuple(sorted({"name": name, "version": version, **more}.items()))


def event(timestamp: int, *, labels: Labels | None = None, **metrics: float) -> Event:
    return Event(
        labels or labels_of(), timestamp, {name: float(value) for name, value in (metrics or {"drift": 0.5}).items()}
    )


def batch_of(events: Sequence[Event]) -> Batch:
    """One batch; a metric that an event lacks is NaN."""
    streams: dict[Labels, int] = {}
    codes = [streams.setdefault(one.labels, len(streams)) for one in events]
    names = dict.fromkeys(name for one in events for name in one.metrics)
    return Batch(
        list(streams),
        np.array(codes, np.int32),
        np.array([one.timestamp for one in events], np.int64),
        {name: np.array([one.metrics.get(name, np.nan) for one in events], np.float64) for name in names},
    )


def message_of(*events: Event) -> Message:
    return Message(new_id(), NOON, [], [batch_of(events)])


def keyed_message(*requests: tuple[str | None, Sequence[Event]]) -> Message:
    """One message of several requests, each with its Idempotency-Key or None; a batch each."""
    keyed = [
        Keyed(id_of_key(key), number, 0, len(events))
        for number, (key, events) in enumerate(requests)
        if key is not None
    ]
    return Message(new_id(), NOON, keyed, [batch_of(events) for _, events in requests])


def send(url: str, *messages: Message) -> None:
    send_bytes(url, *((encode(message), message.events) for message in messages))


def send_bytes(url: str, *payloads: tuple[bytes, int]) -> None:
    async def enqueue() -> None:
        producer = PostgresProducer(url, connections=1)
        for payload, events in payloads:
            await producer.enqueue(payload, events)
        await producer.close()

    asyncio.run(enqueue())


class Storing:
    """A worker of one's own with all that it needs; `seen` are the batches that its callback was given."""

    def __init__(
        self, url: str, on_stored: OnStored | None = None, on_storing: OnStoring | None = None, **settings: Any
    ) -> None:
        self.seen: list[Batch] = []
        self.consumer = PostgresConsumer(url)
        self.catalog = Catalog(url)
        # At this rate a lone event gets rollups of a minute, and a chunk of events far apart does not: both occur.
        config = Config(database_url=url, **{"minutely_rate": 2, **settings})
        self.worker = Worker(config, self.consumer, self.catalog, on_stored or self.seen.extend, on_storing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.consumer.close()
        self.catalog.close()

    def run(self) -> list[Stored]:
        """Until nothing waits."""
        done = []
        while (stored := self.worker.run_once()) is not None:
            done.append(stored)
            assert len(done) < 10_000, "the worker does not come to an end"
        return done


def store(url: str, *events: Event, **settings: Any) -> None:
    """Send and store, in one message."""
    send(url, message_of(*events))
    with Storing(url, **settings) as storing:
        storing.run()


BY_MINUTE: dict[str, Any] = {"minutely_rate": 0}
BY_HOUR: dict[str, Any] = {"minutely_rate": 1e9}
"""Settings of a worker to whom every stream is fast, or slow: what rollups are kept of it."""


def count_partials(url: str) -> int:
    return count_rows(url, "rollup_partial_1m") + count_rows(url, "rollup_partial_1h")


ENVS = ("", "prod", "test")


def random_events(rng: Random, count: int, *, days: int = 3) -> list[Event]:
    """Events of a few streams, crowded around the borders of windows; values of every kind."""
    widths = (MINUTE, HOUR, DAY)
    events = []
    for _ in range(count):
        labels = {"name": str(rng.choice(["A", "B"])), "version": str(rng.choice(["v1", "v2"]))}
        env = str(rng.choice(ENVS))
        if env:
            labels["env"] = env
        width = widths[rng.integers(3)]
        instant = NOON + int(rng.integers(-days * DAY // 2, days * DAY // 2))
        if rng.random() < 0.5:
            instant = instant - instant % width + int(rng.integers(-2, 3))
        elif rng.random() < 0.3:
            instant = NOON + int(rng.integers(0, 5)) * SECOND  # many at the same time
        metrics = {
            "drift": float(rng.choice([0.0, -0.0, 1.5, float(rng.normal()), float(rng.lognormal(0, 2))])),
            "latency": float(rng.lognormal(2, 0.6)),
            "score": float(rng.integers(-3, 4)),
        }
        if rng.random() < 0.3:
            del metrics[str(rng.choice([*metrics]))]
        events.append(Event(tuple(sorted(labels.items())), instant, metrics))
    return events


def random_span(rng: Random, *, days: int = 3) -> Span:
    """Now and then on borders of windows, mostly between them."""
    edges = []
    for _ in range(2):
        edge = NOON + int(rng.integers(-days * DAY // 2, days * DAY // 2))
        if rng.random() < 0.5:
            width = (MINUTE, HOUR, DAY)[rng.integers(3)]
            edge = edge - edge % width + int(rng.choice([0, 0, 1, -1, 30 * SECOND]))
        edges.append(edge)
    start, end = sorted(edges)
    return Span(start, end + 1) if rng.random() < 0.9 else Span(start, start + int(rng.integers(1, 3 * MINUTE)))


def matching(
    events: Sequence[Event], name: str, version: str | None, span: Span, labels: dict[str, str]
) -> list[Event]:
    wanted = {"name": name, **({"version": version} if version else {}), **labels}.items()
    return [one for one in events if span.start <= one.timestamp < span.end and wanted <= dict(one.labels).items()]


QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 1.0)


def check_stats(found: Stats, events: Sequence[Event], metric: str) -> None:
    """`found` against NumPy over the raw values."""
    having = [one for one in events if metric in one.metrics]
    values = np.array([one.metrics[metric] for one in having])
    size = float(np.abs(values).max())
    assert found.count == values.size
    assert (found.min, found.max) == (values.min(), values.max())
    assert found.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-12 * size)
    with np.errstate(over="ignore"):
        stddev = values.std()
    assert found.stddev == (pytest.approx(stddev, rel=1e-9, abs=1e-9 * size) if np.isfinite(stddev) else None)
    newest = max(one.timestamp for one in having)
    assert found.last in [one.metrics[metric] for one in having if one.timestamp == newest]
    ordered = np.sort(values)
    for key, value in found.quantiles.items():
        rank = float(key) * (values.size - 1)
        left, right = ordered[int(rank)], ordered[min(int(rank) + 1, values.size - 1)]
        true = left + (right - left) * (rank - int(rank))
        assert abs(value - true) <= 0.011 * max(abs(left), abs(right)), key


def check_summary(
    reader: Reader, events: Sequence[Event], name: str, version: str | None, span: Span, labels: dict[str, str]
) -> object:
    """Reader.stats against the plain fold. What of the answer must never change, to the last bit."""
    summary = reader.stats(name, version, span, labels, None, QUANTILES)
    wanted = matching(events, name, version, span, labels)
    assert summary.events == len(wanted)
    assert set(summary.metrics) == {metric for one in wanted for metric in one.metrics}
    for metric, found in summary.metrics.items():
        check_stats(found, wanted, metric)
    return {
        metric: (found.count, found.min, found.max, found.last, found.quantiles)
        for metric, found in summary.metrics.items()
    }


def check_models(reader: Reader, events: Sequence[Event]) -> None:
    groups: dict[tuple[str, str], list[int]] = {}
    for one in events:
        labels = dict(one.labels)
        groups.setdefault((labels["name"], labels["version"]), []).append(one.timestamp)
    assert reader.models() == [
        Model(name, version, len(times), min(times), max(times)) for (name, version), times in sorted(groups.items())
    ]


def bits(one: Event) -> tuple[object, ...]:
    """An event so that -0.0 and 0.0 differ."""
    return (one.timestamp, one.labels, tuple(sorted((name, value.hex()) for name, value in one.metrics.items())))


def count_rows(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(f"SELECT count(*) FROM modelmeter.{table}".encode()).fetchone()
        assert row is not None
        return int(row[0])
