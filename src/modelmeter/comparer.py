"""Answers that need two sides: comparisons, and drift at one time or over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from modelmeter import comparison, drift, rollup, significance
from modelmeter.comparison import Comparison
from modelmeter.config import Config
from modelmeter.direction import Directions, split_patterns
from modelmeter.errors import Unanswerable
from modelmeter.side_reader import Side, SideReader, Told, within_calendar
from modelmeter.significance import finite
from modelmeter.window import ceil, floor

WINDOW_LIMIT = 2_000

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Options:
    """`metrics` None: all. `histogram_bins` 0: no histograms."""

    metrics: Sequence[str] | None = None
    quantiles: Sequence[float] = ()
    min_samples: int = comparison.MIN_SAMPLES
    min_effect: float = comparison.MIN_EFFECT
    histogram_bins: int = 0


@dataclass(slots=True)
class Drift:
    """What GET /drift says of one metric, in its order."""

    verdict: drift.Verdict
    reason: str
    count: int
    reference_count: int
    p: float | None = None
    psi: float | None = None
    ks: float | None = None
    ks_p: float | None = None
    jensen_shannon: float | None = None
    wasserstein: float | None = None


@dataclass(slots=True)
class DriftSeries:
    """Drift of one metric over time: a value for each window; None where a window or the reference is empty."""

    reference_count: int
    count: list[int]
    psi: list[float | None]
    ks: list[float | None]
    ks_p: list[float | None]
    jensen_shannon: list[float | None]
    wasserstein: list[float | None]


@dataclass(slots=True)
class DriftOverTime:
    """`windows` are their starts, microseconds."""

    windows: Sequence[int]
    metrics: dict[str, DriftSeries]


class Comparer:
    """Safe to use from many threads."""

    def __init__(self, config: Config, sides: SideReader) -> None:
        self._sides = sides
        self._directions = Directions(split_patterns(config.higher_is_better), split_patterns(config.lower_is_better))

    def compare(self, a: Side, b: Side, options: Options) -> tuple[Told, Told, dict[str, Comparison]]:
        """By metric, in order. NotFound for a model, version, metric or baseline that is unknown."""
        with self._sides.snapshot() as connection:
            (told_a, folded_a), (told_b, folded_b) = self._sides.fold(connection, [a, b], options.metrics)
            names = self._sides.names(connection, [*folded_a.metric.tolist(), *folded_b.metric.tolist()])
        pairs = comparison.pair_up(folded_a, folded_b, options.quantiles)
        found = comparison.compare(
            pairs,
            {metric: self._directions.of(names[metric]) for metric in pairs},
            min_samples=options.min_samples,
            min_effect=options.min_effect,
            histogram_bins=options.histogram_bins,
        )
        return told_a, told_b, _by_name(found, names)

    def drift(self, current: Side, reference: Side, options: Options) -> tuple[Told, Told, dict[str, Drift]]:
        """How far `current` is from `reference`, by metric, in order. NotFound as in compare."""
        with self._sides.snapshot() as connection:
            (told, now), (told_reference, then) = self._sides.fold(connection, [current, reference], options.metrics)
            names = self._sides.names(connection, [*now.metric.tolist(), *then.metric.tolist()])
        found: dict[int, Drift] = {}
        for metric, pair in comparison.pair_up(now, then, ()).items():
            one = found[metric] = Drift("too few samples", "", pair.a.count, pair.b.count)
            scores = drift.score(pair.a.counts, pair.b.counts, pair.bins)
            one.psi, one.ks, one.ks_p = finite(float(scores.psi)), finite(float(scores.ks)), finite(float(scores.ks_p))
            one.jensen_shannon = finite(float(scores.jensen_shannon))
            one.wasserstein = finite(float(scores.wasserstein))
        tested = [
            one
            for one in found.values()
            if one.ks_p is not None and min(one.count, one.reference_count) >= options.min_samples
        ]
        for one, p in zip(tested, significance.holm([one.ks_p or 0.0 for one in tested]), strict=True):
            one.p = p
        for one in found.values():
            p = 1.0 if one.p is None else one.p
            one.verdict, one.reason = drift.judge(
                one.count, one.reference_count, one.psi or 0.0, p, options.min_samples
            )
        return told, told_reference, _by_name(found, names)

    def drift_over_time(
        self, current: Side, reference: Side, step: int, options: Options
    ) -> tuple[Told, Told, DriftOverTime]:
        """The same for each window of `step` microseconds, whole minutes; the first and the last are cut by the span.

        Unanswerable when there are too many of them, or when windows so small are no longer kept.
        """
        assert current.selection is not None
        assert current.span is not None
        span = within_calendar(current.span)
        first = floor(span.start, step)
        windows = max((ceil(span.end, step) - first) // step, 0)
        if windows > WINDOW_LIMIT:
            raise Unanswerable(
                f"step: {windows:,} windows are more than {WINDOW_LIMIT:,}; take a longer step or a shorter span",
                field="step",
            )
        with self._sides.snapshot() as connection:
            ((told_reference, then),) = self._sides.fold(connection, [reference], options.metrics)
            rows = self._sides.windows(connection, current.selection, span, step, options.metrics)
            names = self._sides.names(connection, [*rows.metric.tolist(), *then.metric.tolist()])
        events = int(rows.count[rows.metric == rollup.EVENTS].sum())
        sketch_of = dict(zip(then.metric.tolist(), then.sketch, strict=True))
        count_of = dict(zip(then.metric.tolist(), then.count.tolist(), strict=True))
        found = {}
        for metric in {*rows.metric.tolist(), *sketch_of} - {rollup.EVENTS}:
            its_rows = rollup.select(rows, rows.metric == metric)
            number = (its_rows.window - first) // step
            counts, scores = drift.over_time(its_rows.sketch, number, windows, sketch_of.get(metric, b""))
            found[metric] = DriftSeries(
                count_of.get(metric, 0),
                counts.tolist(),
                *(
                    [finite(value) for value in values.tolist()]
                    for values in (scores.psi, scores.ks, scores.ks_p, scores.jensen_shannon, scores.wasserstein)
                ),
            )
        starts = range(first, first + windows * step, step)
        return (
            Told(str(current.selection), current.span, events),
            told_reference,
            DriftOverTime(starts, _by_name(found, names)),
        )


def _by_name(found: Mapping[int, Value], names: Mapping[int, str]) -> dict[str, Value]:
    return dict(sorted((names[metric], value) for metric, value in found.items()))
