"""Quantiles and fractions of Prometheus' classic histograms: one series per cumulative bucket, labelled `le`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from modelmeter.promql.labels import BUCKET, METADATA, Labels, distinct, drop, value_of
from modelmeter.promql.note import Notes
from modelmeter.promql.source import Floats, Ints
from modelmeter.promql.value import Vector, empty, merge_same

_TOLERANCE = 1e-12  # smaller relative differences between buckets are rounding
_SMALLEST_NORMAL = np.finfo(np.float64).tiny

Estimate = Callable[[Floats, Floats, Ints], Floats]
"""Bounds (buckets,) ascending and distinct, counts (buckets, steps), the steps' numbers; gives (steps,)."""


def evaluate(vector: Vector, estimate: Estimate, notes: Notes) -> Vector:
    """One series per histogram. Buckets may come and go over time: steps with the same buckets go together."""
    usable, bounds = [], []
    for row, labels in enumerate(vector.labels):
        text = value_of(labels, BUCKET)
        bound = _parse_bound(text)
        if bound is None:
            notes.bad_bucket(text)
        else:
            usable.append(row)
            bounds.append(bound)
    if not usable:
        return empty(vector.values.shape[1])
    numbers, index = distinct(drop(vector.labels[row], {BUCKET}) for row in usable)
    rows, all_bounds, histogram_of = np.asarray(usable), np.asarray(bounds), np.asarray(index)
    values = np.full((len(numbers), vector.values.shape[1]), np.nan)
    present = np.zeros(values.shape, bool)
    for number in range(len(numbers)):
        own = np.flatnonzero(histogram_of == number)
        own = own[np.argsort(all_bounds[own], kind="stable")]
        for part in _constant_parts(vector, rows[own], all_bounds[own]):
            present[number, part.steps] = True
            if np.isposinf(part.bounds[-1]):
                values[number, part.steps] = estimate(part.bounds, part.counts, part.steps)
    result: list[Labels] = [drop(labels, METADATA) for labels in numbers]
    return merge_same(Vector(result, values, present).nonempty())


def _parse_bound(text: str) -> float | None:
    try:
        return float(text) if text.strip() == text and "_" not in text else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Part:
    bounds: Floats
    counts: Floats
    steps: Ints


def _constant_parts(vector: Vector, rows: Ints, bounds: Floats) -> Iterator[_Part]:
    patterns, pattern_of = np.unique(vector.present[rows].T, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        if not pattern.any():
            continue
        steps = np.flatnonzero(pattern_of.ravel() == number)
        distinct_bounds, bucket = np.unique(bounds[pattern], return_inverse=True)
        counts = np.zeros((distinct_bounds.size, steps.size))
        np.add.at(counts, bucket, vector.values[rows[pattern]][:, steps])
        yield _Part(distinct_bounds, counts, steps)


def quantile_of(q: Floats, notes: Notes) -> Estimate:
    """The q-quantile (one q per step), linear within its bucket."""

    def estimate(bounds: Floats, raw: Floats, steps: Ints) -> Floats:
        own = q[steps]
        counts, forced = _monotonic(raw)
        if forced:
            notes.forced_monotonicity()
        last = bounds.size - 1
        observations = counts[-1]
        rank = own * observations
        bucket = (counts[:last] < rank).sum(axis=0)
        lower = np.maximum(bucket - 1, 0)
        columns = np.arange(steps.size)
        below = np.where(bucket > 0, counts[lower, columns], 0.0)
        start = np.where(bucket > 0, bounds[lower], 0.0)
        inside = start + (bounds[bucket] - start) * ((rank - below) / (counts[bucket, columns] - below))
        result = np.where(bucket == last, bounds[max(last - 1, 0)], inside)
        result = np.where((bucket == 0) & (bounds[0] <= 0), bounds[0], result)
        result = np.where((observations == 0) | (last < 1), np.nan, result)
        return np.where(np.isnan(own), np.nan, np.where(own < 0, -np.inf, np.where(own > 1, np.inf, result)))

    return estimate


def _monotonic(counts: Floats) -> tuple[Floats, bool]:
    """The counts with decreases and rounding between neighbours removed; whether a real decrease was."""
    fixed, forced = counts.copy(), False
    previous = counts[0]
    for bucket in range(1, counts.shape[0]):
        current = counts[bucket]
        together = np.abs(previous) + np.abs(current)
        tiny = (previous == 0) | (current == 0) | (together < _SMALLEST_NORMAL)
        difference = np.abs(previous - current)
        same = (current == previous) | np.where(
            tiny, difference < _TOLERANCE * _SMALLEST_NORMAL, difference / together < _TOLERANCE
        )
        less = ~same & (current < previous)
        forced = forced or bool(less.any())
        previous = np.where(same | less, previous, current)
        fixed[bucket] = previous
    return fixed, forced


def fraction_of(lower: Floats, upper: Floats) -> Estimate:
    """The share of observations between `lower` and `upper` (one of each per step)."""

    def estimate(bounds: Floats, counts: Floats, steps: Ints) -> Floats:
        low, high, total = lower[steps], upper[steps], counts[-1]
        share = (_rank_of(high, bounds, counts) - _rank_of(low, bounds, counts)) / total
        share = np.where(low >= high, 0.0, share)
        return np.where((total == 0) | np.isnan(low) | np.isnan(high), np.nan, share)

    return estimate


def _rank_of(limit: Floats, bounds: Floats, counts: Floats) -> Floats:
    """How many observations lie below `limit`, by linear interpolation; nothing of an infinite bucket."""
    total = counts[-1]
    rank, result, known = np.zeros_like(limit), total.copy(), np.zeros(limit.shape, bool)
    lower = 0.0 if bounds[0] > 0 else -np.inf
    for upper, count in zip(bounds.tolist(), counts, strict=True):
        at_border = ~known & (lower >= limit)
        result, known = np.where(at_border, rank, result), known | at_border
        inside = ~known & (lower < limit) & (upper > limit)
        partial = count if np.isneginf(lower) else rank + (count - rank) * (limit - lower) / (upper - lower)
        result, known = np.where(inside, partial, result), known | inside
        rank, lower = count, upper
    return np.asarray(np.minimum(result, total))
