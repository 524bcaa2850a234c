"""Drift: how far histograms are from that of a reference, in four scores, and what to call it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from modelmeter import distance, packed, significance
from modelmeter.overlay import number_bins

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Verdict = Literal["no drift", "some drift", "strong drift", "too few samples"]

ALPHA = 0.05
_CELLS_AT_ONCE = 1 << 21
SOME_PSI, STRONG_PSI = 0.1, 0.25


@dataclass(frozen=True, slots=True)
class Scores:
    """Distances of many histograms from one, each of shape (...). NaN where a side is empty."""

    psi: Floats
    ks: Floats
    ks_p: Floats
    jensen_shannon: Floats
    wasserstein: Floats


def score(actual: Ints, reference: Ints, bins: Ints) -> Scores:
    """How far counts (..., bins) are from those of the reference (bins,); `bins` are signed, ascending."""
    with np.errstate(all="ignore"):
        ks = distance.ks(actual, reference)
        sizes = actual.sum(axis=-1).astype(np.float64), reference.sum(axis=-1).astype(np.float64)
        return Scores(
            distance.psi(actual, reference),
            ks,
            significance.ks_p(ks, *sizes),
            distance.jensen_shannon(actual, reference),
            distance.wasserstein(actual, reference, distance.value_of(bins)),
        )


def over_time(sketches: Sequence[bytes], window: Ints, windows: int, reference: bytes) -> tuple[Ints, Scores]:
    """Of each of `windows` the count and the scores against the reference, shape (windows,).

    `sketches` are stored ones, each of the window numbered in `window`; several of one window add up.
    """
    owner, signed, count = packed.decode_many([*sketches, reference])
    bins, place = number_bins(signed)
    of_reference = owner == len(sketches)
    expected = np.bincount(place[of_reference], count[of_reference], bins.size).astype(np.int64)
    current = ~of_reference
    number, place, count = window[owner[current]], place[current], count[current]
    totals = np.bincount(number, count, windows).astype(np.int64)
    parts = []
    at_once = max(_CELLS_AT_ONCE // max(bins.size, 1), 1)
    for first in range(0, max(windows, 1), at_once):
        end = min(first + at_once, windows)
        mine = slice(None) if end - first == windows else (number >= first) & (number < end)
        cells = (number[mine] - first) * bins.size + place[mine]
        table = np.bincount(cells, count[mine], (end - first) * bins.size).astype(np.int64)
        parts.append(score(table.reshape(end - first, bins.size), expected, bins))
    return totals, Scores(*(np.concatenate([getattr(part, name) for part in parts]) for name in Scores.__slots__))


def judge(count: int, reference_count: int, psi: float, p: float, min_samples: int) -> tuple[Verdict, str]:
    """The verdict of one metric and why; `p` is that of Kolmogorov-Smirnov, adjusted for all metrics looked at."""
    if min(count, reference_count) < min_samples:
        there = f"there are {count:,} values now and {reference_count:,} in the reference"
        return "too few samples", f"{there}; {min_samples} are needed in each"
    if p >= ALPHA:
        return "no drift", f"chance explains it: p is {p:.2g} over all metrics compared"
    if psi < SOME_PSI:
        return "no drift", f"it is no chance, but small: PSI is {psi:.2g}, below {SOME_PSI}"
    if psi < STRONG_PSI:
        return "some drift", f"PSI is {psi:.2g}, from {SOME_PSI} to {STRONG_PSI}"
    return "strong drift", f"PSI is {psi:.2g}, at least {STRONG_PSI}"
