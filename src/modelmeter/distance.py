"""How far two histograms on the same bins are apart: PSI, Kolmogorov-Smirnov, Jensen-Shannon, Wasserstein.

Counts have the shape (..., bins) and give (...); bins are in ascending order of value. NaN when a side is empty.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.float64] | npt.NDArray[np.int64]

PSI_GROUPS = 10

_BINS_PER_DOUBLING = 32
_BASE = 2.0 ** (1 / _BINS_PER_DOUBLING)
_ABOVE_ALL = 1 << 17  # larger than any exponent's bin, so that signs never meet


def bin_of(values: Floats) -> Ints:
    """The exponential bin of finite values, base 2^(1/32): one number line for negative, zero and positive values.

    A positive value v with base^i < v <= base^(i + 1) is in bin 2^17 + i, zero in bin 0, -v in minus v's bin.
    """
    size = np.abs(values)
    fraction, exponent = np.frexp(np.where(size > 0, size, 1.0))
    within = np.ceil(np.log2(fraction) * _BINS_PER_DOUBLING).astype(np.int64) - 1
    bins = exponent.astype(np.int64) * _BINS_PER_DOUBLING + within + _ABOVE_ALL
    return np.where(size > 0, np.where(values < 0, -bins, bins), 0)


def value_of(bins: Ints) -> Floats:
    """The value that stands for a bin: within 1.1 % of every value in it."""
    with np.errstate(over="ignore"):
        size = np.exp2((np.abs(bins) - _ABOVE_ALL) / _BINS_PER_DOUBLING) * (2 * _BASE / (1 + _BASE))
    return np.where(bins == 0, 0.0, np.sign(bins) * np.minimum(size, np.finfo(np.float64).max))


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
    share = _share(reference)
    middle = np.cumsum(share, axis=-1) - share / 2
    with np.errstate(invalid="ignore"):
        group = np.clip(np.nan_to_num(middle * groups), 0, groups - 1).astype(np.int64)
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
