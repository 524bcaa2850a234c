"""How far two histograms on the same bins are apart: PSI, Kolmogorov-Smirnov, Jensen-Shannon, Wasserstein.

Counts have the shape (..., bins) and give (...); bins are in ascending order of value. NaN when a side is empty.
One reference of shape (bins,) stands for all.
"""

import numpy as np
import numpy.typing as npt

from modelmeter import sketch

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.float64] | npt.NDArray[np.int64]

PSI_GROUPS = 10


def bin_of(values: Floats) -> Ints:
    """The sketch's bins as one number line: 2^17 + i for values in positive bin i, 0 for zero, minus that for -v.

    All values must be finite.
    """
    bins = np.zeros(values.shape, np.int64)
    other = values != 0
    signed = values[other]
    bins[other] = np.copysign(sketch.bin_of(np.abs(signed)).astype(np.int64) + sketch.ABOVE_ALL, signed).astype(
        np.int64
    )
    return bins


def value_of(bins: Ints) -> Floats:
    """The value that stands for a bin: within 1.1 % of every value in it."""
    return np.where(bins == 0, 0.0, np.sign(bins) * sketch.value_of(np.abs(bins) - sketch.ABOVE_ALL))


def _share(counts: Counts) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(counts / counts.sum(axis=-1, keepdims=True), dtype=np.float64)


def _known(actual: Counts, reference: Counts, result: Floats) -> Floats:
    return np.where((actual.sum(axis=-1) > 0) & (reference.sum(axis=-1) > 0), result, np.nan)


def psi(actual: Counts, reference: Counts, groups: int = PSI_GROUPS) -> Floats:
    """Population stability index, sum of (a - r) ln(a / r) over groups of bins.

    As usual the groups are the reference's deciles: each bin goes by the middle of its cumulative share there. A
    group that is empty on both sides does not count; to the others half an observation is added on both sides
    (Jeffreys' prior), so that an empty one stays finite and few samples do not shout.
    """
    twice_middle = 2 * np.cumsum(reference, axis=-1) - reference
    twice_total = np.maximum(2 * reference.sum(axis=-1, keepdims=True), 1)
    group = np.minimum(twice_middle * groups // twice_total, groups - 1).astype(np.int64)
    if reference.ndim == 1:  # groups are runs of bins, the same ones for all
        runs, starts = np.unique(group, return_index=True)
        a, r = np.zeros((*actual.shape[:-1], groups)), np.zeros(groups)
        if starts.size:
            a[..., runs] = np.add.reduceat(actual, starts, axis=-1)
            r[runs] = np.add.reduceat(reference, starts)
    else:
        shape = (*reference.shape[:-1], groups)
        a, r = np.zeros(shape), np.zeros(shape)
        lead = np.indices(reference.shape, sparse=True)[:-1]
        np.add.at(a, (*lead, group), actual)
        np.add.at(r, (*lead, group), reference)
    used = (a + r) > 0
    a, r = np.where(used, a + 0.5, 0.0), np.where(used, r + 0.5, 0.0)
    a, r = _share(a), _share(r)
    with np.errstate(invalid="ignore", divide="ignore"):
        terms = np.where(used, (a - r) * np.log(a / r), 0.0)
    return _known(actual, reference, terms.sum(axis=-1))


def ks(actual: Counts, reference: Counts) -> Floats:
    """The Kolmogorov-Smirnov statistic: the largest difference of the two cumulative shares."""
    apart = np.abs(np.cumsum(_share(actual), axis=-1) - np.cumsum(_share(reference), axis=-1))
    return _known(actual, reference, apart.max(axis=-1, initial=0.0))


def jensen_shannon(actual: Counts, reference: Counts) -> Floats:
    """The Jensen-Shannon distance, base 2, from 0 to 1: the square root of the divergence, as SciPy's."""
    a, r = _share(actual), _share(reference)
    middle = (a + r) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        from_a = np.where(a > 0, a * np.log2(a / middle), 0.0).sum(axis=-1)
        from_r = np.where(r > 0, r * np.log2(r / middle), 0.0).sum(axis=-1)
    return _known(actual, reference, np.sqrt(np.maximum(from_a + from_r, 0.0) / 2))


def wasserstein(actual: Counts, reference: Counts, values: Floats) -> Floats:
    """The first Wasserstein distance, in the metric's unit; `values` (bins,) stand for the bins, ascending."""
    apart = np.abs(np.cumsum(_share(actual), axis=-1) - np.cumsum(_share(reference), axis=-1))
    return _known(actual, reference, (apart[..., :-1] * np.diff(values)).sum(axis=-1))
