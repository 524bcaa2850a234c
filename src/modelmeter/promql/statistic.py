"""Statistics of many small sets at once: shape (sets, members, ...) in, (sets, ...) out, a mask says who is a member.

The same functions serve `*_over_time` (a set is a window) and aggregations (a set is a group, for every step).
Sums are compensated, as Prometheus' Kahan-Neumaier sums are, by pairwise TwoSum (Knuth; Ogita, Rump, Oishi 2005):
a logarithmic number of passes instead of one per member. No set is empty.
"""

import numpy as np

from modelmeter.promql.source import Floats, Mask


def _compensated(values: Floats) -> tuple[Floats, Floats]:
    """The sum over axis 1 and what rounding took from it."""
    total, error = values, np.zeros_like(values)
    while (size := total.shape[1]) > 1:
        half = size // 2
        left, right = total[:, :half], total[:, half : 2 * half]
        added = left + right
        shifted = added - left
        lost = (left - (added - shifted)) + (right - shifted)
        lost += error[:, :half]
        lost += error[:, half : 2 * half]
        if size % 2:
            added = np.concatenate((added, total[:, -1:]), axis=1)
            lost = np.concatenate((lost, error[:, -1:]), axis=1)
        total, error = added, lost
    return total[:, 0], error[:, 0]


def _sum(values: Floats) -> Floats:
    total, error = _compensated(values)
    return np.where(np.isfinite(total), total + error, total)


def count(mask: Mask) -> Floats:
    return np.asarray(mask.sum(axis=1), dtype=np.float64)


def add(values: Floats, mask: Mask) -> Floats:
    return _sum(np.where(mask, values, 0.0))


def mean(values: Floats, mask: Mask) -> Floats:
    """Sum over count; when finite values overflow the sum, they are divided first."""
    size = count(mask)
    members = np.where(mask, values, 0.0)
    total, error = _compensated(members)
    result = np.where(np.isfinite(total), total / size + error / size, total)
    overflown = ~np.isfinite(total)
    if overflown.any():
        divided = _sum(members / np.expand_dims(size, 1))
        result = np.where(overflown & np.isfinite(members).all(axis=1), divided, result)
    return result


def variance(values: Floats, mask: Mask) -> Floats:
    """The mean squared deviation from the mean, in two passes, with the mean's own rounding taken out again."""
    size = count(mask)
    deviation = np.where(mask, values - np.expand_dims(mean(values, mask), 1), 0.0)
    squares = _sum(deviation * deviation) - _sum(deviation) ** 2 / size
    return np.maximum(squares, 0.0) / size


def deviation(values: Floats, mask: Mask) -> Floats:
    return np.sqrt(variance(values, mask))


def least(values: Floats, mask: Mask) -> Floats:
    """The minimum; NaN only when there is nothing else."""
    numbers = mask & ~np.isnan(values)
    return np.where(numbers.any(axis=1), np.where(numbers, values, np.inf).min(axis=1), np.nan)


def greatest(values: Floats, mask: Mask) -> Floats:
    numbers = mask & ~np.isnan(values)
    return np.where(numbers.any(axis=1), np.where(numbers, values, -np.inf).max(axis=1), np.nan)


def quantile(values: Floats, mask: Mask, q: Floats) -> Floats:
    """The q-quantile with linear interpolation; NaN sorts below all. q has the result's shape, or fits to it.

    q NaN gives NaN, below 0 -Inf, above 1 +Inf.
    """
    size = mask.sum(axis=1)
    nans = (mask & np.isnan(values)).sum(axis=1)
    ordered = np.sort(np.where(mask, values, np.inf), axis=1)  # NaN last: behind the padding
    q = np.broadcast_to(q, size.shape)
    inside = np.where((q >= 0) & (q <= 1), q, 0.0)
    rank = inside * (size - 1)
    below = np.maximum(np.floor(rank), 0.0).astype(np.int64)
    above = np.minimum(below + 1, size - 1)
    weight = rank - np.floor(rank)

    def pick(position: np.ndarray) -> Floats:
        found = np.take_along_axis(ordered, np.expand_dims(np.maximum(position - nans, 0), 1), axis=1)[:, 0]
        return np.where(position < nans, np.nan, found)

    result = pick(below) * (1 - weight) + pick(above) * weight
    return np.where(np.isnan(q), np.nan, np.where(q < 0, -np.inf, np.where(q > 1, np.inf, result)))


def median_deviation(values: Floats, mask: Mask) -> Floats:
    """The median of the absolute deviations from the median; NaN when any member is."""
    half = np.array(0.5)
    center = quantile(values, mask, half)
    result = quantile(np.abs(values - np.expand_dims(center, 1)), mask, half)
    return np.where((mask & np.isnan(values)).any(axis=1), np.nan, result)
