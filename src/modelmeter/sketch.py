"""The sketch: OpenTelemetry's exponential histogram at scale 5, so merging is addition and every bin is everyone's.

A positive value v falls into bin i when base^i < v <= base^(i+1), base = 2^(1/32). Bins of negative values
mirror them; zeros are counted apart. The bin is found by integer arithmetic on the bits of the float: exact,
and the same on every machine. A quantile read from bins is within 1.1 % of the value
(https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram).
"""

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SCALE = 5
BINS_PER_OCTAVE = 2**SCALE
BASE = 2.0 ** (1 / BINS_PER_OCTAVE)
ERROR = (BASE - 1) / (BASE + 1)
"""The largest relative error of a bin's representative value: 1.083 %."""

ABOVE_ALL = 1 << 17
"""Larger than any bin's number: with it, the bins of the two signs make one line of numbers and never meet."""

_SHIFT = 44  # keep the exponent and eight bits of the mantissa: never two bin borders in one cell
_CELLS_PER_OCTAVE = 2 ** (52 - _SHIFT)
_SMALLEST_NORMAL = np.finfo(np.float64).tiny


def _border(number: int) -> int:
    """floor((2^(number/32) - 1) 2^52): the last mantissa at or below a bin's border. 2^52 for 32: the next octave.

    The root of degree 32 is five square roots; a floor of floors is exact. Floats are not: exp2 is off by one for 12.
    """
    power: int = 1 << (52 * BINS_PER_OCTAVE + number)
    for _ in range(SCALE):
        power = math.isqrt(power)
    return power - (1 << 52)


def _tables() -> tuple[NDArray[np.int32], Ints]:
    """For each cell (the upper 20 bits of a float): the bin at its start, and the bits where the next bin begins."""
    borders = np.array([_border(number) for number in range(BINS_PER_OCTAVE + 1)])
    starts = np.arange(_CELLS_PER_OCTAVE, dtype=np.int64) << _SHIFT
    first = np.searchsorted(borders, starts, side="right") - 1
    exponents = np.arange(2048, dtype=np.int64)
    bins = ((exponents[:, None] - 1023) * BINS_PER_OCTAVE + first[None, :]).astype(np.int32).ravel()
    nexts = ((exponents[:, None] << 52) + borders[first + 1][None, :]).ravel()
    return bins, nexts


_CELL_BIN, _CELL_NEXT = _tables()


def bin_of(magnitudes: Floats) -> NDArray[np.int32]:
    """The bin of each value; all must be > 0 and finite. Shape (n,) in and out."""
    bits = magnitudes.view(np.int64) - 1  # upper borders belong to the bin: see the OpenTelemetry data model
    cell = bits >> _SHIFT
    bins: NDArray[np.int32] = _CELL_BIN[cell] + (bits >= _CELL_NEXT[cell])
    if magnitudes.size and magnitudes.min() < _SMALLEST_NORMAL:
        small = magnitudes < _SMALLEST_NORMAL
        bins[small] = bin_of(magnitudes[small] * 2.0**54) - 54 * BINS_PER_OCTAVE
    return bins


def value_of(bins: NDArray[np.integer]) -> Floats:
    """The value that stands for each bin: its largest relative distance to any value in the bin is ERROR."""
    scaled = np.asarray(bins, dtype=np.float64) / BINS_PER_OCTAVE
    with np.errstate(over="ignore"):
        values: Floats = np.minimum(np.exp2(scaled) * (2 * BASE / (1 + BASE)), np.finfo(np.float64).max)
    return values


@dataclass(frozen=True, slots=True)
class Sketch:
    """Counts of positive bins from `offset` on, of negative ones from `negative_offset` on, and of zeros."""

    offset: int
    counts: Ints
    zeros: int
    negative_offset: int
    negative_counts: Ints

    @property
    def count(self) -> int:
        return int(self.counts.sum()) + self.zeros + int(self.negative_counts.sum())


EMPTY = Sketch(0, np.zeros(0, np.int64), 0, 0, np.zeros(0, np.int64))


def _dense(bins: NDArray[np.int32]) -> tuple[int, Ints]:
    if not bins.size:
        return 0, np.zeros(0, np.int64)
    offset = int(bins.min())
    return offset, np.bincount(bins - offset).astype(np.int64)


def sketch_of(values: Floats) -> Sketch:
    """The sketch of finite values, shape (n,)."""
    positive, negative = values[values > 0], -values[values < 0]
    offset, counts = _dense(bin_of(positive))
    negative_offset, negative_counts = _dense(bin_of(negative))
    return Sketch(offset, counts, values.size - positive.size - negative.size, negative_offset, negative_counts)


def _merge_side(sides: list[tuple[int, Ints]]) -> tuple[int, Ints]:
    sides = [side for side in sides if side[1].size]
    if not sides:
        return 0, np.zeros(0, np.int64)
    if len(sides) == 1:
        return sides[0]
    low = min(offset for offset, _ in sides)
    merged = np.zeros(max(offset + counts.size for offset, counts in sides) - low, np.int64)
    for offset, counts in sides:
        merged[offset - low : offset - low + counts.size] += counts
    return low, merged


def merge(sketches: Iterable[Sketch]) -> Sketch:
    """One sketch of all: addition, so the order and the grouping do not matter."""
    parts = list(sketches)
    if len(parts) == 1:
        return parts[0]
    offset, counts = _merge_side([(part.offset, part.counts) for part in parts])
    negative = _merge_side([(part.negative_offset, part.negative_counts) for part in parts])
    return Sketch(offset, counts, sum(part.zeros for part in parts), *negative)


def quantiles(sketch: Sketch, qs: Iterable[float], low: float, high: float) -> list[float]:
    """The q-quantiles, interpolated between neighbouring ranks as NumPy does (Hyndman and Fan's type 7).

    `low` and `high` are the exact minimum and maximum; they bound the answer, and answer 0 and 1 themselves.
    NaN when the sketch is empty.
    """
    values = np.concatenate(
        (
            -value_of(sketch.negative_offset + np.arange(sketch.negative_counts.size))[::-1],
            [0.0],
            value_of(sketch.offset + np.arange(sketch.counts.size)),
        )
    ).clip(low, high)
    cumulative = np.cumsum(np.concatenate((sketch.negative_counts[::-1], [sketch.zeros], sketch.counts)))
    total = int(cumulative[-1])
    answers = []
    for q in qs:
        if not total:
            answers.append(float("nan"))
            continue
        rank = q * (total - 1)
        below = int(rank)
        left, right = values[np.searchsorted(cumulative, [below, min(below + 1, total - 1)], side="right")]
        if below == 0:
            left = low
        if below + 1 >= total - 1:
            right = high
        if below >= total - 1:
            left = high
        answers.append(_between(float(left), float(right), rank - below))
    return answers


def _between(left: float, right: float, share: float) -> float:
    """The value at `share` in [0, 1) of the way from left to right; no rounding or overflow carries it past them."""
    way = right - left
    if math.isinf(way):
        return left * (1 - share) + right * share
    return min(left + way * share, right)


# The stored form. Byte 0: bits 0-1 log2 of the bytes a count takes, bit 2 list form, bit 3 negatives, bit 4 zeros.
# Then, each only if there: u64 zeros; u32 elements and the side of the negatives; the side of the positives (to the
# end). A side is an i32 offset and dense counts, or in list form one i32 bin for every single value: shorter for few.
LIST, NEGATIVE, ZEROS = 4, 8, 16
WIDTHS = (np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"), np.dtype("<u8"))
BIN = np.dtype("<i4")


def _width_code(largest: int) -> int:
    return 0 if largest < 2**8 else 1 if largest < 2**16 else 2 if largest < 2**32 else 3


def encode(sketch: Sketch) -> bytes:
    """The stored form; the shorter of dense and list."""
    sides = ((sketch.negative_offset, sketch.negative_counts), (sketch.offset, sketch.counts))
    code = _width_code(max((int(counts.max()) for _, counts in sides if counts.size), default=0))
    values = sum(int(counts.sum()) for _, counts in sides)
    dense_bytes = sum(4 + (counts.size << code) for _, counts in sides if counts.size)
    flags, parts = code, []
    if values * 4 <= dense_bytes:
        flags = LIST
        parts = [np.repeat(np.arange(counts.size) + offset, counts).astype(BIN).tobytes() for offset, counts in sides]
    else:
        parts = [
            struct.pack("<i", offset) + counts.astype(WIDTHS[code]).tobytes() if counts.size else b""
            for offset, counts in sides
        ]
    head = b""
    if sketch.zeros:
        flags |= ZEROS
        head += struct.pack("<Q", sketch.zeros)
    if parts[0]:
        flags |= NEGATIVE
        head += struct.pack("<I", len(parts[0])) + parts[0]
    return bytes([flags]) + head + parts[1]


def _decode_side(data: memoryview, flags: int) -> tuple[int, Ints]:
    if not data:
        return 0, np.zeros(0, np.int64)
    if flags & LIST:
        return _dense(np.frombuffer(data, BIN))
    return int.from_bytes(data[:4], "little", signed=True), np.frombuffer(data, WIDTHS[flags & 3], offset=4).astype(
        np.int64
    )


def decode(data: bytes) -> Sketch:
    """The sketch of a stored form."""
    flags, at, zeros = data[0], 1, 0
    view = memoryview(data)
    if flags & ZEROS:
        zeros, at = int.from_bytes(view[1:9], "little"), 9
    negative: tuple[int, Ints] = (0, EMPTY.counts)
    if flags & NEGATIVE:
        end = at + 4 + int.from_bytes(view[at : at + 4], "little")
        negative, at = _decode_side(view[at + 4 : end], flags), end
    return Sketch(*_decode_side(view[at:], flags), zeros, *negative)


def encode_groups(values: Floats, starts: Ints) -> list[bytes]:
    """The stored sketches of consecutive groups of finite values; group g is `values[starts[g]:starts[g + 1]]`.

    Equal to `[encode(sketch_of(group)) for group in groups]`, in a few passes over all of them. No group is empty.
    """
    ends = np.append(starts[1:], values.size)
    if (values > 0).all():
        return _encode_positive(bin_of(values), starts, ends - starts, np.zeros(starts.size, np.int64))
    if (values >= 0).all():
        positive = values > 0
        kept = np.concatenate(([0], np.cumsum(positive)))
        sizes = kept[ends] - kept[starts]
        return _encode_positive(bin_of(values[positive]), kept[starts], sizes, ends - starts - sizes)
    return [encode(sketch_of(values[start:end])) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _encode_positive(bins: NDArray[np.int32], starts: Ints, sizes: Ints, zeros: Ints) -> list[bytes]:
    filled = np.flatnonzero(sizes)
    lows = np.zeros(starts.size, np.int64)
    highs = np.full(starts.size, -1, np.int64)
    if filled.size:
        lows[filled] = np.minimum.reduceat(bins, starts[filled])
        highs[filled] = np.maximum.reduceat(bins, starts[filled])
    lengths = highs - lows + 1
    listed = sizes * 4 <= 4 + lengths
    dense = np.flatnonzero(~listed)
    counts_at = np.zeros(starts.size, np.int64)
    counts = np.zeros(0, np.int64)
    largest = np.zeros(starts.size, np.int64)
    if dense.size:
        ends_at = np.cumsum(lengths[dense])
        counts_at[dense] = ends_at - lengths[dense]
        if dense.size == 1 and starts.size == 1:
            counts = np.bincount(bins - lows[0], minlength=int(ends_at[-1]))
        else:
            group = np.repeat(np.arange(starts.size), sizes)
            shift = counts_at - lows
            where = bins + shift[group]
            counts = np.bincount(where if dense.size == starts.size else where[~listed[group]])
        largest[dense] = np.maximum.reduceat(counts, counts_at[dense])
    codes = np.digitize(largest, (2**8, 2**16, 2**32))
    listed |= sizes * 4 <= 4 + (lengths << codes)
    narrowed: dict[int, bytes] = {code: counts.astype(WIDTHS[code]).tobytes() for code in set(codes[dense].tolist())}
    raw_bins = bins.astype(BIN).tobytes()
    encoded = []
    for start, size, zero, low, length, at, is_listed, code in zip(
        starts.tolist(),
        sizes.tolist(),
        zeros.tolist(),
        lows.tolist(),
        lengths.tolist(),
        counts_at.tolist(),
        listed.tolist(),
        codes.tolist(),
        strict=True,
    ):
        head = bytes(((LIST if is_listed else code) | (ZEROS if zero else 0),))
        if zero:
            head += zero.to_bytes(8, "little")
        if is_listed:
            body = raw_bins[4 * start : 4 * (start + size)]
            if size > 1:
                body = _sorted_bins(body)
        else:
            body = low.to_bytes(4, "little", signed=True) + narrowed[code][at << code : (at + length) << code]
        encoded.append(head + body)
    return encoded


def _sorted_bins(raw: bytes) -> bytes:
    """List form keeps its bins in order, so that equal sketches are equal bytes."""
    return np.sort(np.frombuffer(raw, BIN)).tobytes()
