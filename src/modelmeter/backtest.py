"""Rules tried on the past: what would have fired, when, for how long, and how often it would have flapped.

Each expression is evaluated over all steps at once, then the states are stepped through as the evaluator does it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelmeter.alert import Finding, State, name_of, step
from modelmeter.judge import ALERT_NAME
from modelmeter.promql import BadQuery, Limits, QueryFailed, Source
from modelmeter.promql.evaluator import Evaluator
from modelmeter.promql.expression import Expression
from modelmeter.promql.labels import METRIC_NAME, Labels, drop, make_labels
from modelmeter.promql.note import Notes
from modelmeter.promql.reader import Reader
from modelmeter.promql.source import Ints
from modelmeter.promql.value import Vector
from modelmeter.rule import AlertRule, RecordingRule
from modelmeter.rule.coverage import Coverage, Either, Read, coverage_of
from modelmeter.shared_source import RecordedSource
from modelmeter.template import Scope
from modelmeter.window import HOUR

FLAP_WITHIN = HOUR
"""Firing again so soon after it was resolved is flapping."""


@dataclass(frozen=True, slots=True)
class Interval:
    """`state` held from `start` until `end`; None: still at the end of the backtest. Microseconds."""

    state: str
    start: int
    end: int | None
    reason: str
    value: float | None


@dataclass(slots=True)
class AlertPast:
    """The past of one alert."""

    labels: Labels
    intervals: list[Interval] = field(default_factory=list)

    @property
    def firings(self) -> list[Interval]:
        return [one for one in self.intervals if one.state == "firing"]

    def firing_for(self, end: int) -> int:
        """How long it fired in all."""
        return sum((end if one.end is None else one.end) - one.start for one in self.firings)

    @property
    def flaps(self) -> int:
        """How often it fired again within the hour after it was resolved."""
        pairs = zip(self.firings, self.firings[1:], strict=False)
        return sum(one.end is not None and after.start - one.end < FLAP_WITHIN for one, after in pairs)


@dataclass(frozen=True, slots=True)
class _Matrix:
    """Series by steps."""

    labels: Sequence[Labels]
    values: np.ndarray
    present: np.ndarray


def _matrix(expression: Expression, times: Ints, step_: int, source: Source, limits: Limits) -> _Matrix:
    reader = Reader(source, limits, Notes(), int(times[0]), int(times[-1]))
    with np.errstate(all="ignore"):
        value = Evaluator(reader, times, step_).evaluate(expression)
    if isinstance(value, np.ndarray):
        return _Matrix([()], value[None, :], np.ones((1, times.size), bool))
    if not isinstance(value, Vector):
        raise BadQuery("rule result is not a vector or scalar")
    found = value.nonempty()
    return _Matrix(found.labels, found.values, found.present)


class _Counts:
    """How many events stand behind each label set at each step; as `count_behind`, for all steps at once."""

    def __init__(self, coverage: Coverage, times: Ints, source: Source, limits: Limits) -> None:
        self._coverage = coverage
        self._times = times
        self._source = source
        self._limits = limits
        self._tables: dict[Read, list[tuple[dict[str, str], np.ndarray]]] = {}

    def of(self, labels: Labels) -> np.ndarray | None:
        """None: it rests on no events."""
        return self._count(self._coverage, labels)

    def _count(self, coverage: Coverage, labels: Labels) -> np.ndarray | None:
        if isinstance(coverage, Read):
            total = np.zeros(self._times.size, np.int64)
            for found, counts in self._table(coverage):
                if all(found.get(name, value) == value for name, value in labels):
                    total = total + counts
            return total
        parts = [its for part in coverage.parts if (its := self._count(part, labels)) is not None]
        if not parts:
            return None
        joined = np.stack(parts)
        from_parts: np.ndarray = joined.max(axis=0) if isinstance(coverage, Either) else joined.min(axis=0)
        return from_parts

    def _table(self, read: Read) -> list[tuple[dict[str, str], np.ndarray]]:
        if read not in self._tables:
            pinned = isinstance(read.at, int)
            ends = np.full_like(self._times, read.at if pinned else 0) if pinned else self._times
            ends = ends - read.offset
            range_ = read.range_ or self._limits.lookback
            folded = self._source.fold(read.matchers, range_, ends, frozenset(("count",)), None)
            if folded is not None:
                rows = list(zip(folded.labels, folded.count, strict=True))
            else:
                samples = self._source.select(
                    read.matchers, int(ends.min()) - range_, int(ends.max()), self._limits.samples
                )
                rows = []
                for row, labels in enumerate(samples.labels):
                    when = samples.timestamps[samples.offsets[row] : samples.offsets[row + 1]]
                    low, high = np.searchsorted(when, ends - range_, "right"), np.searchsorted(when, ends, "right")
                    rows.append((labels, high - low))
            self._tables[read] = [(dict(drop(labels, {METRIC_NAME})), counts) for labels, counts in rows]
        return self._tables[read]


@dataclass(slots=True)
class _Past:
    """What is found for one alert at each step."""

    source: Labels
    holds: np.ndarray
    values: np.ndarray


def record_past(rule: RecordingRule, start: int, end: int, width: int, source: RecordedSource, limits: Limits) -> None:
    """What a recording rule would have written goes into the source, for the rules after it."""
    times = np.arange(start, end + 1, width, dtype=np.int64)
    matrix = _matrix(rule.expression, times, width, source, limits)
    for row, series in enumerate(matrix.labels):
        labels = make_labels({**dict(series), **rule.labels, METRIC_NAME: rule.name})
        there = np.flatnonzero(matrix.present[row])
        points = zip(times[there].tolist(), matrix.values[row][there].tolist(), strict=True)
        source.samples.setdefault(labels, []).extend(points)


def backtest(
    rule: AlertRule, start: int, end: int, width: int, source: Source, limits: Limits, no_data: str = "keep"
) -> list[AlertPast]:
    """What would have become of a rule that was evaluated every `width` from `start` to `end`, nothing before.

    Labels are those of each time; templates in them see the value of that time. `no_data: alert` is judged for label
    sets that had a result within the span. QueryError when the expression fails.
    """
    times = np.arange(start, end + 1, width, dtype=np.int64)
    own = {*rule.labels, ALERT_NAME}
    matrix = _matrix(rule.expression, times, width, source, limits)
    coverage = coverage_of(rule.expression)
    counts = _Counts(coverage, times, source, limits)
    recovery = None if rule.recovery is None else _matrix(rule.recovery, times, width, source, limits)
    pasts: dict[Labels, _Past] = {}
    for row, series in enumerate(matrix.labels):
        for labels, where in _labelled(rule, series, matrix.values[row], matrix.present[row]):
            if labels in pasts and (pasts[labels].holds & where).any():
                raise QueryFailed("vector contains metrics with the same labelset after applying alert labels")
            past = pasts.setdefault(
                labels, _Past(drop(series, own | {METRIC_NAME}), np.zeros_like(where), np.zeros(times.size))
            )
            past.holds |= where
            past.values = np.where(where, matrix.values[row], past.values)
    policy = rule.policy("alert" if no_data == "alert" else "ok" if no_data == "ok" else "keep")
    found = []
    for labels, past in sorted(pasts.items()):
        count = counts.of(past.source)
        recovered = _recovered(recovery, past.source, own, times.size)
        alert = AlertPast(labels)
        state: State | None = None
        for at, holds, value, many, over in zip(
            times.tolist(),
            past.holds.tolist(),
            past.values.tolist(),
            (np.full(times.size, 1 << 62) if count is None else count).tolist(),
            recovered.tolist(),
            strict=True,
        ):
            if state is None and not holds and policy.no_data != "alert":
                continue
            before = name_of(state)
            state, reason = step(state, _finding(rule, holds=holds, many=many, over=over), policy, at)
            after = name_of(state)
            if before != after:
                _close(alert, at)
                if after != "inactive":
                    shown = value if holds and math.isfinite(value) else None
                    alert.intervals.append(Interval(after, at, None, reason.value, shown))
        if alert.intervals:
            found.append(alert)
    return found


def _finding(rule: AlertRule, *, holds: bool, many: int, over: bool) -> Finding:
    if holds:
        return Finding.FEW if many < rule.min_samples else Finding.HOLDS
    if many == 0:
        return Finding.SILENT
    if many < rule.min_samples:
        return Finding.FEW
    return Finding.CLEAR if over else Finding.BETWEEN


def _close(alert: AlertPast, at: int) -> None:
    if alert.intervals and alert.intervals[-1].end is None:
        last = alert.intervals[-1]
        alert.intervals[-1] = Interval(last.state, last.start, at, last.reason, last.value)


def _recovered(recovery: _Matrix | None, source: Labels, own: set[str], steps: int) -> np.ndarray:
    if recovery is None:
        return np.ones(steps, bool)
    over = np.zeros(steps, bool)
    for row, labels in enumerate(recovery.labels):
        if set(drop(labels, own | {METRIC_NAME})) <= set(source):
            over |= recovery.present[row]
    return over


def _labelled(
    rule: AlertRule, series: Labels, values: np.ndarray, present: np.ndarray
) -> list[tuple[Labels, np.ndarray]]:
    """The alert's labels, and at which steps they are these: a template may look at the value."""
    base = dict(drop(series, {METRIC_NAME}))
    if all(text.plain for text in rule.labels.values()):
        added: Mapping[str, str] = {name: text.text for name, text in rule.labels.items()}
        return [(make_labels({**base, **added, ALERT_NAME: rule.name}), present)]
    found: dict[Labels, np.ndarray] = {}
    for at in np.flatnonzero(present).tolist():
        scope = Scope(dict(series), float(values[at]))
        added = {name: text.render(rule.name, scope) for name, text in rule.labels.items()}
        labels = make_labels({**base, **added, ALERT_NAME: rule.name})
        found.setdefault(labels, np.zeros(present.size, bool))[at] = True
    return list(found.items())
