"""The samples in each window `(end - range, end]` of each series, and how to compute over all windows at once.

Windows are cut out of the flat samples by position. Whatever looks at every sample of a window gets blocks: windows
of similar size, padded to the next power of two, so the work is at most twice the samples in the windows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from modelmeter.promql.source import Floats, Ints, Mask, Samples

_BLOCK_ELEMENTS = 1 << 16  # stays in the cache


@dataclass(frozen=True, slots=True)
class Windows:
    """Positions `[low, high)` in the flat samples, shape (series, windows); `ends` and `range` in microseconds."""

    samples: Samples
    low: Ints
    high: Ints
    ends: Ints
    range: int

    @property
    def count(self) -> Ints:
        return self.high - self.low

    def at(self, flat: np.ndarray, position: Ints, enough: Mask) -> np.ndarray:
        """`flat[position]` where `enough`; anything elsewhere."""
        if not flat.size:
            return np.zeros(position.shape, flat.dtype)
        return np.asarray(flat[np.where(enough, position, 0)])


@dataclass(frozen=True, slots=True)
class Block:
    """Some windows, padded: `position` and `mask` are (windows, width); `which` numbers them among all (flat)."""

    which: Ints
    position: Ints
    mask: Mask


def last_before(samples: Samples, instants: Ints) -> Ints:
    """For each series and instant the position after the last sample at or before it; shape (series, instants)."""
    size = len(samples.labels)
    if not samples.timestamps.size:
        return np.repeat(samples.offsets[:-1, None], instants.size, axis=1)
    first = int(samples.timestamps.min())
    width = int(samples.timestamps.max()) - first + 3
    moved = np.clip(instants - first + 1, 0, width - 2)
    if size * width < 2**62:  # one search over all series: each has its own stretch of numbers
        stretch = np.arange(size, dtype=np.int64) * width
        keys = np.repeat(stretch, np.diff(samples.offsets)) + (samples.timestamps - first + 1)
        return np.searchsorted(keys, (stretch[:, None] + moved).ravel(), "right").reshape(size, -1)
    rows = [
        start + np.searchsorted(samples.timestamps[start:end], instants, "right")
        for start, end in zip(samples.offsets[:-1].tolist(), samples.offsets[1:].tolist(), strict=True)
    ]
    return np.asarray(rows, dtype=np.int64).reshape(size, instants.size)


def cut(samples: Samples, range_: int, ends: Ints) -> Windows:
    high = last_before(samples, ends)
    return Windows(samples, last_before(samples, ends - range_), high, ends, range_)


def blocks(low: Ints, high: Ints) -> Iterator[Block]:
    """All windows that are not empty, as padded blocks."""
    sizes = (high - low).ravel()
    starts = low.ravel()
    exponents = np.where(sizes > 0, np.ceil(np.log2(np.maximum(sizes, 1))), -1).astype(np.int64)
    for exponent in np.unique(exponents[exponents >= 0]).tolist():
        width = 1 << exponent
        which = np.flatnonzero(exponents == exponent)
        step = max(1, _BLOCK_ELEMENTS // width)
        for begin in range(0, which.size, step):
            some = which[begin : begin + step]
            place = np.arange(width)
            mask = place < sizes[some, None]
            yield Block(some, np.where(mask, starts[some, None] + place, starts[some, None]), mask)


def reduce(low: Ints, high: Ints, kernel: Callable[[Block], Floats]) -> Floats:
    """One number per window, computed block by block; NaN for empty windows. Shape of `low`."""
    result = np.full(low.size, np.nan)
    for block in blocks(low, high):
        result[block.which] = kernel(block)
    return result.reshape(low.shape)
