"""The sketches of many cells at once, as one table of bins: every quantile of every cell, with no loop over either.

A cell is whatever the caller counts apart: a series in a window, a group of them, a window of a histogram.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelmeter import distance, packed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DENSE_CELLS = 1 << 24  # up to so many counters a table is filled, else the rows are sorted
_BIN_BITS = 19  # a signed bin lies within 2^18 of zero


@dataclass(frozen=True, slots=True)
class Bins:
    """Counts of the bins in use, sorted by cell, then bin; shape (n,) each. Bins are signed, as in decode_many."""

    cell: Ints
    bin: Ints
    count: Ints


def count_bins(sketches: Sequence[bytes], cell: Ints) -> Bins:
    """The sum of stored sketches (an empty one adds nothing) by the cell of each, shape (len(sketches),)."""
    row, signed, count = packed.decode_many(sketches)
    if not row.size:
        return Bins(row, signed, count)
    cells = cell[row]
    low, height = int(signed.min()), int(cells.max()) + 1
    used = np.flatnonzero(np.bincount(signed - low))
    if height * used.size <= _DENSE_CELLS:
        number = np.zeros(int(used[-1]) + 1, np.int64)
        number[used] = np.arange(used.size)
        table = np.bincount(cells * used.size + number[signed - low], count)
        filled = np.flatnonzero(table)
        return Bins(filled // used.size, used[filled % used.size] + low, table[filled].astype(np.int64))
    keys, inverse = np.unique((cells << _BIN_BITS) + signed + (1 << _BIN_BITS - 1), return_inverse=True)
    total = np.bincount(inverse, count).astype(np.int64)
    return Bins(keys >> _BIN_BITS, (keys & (1 << _BIN_BITS) - 1) - (1 << _BIN_BITS - 1), total)


def quantiles(bins: Bins, qs: Sequence[float], low: Floats, high: Floats) -> Floats:
    """The q-quantiles of the cells 0 to n - 1, (n, qs), as sketch.quantiles has them; NaN where a cell is empty.

    `low` and `high`, shape (n,), are the exact extremes.
    """
    cells, wanted = low.size, np.asarray(qs, np.float64)
    found = np.full((cells, wanted.size), np.nan)
    filled = np.unique(bins.cell)
    if not filled.size or not wanted.size:
        return found
    values = distance.value_of(bins.bin)
    cumulative = np.cumsum(bins.count)
    ends = np.searchsorted(bins.cell, filled, side="right")
    before = np.concatenate(([0], cumulative[ends[:-1] - 1]))
    total = (cumulative[ends - 1] - before)[:, None]
    least, most = low[filled, None], high[filled, None]
    rank = wanted[None, :] * (total - 1)
    below = rank.astype(np.int64)

    def at(position: Ints) -> Floats:
        place = np.searchsorted(cumulative, before[:, None] + position, side="right")
        bounded: Floats = np.clip(values[place], least, most)
        bounded = np.where(position <= 0, least, bounded)
        return np.where(position >= total - 1, most, bounded)

    found[filled] = between(at(below), at(np.minimum(below + 1, total - 1)), rank - below)
    return found


def between(left: Floats, right: Floats, share: Floats) -> Floats:
    """The values at `share` in [0, 1) of the way from left to right; no rounding or overflow carries them past."""
    with np.errstate(over="ignore", invalid="ignore"):
        way = right - left
        straight = np.minimum(left + way * share, right)
        return np.where(np.isinf(way), left * (1 - share) + right * share, straight)
