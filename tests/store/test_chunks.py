"""Chunks are read once each, whichever way the stretches of time are handed to Postgres."""

from collections.abc import Sequence

import numpy as np
import psycopg
import pytest
from tests.history import NOON, event, labels_of, store

from modelmeter import rollup
from modelmeter.fold import fold_events
from modelmeter.store.chunks import Events, count_events, read_events
from modelmeter.window import DAY, HOUR, MINUTE, Span, floor

DAYS = 12
MIDNIGHT = floor(NOON, DAY)


def keys(events: Sequence[Events]) -> list[tuple[int, bytes, dict[int, bytes]]]:
    return [
        (one.stream, one.timestamp.tobytes(), {metric: values.tobytes() for metric, values in one.metrics.items()})
        for one in events
    ]


@pytest.mark.parametrize("minutely", [None, False, True])
def test_many_stretches_hold_the_chunks_of_each_alone(database_url: str, minutely: bool | None) -> None:
    for day in range(DAYS):
        at = MIDNIGHT + day * DAY
        store(
            database_url,
            *(
                event(at + hour * HOUR + number, labels=labels_of(version=version), latency=float(hour), drift=0.5)
                for number, version in enumerate(("v1", "v2"))
                for hour in (1, 5, 9)
            ),
        )
    spans = [Span(MIDNIGHT + day * DAY + 5 * HOUR, MIDNIGHT + day * DAY + 6 * HOUR) for day in range(DAYS)]
    with psycopg.connect(database_url) as connection:
        streams = [row[0] for row in connection.execute("SELECT stream_id FROM modelmeter.stream ORDER BY 1")]
        for some in (streams, streams[:1]):
            together = list(read_events(connection, some, None, spans, minutely))
            alone = [one for span in spans for one in read_events(connection, some, None, [span], minutely)]
            assert keys(together) == keys(alone)
            assert sum(one.timestamp.size for one in alone) == count_events(connection, some, spans, minutely)
        every = list(read_events(connection, streams, None, spans, None))
        assert {one.stream for one in every} == set(streams)
        assert len({(one.stream, int(one.timestamp[0])) for one in every}) == len(every) == 2 * DAYS


def test_what_lies_outside_the_spans_is_not_folded() -> None:
    timestamp = MIDNIGHT + np.arange(0, 24 * 60, 7, dtype=np.int64) * MINUTE
    values = np.sin(timestamp / HOUR)
    events = [Events(1, timestamp, {1: values}), Events(2, timestamp[:3], {1: values[:3]})]
    spans = [Span(MIDNIGHT + 2 * HOUR, MIDNIGHT + 3 * HOUR), Span(MIDNIGHT + 20 * HOUR, MIDNIGHT + 21 * HOUR)]
    rows = fold_events(events, spans, np.zeros(0, np.int64), None, None)
    for metric in (rollup.EVENTS, 1):
        mine = rows.metric == metric
        assert rows.stream[mine].tolist() == [1, 1]
        for number, span in enumerate(spans):
            inside = (timestamp >= span.start) & (timestamp < span.end)
            assert rows.count[mine][number] == inside.sum()
            assert rows.first_at[mine][number] == timestamp[inside][0]
            assert rows.last_at[mine][number] == timestamp[inside][-1]
            assert metric == rollup.EVENTS or rows.max[mine][number] == values[inside].max()
