"""The distribution of a metric over time: the bins of the sketches, neighbours merged until they are few enough."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelmeter import rollup
from modelmeter.batch import Labels
from modelmeter.bins import count_bins
from modelmeter.errors import Unanswerable
from modelmeter.reader.ask import fetch
from modelmeter.reader.names import Connection, MetricNames
from modelmeter.reader.question import Limits, Question
from modelmeter.sketch import ABOVE_ALL, BINS_PER_OCTAVE

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HALVINGS = 17  # after so many, all magnitudes below 1 are one bin, and all above another
LEAST_BINS = 8


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts`, shape (windows, bins), by window and bin; bin b holds the values between `edges[b]` and `edges[b + 1]`.

    Edges are shape (bins + 1,), ascending; a value on an edge belongs to the bin that is nearer to zero, and zero to
    the bin that has it inside or, with values of one sign, at its end.
    """

    window: Ints
    edges: Floats
    counts: Ints
    resolution: str
    widened: int = 0


def ask_histogram(
    connection: Connection,
    names: MetricNames,
    question: Question,
    bin_limit: int,
    limits: Limits,
    streams: dict[int, Labels],
) -> Histogram:
    """Of the one metric that is asked for, at most `bin_limit` bins; errors as in ask."""
    found = fetch(connection, names, question, limits, streams)
    rows = rollup.select(found.rows, found.rows.metric != rollup.EVENTS)
    windows, place = np.unique(rows.window, return_inverse=True)
    bins = count_bins(rows.sketch, place)
    edges, number = merge_bins(np.unique(bins.bin), bin_limit)
    width = max(edges.size - 1, 0)
    if windows.size * width > limits.points:
        raise Unanswerable(
            f"bins: these are {windows.size:,} windows of {width} bins, over the limit of {limits.points:,} counts; "
            "choose a larger step or fewer bins",
            field="bins",
            limit=limits.points,
        )
    used = np.unique(bins.bin)
    where = bins.cell * width + number[np.searchsorted(used, bins.bin)]
    counts = np.bincount(where, bins.count, minlength=windows.size * width).astype(np.int64)
    return Histogram(windows, edges, counts.reshape(windows.size, width), found.resolution, found.widened)


def merge_bins(used: Ints, limit: int) -> tuple[Floats, Ints]:
    """Edges, and the place of each of the `used` signed bins (sorted, each once) between them.

    Neighbours are merged by twos until there are at most `limit` (LEAST_BINS or more); a gap is a bin without counts.
    """
    if not used.size:
        return np.zeros(0), used
    for halvings in range(_HALVINGS + 1):
        merged = np.sign(used) * (((np.abs(used) - ABOVE_ALL) >> halvings) + ABOVE_ALL)
        merged[used == 0] = 0
        keys, place = np.unique(merged, return_inverse=True)
        low, high = _reach(keys, halvings)
        edges = np.unique(np.concatenate((low, high)))
        if edges.size - 1 <= limit:
            break
    if edges.size == 1:  # nothing but zeros
        return np.array([0.0, np.finfo(np.float64).tiny]), np.zeros_like(used)
    at = np.searchsorted(edges, low)
    if (keys == 0).any():  # zero has no width: it goes between its neighbours
        at[keys == 0] = min(int(np.searchsorted(edges, 0.0)), edges.size - 2)
        if keys[0] < 0 < keys[-1]:
            edges = np.delete(edges, np.searchsorted(edges, 0.0))
            at = np.where(keys > 0, at - 1, at)
            at[keys == 0] = int(np.searchsorted(edges, 0.0)) - 1
        elif keys[-1] == 0:
            at[keys == 0] = edges.size - 2
    return edges, np.minimum(at, edges.size - 2)[place]


def _reach(keys: Ints, halvings: int) -> tuple[Floats, Floats]:
    """The least and the greatest value of bins that were halved so often."""
    index = np.abs(keys) - ABOVE_ALL
    bounds = []
    for step in (0, 1):
        exponent = ((index + step) << halvings) / BINS_PER_OCTAVE
        with np.errstate(over="ignore"):
            bound = np.minimum(np.exp2(np.clip(exponent, -1074, 1024)), np.finfo(np.float64).max)
        bounds.append(np.where(exponent < -1074, 0.0, bound))
    near, far = (np.where(keys == 0, 0.0, bound) for bound in bounds)
    return np.where(keys < 0, -far, near), np.where(keys < 0, -near, far)
