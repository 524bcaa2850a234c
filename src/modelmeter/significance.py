"""Whether two samples differ by more than chance: Welch, Mann-Whitney, Kolmogorov-Smirnov, Holm, and effect sizes.

From moments and from histograms on the same bins, so no raw value is read. What cannot be said is None, never NaN.
SciPy's special functions are imported when the first question comes: that takes a quarter of a second.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def _special() -> Any:
    import scipy.special  # noqa: PLC0415  0.3 s of CPU and 17 MB, which no worker and no command needs

    return scipy.special


def warm() -> None:
    """Import what the first question would have to wait for."""
    _special()


def finite(value: float) -> float | None:
    """The value as JSON has it."""
    return float(value) if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Moments:
    """Of a sample: its size, mean, and sum of squared deviations from the mean. Inf or NaN beyond float64."""

    count: int
    mean: float
    deviation: float

    @property
    def variance(self) -> float:
        """Unbiased; NaN below two values."""
        return self.deviation / (self.count - 1) if self.count > 1 else math.nan


@dataclass(frozen=True, slots=True)
class Welch:
    """`low` and `high` bound the difference of means with 95 % confidence."""

    t: float
    df: float
    p: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rank:
    """Mann-Whitney: `u` counts the pairs in which the value of b is the larger one, ties as half."""

    u: float
    p: float


def welch(a: Moments, b: Moments) -> Welch | str:
    """Welch's t-test of mean b - mean a (Welch 1947, Satterthwaite 1946), two-sided; else why there is none."""
    if min(a.count, b.count) < 2:
        return "needs two values on each side"
    if not (math.isfinite(a.deviation) and math.isfinite(b.deviation) and math.isfinite(b.mean - a.mean)):
        return "the mean or the variance is beyond float64"
    of_a, of_b = a.variance / a.count, b.variance / b.count
    squared_error = of_a + of_b
    if not squared_error > 0:
        return "no side varies"
    if not math.isfinite(squared_error):
        return "the variance is beyond float64"
    error = math.sqrt(squared_error)
    share = of_a / squared_error
    df = 1 / (share * share / (a.count - 1) + (1 - share) * (1 - share) / (b.count - 1))
    difference = b.mean - a.mean
    t = difference / error
    if not math.isfinite(t):
        return "t is beyond float64"
    special = _special()
    margin = float(special.stdtrit(df, 0.975)) * error
    low, high = difference - margin, difference + margin
    if not (math.isfinite(low) and math.isfinite(high)):
        return "the interval is beyond float64"
    return Welch(t, df, min(2 * float(special.stdtr(df, -abs(t))), 1.0), low, high)


def mann_whitney(a: Ints, b: Ints) -> Rank | str:
    """Mann and Whitney's U of b against a, counts of shape (bins,); the values of one bin are ties.

    Two-sided, from the normal distribution, corrected for ties and continuity. Else why there is none.
    """
    first, second = float(a.sum()), float(b.sum())
    if not first or not second:
        return "a side is empty"
    together = (a + b).astype(np.float64)
    if np.count_nonzero(together) < 2:
        return "all values fall into one bin"
    below = np.cumsum(a) - a
    u = float((b * (below + a / 2)).sum())
    total = first + second
    untied = float((together * (total - together) * (total + together)).sum())  # total^3 less the ties^3; no cancelling
    spread = math.sqrt(first * second / 12 * (untied / (total * (total - 1))))
    away = max(abs(u - first * second / 2) - 0.5, 0.0)
    return Rank(u, min(2 * float(_special().ndtr(-away / spread)), 1.0))


def cliffs_delta(a: Ints, b: Ints) -> float | None:
    """How much likelier it is that b's value is the larger one than that a's is: -1 to 1 (Cliff 1993)."""
    pairs = float(a.sum()) * float(b.sum())
    if not pairs:
        return None
    below = np.cumsum(a) - a
    u = float((b * (below + a / 2)).sum())
    return min(max(2 * u / pairs - 1, -1.0), 1.0)


def cohens_d(a: Moments, b: Moments) -> float | None:
    """The difference of means in pooled standard deviations (Cohen 1988)."""
    if min(a.count, b.count) < 2:
        return None
    pooled = math.sqrt((a.deviation + b.deviation) / (a.count + b.count - 2))
    if not pooled > 0 or not math.isfinite(pooled):
        return None
    return finite((b.mean - a.mean) / pooled)


def delta_of(d: float) -> float:
    """Cliff's delta of two normal distributions that are `d` standard deviations apart."""
    return math.erf(d / 2)


def ks_p(statistic: Floats, first: Floats, second: Floats) -> Floats:
    """The p-value of Kolmogorov and Smirnov's statistic for samples of these sizes; all of one shape, NaN stays.

    The limit distribution with Stephens' correction for size (1970). Values tied within a bin make it larger, so it
    errs to the side of no difference.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(first / (first + second) * second)
        found = _special().kolmogorov((root + 0.12 + 0.11 / root) * statistic)
    return np.asarray(np.where(np.isfinite(statistic), found, np.nan), dtype=np.float64)


def holm(values: Sequence[float]) -> list[float]:
    """The p-values of many tests, adjusted so that 0.05 bounds the chance of any false alarm (Holm 1979)."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, number in enumerate(order):
        highest = max(highest, min((len(values) - rank) * values[number], 1.0))
        adjusted[number] = highest
    return adjusted
