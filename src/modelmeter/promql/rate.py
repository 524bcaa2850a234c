"""Functions of how a series moves within a range: rate and its kin, resets, changes, regression, smoothing."""

import numpy as np

from modelmeter.promql import statistic
from modelmeter.promql.errors import QueryFailed
from modelmeter.promql.source import Floats, Ints, Mask
from modelmeter.promql.window_samples import Block, Windows, reduce
from modelmeter.window import SECOND

Result = tuple[Floats, Mask]


def _flag_counts(flags: Mask) -> Ints:
    """How many flags stand before each position."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(flags)))


def _steps_between(windows: Windows, flags: Mask) -> tuple[Ints, Ints]:
    """The stretch of the flagged positions that lie within each window, its first sample left out."""
    before = _flag_counts(flags)
    inner = np.minimum(windows.low + 1, windows.high)
    return before[inner], before[windows.high]


def _drops(values: Floats) -> Mask:
    return np.concatenate((np.zeros(min(1, values.size), bool), values[1:] < values[:-1]))


def resets(windows: Windows) -> Result:
    start, end = _steps_between(windows, _drops(windows.samples.values))
    return (end - start).astype(np.float64), windows.count > 0


def changes(windows: Windows) -> Result:
    values = windows.samples.values
    nans = np.isnan(values)
    moved = (values[1:] != values[:-1]) & ~(nans[1:] & nans[:-1])
    start, end = _steps_between(windows, np.concatenate((np.zeros(min(1, values.size), bool), moved)))
    return (end - start).astype(np.float64), windows.count > 0


def extrapolated(windows: Windows, *, counter: bool, per_second: bool) -> Result:
    """`rate`, `increase`, `delta`: the growth between first and last sample, stretched to the ends of the range.

    It is stretched to an end that is nearer than 1.1 average gaps, else by half a gap; a counter not below zero.
    """
    values, times = windows.samples.values, windows.samples.timestamps
    count = windows.count
    enough = count >= 2
    first, last = windows.at(values, windows.low, enough), windows.at(values, windows.high - 1, enough)
    growth = last - first
    if counter:
        dropped = _drops(values)
        start, end = _steps_between(windows, dropped)
        lost = values[np.flatnonzero(dropped) - 1]

        def add(block: Block) -> Floats:
            return statistic.add(lost[block.position], block.mask)

        growth = np.where(end > start, growth + reduce(start, end, add), growth)
    first_at, last_at = windows.at(times, windows.low, enough), windows.at(times, windows.high - 1, enough)
    to_start = (first_at - (windows.ends - windows.range)) / SECOND
    to_end = (windows.ends - last_at) / SECOND
    sampled = (last_at - first_at) / SECOND
    gap = sampled / np.maximum(count - 1, 1)
    to_start = np.where(to_start >= gap * 1.1, gap / 2, to_start)
    if counter:
        to_zero = np.where((growth > 0) & (first >= 0), sampled * (first / growth), to_start)
        to_start = np.where(to_zero < to_start, to_zero, to_start)
    to_end = np.where(to_end >= gap * 1.1, gap / 2, to_end)
    factor = np.where(sampled != 0, (sampled + to_start + to_end) / sampled, 1.0)
    if per_second:
        factor = factor / (windows.range / SECOND)
    return growth * factor, enough


def instant_growth(windows: Windows, *, counter: bool) -> Result:
    """`irate` (per second, aware of resets) and `idelta`: the last two samples only."""
    values, times = windows.samples.values, windows.samples.timestamps
    enough = windows.count >= 2
    last, previous = windows.at(values, windows.high - 1, enough), windows.at(values, windows.high - 2, enough)
    growth = last - previous
    elapsed = windows.at(times, windows.high - 1, enough) - windows.at(times, windows.high - 2, enough)
    enough &= elapsed > 0
    return np.where(last < previous, last, growth) / (elapsed / SECOND) if counter else growth, enough


def regression(windows: Windows, origins: Ints | None) -> tuple[Floats, Floats, Mask]:
    """Slope per second and intercept of the least-squares line; the intercept is at `origins` (one per window).

    Without origins each window's first sample is the origin. A constant series has slope 0, an infinite one NaN.
    """
    values, times = windows.samples.values, windows.samples.timestamps
    enough = windows.count >= 2
    zeros = windows.at(times, windows.low, enough) if origins is None else np.broadcast_to(origins, windows.low.shape)
    flat_zeros = zeros.ravel()
    intercept = np.full(windows.low.size, np.nan)

    def fit(block: Block) -> Floats:
        y = values[block.position]
        x = (times[block.position] - flat_zeros[block.which, None]) / SECOND
        size = statistic.count(block.mask)
        mean_x, mean_y = statistic.mean(x, block.mask), statistic.mean(y, block.mask)
        off_x, off_y = x - mean_x[:, None], y - mean_y[:, None]
        slope = statistic.add(off_x * off_y, block.mask) / statistic.add(off_x * off_x, block.mask)
        same = ((y == y[:, :1]) | ~block.mask).all(axis=1)
        flat = np.where(np.isinf(y[:, 0]), np.nan, 0.0)
        slope = np.where(same, flat, np.where(size > 1, slope, np.nan))
        intercept[block.which] = np.where(same, y[:, 0] + flat, mean_y - slope * mean_x)
        return slope

    slope = reduce(windows.low, windows.high, fit)
    return slope, intercept.reshape(slope.shape), enough


def smoothed(windows: Windows, smoothing: Floats, trend: Floats) -> Result:
    """`double_exponential_smoothing`, factors per window in (0, 1).

    The recurrence is linear, so a window's state is a sum of powers of one matrix times its samples; neighbours are
    joined pairwise and the matrix squared, which takes log2 of the size many passes. (With Inf among the samples the
    order matters, and these windows are gone through one sample after the other, all windows at once.)
    """
    enough = windows.count >= 2
    if (windows.count > 0).any():
        for name, factor in (("smoothing", smoothing), ("trend", trend)):
            used = factor[(windows.count > 0).any(axis=0)]
            wrong = used[~((used > 0) & (used < 1)) & ~np.isnan(used)]
            if wrong.size:
                raise QueryFailed(f"invalid {name} factor. Expected: 0 < {name[0]}f < 1, got: {wrong[0]:f}")
    sf_all = np.broadcast_to(smoothing, windows.low.shape).ravel()
    tf_all = np.broadcast_to(trend, windows.low.shape).ravel()
    values = windows.samples.values

    def smooth(block: Block) -> Floats:
        sf, tf = sf_all[block.which], tf_all[block.which]
        size = block.mask.sum(axis=1)
        width = block.mask.shape[1]
        if width == 1:
            return np.full(size.size, np.nan)
        place = np.arange(width) - (width - size)[:, None]  # samples to the right, padding to the left
        mask = place >= 0
        y = values[np.where(mask, block.position[:, :1] + place, block.position[:, :1])]
        state = np.zeros((*y.shape, 3))  # smoothed value, the one before, trend
        state[..., 0] = np.where(place >= 2, sf[:, None] * y, 0.0)
        rows = np.arange(size.size)
        second = width - size + 1
        y0, y1 = y[rows, second - 1], y[rows, second]
        state[rows, second] = np.stack((sf * y1 + (1 - sf) * (y0 + (y1 - y0)), y0, y1 - y0), axis=1)
        one, nought = np.ones_like(sf), np.zeros_like(sf)
        step = np.stack(
            (
                np.stack(((1 - sf) * (1 + tf), -(1 - sf) * tf, (1 - sf) * (1 - tf)), axis=1),
                np.stack((one, nought, nought), axis=1),
                np.stack((tf, -tf, 1 - tf), axis=1),
            ),
            axis=1,
        )
        while state.shape[1] > 1:
            state = np.einsum("nij,nlj->nli", step, state[:, 0::2]) + state[:, 1::2]
            step = step @ step
        result = np.asarray(state[:, 0, 0])
        odd = ~np.isfinite(np.where(mask, y, 0.0)).all(axis=1)
        if odd.any():
            result[odd] = _smoothed_in_order(y[odd], mask[odd], sf[odd], tf[odd])
        return result

    return reduce(np.where(enough, windows.low, windows.high), windows.high, smooth), enough


def _smoothed_in_order(y: Floats, mask: Mask, sf: Floats, tf: Floats) -> Floats:
    """The recurrence step by step, for windows with Inf or NaN: what becomes of these depends on the order."""
    previous, smooth, trend = (np.zeros(sf.shape) for _ in range(3))
    place = np.cumsum(mask, axis=1) - 1
    for column in range(y.shape[1]):
        at, value = place[:, column], y[:, column]
        first_trend = value - smooth
        next_trend = np.where(at == 1, first_trend, tf * (smooth - previous) + (1 - tf) * trend)
        following = np.where(at == 0, value, sf * value + (1 - sf) * (smooth + next_trend))
        started = mask[:, column]
        trend = np.where(started & (at > 0), next_trend, trend)
        previous, smooth = np.where(started, smooth, previous), np.where(started, following, smooth)
    return smooth
