"""Histograms of two sides over each other: on common bins to count with, between common edges to draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelmeter import distance, packed, sketch

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_TAIL = 0.005


@dataclass(frozen=True, slots=True)
class Overlay:
    """Counts of both sides between common edges: counts[i] are the values in (edges[i], edges[i + 1]].

    The first one holds edges[0], the smallest value, too.
    """

    edges: list[float]
    a: list[int]
    b: list[int]


def number_bins(signed: Ints) -> tuple[Ints, Ints]:
    """As np.unique: the bins in use, ascending, and the place of each of `signed` among them; without sorting."""
    if not signed.size:
        return signed, signed
    low = int(signed.min())
    used = np.bincount(signed - low) > 0
    return np.flatnonzero(used) + low, (np.cumsum(used) - 1)[signed - low]


def tabulate(sketches: Sequence[bytes]) -> tuple[Ints, Ints]:
    """Stored sketches on their common bins: signed bins (bins,), ascending, and counts (sketches, bins)."""
    row, signed, count = packed.decode_many(sketches)
    bins, place = number_bins(signed)
    counts = np.zeros((len(sketches), bins.size), np.int64)
    np.add.at(counts, (row, place), count)
    return bins, counts


def overlay(a: Ints, b: Ints, bins: Ints, extremes: tuple[float, float], most: int) -> Overlay:
    """At most `most` groups of bins, about equally wide between the 0.5 % and the 99.5 % quantile of both sides.

    Counts (bins,) on signed bins, ascending; `extremes` are the smallest and the largest value of both sides.

    Edges are borders of bins, so that the counts are exact; widths differ, so draw counts / width.
    """
    least, largest = extremes
    counts = np.stack((a, b))
    running = np.cumsum(counts.sum(axis=0))
    total = int(running[-1])
    values = np.clip(distance.value_of(bins), least, largest)
    low, high = (values[np.searchsorted(running, share * (total - 1), side="right")] for share in (_TAIL, 1 - _TAIL))
    low, high = (least, largest) if low == high else (low, high)
    share = np.arange(1, most) / most
    with np.errstate(over="ignore"):
        last = np.unique(distance.bin_of(low * (1 - share) + high * share))
    borders = upper_of(last)
    inside = (borders > least) & (borders < largest)
    last, borders = last[inside], borders[inside]
    before = np.concatenate((np.zeros((2, 1), np.int64), np.cumsum(counts, axis=1)), axis=1)
    until = before[:, np.concatenate(([0], np.searchsorted(bins, last, side="right"), [bins.size]))]
    grouped = np.diff(until, axis=1)
    return Overlay([least, *borders.tolist(), largest], grouped[0].tolist(), grouped[1].tolist())


def upper_of(signed: Ints) -> Floats:
    """The upper border of each signed bin, which belongs to it when it is positive or zero."""
    number = np.abs(signed) - sketch.ABOVE_ALL + (signed > 0)
    with np.errstate(over="ignore"):
        border = np.minimum(np.exp2(number / sketch.BINS_PER_OCTAVE), np.finfo(np.float64).max)
    return np.where(signed == 0, 0.0, np.sign(signed) * border)
