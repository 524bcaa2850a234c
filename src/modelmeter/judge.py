"""One rule at one time: what its expression finds, and what becomes of its alerts. Pure: no I/O but the source's.

The evaluator, the unit tests of rule files and the backtest all go through here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelmeter.alert import Finding, NoData, Reason, State, StateName, name_of, step
from modelmeter.matcher import Matcher
from modelmeter.promql import Limits, QueryFailed, Source, evaluate_expression, parse
from modelmeter.promql.expression import Expression
from modelmeter.promql.labels import METRIC_NAME, Labels, drop, make_labels
from modelmeter.promql.value import Vector
from modelmeter.rule.coverage import Counts, Coverage, Read, count_behind
from modelmeter.rule.group import AlertRule, RecordingRule
from modelmeter.rule.shape import shape_of
from modelmeter.template import Sample, Scope

ALERT_NAME = "alertname"


@dataclass(frozen=True, slots=True)
class Alert:
    """One that is pending or firing. `value` is NaN when there are no data behind it."""

    labels: Labels
    annotations: Mapping[str, str]
    state: State
    value: float
    reason: Reason


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state at `at`. `alert` is as it is now; when it has become inactive, as it was."""

    alert: Alert
    before: StateName
    after: StateName
    reason: Reason
    value: float
    at: int


Alerts = Mapping[Labels, Alert]
Known = Callable[[Sequence[Matcher]], Sequence[Labels]]
"""The series that match and have had events of late; what is among them and has none now has fallen silent."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The alerts of a rule after an evaluation, and what has changed."""

    alerts: dict[Labels, Alert]
    transitions: list[Transition]


def _nothing_known(_matchers: Sequence[Matcher]) -> Sequence[Labels]:
    return ()


@dataclass(frozen=True, slots=True)
class View:
    """What rules are judged by: the data, seen at `now` (and at `now - query_offset` for the expression).

    `no_data` is for rules that do not say.
    """

    source: Source
    now: int
    limits: Limits = field(default_factory=Limits)
    query_offset: int = 0
    known: Known = _nothing_known
    external_labels: Mapping[str, str] = field(default_factory=dict)
    external_url: str = ""
    no_data: NoData = "keep"
    _counts: dict[Read, Counts] = field(default_factory=dict)

    def at(self) -> int:
        """The time of the queries."""
        return self.now - self.query_offset

    def vector(self, expression: Expression) -> list[tuple[Labels, float]]:
        """The samples that the expression gives; QueryError when it fails."""
        value = evaluate_expression(expression, self.at(), self.source, self.limits).value
        if isinstance(value, Vector):
            return list(zip(value.labels, value.values[:, 0].tolist(), strict=True))
        if isinstance(value, np.ndarray):
            return [((), float(value[0]))]
        raise QueryFailed("rule result is not a vector or scalar")

    def query(self, text: str) -> list[Sample]:
        """For templates."""
        found = evaluate_expression(parse(text), self.now, self.source, self.limits).value
        if isinstance(found, Vector):
            pairs = zip(found.labels, found.values[:, 0].tolist(), strict=True)
            return [Sample(dict(labels), value) for labels, value in pairs]
        if isinstance(found, np.ndarray):
            return [Sample({}, float(found[0]))]
        raise QueryFailed("query result is not a vector or scalar")

    def counts(self, read: Read) -> Counts:
        """How many events each series has where a selector looks."""
        if read not in self._counts:
            self._counts[read] = self._count(read)
        return self._counts[read]

    def _count(self, read: Read) -> Counts:
        pinned = read.at if isinstance(read.at, int) else self.at()
        end, range_ = pinned - read.offset, read.range_ or self.limits.lookback
        folded = self.source.fold(read.matchers, range_, np.array([end], np.int64), frozenset(("count",)), None)
        if folded is not None:
            labels, sizes = folded.labels, folded.count[:, 0]
        else:
            samples = self.source.select(read.matchers, end - range_, end, self.limits.samples)
            labels, sizes = samples.labels, np.diff(samples.offsets)
        return [
            (dict(drop(one, {METRIC_NAME})), size) for one, size in zip(labels, sizes.tolist(), strict=True) if size
        ]


@dataclass(frozen=True, slots=True)
class _Found:
    """One label set of an evaluation. `source` are its labels without those that the rule adds."""

    labels: Labels
    source: Labels
    finding: Finding
    value: float
    scope: Scope | None


def judge(rule: AlertRule, alerts: Alerts, view: View, limit: int = 0) -> Outcome:
    """What becomes of the alerts of a rule. QueryError when there is no result: then nothing changes."""
    own = {*rule.labels, ALERT_NAME}
    coverage = rule.coverage
    found = _results(rule, view, coverage, own)
    if limit and len(found) > limit:
        raise QueryFailed(f"exceeded limit of {limit} with {len(found)} alerts")
    missing = [labels for labels in alerts if labels not in found]
    if missing:
        recovered = (
            None if rule.recovery is None else [drop(one, own | {METRIC_NAME}) for one, _ in view.vector(rule.recovery)]
        )
        for labels in missing:
            source = drop(labels, own)
            finding = _absent(rule, view, coverage, source, recovered)
            found[labels] = _Found(labels, source, finding, math.nan, None)
    if (rule.no_data or view.no_data) == "alert":
        for one in _silent(rule, view, coverage, own):
            found.setdefault(one.labels, one)
    return _advance(rule, alerts, found, view)


def _results(rule: AlertRule, view: View, coverage: Coverage, own: set[str]) -> dict[Labels, _Found]:
    found: dict[Labels, _Found] = {}
    for series, value in view.vector(rule.expression):
        source = drop(series, own | {METRIC_NAME})
        finding = Finding.HOLDS
        if rule.min_samples and count_behind(coverage, source, view.counts) < rule.min_samples:
            finding = Finding.FEW
        labels, scope = _labelled(rule, series, value, view)
        if labels in found:
            raise QueryFailed("vector contains metrics with the same labelset after applying alert labels")
        found[labels] = _Found(labels, source, finding, value, scope)
    return found


def _labelled(rule: AlertRule, series: Labels, value: float, view: View) -> tuple[Labels, Scope]:
    scope = Scope(dict(series), value, view.now, view.query, view.external_labels, view.external_url)
    added = {name: text.render(rule.name, scope) for name, text in rule.labels.items()}
    return make_labels({**dict(drop(series, {METRIC_NAME})), **added, ALERT_NAME: rule.name}), scope


def _absent(
    rule: AlertRule, view: View, coverage: Coverage, source: Labels, recovered: Sequence[Labels] | None
) -> Finding:
    """Why an alert has no result any more."""
    count = count_behind(coverage, source, view.counts)
    if count == 0:
        return Finding.SILENT
    if count < rule.min_samples:
        return Finding.FEW
    if recovered is None or any(set(one) <= set(source) for one in recovered):
        return Finding.CLEAR
    return Finding.BETWEEN


def _silent(rule: AlertRule, view: View, coverage: Coverage, own: set[str]) -> list[_Found]:
    """The label sets that would have a result if there were events, and have had some of late."""
    silent = []
    for series in sorted(shape_of(rule.expression, view.known)):
        source = drop(series, own)
        if count_behind(coverage, source, view.counts) == 0:
            labels, scope = _labelled(rule, series, math.nan, view)
            silent.append(_Found(labels, source, Finding.SILENT, math.nan, scope))
    return silent


def _advance(rule: AlertRule, alerts: Alerts, found: Mapping[Labels, _Found], view: View) -> Outcome:
    outcome = Outcome({}, [])
    policy = rule.policy(view.no_data)
    for labels, one in found.items():
        before = alerts.get(labels)
        state, reason = step(None if before is None else before.state, one.finding, policy, view.now)
        value = one.value
        if state is None:
            if before is not None:
                changed = Transition(before, before.state.name, "inactive", reason, value, view.now)
                outcome.transitions.append(changed)
            continue
        annotations: Mapping[str, str] = {} if before is None else before.annotations
        if one.finding is Finding.HOLDS or (before is None and one.scope is not None):
            assert one.scope is not None
            annotations = {name: text.render(rule.name, one.scope) for name, text in rule.annotations.items()}
        elif before is not None:
            value = before.value
        alert = Alert(labels, annotations, state, value, reason)
        outcome.alerts[labels] = alert
        was = name_of(None if before is None else before.state)
        if was != state.name:
            outcome.transitions.append(Transition(alert, was, state.name, reason, value, view.now))
    return outcome


def removed(alert: Alert, reason: Reason, now: int) -> Transition:
    """The end of an alert that no evaluation brings: its rule is gone, or somebody has dismissed it."""
    return Transition(alert, alert.state.name, "inactive", reason, math.nan, now)


def record(rule: RecordingRule, view: View, limit: int = 0) -> list[tuple[Labels, float]]:
    """The samples that a recording rule gives, named. QueryError when there is no result."""
    found: dict[Labels, float] = {}
    for series, value in view.vector(rule.expression):
        labels = make_labels({**dict(series), **rule.labels, METRIC_NAME: rule.name})
        if labels in found:
            raise QueryFailed("vector contains metrics with the same labelset after applying rule labels")
        found[labels] = value
    if limit and len(found) > limit:
        raise QueryFailed(f"exceeded limit of {limit} with {len(found)} series")
    return list(found.items())
