"""A batch: many events as columns, with the label sets kept once. And what makes an event be refused."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""The labels of a stream: (label, value) in the order of the label names; no value is empty."""

NAME, VERSION, TIMESTAMP = "name", "version", "timestamp"
NAME_LIMIT_BYTES = 200
KEY_LIMIT_BYTES = 128
LABEL_VALUE_LIMIT_BYTES = 1024
LABEL_LIMIT = 64
METRIC_LIMIT = 1024

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that share one set of metric names. All arrays have shape (events,).

    `stream` indexes `streams`; `timestamp` is UTC microseconds; a NaN in a metric means that the event has
    no such metric (an event can never carry a NaN of its own: it would have been refused).
    """

    streams: Sequence[Labels]
    stream: NDArray[np.int32]
    timestamp: NDArray[np.int64]
    metrics: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return self.stream.size

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        columns = sum(column.nbytes for column in self.metrics.values())
        return self.stream.nbytes + self.timestamp.nbytes + columns


def concat(batches: Sequence[Batch]) -> Batch:
    """One batch of several that have the same metric names, in their order."""
    if len(batches) == 1:
        return batches[0]
    index: dict[Labels, int] = {}
    codes = []
    for batch in batches:
        here = np.fromiter(
            (index.setdefault(labels, len(index)) for labels in batch.streams), np.int32, len(batch.streams)
        )
        codes.append(here[batch.stream])
    return Batch(
        list(index),
        np.concatenate(codes),
        np.concatenate([batch.timestamp for batch in batches]),
        {name: np.concatenate([batch.metrics[name] for batch in batches]) for name in batches[0].metrics},
    )


def take(batch: Batch, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Batch:
    """The events at `rows` (indexes, a mask or a slice), with the label sets as they were."""
    return Batch(
        batch.streams,
        batch.stream[rows],
        batch.timestamp[rows],
        {name: column[rows] for name, column in batch.metrics.items()},
    )


def fingerprint(labels: Labels) -> bytes:
    """16 bytes that stand for a set of labels (BLAKE2b of its JSON)."""
    return hashlib.blake2b(msgspec.json.encode(labels), digest_size=16).digest()


class Refusal(msgspec.Struct, frozen=True):
    """Why one event of a request is not kept. `index` counts from 0 in the request."""

    index: int
    field: str | None
    code: str
    detail: str


class Refused(Exception):
    """Raised while one event is read; becomes a Refusal when its index is known."""

    def __init__(self, field: str | None, code: str, detail: str) -> None:
        super().__init__(detail)
        self.field, self.code, self.detail = field, code, detail


def check_text(field: str, text: str) -> None:
    """Refuse what Postgres cannot hold: NUL and lone surrogates."""
    if "\0" in text:
        raise Refused(field, "bad_text", f"{field}: the character NUL cannot be stored; remove it")
    if not text.isascii() and _SURROGATE.search(text):
        raise Refused(field, "bad_text", f"{field}: a lone surrogate is no character; send valid Unicode")


def check_key(key: str) -> None:
    """Refuse a label or metric name that is empty, too long or reserved."""
    if not key:
        raise Refused(key, "empty_name", "a field's name is empty; give it one")
    if len(key) > KEY_LIMIT_BYTES or len(key.encode(errors="replace")) > KEY_LIMIT_BYTES:
        raise Refused(
            key[:KEY_LIMIT_BYTES],
            "name_too_long",
            f"a field's name is over {KEY_LIMIT_BYTES} bytes; shorten it",
        )
    if key.startswith("__"):
        raise Refused(key, "reserved_name", f"{key}: names that begin with __ are reserved; rename it")
    check_text(key, key)


def check_label(key: str, value: str) -> None:
    """Refuse a label's value that is too long or cannot be stored."""
    limit = NAME_LIMIT_BYTES if key in (NAME, VERSION) else LABEL_VALUE_LIMIT_BYTES
    if len(value) > limit or len(value.encode(errors="replace")) > limit:
        raise Refused(key, "too_long", f"{key}: over {limit} bytes; shorten it")
    check_text(key, value)


def make_labels(pairs: Mapping[str, str]) -> Labels:
    """The checked, canonical labels of an event. An empty value means that the label is absent. Raises Refused."""
    for key in (NAME, VERSION):
        if key not in pairs:
            raise Refused(key, "missing", f"{key}: missing; every event needs one")
        if not pairs[key]:
            raise Refused(key, "empty", f"{key}: empty; every event needs one")
    for key, value in pairs.items():
        check_key(key)
        check_label(key, value)
    labels = tuple(sorted((key, value) for key, value in pairs.items() if value))
    if len(labels) > LABEL_LIMIT:
        raise Refused(None, "too_many_labels", f"{len(labels)} labels; at most {LABEL_LIMIT} are kept")
    return labels
