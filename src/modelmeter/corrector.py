"""The corrector: takes events out of what is stored, at every resolution, and puts others in their place.

To record a correction is one short transaction, for which the workers wait; from then on nothing that it takes out is
stored any more. To apply it is a transaction for some streams and a day at a time, that removes the events from the
chunks, and writes the day's rollups anew, as partials of what is left. Killed anywhere, the keeper goes on; the
compactor rests meanwhile. Where raw events are retired, only whole UTC days can go.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure

from modelmeter import rollup, telemetry
from modelmeter.batch import Batch, Labels
from modelmeter.chunk import pack_chunk, unpack_floats, unpack_ints
from modelmeter.config import Config
from modelmeter.correction import Correction
from modelmeter.errors import CannotCorrect, Unavailable
from modelmeter.fold import fold_pieces, fold_raw
from modelmeter.packer import Packed, Packer, write_packed
from modelmeter.pieces import WHOLE, one_piece
from modelmeter.retention import RAW, Retention
from modelmeter.store import corrections as store
from modelmeter.store.corrections import SQL
from modelmeter.store.retirement import read_retired
from modelmeter.store.writer import Catalog, remember_batches, write_rollups
from modelmeter.window import DAY, HOUR, MINUTE, Span, floor, to_datetime, to_micros, to_rfc3339

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

log = logging.getLogger(__name__)

_ATTEMPTS = 20
_STREAMS_AT_ONCE = 500
_EVENTS_AT_ONCE = 200_000
_DAYS_AT_ONCE = 28
_FOLDED = ("rollup_1m", "rollup_1h", "rollup_1d", "rollup_partial_1m", "rollup_partial_1h")
_PARTIALS = ("rollup_partial_1m", "rollup_partial_1h")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a correction came to, or would: how many events are removed, of how many streams. `id` 0: none was made."""

    id: int
    streams: int
    removed: int


class Corrector:
    """Each call takes connections of its own; they may be many at once.

    A correction takes effect at its `received_at`; with a `clock`, not before that tells the time (microseconds) when
    nobody stores any more: what comes in while it waits for them was received before it, stored or not.
    """

    def __init__(self, config: Config, retention: Retention, clock: Callable[[], int] | None = None) -> None:
        self._config = config
        self._retention = retention
        self._clock = clock

    def count(self, correction: Correction) -> Outcome:
        """What it would remove of what is stored now. CannotCorrect as in `correct`."""
        with self._connect() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            streams, borders = self._look(connection, correction)
            touched = removed = 0
            for border, ids in _by_border(streams, borders).items():
                for some in _pieces(ids):
                    whole, raw = _split(correction.span, border)
                    counted: dict[int, int] = {}
                    if whole.start < whole.end:
                        counted = dict(connection.execute(SQL["count_span"], _scope(some, whole)).fetchall())
                    if raw.start < raw.end:
                        # Of these streams and days all is there, whatever is retired of other classes.
                        rows = fold_pieces(connection, some, [rollup.EVENTS], one_piece(raw), retired=WHOLE).rows
                        found = rollup.merge(rows, by_window=False)
                        for stream, count in zip(found.stream.tolist(), found.count.tolist(), strict=True):
                            counted[stream] = counted.get(stream, 0) + count
                    touched += len(counted)
                    removed += sum(counted.values())
        return Outcome(0, touched, int(removed))

    def correct(self, correction: Correction, batches: Sequence[Batch] = (), batch_id: bytes | None = None) -> Outcome:
        """Take out what it names, and store `batches` instead; returns when all of it is done.

        A `batch_id` that is in the ledger was stored before: nothing is done then, and the outcome's id is 0.
        CannotCorrect: raw events are retired where the span cuts through a day. Unavailable: not now.
        """
        packed = None
        with self._connect() as connection:
            if batches:
                catalog = Catalog(self._config.database_url, self._retention)
                try:
                    packed = Packer(self._config, catalog).pack(batches)
                finally:
                    catalog.close()
            with connection.transaction():
                connection.execute("SET LOCAL lock_timeout = '10s'")
                try:
                    store.exclude(connection)
                except psycopg.errors.LockNotAvailable:
                    raise Unavailable("workers are at a long store; try again", retry_after_seconds=5) from None
                if self._clock is not None:
                    correction = replace(correction, received_at=max(correction.received_at, self._clock()))
                if batch_id is not None and remember_batches(connection, [batch_id]):
                    return Outcome(0, 0, 0)
                number = self._record(connection, correction, packed)
            telemetry.CORRECTIONS.labels(correction.kind).inc()
            self._apply(connection, number)
            done = store.read(connection, number)
        return Outcome(number, done.streams, done.removed)

    def run_once(self) -> bool:
        """Apply what was recorded by a process that then died. Whether there was any."""
        with self._connect() as connection:
            waiting = store.read_pending(connection)
            telemetry.CORRECTIONS_PENDING.set(len(waiting))
            for number in waiting:
                self._apply(connection, number)
        return bool(waiting)

    def newest(self, limit: int) -> list[tuple[Any, ...]]:
        """The newest corrections, as SQL newest has them."""
        with self._connect() as connection:
            return connection.execute(SQL["newest"], (limit,)).fetchall()

    def _connect(self) -> Connection:
        try:
            return psycopg.connect(
                self._config.database_url, autocommit=True, connect_timeout=5, application_name="modelmeter corrector"
            )
        except psycopg.OperationalError as error:
            raise Unavailable(f"the database is away: {str(error).strip().splitlines()[0]}") from error

    def _look(
        self, connection: Connection, correction: Correction
    ) -> tuple[Mapping[int, tuple[Labels, int]], Mapping[int, int]]:
        """The streams that it touches, and the border of raw events of each class."""
        streams = store.find_streams(connection, correction)
        retired = read_retired(connection)
        borders = {class_id: retired.get((class_id, RAW), 0) for _, class_id in streams.values()}
        for border in borders.values():
            _check(correction.span, border)
        return streams, borders

    def _record(self, connection: Connection, correction: Correction, packed: Packed | None) -> int:
        """Under the exclusive lock. Partials of days without raw events go at once: later ones will stand there."""
        streams, borders = self._look(connection, correction)
        number = store.record(connection, correction, packed.events if packed else 0)
        removed = 0
        for border, ids in _by_border(streams, borders).items():
            whole, _ = _split(correction.span, border)
            for some in _pieces(ids) if whole.start < whole.end else []:
                for table in _PARTIALS:
                    removed += sum(_take_folded(connection, table, some, whole).values())
        connection.execute(SQL["add_removed"], (removed, number))
        if packed is not None:
            write_packed(connection, packed)
        return number

    def _apply(self, connection: Connection, number: int) -> None:
        """Step by step; one session at a time, and nothing when another one has done it."""
        connection.execute(SQL["hold"])
        try:
            recorded = store.read(connection, number)
            if recorded.is_applied:
                return
            correction = recorded.correction
            streams, borders = self._look(connection, correction)
            touched: set[int] = set()
            for border, ids in _by_border(streams, borders).items():
                whole, raw = _split(correction.span, border)
                for some in _pieces(ids):
                    if whole.start < whole.end:
                        touched |= self._take_days(connection, number, some, whole)
                    if raw.start < raw.end:
                        touched |= self._take_events(connection, recorded, some, raw)
            connection.execute(SQL["finish"], (len(touched), number))
            log.info("correction %d is applied: %s %s", number, correction.kind, correction.match or "")
        finally:
            connection.execute(SQL["let_go"])
        telemetry.EVENTS_REMOVED.inc(store.read(connection, number).removed)

    def _take_days(self, connection: Connection, number: int, streams: list[int], span: Span) -> set[int]:
        """Whole days of which there are rollups only. The compactor rests, so all of them are from before."""
        row = connection.execute(SQL["first_day"], (streams,)).fetchone()
        if row is None or row[0] is None:
            return set()
        touched: set[int] = set()
        start = max(span.start, to_micros(row[0]))
        while start < span.end:
            end = min(start + _DAYS_AT_ONCE * DAY, span.end)
            with connection.transaction():
                for table in ("rollup_1m", "rollup_1h"):
                    _take_folded(connection, table, streams, Span(start, end))
                counts = _take_folded(connection, "rollup_1d", streams, Span(start, end))
                if counts:
                    self._subtract(connection, counts)
                    connection.execute(SQL["add_removed"], (sum(counts.values()), number))
            touched |= set(counts)
            start = end
        return touched

    def _take_events(
        self, connection: Connection, recorded: store.Recorded, streams: list[int], span: Span
    ) -> set[int]:
        scope = {
            **_scope(streams, span),
            "first": to_datetime(floor(span.start, DAY)),
            "recorded_at": recorded.recorded_at,
        }
        touched: set[int] = set()
        for day, some in _steps(connection.execute(SQL["days"], scope).fetchall()):
            for attempt in range(_ATTEMPTS):
                try:
                    touched |= self._take_events_of_day(connection, recorded, some, day, span)
                    break
                except (SerializationFailure, DeadlockDetected):  # a worker of the last release, or a compactor's end
                    if attempt == _ATTEMPTS - 1:
                        raise
        return touched

    def _take_events_of_day(
        self, connection: Connection, recorded: store.Recorded, some: list[int], day: datetime, span: Span
    ) -> set[int]:
        """In one snapshot: raw events out, all rollups of the day out, those of the events that are left in.

        Of the streams that had such events, which are returned; the others stay as they are.
        """
        scope = {**_scope(some, span), "day": day, "recorded_at": recorded.recorded_at}
        start = to_micros(day)
        whole = Span(start, start + DAY)
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            removed: dict[int, int] = {}
            for stream, *row in connection.execute(SQL["take_chunks"], scope, binary=True).fetchall():
                removed[stream] = removed.get(stream, 0) + _put_rest(connection, stream, row, span)
            streams = [stream for stream, count in removed.items() if count]
            if not streams:
                raise psycopg.Rollback
            for table in _FOLDED:
                counts = _take_folded(connection, table, streams, whole)
                if counts and table == "rollup_1d":
                    self._subtract(connection, counts)
            for table, width, minutely in (("rollup_partial_1m", MINUTE, True), ("rollup_partial_1h", HOUR, False)):
                rest = fold_raw(connection, streams, None, whole, minutely=minutely, width=width)
                write_rollups(connection, rollup.merge(rest), table)
            connection.execute(SQL["add_removed"], (sum(removed.values()), recorded.correction_id))
        return set(streams)

    @staticmethod
    def _subtract(connection: Connection, counts: Mapping[int, int]) -> None:
        streams = list(counts)
        left = {stream: times for stream, *times in connection.execute(SQL["left_at"], (streams,))}
        first, last = ([left.get(stream, (None, None))[end] for stream in streams] for end in (0, 1))
        connection.execute(SQL["subtract"], (streams, [*counts.values()], first, last))


def _steps(rows: Sequence[tuple[datetime, int, int]]) -> list[tuple[datetime, list[int]]]:
    """(day, stream, events), by day, in steps of one day and so many streams as are quickly done."""
    steps: list[tuple[datetime, list[int]]] = []
    size = 0
    for day, stream, events in rows:
        size += events
        if steps and steps[-1][0] == day and size <= _EVENTS_AT_ONCE and len(steps[-1][1]) < _STREAMS_AT_ONCE:
            steps[-1][1].append(stream)
        else:
            steps.append((day, [stream]))
            size = events
    return steps


def _put_rest(connection: Connection, stream: int, row: Sequence[Any], span: Span) -> int:
    """Write back what of a chunk lies outside the span; how many events lie inside."""
    stored_at, minutely, class_id, count, metrics, columns = row
    timestamp = unpack_ints(columns[0], count)
    rest = (timestamp < span.start) | (timestamp >= span.end)
    if rest.any():
        values = [unpack_floats(column, count)[rest] for column in columns[1:]]
        chunk = pack_chunk(stream, metrics, timestamp[rest], values, minutely=minutely)
        connection.execute(
            SQL["put_chunk"],
            (
                stream,
                to_datetime(chunk.start),
                to_datetime(chunk.end),
                stored_at,
                chunk.count,
                minutely,
                list(metrics),
                list(chunk.columns),
                class_id,
            ),
        )
    return int(count - np.count_nonzero(rest))


def _check(span: Span, border: int) -> None:
    """CannotCorrect when the span cuts through a day whose raw events are retired."""
    for name, edge in (("start", span.start), ("end", span.end)):
        if edge < border and edge % DAY:
            low = floor(edge, DAY)
            raise CannotCorrect(
                f"{name}: {to_rfc3339(edge)} is within a day whose raw events are retired (all before "
                f"{to_rfc3339(border)} are): only whole UTC days can be taken out there; "
                f"move it to {to_rfc3339(low)} or {to_rfc3339(low + DAY)}",
                field=name,
                raw_since=to_rfc3339(border),
            )


def _split(span: Span, border: int) -> tuple[Span, Span]:
    """What lies before the border, and what after."""
    middle = min(max(span.start, border), span.end)
    return Span(span.start, middle), Span(middle, span.end)


def _by_border(streams: Mapping[int, tuple[Labels, int]], borders: Mapping[int, int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for stream, (_, class_id) in sorted(streams.items()):
        found.setdefault(borders[class_id], []).append(stream)
    return found


def _pieces(ids: list[int]) -> list[list[int]]:
    return [ids[at : at + _STREAMS_AT_ONCE] for at in range(0, len(ids), _STREAMS_AT_ONCE)]


def _scope(streams: list[int], span: Span) -> dict[str, Any]:
    return {"streams": streams, "start": to_datetime(span.start), "end": to_datetime(span.end)}


def _take_folded(connection: Connection, table: str, streams: list[int], span: Span) -> dict[int, int]:
    """All rows of the table in a span of whole days go; how many events of each stream that were.

    Two statements, since Citus has no DELETE within a query over many shards. Nobody else changes these rows between.
    """
    counts, drop = (SQL[name].replace(b"{table}", table.encode()) for name in ("count_folded", "drop_folded"))
    found: dict[int, int] = dict(connection.execute(counts, _scope(streams, span)).fetchall())
    connection.execute(drop, _scope(streams, span))
    return found
