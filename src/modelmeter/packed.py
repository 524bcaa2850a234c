"""Many stored sketches at once: decoded, merged and asked for ranks in a few passes over all of them.

They lie in one buffer as they came out of Postgres; one is cut out of it only when it is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from modelmeter.sketch import (
    ABOVE_ALL,
    EMPTY,
    LIST,
    NEGATIVE,
    WIDTHS,
    ZEROS,
    Floats,
    Ints,
    Sketch,
    decode,
    encode,
    value_of,
)

_CELLS_AT_ONCE = 1 << 22  # groups by bins


@dataclass(frozen=True, slots=True, eq=False)
class Packed(Sequence[bytes]):
    """Sketch i is `data[starts[i]:starts[i] + lengths[i]]`; arrays of shape (n,)."""

    data: bytes
    starts: Ints
    lengths: Ints

    def __len__(self) -> int:
        return self.starts.size

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> "Packed": ...
    def __getitem__(self, at: int | slice) -> "bytes | Packed":
        if isinstance(at, slice):
            return Packed(self.data, self.starts[at], self.lengths[at])
        start = int(self.starts[at])
        return self.data[start : start + int(self.lengths[at])]


def pack(sketches: Sequence[bytes]) -> Packed:
    """The same sketches in one buffer."""
    if isinstance(sketches, Packed):
        return sketches
    lengths = np.fromiter(map(len, sketches), np.int64, len(sketches))
    return Packed(b"".join(sketches), np.cumsum(lengths) - lengths, lengths)


def blank(size: int) -> Packed:
    """So many empty ones."""
    nowhere = np.zeros(size, np.int64)
    return Packed(b"", nowhere, nowhere)


def take(sketches: Sequence[bytes], rows: NDArray[np.integer]) -> Sequence[bytes]:
    """The sketches at `rows`, shape (n,)."""
    if isinstance(sketches, Packed):
        return take_packed(sketches, rows)
    return [sketches[row] for row in rows.tolist()]


def take_packed(sketches: Packed, rows: NDArray[np.integer]) -> Packed:
    return Packed(sketches.data, sketches.starts[rows], sketches.lengths[rows])


def join(parts: Sequence[Sequence[bytes]]) -> Sequence[bytes]:
    """All sketches of several, in their order."""
    filled = [part for part in parts if len(part)]
    if len(filled) == 1:
        return filled[0]
    if not all(isinstance(part, Packed) for part in filled):
        return [data for part in filled for data in part]
    packed = [pack(part) for part in filled]
    sizes = np.cumsum([0, *(len(part.data) for part in packed)]).tolist()
    return Packed(
        b"".join(part.data for part in packed),
        np.concatenate(
            [np.zeros(0, np.int64), *(part.starts + at for part, at in zip(packed, sizes[:-1], strict=True))]
        ),
        np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in packed)]),
    )


def decode_many(encoded: Sequence[bytes]) -> tuple[Ints, Ints, Ints]:
    """All bins in use of many stored sketches at once: (row, signed bin, count), each of shape (n,).

    A signed bin is a place on one line of numbers: ABOVE_ALL + i for the positive bin i, 0 for zeros, and
    -(ABOVE_ALL + i) for a negative one. A bin may come in several parts of one count each.
    """
    encoded = pack(encoded)
    starts, lengths = encoded.starts, encoded.lengths
    octets = np.frombuffer(encoded.data, np.uint8)
    flags = _flags(encoded)
    parts: list[tuple[Ints, Ints, Ints]] = []
    with_zeros = (flags & ZEROS) > 0
    rows = np.flatnonzero(with_zeros)
    if rows.size:
        counts = _little_endian(octets, starts[rows] + 1, 8)
        parts.append((rows, np.zeros(rows.size, np.int64), counts))
    for number in np.flatnonzero(flags & NEGATIVE).tolist():
        one = decode(encoded[number])
        for sign, low, its_counts in ((-1, one.negative_offset, one.negative_counts), (1, one.offset, one.counts)):
            used = np.flatnonzero(its_counts)
            parts.append((np.full(used.size, number), sign * (used + low + ABOVE_ALL), its_counts[used]))
    begins = starts + 1 + 8 * with_zeros
    room = starts + lengths - begins
    plain = ((flags & NEGATIVE) == 0) & (room > 0)
    rows = np.flatnonzero(plain & ((flags & LIST) > 0))
    if rows.size:
        row, at = _runs(rows, begins[rows], room[rows] // 4, 4)
        parts.append((row, _signed(_little_endian(octets, at, 4)) + ABOVE_ALL, np.ones(row.size, np.int64)))
    for code in range(4):
        rows = np.flatnonzero(plain & ((flags & (LIST | 3)) == code))
        if rows.size:
            sizes = (room[rows] - 4) >> code
            row, at = _runs(rows, begins[rows] + 4, sizes, 1 << code)
            lows = np.repeat(_signed(_little_endian(octets, begins[rows], 4)), sizes)
            counts = _little_endian(octets, at, 1 << code)
            place = (at - np.repeat(begins[rows] + 4, sizes)) >> code
            used = np.flatnonzero(counts)
            parts.append((row[used], (lows + place + ABOVE_ALL)[used], counts[used]))
    if not parts:
        return EMPTY.counts, EMPTY.counts, EMPTY.counts
    rows, bins, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
    return rows, bins, counts


def _flags(encoded: Packed) -> Ints:
    """The first byte of each; 0 of an empty one (that of an EVENTS partial)."""
    flags = np.zeros(len(encoded), np.int64)
    filled = encoded.lengths > 0
    flags[filled] = np.frombuffer(encoded.data, np.uint8)[encoded.starts[filled]]
    return flags


def _runs(rows: Ints, begins: Ints, sizes: Ints, width: int) -> tuple[Ints, Ints]:
    """Each row as often as its size, and where each of its elements of `width` bytes begins."""
    ends = np.cumsum(sizes)
    within = np.arange(int(ends[-1])) - np.repeat(ends - sizes, sizes)
    return np.repeat(rows, sizes), np.repeat(begins, sizes) + within * width


def _little_endian(octets: NDArray[np.uint8], at: Ints, width: int) -> Ints:
    value = octets[at].astype(np.int64)
    for byte in range(1, width):
        value |= octets[at + byte].astype(np.int64) << (8 * byte)
    return value


def _signed(value: Ints) -> Ints:
    return value - ((value >> 31) << 32)


def merge_groups(encoded: Sequence[bytes], starts: Ints) -> list[bytes]:
    """One sketch for each run of consecutive ones; run g is `encoded[starts[g]:starts[g + 1]]`, none is empty.

    Equal to `encode(merge(decode(one) for one in run))` of each; of empty ones only, empty.
    """
    encoded = pack(encoded)
    sizes = np.diff(starts, append=len(encoded))
    dense = (_flags(encoded) & (LIST | NEGATIVE) == 0) & (encoded.lengths > 5)
    alike = np.logical_and.reduceat(dense, starts)
    if not alike.any():
        return _merge_any(encoded, starts)
    others = np.flatnonzero(~alike)
    rows = np.flatnonzero(np.repeat(~alike, sizes))
    rest = _merge_any(take_packed(encoded, rows), np.cumsum(sizes[others]) - sizes[others]) if others.size else []
    found = dict(zip(others.tolist(), rest, strict=True))
    ends = (starts + sizes).tolist()
    return [
        found[group] if group in found else _merge_dense(encoded, start, end)
        for group, (start, end) in enumerate(zip(starts.tolist(), ends, strict=True))
    ]


def _merge_dense(encoded: Packed, start: int, end: int) -> bytes:
    """Of sketches with dense positive bins: one addition each, the fastest for hundreds of bins."""
    data, zeros, sides = encoded.data, 0, []
    for at, length in zip(encoded.starts[start:end].tolist(), encoded.lengths[start:end].tolist(), strict=True):
        flags, begin = data[at], at + 1
        if flags & ZEROS:
            zeros += int.from_bytes(data[begin : begin + 8], "little")
            begin += 8
        size = (at + length - begin - 4) >> (flags & 3)
        if size > 0:
            low = int.from_bytes(data[begin : begin + 4], "little", signed=True)
            sides.append((low, np.frombuffer(data, WIDTHS[flags & 3], size, begin + 4)))
    if not sides:
        return encode(Sketch(0, EMPTY.counts, zeros, 0, EMPTY.counts))
    low = min(offset for offset, _ in sides)
    merged = np.zeros(max(offset + counts.size for offset, counts in sides) - low, np.int64)
    for offset, counts in sides:
        merged[offset - low : offset - low + counts.size] += counts.astype(np.int64, copy=False)
    return encode(Sketch(low, merged, zeros, 0, EMPTY.counts))


def _merge_any(encoded: Packed, starts: Ints) -> list[bytes]:
    group = np.zeros(len(encoded), np.int64)
    group[starts[1:]] = 1
    np.cumsum(group, out=group)
    row, signed, counts = decode_many(encoded)
    owner = group[row]
    zeros = np.bincount(owner[signed == 0], counts[signed == 0], minlength=starts.size).astype(np.int64).tolist()
    sides = []
    for side in (signed > 0, signed < 0):
        bins = np.abs(signed[side]) - ABOVE_ALL
        sides.append(_dense_groups(owner[side], bins, counts[side], starts.size))
    positive, negative = sides
    filled = np.add.reduceat(encoded.lengths, starts) > 0
    return [
        encode(Sketch(*positive[number], zeros[number], *negative[number])) if some else b""
        for number, some in enumerate(filled.tolist())
    ]


def _dense_groups(group: Ints, bins: Ints, counts: Ints, size: int) -> list[tuple[int, Ints]]:
    """For each group its lowest bin in use and the counts from there to its highest."""
    if not bins.size:
        return [(0, EMPTY.counts)] * size
    low, high = int(bins.min()), int(bins.max())
    width = high - low + 1
    step = max(1, _CELLS_AT_ONCE // width)
    found: list[tuple[int, Ints]] = []
    for first in range(0, size, step):
        end = min(first + step, size)
        here = slice(None) if step >= size else (group >= first) & (group < end)
        cells = (group[here] - first) * width + bins[here] - low
        table = np.bincount(cells, counts[here], minlength=(end - first) * width).astype(np.int64)
        table = table.reshape(end - first, width)
        used = table > 0
        some: list[bool] = np.asarray(used.any(axis=1)).tolist()
        starts: list[int] = used.argmax(axis=1).tolist()
        stops: list[int] = (width - used[:, ::-1].argmax(axis=1)).tolist()
        found += [
            (low + start, table[row, start:stop]) if is_used else (0, EMPTY.counts)
            for row, (is_used, start, stop) in enumerate(zip(some, starts, stops, strict=True))
        ]
    return found


def values_at(encoded: Sequence[bytes], ranks: Ints) -> Floats:
    """The value that stands at each rank of each sketch: shape (n, k), as `ranks`, each in [0, its count).

    0 for an empty one.
    """
    encoded = pack(encoded)
    found = np.zeros(ranks.shape)
    flags = _flags(encoded)
    octets = np.frombuffer(encoded.data, np.uint8)
    for row in np.flatnonzero(flags & NEGATIVE).tolist():
        found[row] = _values_at(decode(encoded[row]), ranks[row])
    begins = encoded.starts + 1
    zeros = np.zeros(len(encoded), np.int64)
    rows = np.flatnonzero((flags & (ZEROS | NEGATIVE)) == ZEROS)
    if rows.size:
        zeros[rows] = _little_endian(octets, begins[rows], 8)
        begins[rows] += 8
    ends = encoded.starts + encoded.lengths
    plain = ((flags & NEGATIVE) == 0) & (ends > begins)
    rows = np.flatnonzero(plain & ((flags & LIST) > 0))
    if rows.size:
        rank = ranks[rows] - zeros[rows, None]
        at = begins[rows, None] + 4 * np.clip(rank, 0, ((ends - begins)[rows] // 4 - 1)[:, None])
        found[rows] = np.where(rank < 0, 0.0, value_of(_signed(_little_endian(octets, at, 4))))
    for code in range(4):
        rows = np.flatnonzero(plain & ((flags & (LIST | 3)) == code))
        if not rows.size:
            continue
        data, width = encoded.data, WIDTHS[code]
        pairs = zip((begins[rows] + 4).tolist(), ends[rows].tolist(), strict=True)
        cumulative = np.cumsum(np.frombuffer(b"".join([data[a:b] for a, b in pairs]), width), dtype=np.int64)
        stops = np.cumsum((ends[rows] - begins[rows] - 4) >> code)[:, None]
        base = np.concatenate(([0], cumulative[stops[:-1, 0] - 1]))[:, None]
        first = np.concatenate(([[0]], stops[:-1]))
        rank = ranks[rows] - zeros[rows, None]
        place = np.searchsorted(cumulative, base + np.maximum(rank, 0), "right")
        bins = _signed(_little_endian(octets, begins[rows], 4))[:, None] + np.minimum(place, stops - 1) - first
        found[rows] = np.where(rank < 0, 0.0, value_of(bins))
    return found


def _values_at(one: Sketch, ranks: Ints) -> Floats:
    """The same of one sketch."""
    values = np.concatenate(
        (
            -value_of(one.negative_offset + np.arange(one.negative_counts.size))[::-1],
            [0.0],
            value_of(one.offset + np.arange(one.counts.size)),
        )
    )
    cumulative = np.cumsum(np.concatenate((one.negative_counts[::-1], [one.zeros], one.counts)))
    found: Floats = values[np.minimum(np.searchsorted(cumulative, ranks, "right"), values.size - 1)]
    return found
