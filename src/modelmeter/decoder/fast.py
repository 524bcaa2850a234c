"""JSON read fast: msgspec structs made for the fields seen before, and the proof that nothing was dropped.

A body is taken only when it holds no unknown field, no other type, and just as many quotation marks as the fields
that were found account for: a duplicate key or a nested field would add some.
"""

import re
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from modelmeter import window
from modelmeter.batch import NAME, TIMESTAMP, VERSION, Batch, Refused
from modelmeter.decoder.codebook import Codebook
from modelmeter.decoder.decoded import Bounds

_KEYS = re.compile(rb'"([^"\\]*)"\s*:')


def signature(body: bytes) -> tuple[bytes, ...]:
    """The field names of a body's first object, as they stand."""
    return tuple(_KEYS.findall(body, 0, body.find(b"}") + 1))


_STAMP_TYPES: dict[str, Any] = {"integer": int, "float": float | int, "rfc3339": str}
_NAN = float("nan")
_FIRST = np.zeros(1, np.int32)
_NEGATIVE_ZERO = re.compile(rb"-0[\s,}]")


class Schema:
    """A msgspec struct for one shape of event, and the way from its instances to columns."""

    def __init__(self, shape: dict[str, str]) -> None:
        self.labels = [key for key, kind in shape.items() if kind == "label"]
        self.metrics = [key for key, kind in shape.items() if kind == "metric"]
        self.stamp = shape.get(TIMESTAMP, "")
        keys = [*self.labels, *self.metrics, *([TIMESTAMP] if self.stamp else [])]
        fields = {key: f"f{number}" for number, key in enumerate(keys)}
        specs: list[Any] = [(fields[key], str) for key in (NAME, VERSION)]
        specs += [(fields[key], str, None) for key in self.labels[2:]]
        specs += [(fields[key], float | bool, _NAN) for key in self.metrics]
        if self.stamp:
            specs.append((fields[TIMESTAMP], _STAMP_TYPES[self.stamp], None))
        struct = msgspec.defstruct(
            "Event",
            specs,
            rename={name: key for key, name in fields.items()},
            forbid_unknown_fields=True,
            gc=False,
        )
        self._array = msgspec.json.Decoder(list[struct])  # type: ignore[valid-type]
        self._one = msgspec.json.Decoder(struct)
        self._label_values = attrgetter(*(fields[key] for key in self.labels))
        self._metric_values = [attrgetter(fields[key]) for key in self.metrics]
        self._stamps = attrgetter(fields[TIMESTAMP]) if self.stamp else None
        self.codes: dict[tuple[str | None, ...], int] = {}

    def read(self, body: bytes, codebook: Codebook, bounds: Bounds, *, lines: bool) -> Batch | None:
        """The batch, or None when the strict reader has to look."""
        if b"\\" in body:
            return None  # escapes would break the count of quotation marks
        try:
            if lines:
                events = self._one.decode_lines(body)
            elif body[:1] == b"{":
                events = [self._one.decode(body)]
            else:
                events = self._array.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        count = len(events)
        if not count or (lines and not _one_a_line(body, count)):
            return None
        if count == 1 and self._stamps is None:
            return self._read_one(events[0], body, codebook, bounds)
        codes = self._codes_of(events, codebook)
        if codes is None:
            return None
        metrics = {
            key: np.fromiter(map(values, events), np.float64, count)
            for key, values in zip(self.metrics, self._metric_values, strict=True)
        }
        fields = len(self.metrics) * count
        fields -= sum(int(np.count_nonzero(np.isnan(column))) for column in metrics.values())
        if any((column == 0).any() for column in metrics.values()) and _NEGATIVE_ZERO.search(body):
            return None  # msgspec reads -0 as 0
        if fields == 0 or (fields < count * len(self.metrics) and not self._every_event_has_a_metric(metrics)):
            return None
        timestamp, strings, stamps = self._timestamps_of(events, bounds)
        if timestamp is None:
            return None
        label_count = 2 * count if len(self.labels) == 2 else count * len(self.labels) - self._absent_labels(events)
        quotes = 2 * (2 * label_count + fields + stamps + strings)
        if quotes != np.count_nonzero(np.frombuffer(body, np.uint8) == 34):
            return None
        if fields < count * len(self.metrics):
            metrics = {key: column for key, column in metrics.items() if not np.isnan(column).all()}
        streams, stream = codebook.streams_of(codes)
        return Batch(streams, stream, timestamp, metrics)

    def _read_one(self, event: Any, body: bytes, codebook: Codebook, bounds: Bounds) -> Batch | None:
        """`read` of one event without a timestamp, in a quarter of the time: many clients send just that."""
        labels = self._label_values(event)
        code = self.codes.get(labels)
        if code is None:
            found = self._codes_of([event], codebook)
            if found is None:
                return None
            code = int(found[0])
        values = {}
        for key, read in zip(self.metrics, self._metric_values, strict=True):
            value = read(event)
            if value == value:  # noqa: PLR0124  NaN: absent
                values[key] = np.array((value,), np.float64)
                if not value and _NEGATIVE_ZERO.search(body):
                    return None
        fields = len(labels) - labels.count(None)
        if not values or body.count(b'"') != 2 * (2 * fields + len(values)):
            return None
        return Batch((codebook.label_set(code),), _FIRST, np.array((bounds.now,)), values)

    def _codes_of(self, events: list[Any], codebook: Codebook) -> NDArray[np.int64] | None:
        while True:
            try:
                return np.fromiter(map(self.codes.__getitem__, map(self._label_values, events)), np.int64, len(events))
            except KeyError as missing:
                values = missing.args[0]
                try:
                    self.codes[values] = codebook.code_of(zip(self.labels, values, strict=True))
                except Refused:
                    return None
                for event in events:
                    values = self._label_values(event)
                    if values not in self.codes:
                        try:
                            self.codes[values] = codebook.code_of(zip(self.labels, values, strict=True))
                        except Refused:
                            return None

    def _absent_labels(self, events: list[Any]) -> int:
        return sum(values.count(None) for values in map(self._label_values, events))

    @staticmethod
    def _every_event_has_a_metric(metrics: dict[str, NDArray[np.float64]]) -> bool:
        absent = None
        for column in metrics.values():
            absent = np.isnan(column) if absent is None else absent & np.isnan(column)
        return absent is not None and not absent.any()

    def _timestamps_of(self, events: list[Any], bounds: Bounds) -> tuple[NDArray[np.int64] | None, int, int]:
        """Timestamps (None: let the strict reader look), how many were strings, how many there were."""
        count = len(events)
        if self._stamps is None:
            return np.full(count, bounds.now), 0, 0
        raw = list(map(self._stamps, events))
        try:
            if self.stamp == "integer" and None not in raw:
                timestamp = _unix_column(np.array(raw, np.int64))
            else:
                read = window.rfc3339_to_micros if self.stamp == "rfc3339" else window.unix_to_micros
                timestamp = np.array([bounds.now if value is None else read(value) for value in raw], np.int64)
        except (ValueError, OverflowError):
            return None, 0, 0
        if timestamp is None or timestamp.min() < bounds.earliest or timestamp.max() > bounds.latest:
            return None, 0, 0
        present = count - raw.count(None)
        return timestamp, present if self.stamp == "rfc3339" else 0, present


def _one_a_line(body: bytes, count: int) -> bool:
    """Whether `count` flat objects, and nothing else, stand one a line; msgspec does not look at the lines."""
    octets = np.frombuffer(body, np.uint8)
    ends = np.flatnonzero(octets == 10)
    if ends.size and ends[-1] == octets.size - 1:
        ends = ends[:-1]
    return ends.size == count - 1 and bool(
        octets[0] == 123 and (octets[ends - 1] == 125).all() and (octets[ends + 1] == 123).all()
    )


def _unix_column(raw: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """window.unix_to_micros of integers that are all of one unit, else None."""
    low, high = int(raw.min()), int(raw.max())
    for limit, factor in ((10**11, window.SECOND), (10**14, 1000), (10**17, 1)):
        if high < limit:
            return raw * factor if low >= limit // 1000 or (factor == window.SECOND and low >= 0) else None
    micros: NDArray[np.int64] = raw // 1000
    return micros if low >= 10**17 else None
