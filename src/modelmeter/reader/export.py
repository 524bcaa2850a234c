"""All raw events of a question as tables, oldest first, a bounded part of a day in memory at a time."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from modelmeter import rollup
from modelmeter.batch import NAME, TIMESTAMP, VERSION, Labels
from modelmeter.fold import fold_span
from modelmeter.promql.labels import METRIC_NAME
from modelmeter.reader.ask import find_metrics
from modelmeter.reader.names import SQL, Connection, MetricNames, find_streams
from modelmeter.reader.question import Question
from modelmeter.reader.raw import Piece, check_raw, read_pieces
from modelmeter.window import DAY, LATEST, Span, floor, to_datetime

_EVENTS_AT_ONCE = 100_000
_EVENTS_OF_SLICE = 500_000
_STREAM = "__stream__"  # no field can have this name


@dataclass(slots=True)
class Export:
    """Events as tables of one schema: name, version, timestamp, the other labels, the metrics; null is absent."""

    schema: dict[str, pl.DataType]
    events: int | None
    """How many there will be; None when only reading them can tell."""
    _connection: Connection
    _names: MetricNames
    _question: Question
    _streams: dict[int, Labels]
    _metrics: dict[int, str]
    _days: dict[int, int]

    @staticmethod
    def begin(connection: Connection, names: MetricNames, question: Question) -> "Export":
        """NotFound for an unknown model or metric; Unanswerable when raw events of the span are no longer kept."""
        span = question.span
        on_labels = [one for one in question.matchers if one.name != METRIC_NAME]
        streams = find_streams(connection, question.name, question.version, question.labels, on_labels)
        wanted = find_metrics(connection, names, question)
        days = check_raw(connection, list(streams), span, LATEST)
        for metric in question.where.metrics if question.where else ():
            names.find(connection, metric)
        scope = {
            "streams": list(streams),
            "start": to_datetime(span.start),
            "end": to_datetime(span.end),
            "day": to_datetime(floor(span.start, DAY)),
        }
        found = [row[0] for row in connection.execute(SQL["raw_metrics"], scope)]
        known = names.of(connection, found)
        metrics = {one: known[one] for one in sorted(found, key=known.__getitem__) if wanted is None or one in wanted}
        labels = {name for one in streams.values() for name, _ in one} - {NAME, VERSION}
        schema: dict[str, pl.DataType] = {
            NAME: pl.String(),
            VERSION: pl.String(),
            TIMESTAMP: pl.Datetime("us", "UTC"),
            **{name: pl.String() for name in sorted(labels)},
            **{name: pl.Float64() for name in metrics.values()},
        }
        events = None
        if question.where is None:
            events = int(fold_span(connection, list(streams), [rollup.EVENTS], span).count.sum())
        return Export(schema, events, connection, names, question, streams, metrics, days)

    def frames(self) -> Generator[pl.DataFrame]:
        """In the order of time; events of one time in no order of their own."""
        labels = _Labels(self._streams, self.schema)
        for span in self._slices():
            waiting: list[pl.DataFrame] = []
            height = 0
            for piece in self._pieces(span):
                waiting.append(self._frame_of(piece))
                height += waiting[-1].height
                if height >= _EVENTS_AT_ONCE:
                    joined = _in_time(waiting)
                    done = int(joined[TIMESTAMP].search_sorted(piece.begin, side="left"))
                    if done:
                        yield labels.put(joined[:done])
                    waiting, height = [joined[done:]], joined.height - done
            if height:
                yield labels.put(_in_time(waiting))

    def _slices(self) -> Iterator[Span]:
        """The days that have events, those with many in parts."""
        whole = self._question.span
        for day, count in sorted(self._days.items()):
            parts = -(-count // _EVENTS_OF_SLICE)
            borders = [day + DAY * part // parts for part in range(parts + 1)]
            for start, end in pairwise(borders):
                span = Span(max(start, whole.start), min(end, whole.end))
                if span.start < span.end:
                    yield span

    def _pieces(self, span: Span) -> Iterator[Piece]:
        where = self._question.where
        ids = {one: self._names.find(self._connection, one) for one in where.metrics} if where else {}
        return read_pieces(self._connection, list(self._streams), list(self._metrics), span, where, ids)

    def _frame_of(self, piece: Piece) -> pl.DataFrame:
        columns: dict[str, pl.Series] = {
            _STREAM: pl.Series(np.full(piece.timestamp.size, piece.stream, np.int32)),
            TIMESTAMP: pl.Series(piece.timestamp),
        }
        for metric, values in piece.metrics.items():
            columns[self._metrics[metric]] = pl.Series(values).fill_nan(None)
        return pl.DataFrame(columns)


def _in_time(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames, how="diagonal").sort(TIMESTAMP, maintain_order=True)


class _Labels:
    """Puts the labels of the streams beside their events."""

    def __init__(self, streams: dict[int, Labels], schema: dict[str, pl.DataType]) -> None:
        self._schema = schema
        self._ids = np.array(sorted(streams), np.int32)
        rows = [dict(streams[one]) for one in self._ids.tolist()]
        self._columns = {
            name: pl.Series(name, [row.get(name) for row in rows], dtype=pl.String)
            for name, dtype in schema.items()
            if dtype == pl.String()
        }

    def put(self, events: pl.DataFrame) -> pl.DataFrame:
        """In all columns of the schema, in its order."""
        rows = np.searchsorted(self._ids, events[_STREAM].to_numpy())
        columns: dict[str, pl.Series] = {}
        for name, dtype in self._schema.items():
            if name in self._columns:
                columns[name] = self._columns[name].gather(rows)
            elif name in events.columns:
                columns[name] = events[name].cast(dtype)
            else:
                columns[name] = pl.repeat(None, events.height, dtype=dtype, eager=True)
        return pl.DataFrame(columns)
