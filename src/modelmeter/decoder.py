"""Request bodies to batches: JSON, NDJSON and Arrow IPC; which events are refused and why.

JSON has two readers. The strict one looks at each event by itself and names what is wrong with it. The fast one
(msgspec structs made for the fields seen before) is taken first, and its result only when it is provably the strict
one's: no unknown field, no other type, and as many quotation marks in the body as the fields it found account for,
so that nothing was dropped (a duplicate key, a nested field). Otherwise the strict one reads the body again.
"""

import io
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelmeter import window
from modelmeter.batch import (
    KEY_LIMIT_BYTES,
    METRIC_LIMIT,
    NAME,
    TIMESTAMP,
    VERSION,
    Batch,
    Labels,
    Refusal,
    Refused,
    check_key,
    make_labels,
)
from modelmeter.errors import Malformed

ERRORS_SHOWN = 100
_SCHEMAS_KEPT = 64
_LABEL_SETS_KEPT = 200_000


@dataclass(slots=True)
class Decoded:
    """What became of one body. `refusals` holds the first ERRORS_SHOWN of `rejected`."""

    batches: list[Batch] = field(default_factory=list)
    accepted: int = 0
    rejected: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)

    def refuse(self, index: int, refused: Refused) -> None:
        self.rejected += 1
        self.codes[refused.code] = self.codes.get(refused.code, 0) + 1
        if len(self.refusals) < ERRORS_SHOWN:
            field = None if refused.field is None else _printable(refused.field)
            self.refusals.append(Refusal(index, field, refused.code, _printable(refused.detail)))

    def keep(self, batch: Batch) -> None:
        if len(batch):
            self.batches.append(batch)
            self.accepted += len(batch)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The timestamps that are accepted at `now`; microseconds."""

    now: int
    earliest: int
    latest: int

    def check(self, instant: int) -> None:
        if instant > self.latest:
            ahead = window.format_duration(self.latest - self.now)
            raise Refused(
                TIMESTAMP, "in_future", f"timestamp: {window.to_rfc3339(instant)} is more than {ahead} ahead of now"
            )
        if instant < self.earliest:
            raise Refused(
                TIMESTAMP,
                "too_old",
                f"timestamp: {window.to_rfc3339(instant)} is before {window.to_rfc3339(self.earliest)}, "
                "older than any retention reaches",
            )


def _printable(text: str) -> str:
    """A refusal may quote a lone surrogate, which no answer could be encoded with."""
    return text.encode(errors="replace").decode()


Admit = Callable[[Labels], None]
"""Raises Refused when this set of labels would be one stream too many."""
AdmitMetric = Callable[[str], None]
"""Raises Refused when this metric name would be one too many."""


class Decoder:
    """Decodes bodies; remembers the shapes and label sets it saw, to be fast the next time."""

    def __init__(self, admit_stream: Admit, admit_metric: AdmitMetric) -> None:
        self._admit_stream = admit_stream
        self._admit_metric = admit_metric
        self._schemas: dict[tuple[bytes, ...], _Schema] = {}
        self._known: dict[Labels, int] = {}
        self._label_sets: list[Labels] = []

    def json(self, body: bytes, bounds: Bounds) -> Decoded:
        """One object or an array of objects. Malformed when it is not JSON or neither of the two."""
        return self._fast(body, bounds, lines=False) or self._strict(_load_json(body), body, bounds)

    def ndjson(self, body: bytes, bounds: Bounds) -> Decoded:
        """One object a line. A line that is not JSON is a refused event; Malformed when no line is."""
        return self._fast(body, bounds, lines=True) or self._strict(_load_ndjson(body), body, bounds)

    # The fast reader.

    def _fast(self, body: bytes, bounds: Bounds, *, lines: bool) -> Decoded | None:
        schema = self._schemas.get(_signature(body))
        if schema is None:
            return None
        batch = schema.read(body, self, bounds, lines=lines)
        if batch is None:
            return None
        decoded = Decoded()
        decoded.keep(batch)
        return decoded

    def code_of(self, pairs: Iterable[tuple[str, str | None]]) -> int:
        """The number of a label set in this decoder. Raises Refused when it cannot be a stream."""
        labels = make_labels({key: value for key, value in pairs if value is not None})
        code = self._known.get(labels)
        if code is None:
            self._admit_stream(labels)
            code = len(self._label_sets)
            self._known[labels] = code
            self._label_sets.append(labels)
        return code

    def _forget_if_full(self) -> None:
        if len(self._label_sets) > _LABEL_SETS_KEPT:
            self._known.clear()
            self._label_sets.clear()
            for schema in self._schemas.values():
                schema.codes.clear()

    def streams_of(self, codes: NDArray[np.int64]) -> tuple[list[Labels], NDArray[np.int32]]:
        """The label sets that occur in `codes`, and `codes` as indexes of them."""
        used = np.unique(codes) if len(self._label_sets) > 8 * codes.size else np.flatnonzero(np.bincount(codes))
        index = np.zeros(int(used[-1]) + 1, np.int32)
        index[used] = np.arange(used.size, dtype=np.int32)
        return [self._label_sets[code] for code in used.tolist()], index[codes]

    def label_set(self, code: int) -> Labels:
        return self._label_sets[code]

    def _learn(self, body: bytes, shape: dict[str, str], filled: int, events: int) -> None:
        """Make a fast reader for bodies that begin like this one, unless it would be mostly holes."""
        metrics = [key for key, kind in shape.items() if kind == "metric"]
        if len(shape) > 512 or filled * 2 < len(metrics) * events or b"\\" in body:
            return  # with escapes a name may hold what a struct's field cannot
        if len(self._schemas) >= _SCHEMAS_KEPT:
            self._schemas.pop(next(iter(self._schemas)))
        self._schemas[_signature(body)] = _Schema(shape)

    # The strict reader.

    def _strict(self, events: Sequence[Any], body: bytes, bounds: Bounds) -> Decoded:
        self._forget_if_full()
        decoded = Decoded()
        shape: dict[str, str] = {NAME: "label", VERSION: "label"}
        learnable, filled = True, 0
        groups: dict[tuple[str, ...], tuple[list[int], list[int], list[list[float]]]] = {}
        for index, event in enumerate(events):
            try:
                pairs, instant, metrics, stamp = _read_event(event, bounds)
                code = self.code_of(pairs.items())  # first: what is refused for its labels must use up no metric
                for name in metrics:
                    self._admit_metric(name)
            except Refused as refused:
                decoded.refuse(index, refused)
                continue
            codes, instants, rows = groups.setdefault(tuple(metrics), ([], [], []))
            codes.append(code)
            instants.append(instant)
            rows.append(list(metrics.values()))
            filled += len(metrics)
            for key, kind in (*((key, "label") for key in pairs), *((key, "metric") for key in metrics)):
                learnable &= shape.setdefault(key, kind) == kind
            if stamp:
                learnable &= shape.setdefault(TIMESTAMP, stamp) == stamp
        for names, (codes, instants, rows) in groups.items():
            columns = np.array(rows, np.float64).T
            streams, stream = self.streams_of(np.array(codes))
            decoded.keep(
                Batch(streams, stream, np.array(instants, np.int64), dict(zip(names, columns.copy(), strict=True)))
            )
        if learnable and decoded.accepted:
            self._learn(body, shape, filled, decoded.accepted)
        return decoded

    # Arrow.

    def arrow(self, body: bytes, bounds: Bounds) -> Decoded:
        """An Arrow IPC stream: string columns are labels, number columns metrics. Malformed when unreadable."""
        try:
            table = pl.read_ipc_stream(io.BytesIO(body)).rechunk()
        except (pl.exceptions.PolarsError, OSError, ValueError) as error:
            raise Malformed(f"the body is no Arrow IPC stream: {_first_line(error)}") from None
        except pl.exceptions.PanicException as error:
            raise Malformed(f"the body is no Arrow IPC stream: {_first_line(error)}") from None
        if not table.height:
            raise Malformed("the body holds no event")
        self._forget_if_full()
        return _ArrowReader(self, self._admit_metric, table, bounds).read()


# Reading one event strictly.


class _Duplicate(dict[str, Any]):
    """An object in which a key stood twice."""

    key = ""


class _Unreadable(str):
    __slots__ = ()


def _pairs_hook(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    seen: set[str] = set()
    twice = _Duplicate(made)
    for key, _ in pairs:
        if key in seen:
            twice.key = key
            break
        seen.add(key)
    return twice


def _parse_int(text: str) -> int | float:
    return int(text) if len(text) < 30 and text != "-0" else float(text)


_json = json.JSONDecoder(object_pairs_hook=_pairs_hook, parse_constant=float, parse_int=_parse_int)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is not UTF-8: byte {error.start} is {body[error.start]:#04x}") from None


def _load_json(body: bytes) -> Sequence[Any]:
    text = _text(body)
    if not text.strip():
        raise Malformed("the body is empty")
    try:
        value = _json.decode(text)
    except json.JSONDecodeError as error:
        raise Malformed(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            line=error.lineno,
            column=error.colno,
        ) from None
    except RecursionError:
        raise Malformed("the body is nested too deep; an event is one flat object") from None
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list):
        raise Malformed("the body is neither an object nor an array of objects")
    if not value:
        raise Malformed("the body holds no event")
    return value


def _load_ndjson(body: bytes) -> Sequence[Any]:
    events: list[Any] = []
    readable = False
    for number, line in enumerate(_text(body).split("\n"), 1):
        if not line.strip():
            continue
        try:
            events.append(_json.decode(line))
            readable = True
        except json.JSONDecodeError as error:
            events.append(_Unreadable(f"line {number} is not JSON: {error.msg} at column {error.colno}"))
        except RecursionError:
            events.append(_Unreadable(f"line {number} is nested too deep; an event is one flat object"))
    if not events:
        raise Malformed("the body is empty")
    if not readable:
        raise Malformed(f"the body is not NDJSON: {events[0]}")
    return events


def _read_event(event: Any, bounds: Bounds) -> tuple[dict[str, str], int, dict[str, float], str]:
    """Labels, timestamp, metrics, and how the timestamp was written ('' when it was not). Raises Refused."""
    if isinstance(event, _Unreadable):
        raise Refused(None, "not_json", str(event))
    if not isinstance(event, dict):
        raise Refused(None, "not_an_object", f"an event is an object; this is {type(event).__name__}")
    if isinstance(event, _Duplicate):
        key = event.key[:KEY_LIMIT_BYTES]
        raise Refused(key, "duplicate_key", f"{key}: stands twice in the event; send each field once")
    pairs: dict[str, str] = {}
    metrics: dict[str, float] = {}
    instant, stamp = bounds.now, ""
    for key, value in event.items():
        if key == TIMESTAMP:
            if value is not None:
                instant, stamp = _read_timestamp(value, bounds)
        elif key in (NAME, VERSION):
            if not isinstance(value, str):
                raise Refused(key, "not_a_string", f"{key}: must be a string, not {value!r:.60}")
            pairs[key] = value
        elif value is None:
            check_key(key)
        elif isinstance(value, str):
            pairs[key] = value
        elif isinstance(value, (int, float)):
            check_key(key)
            metrics[key] = _read_number(key, value)
        else:
            check_key(key)
            raise Refused(
                key, "nested", f"{key}: a field is a string, a number or a boolean; flatten this {type(value).__name__}"
            )
    if len(metrics) > METRIC_LIMIT:
        raise Refused(None, "too_many_metrics", f"{len(metrics)} metrics; at most {METRIC_LIMIT} are kept")
    if not metrics:
        make_labels(pairs)  # what is wrong with the labels is the better answer
        raise Refused(None, "no_metric", "no metric: an event needs at least one number field")
    return pairs, instant, metrics, stamp


def _read_number(key: str, value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Refused(key, "not_finite", f"{key}: must be a finite number within float64; leave the field out instead")
    return number


def _read_timestamp(value: Any, bounds: Bounds) -> tuple[int, str]:
    try:
        if isinstance(value, str):
            instant, kind = window.rfc3339_to_micros(value), "rfc3339"
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{value!r:.60} is neither RFC 3339 text nor a Unix time")
        else:
            instant, kind = window.unix_to_micros(value), "integer" if isinstance(value, int) else "float"
    except (ValueError, OverflowError) as error:
        raise Refused(TIMESTAMP, "bad_timestamp", f"timestamp: {error}") from None
    bounds.check(instant)
    return instant, kind


# The fast reader's structs.

_KEYS = re.compile(rb'"([^"\\]*)"\s*:')


def _signature(body: bytes) -> tuple[bytes, ...]:
    """The field names of a body's first object, as they stand."""
    return tuple(_KEYS.findall(body, 0, body.find(b"}") + 1))


_STAMP_TYPES: dict[str, Any] = {"integer": int, "float": float | int, "rfc3339": str}
_NAN = float("nan")
_FIRST = np.zeros(1, np.int32)
_NEGATIVE_ZERO = re.compile(rb"-0[\s,}]")


class _Schema:
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

    def read(self, body: bytes, decoder: Decoder, bounds: Bounds, *, lines: bool) -> Batch | None:
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
            return self._read_one(events[0], body, decoder, bounds)
        codes = self._codes_of(events, decoder)
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
        streams, stream = decoder.streams_of(codes)
        return Batch(streams, stream, timestamp, metrics)

    def _read_one(self, event: Any, body: bytes, decoder: Decoder, bounds: Bounds) -> Batch | None:
        """`read` of one event without a timestamp, in a quarter of the time: many clients send just that."""
        labels = self._label_values(event)
        code = self.codes.get(labels)
        if code is None:
            found = self._codes_of([event], decoder)
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
        return Batch((decoder.label_set(code),), _FIRST, np.array((bounds.now,)), values)

    def _codes_of(self, events: list[Any], decoder: Decoder) -> NDArray[np.int64] | None:
        while True:
            try:
                return np.fromiter(map(self.codes.__getitem__, map(self._label_values, events)), np.int64, len(events))
            except KeyError as missing:
                values = missing.args[0]
                try:
                    self.codes[values] = decoder.code_of(zip(self.labels, values, strict=True))
                except Refused:
                    return None
                for event in events:
                    values = self._label_values(event)
                    if values not in self.codes:
                        try:
                            self.codes[values] = decoder.code_of(zip(self.labels, values, strict=True))
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


# Arrow tables.

_YEAR_1, _YEAR_9999 = -62_135_596_800_000_000, 253_402_300_799_999_999  # what an answer can name


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class _ArrowReader:
    """One table to one batch; the rows that are wrong are refused one by one."""

    def __init__(self, decoder: Decoder, admit_metric: AdmitMetric, table: pl.DataFrame, bounds: Bounds) -> None:
        self._decoder = decoder
        self._admit_metric = admit_metric
        self._table = table
        self._bounds = bounds
        self._refused: dict[int, Refused] = {}

    def _refuse(self, rows: NDArray[np.integer], refused: Refused) -> None:
        for row in rows.tolist():
            self._refused.setdefault(row, refused)

    def read(self) -> Decoded:
        table, count = self._table, self._table.height
        labels: dict[str, pl.Series] = {}
        metrics: dict[str, NDArray[np.float64]] = {}
        for column in table:
            key, dtype = column.name, column.dtype
            if key == TIMESTAMP:
                continue
            filled = column.is_not_null()
            try:
                if key in (NAME, VERSION) and dtype not in (pl.String, pl.Categorical, pl.Enum):
                    raise Refused(key, "not_a_string", f"{key}: must be a string column, not {dtype}")
                check_key(key)
                if dtype in (pl.String, pl.Categorical, pl.Enum):
                    labels[key] = column
                elif dtype.is_numeric() or dtype == pl.Boolean:
                    self._admit_metric(key)
                    metrics[key] = self._metric(column)
                elif dtype != pl.Null:
                    raise Refused(key, "nested", f"{key}: {dtype} is neither a string, a number nor a boolean column")
            except Refused as refused:
                self._refuse(
                    np.flatnonzero(filled.to_numpy()) if key not in (NAME, VERSION) else np.arange(count), refused
                )
        timestamp = self._timestamp()
        codes = self._codes(labels)
        if len(metrics) > METRIC_LIMIT:
            present = np.zeros(count, np.int64)
            for values in metrics.values():
                present += ~np.isnan(values)
            for row in np.flatnonzero(present > METRIC_LIMIT).tolist():
                detail = f"{present[row]} metrics; at most {METRIC_LIMIT} are kept"
                self._refused.setdefault(row, Refused(None, "too_many_metrics", detail))
        bare = np.ones(count, bool)
        for values in metrics.values():
            bare &= np.isnan(values)
        self._refuse(
            np.flatnonzero(bare), Refused(None, "no_metric", "no metric: an event needs at least one number field")
        )
        decoded = Decoded()
        for row in sorted(self._refused):
            decoded.refuse(row, self._refused[row])
        kept = np.ones(count, bool)
        kept[list(self._refused)] = False
        if kept.any():
            streams, stream = self._decoder.streams_of(codes[kept])
            metrics = {key: values[kept] for key, values in metrics.items()}
            metrics = {key: values for key, values in metrics.items() if not np.isnan(values).all()}
            decoded.keep(Batch(streams, stream, timestamp[kept], metrics))
        return decoded

    def _metric(self, column: pl.Series) -> NDArray[np.float64]:
        values = column.cast(pl.Float64)
        raw: NDArray[np.float64] = values.fill_null(_NAN).to_numpy().copy()
        wrong = ~np.isfinite(raw)
        if column.null_count():
            wrong &= column.is_not_null().to_numpy()
        if wrong.any():
            key = column.name
            detail = f"{key}: must be a finite number within float64; send null instead"
            self._refuse(np.flatnonzero(wrong), Refused(key, "not_finite", detail))
        return raw

    def _timestamp(self) -> NDArray[np.int64]:
        count, bounds = self._table.height, self._bounds
        if TIMESTAMP not in self._table.columns:
            return np.full(count, bounds.now)
        column = self._table[TIMESTAMP]
        instants = np.full(count, bounds.now)
        if isinstance(column.dtype, pl.Datetime):
            raw = column.to_physical().drop_nulls().to_numpy()  # Polars' own cast panics on what is out of range
            unit = column.dtype.time_unit
            filled = column.is_not_null().to_numpy()
            instants[filled] = (
                raw.clip(-(10**15), 10**15) * 1000 if unit == "ms" else raw if unit == "us" else raw // 1000
            )
            for row in np.flatnonzero((instants < bounds.earliest) | (instants > bounds.latest)).tolist():
                try:
                    bounds.check(min(max(int(instants[row]), _YEAR_1), _YEAR_9999))
                except Refused as refused:
                    self._refused.setdefault(row, refused)
            return instants
        for row, value in enumerate(column.to_list()):
            if value is not None:
                try:
                    instants[row], _ = _read_timestamp(value, bounds)
                except Refused as refused:
                    self._refused.setdefault(row, refused)
        return instants

    def _codes(self, labels: dict[str, pl.Series]) -> NDArray[np.int64]:
        count = self._table.height
        codes = np.zeros(count, np.int64)
        for key in (NAME, VERSION):
            if key not in self._table.columns:
                self._refuse(np.arange(count), Refused(key, "missing", f"{key}: missing; every event needs one"))
        if NAME not in labels or VERSION not in labels:
            return codes
        frame = pl.DataFrame([series.cast(pl.String) for series in labels.values()])
        combined = frame.select(pl.struct(pl.all()).rank("dense").alias("rank"))["rank"].to_numpy().astype(np.int64) - 1
        first = np.zeros(int(combined.max()) + 1, np.int64)
        first[combined[::-1]] = np.arange(count - 1, -1, -1)
        found: NDArray[np.int64] = np.zeros(first.size, np.int64)
        for number, values in enumerate(frame[first].iter_rows()):
            try:
                found[number] = self._decoder.code_of(zip(labels, values, strict=True))
            except Refused as refused:
                self._refuse(np.flatnonzero(combined == number), refused)
        coded: NDArray[np.int64] = found[combined]
        return coded


__all__ = ["Admit", "AdmitMetric", "Bounds", "Decoded", "Decoder"]
