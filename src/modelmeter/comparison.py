"""Two folded sides, metric by metric: how they differ, whether by more than chance, and the verdict in words.

All numbers come from moments and sketches. `a` is what was, `b` what is: a positive difference means that b is
larger. A number that cannot be said is None, and `missing` says why; none is ever NaN.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from modelmeter import rollup, significance
from modelmeter.direction import Direction
from modelmeter.drift import score
from modelmeter.overlay import Overlay, overlay, tabulate
from modelmeter.rollup import Rollups, Stats
from modelmeter.significance import Moments, finite

Ints = NDArray[np.int64]
Verdict = Literal["better", "worse", "different", "no difference", "too few samples"]

ALPHA = 0.05
MIN_SAMPLES = 30
MIN_EFFECT = 0.2


@dataclass(frozen=True, slots=True)
class Side:
    """One metric of one side; `counts` (bins,) on the bins that both sides share."""

    stats: Stats | None
    moments: Moments
    counts: Ints

    @property
    def count(self) -> int:
        return self.moments.count


@dataclass(frozen=True, slots=True)
class Pair:
    """One metric of two sides. `bins` are signed bins, ascending; `low` and `high` the extremes of both."""

    a: Side
    b: Side
    bins: Ints
    low: float
    high: float


@dataclass(slots=True)
class Test:
    """A test's statistic and its two-sided p-value."""

    statistic: float
    p: float


@dataclass(slots=True)
class WelchTest(Test):
    df: float


@dataclass(slots=True)
class Comparison:
    """What GET /compare says of one metric, in its order."""

    verdict: Verdict
    reason: str
    a: Stats | None
    b: Stats | None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    cohens_d: float | None = None
    cliffs_delta: float | None = None
    p: float | None = None
    welch: WelchTest | None = None
    mann_whitney: Test | None = None
    ks: Test | None = None
    psi: float | None = None
    jensen_shannon: float | None = None
    wasserstein: float | None = None
    missing: dict[str, str] = field(default_factory=dict)
    histogram: Overlay | None = None


def pair_up(a: Rollups, b: Rollups, quantiles: Sequence[float]) -> dict[int, Pair]:
    """The metrics of two merged sides (one partial for each metric) by id; what one side lacks is empty there."""
    rows_a = {metric: row for row, metric in enumerate(a.metric.tolist()) if metric != rollup.EVENTS}
    rows_b = {metric: row for row, metric in enumerate(b.metric.tolist()) if metric != rollup.EVENTS}
    pairs = {}
    for metric in sorted({*rows_a, *rows_b}):
        found = [(a, rows_a.get(metric)), (b, rows_b.get(metric))]
        bins, counts = tabulate([b"" if row is None else side.sketch[row] for side, row in found])
        sides = [_side(side, row, counts[number], quantiles) for number, (side, row) in enumerate(found)]
        extremes = [(float(side.min[row]), float(side.max[row])) for side, row in found if row is not None]
        low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
        pairs[metric] = Pair(sides[0], sides[1], bins, low, high)
    return pairs


def _side(side: Rollups, row: int | None, counts: Ints, quantiles: Sequence[float]) -> Side:
    if row is None:
        return Side(None, Moments(0, math.nan, math.nan), counts)
    count, low, high = int(side.count[row]), float(side.min[row]), float(side.max[row])
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = float(side.sum[row] / count), float(side.deviation[row])
    if low == high:  # then rounding is all that the sums could add
        mean, deviation = low, 0.0
    return Side(rollup.stats(side, row, quantiles), Moments(count, mean, deviation), counts)


def compare(
    pairs: Mapping[int, Pair],
    directions: Mapping[int, Direction | None],
    *,
    min_samples: int = MIN_SAMPLES,
    min_effect: float = MIN_EFFECT,
    histogram_bins: int = 0,
) -> dict[int, Comparison]:
    """All metrics, with the verdict; docs/comparing.md has its rule. `min_effect` is in standard deviations."""
    found = {metric: _measure(pair) for metric, pair in pairs.items()}
    enough = {
        metric: one for metric, one in found.items() if min(pairs[metric].a.count, pairs[metric].b.count) >= min_samples
    }
    tested = {metric: p for metric, one in enough.items() if (p := _smaller_p(one)) is not None}
    for (metric, _), p in zip(tested.items(), significance.holm([*tested.values()]), strict=True):
        found[metric].p = p
    for metric, one in found.items():
        if metric not in enough:
            counts = (pairs[metric].a.count, pairs[metric].b.count)
            one.reason = f"a has {counts[0]:,} and b {counts[1]:,} values; {min_samples} are needed on each side"
        else:
            _judge(one, directions.get(metric), min_effect)
        if histogram_bins:
            pair = pairs[metric]
            one.histogram = overlay(pair.a.counts, pair.b.counts, pair.bins, (pair.low, pair.high), histogram_bins)
    return found


def _measure(pair: Pair) -> Comparison:
    """All numbers of one metric; the verdict is still open."""
    a, b = pair.a, pair.b
    found = Comparison("too few samples", "", a.stats, b.stats)
    missing = found.missing
    if not a.count or not b.count:
        empty = "a" if not a.count else "b"
        missing["difference"] = missing["distances"] = f"{empty} has no value"
        return found
    difference = b.moments.mean - a.moments.mean
    found.difference = finite(difference)
    if found.difference is None:
        missing["difference"] = "a mean is beyond float64"
    welch = significance.welch(a.moments, b.moments)
    if isinstance(welch, str):
        missing["welch"] = missing["interval"] = welch
    else:
        found.welch = WelchTest(welch.t, welch.p, welch.df)
        found.interval = (welch.low, welch.high)
    ranks = significance.mann_whitney(a.counts, b.counts)
    if isinstance(ranks, str):
        missing["mann_whitney"] = ranks
    else:
        found.mann_whitney = Test(ranks.u, ranks.p)
    found.cohens_d = significance.cohens_d(a.moments, b.moments)
    if found.cohens_d is None:
        missing["cohens_d"] = welch if isinstance(welch, str) else "the variance is beyond float64"
    found.cliffs_delta = significance.cliffs_delta(a.counts, b.counts)
    scores = score(b.counts, a.counts, pair.bins)
    found.ks = Test(float(scores.ks), float(scores.ks_p))
    found.psi, found.jensen_shannon = finite(float(scores.psi)), finite(float(scores.jensen_shannon))
    found.wasserstein = finite(float(scores.wasserstein))
    if found.wasserstein is None:
        missing["wasserstein"] = "the values are too far apart for float64"
    return found


def _smaller_p(found: Comparison) -> float | None:
    """Of Welch and Mann-Whitney, the smaller p-value, doubled because it was picked of two. None without either."""
    values = [test.p for test in (found.welch, found.mann_whitney) if test is not None]
    return min(min(values) * len(values), 1.0) if values else None


def _judge(found: Comparison, direction: Direction | None, min_effect: float) -> None:
    found.verdict = "no difference"
    if found.p is None:
        found.reason = "every value is the same, as far as can be told"
        return
    if found.p >= ALPHA:
        found.reason = f"chance explains it: p is {found.p:.2g} over all metrics compared"
        return
    d, delta = found.cohens_d, found.cliffs_delta or 0.0
    if (d is None or abs(d) < min_effect) and abs(delta) < significance.delta_of(min_effect):
        shown = "" if d is None else f"Cohen's d is {d:.2g}, "
        found.reason = f"it is no chance, but negligible: {shown}Cliff's delta {delta:.2g}"
        return
    signs = [
        math.copysign(1, sign)
        for sign, test in ((found.difference, found.welch), (delta, found.mann_whitney))
        if sign and test is not None and test.p < ALPHA
    ]
    found.verdict = "different"
    if len({*signs}) != 1:
        found.reason = "the mean and the ranks moved in opposite ways; look at the distributions"
        return
    up = signs[0] > 0
    words = f"b is {'higher' if up else 'lower'}"
    if direction is None:
        found.reason = f"{words}; whether that is better, neither higher_is_better nor lower_is_better says"
        return
    found.verdict = "better" if up == (direction == "higher") else "worse"
    found.reason = f"{words}, and {direction} is better"
