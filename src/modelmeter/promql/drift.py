"""`psi ks js wasserstein`: the distance of two range vectors, matched like a one-to-one binary operator.

Series match on all labels but the metric name and those named after the ranges: `psi(a[1h], b[1h], "version")`.
The second range is the reference.
"""

from collections.abc import Sequence

import numpy as np

from modelmeter import distance
from modelmeter.promql.binary import signature
from modelmeter.promql.errors import QueryFailed, too_many_samples
from modelmeter.promql.expression import Matching
from modelmeter.promql.labels import METADATA, Labels, distinct, drop
from modelmeter.promql.source import Floats, Histograms, Ints
from modelmeter.promql.value import Vector, empty
from modelmeter.promql.window_samples import Windows, blocks


def histograms_of(windows: Windows, cell_limit: int) -> Histograms:
    """Histograms of raw windows. Values that are not finite are in no bin."""
    values = windows.samples.values
    finite = np.isfinite(values)
    bins, code = np.unique(distance.bin_of(np.where(finite, values, 0.0)), return_inverse=True)
    if windows.low.size * bins.size > cell_limit:
        raise too_many_samples()
    counts = np.zeros((windows.low.size, bins.size), np.int64)
    for block in blocks(windows.low, windows.high):
        place = np.arange(block.which.size)[:, None] * bins.size + code[block.position]
        counted = block.mask & finite[block.position]
        flat = np.bincount(place[counted], minlength=block.which.size * bins.size)
        counts[block.which] = flat.reshape(block.which.size, bins.size)
    return Histograms(windows.samples.labels, bins, counts.reshape(*windows.low.shape, bins.size))


def compare(function: str, actual: Histograms, reference: Histograms, ignoring: Sequence[str]) -> Vector:
    """The distance at each step for each pair of matching series; absent where one side has no values."""
    steps = actual.counts.shape[1]
    matching = Matching(labels=tuple(ignoring))
    numbers, index = distinct(signature(one, matching) for one in (*actual.labels, *reference.labels))
    of_actual, of_reference = np.asarray(index[: len(actual.labels)]), np.asarray(index[len(actual.labels) :])
    bins = np.union1d(actual.bins, reference.bins)
    if not bins.size or not of_actual.size or not of_reference.size:
        return empty(steps)
    left = _by_signature(actual, of_actual, len(numbers), bins)
    right = _by_signature(reference, of_reference, len(numbers), bins)
    present = (left.sum(axis=2) > 0) & (right.sum(axis=2) > 0)
    labels: list[Labels] = [drop(one, METADATA) for one in numbers]
    return Vector(labels, _distance(function, left, right, distance.value_of(bins)), present).nonempty()


def _by_signature(histograms: Histograms, signatures: Ints, size: int, bins: Ints) -> Ints:
    present = histograms.counts.sum(axis=2) > 0
    together = np.zeros((size, present.shape[1]), np.int64)
    np.add.at(together, signatures, present)
    if (together > 1).any():
        raise QueryFailed("multiple matches for labels: each series must match one series of the other range at most")
    result = np.zeros((size, present.shape[1], bins.size), np.int64)
    place = np.searchsorted(bins, histograms.bins)
    for row, number in enumerate(signatures.tolist()):
        result[number][:, place] += histograms.counts[row]
    return result


def _distance(function: str, actual: Ints, reference: Ints, values: Floats) -> Floats:
    match function:
        case "psi":
            return distance.psi(actual, reference)
        case "ks":
            return distance.ks(actual, reference)
        case "js":
            return distance.jensen_shannon(actual, reference)
        case _:
            return distance.wasserstein(actual, reference, values)
