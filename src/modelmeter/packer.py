"""Batches become what is stored of them: chunks, and rollup partials of a minute or of an hour.

Where raw events are retired, there is no chunk: the events count in the rollups only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from modelmeter import rollup
from modelmeter.batch import Batch, concat, take
from modelmeter.chunk import Chunk, pack_chunk
from modelmeter.config import Config
from modelmeter.rollup import Rollups
from modelmeter.store.writer import Catalog, Connection, write_chunks, write_rollups
from modelmeter.window import DAY, HOUR, MINUTE, SECOND


@dataclass(slots=True)
class Packed:
    """Chunks with the class of each, partials by table, and how many events have no raw form."""

    chunks: list[Chunk] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    partials: dict[str, list[Rollups]] = field(
        default_factory=lambda: {"rollup_partial_1m": [], "rollup_partial_1h": []}
    )
    without_raw: int = 0
    events: int = 0


class Packer:
    """The ids and partitions that it needs are made, in transactions of their own."""

    def __init__(self, config: Config, catalog: Catalog) -> None:
        self._config = config
        self._catalog = catalog
        self._shortest_span = int(max(config.freshness_seconds, 0.05) * SECOND)

    def pack(self, batches: Sequence[Batch]) -> Packed:
        packed = Packed()
        self._catalog.look()
        for batch in _by_shape(batches):
            packed.events += len(batch)
            self._pack(batch, packed)
        return packed

    def _pack(self, batch: Batch, packed: Packed) -> None:
        """Events that share their metric names."""
        ids = self._catalog.stream_ids(batch.streams)
        stream = ids[batch.stream]
        classes = self._catalog.class_ids(ids)
        its_class = None if classes is None else classes[batch.stream]
        metric_ids = self._catalog.metric_ids(batch.metrics)
        order = sort_order(stream, batch.timestamp)
        if order is not None:
            stream = stream[order]
            its_class = None if its_class is None else its_class[order]
            batch = take(batch, order)
        timestamp = batch.timestamp
        columns = list(batch.metrics.values())
        starts = rollup.group_starts(stream, _windows(timestamp, DAY))
        ends = np.append(starts[1:], timestamp.size)
        spans = np.maximum(timestamp[ends - 1] - timestamp[starts], self._shortest_span)
        minutely = (ends - starts) * SECOND >= self._config.minutely_rate * spans
        groups = np.zeros(starts.size, np.int16) if its_class is None else its_class[starts]
        has_raw = self._make_places(timestamp, starts, groups, its_class)
        for start, end, flag, class_id, raw in zip(
            starts.tolist(), ends.tolist(), minutely.tolist(), groups.tolist(), has_raw.tolist(), strict=True
        ):
            if not raw:
                packed.without_raw += end - start
                continue
            some = [column[start:end] for column in columns]
            packed.chunks.append(pack_chunk(int(stream[start]), metric_ids, timestamp[start:end], some, minutely=flag))
            packed.classes.append(class_id)
        for table, width, flag in (("rollup_partial_1m", MINUTE, True), ("rollup_partial_1h", HOUR, False)):
            rows = slice(None) if (minutely == flag).all() else np.repeat(minutely == flag, ends - starts)
            if (minutely == flag).any():
                packed.partials[table] += _fold(
                    stream[rows], timestamp[rows], metric_ids, [c[rows] for c in columns], width
                )

    def _make_places(
        self,
        timestamp: NDArray[np.int64],
        starts: NDArray[np.int64],
        groups: NDArray[np.int16],
        classes: NDArray[np.int16] | None,
    ) -> NDArray[np.bool_]:
        """Make the partitions of the raw events; for each group (of one stream and day) whether there is one.

        `groups` has the class of each group, shape (groups,), `classes` that of each event, None: 0.
        """
        has_raw = np.ones(starts.size, np.bool_)
        for class_id in [0] if classes is None else np.unique(groups).tolist():
            mine = slice(None) if classes is None else classes == class_id
            self._catalog.make_partitions(timestamp[mine], "chunk", class_id=class_id)
            border = self._catalog.retired_until("chunk", class_id)
            if border:
                has_raw &= (groups != class_id) | (timestamp[starts] >= border)
        return has_raw


def write_packed(connection: Connection, packed: Packed) -> None:
    """In the transaction that `connection` has open."""
    write_chunks(connection, packed.chunks, packed.classes)
    for table, some in packed.partials.items():
        if some:
            write_rollups(connection, rollup.concat(some), table)


def _fold(
    stream: NDArray[np.int32],
    timestamp: NDArray[np.int64],
    metric_ids: Sequence[int],
    columns: Sequence[NDArray[np.float64]],
    width: int,
) -> list[Rollups]:
    """Partials of windows of `width`; the events sorted by stream, then time."""
    window = _windows(timestamp, width)
    starts = rollup.group_starts(stream, window)
    return [
        rollup.fold_events(stream, window, timestamp, starts),
        *(
            rollup.fold_metric(stream, metric_id, window, timestamp, column, starts)
            for metric_id, column in zip(metric_ids, columns, strict=True)
        ),
    ]


def _by_shape(batches: Sequence[Batch]) -> list[Batch]:
    shapes: dict[tuple[str, ...], list[Batch]] = {}
    for batch in batches:
        shapes.setdefault(tuple(batch.metrics), []).append(batch)
    return [concat(alike) for alike in shapes.values()]


def _windows(timestamp: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    low, high = int(timestamp.min()), int(timestamp.max())
    if low // width == high // width:
        return np.full(timestamp.size, low - low % width)
    return timestamp - timestamp % width


def sort_order(stream: NDArray[np.int32], timestamp: NDArray[np.int64]) -> NDArray[np.intp] | None:
    """The stable order by stream, then time; None when it is that already."""
    in_time = bool((timestamp[1:] >= timestamp[:-1]).all())
    order = None if in_time else timestamp.argsort(kind="stable")
    if order is not None:
        stream = stream[order]
    if not (stream[1:] >= stream[:-1]).all():
        # Codes of 16 bits sort by radix, in a tenth of the time.
        codes = stream - stream.min()
        by_stream = (codes.astype(np.uint16) if codes.max() < 2**16 else codes).argsort(kind="stable")
        order = by_stream if order is None else order[by_stream]
    return order
