"""Unit tests of rules, in promtool's files: series go in, and alerts and expressions are as the test expects.

Rules are judged as the evaluator judges them; the time is the test's. `modelmeter rules test FILE`
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from modelmeter.alert import NoData
from modelmeter.errors import ModelmeterError, WrongSetting
from modelmeter.judge import Alert, View, judge, record
from modelmeter.matcher import Matcher
from modelmeter.promql.format import format_general, quote
from modelmeter.promql.labels import METRIC_NAME, Labels, make_labels, render
from modelmeter.promql.memory import STALE_NAN, MemorySource, parse_metric, parse_values
from modelmeter.promql.parse import parse
from modelmeter.rule import AlertRule, Group, read_groups
from modelmeter.rule.file import find_files
from modelmeter.window import DAY, SECOND, format_duration, parse_duration

_EVALUATION_LIMIT = 100_000
_FILE_FIELDS = {"rule_files", "evaluation_interval", "group_eval_order", "fuzzy_compare", "tests"}
_TEST_FIELDS = {
    "name", "interval", "input_series", "alert_rule_test", "promql_expr_test", "external_labels", "external_url",
    "start_timestamp",
}  # fmt: skip


@dataclass(slots=True)
class Verdict:
    """Of one file: what failed, in words; nothing when all is well."""

    tests: int = 0
    failures: list[str] = field(default_factory=list)


def run_file(path: Path, no_data: NoData = "keep") -> Verdict:
    """All tests of a file. WrongSetting when it or its rules cannot be read. `no_data` is for rules that do not say."""
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WrongSetting(f"{path}: {error}") from None
    try:
        found = _mapping(document, "a test file", _FILE_FIELDS)
        interval = _duration(found.get("evaluation_interval", "1m"), "evaluation_interval")
        groups = _groups(path, found.get("rule_files") or [], found.get("group_eval_order") or [])
        tests = [_mapping(one, "a test", _TEST_FIELDS) for one in found.get("tests") or []]
        verdict = Verdict(len(tests))
        for number, test in enumerate(tests):
            name = test.get("name") or f"test {number + 1}"
            verdict.failures += [f"{name}: {failure}" for failure in _Run(test, groups, interval, found, no_data).run()]
    except ValueError as error:
        raise WrongSetting(f"{path}: {error}") from None
    return verdict


def _groups(path: Path, patterns: Sequence[str], order: Sequence[str]) -> list[Group]:
    groups: dict[str, Group] = {}
    for pattern in patterns:
        files = find_files(path.parent / pattern)
        if not files:
            raise ValueError(f"rule_files: nothing is called {pattern}")
        for file in files:
            groups |= {group.name: group for group in read_groups(file)}
    unknown = [name for name in order if name not in groups]
    if unknown:
        raise ValueError(f"group_eval_order: there is no group {unknown[0]!r}")
    return [groups[name] for name in order] + [group for name, group in groups.items() if name not in order]


class _Run:
    """One test."""

    def __init__(
        self,
        test: Mapping[str, Any],
        groups: Sequence[Group],
        interval: int,
        file: Mapping[str, Any],
        no_data: NoData,
    ) -> None:
        self._no_data = no_data
        self._groups = groups
        self._interval = interval
        self._fuzzy = bool(file.get("fuzzy_compare"))
        self._external_labels = {str(key): str(value) for key, value in (test.get("external_labels") or {}).items()}
        self._external_url = str(test.get("external_url") or "")
        self._source = MemorySource()
        self._alerts: dict[tuple[str, str], dict[Labels, Alert]] = {}
        self._written: dict[tuple[str, int], set[Labels]] = {}
        self._alert_tests = [_alert_test(one) for one in test.get("alert_rule_test") or []]
        self._expressions = [_expression_test(one) for one in test.get("promql_expr_test") or []]
        step = _duration(test["interval"], "interval") if test.get("interval") else interval
        for one in test.get("input_series") or []:
            found = _mapping(one, "an input series", {"series", "values"})
            values = parse_values(str(found.get("values", "")))
            points = [(number * step, value) for number, value in enumerate(values) if value is not None]
            self._source.add(parse_metric(str(found.get("series", ""))), points)

    def run(self) -> list[str]:
        """What failed."""
        failures: list[str] = []
        ends = [test.at for test in self._alert_tests] + [test.at for test in self._expressions]
        last = max(ends, default=0)
        if last // self._interval > _EVALUATION_LIMIT:
            raise ValueError(f"eval_time: over {_EVALUATION_LIMIT} evaluations; use a larger evaluation_interval")
        waiting = sorted(self._alert_tests, key=lambda test: test.at)
        for now in range(0, last + 1, self._interval):
            errors = self._evaluate(now)
            if errors:
                return failures + errors
            while waiting and waiting[0].at < now + self._interval:
                failures += self._check_alerts(waiting.pop(0))
        for test in self._expressions:
            failures += self._check_expression(test)
        return failures

    def _view(self, now: int, group: Group | None = None) -> View:
        def known(matchers: Sequence[Matcher]) -> list[Labels]:
            found = self._source.select(matchers, now - DAY, now, 1 << 40)
            return [labels for row, labels in enumerate(found.labels) if found.offsets[row] < found.offsets[row + 1]]

        offset = 0 if group is None else group.query_offset
        return View(
            self._source, now, query_offset=offset, known=known, external_labels=self._external_labels,
            external_url=self._external_url,
            no_data=self._no_data,
        )  # fmt: skip

    def _evaluate(self, now: int) -> list[str]:
        errors = []
        for group in self._groups:
            for number, rule in enumerate(group.queries):
                view = self._view(now, group)
                try:
                    if isinstance(rule, AlertRule):
                        if rule.compare not in ("", "previous_window"):
                            raise ValueError(
                                f"compare: {rule.compare} needs what is stored; test its expression instead"
                            )
                        key = (group.name, rule.key)
                        self._alerts[key] = judge(rule, self._alerts.get(key, {}), view, group.limit).alerts
                        written = [pair for alert in self._alerts[key].values() for pair in _series_of(alert)]
                    else:
                        written = record(rule, view, group.limit)
                except (ModelmeterError, ValueError) as error:
                    reason = getattr(error, "detail", str(error))
                    errors.append(f"rule: {rule.name}, time: {format_duration(now)}, err: {reason}")
                    continue
                self._write((group.name, number), written, view.at())
        return errors

    def _write(self, rule: tuple[str, int], written: Sequence[tuple[Labels, float]], at: int) -> None:
        """Series that the rule gives no longer get a stale marker."""
        now = {labels for labels, _ in written}
        for labels, value in written:
            self._source.append(labels, at, value)
        for labels in self._written.get(rule, set()) - now:
            self._source.append(labels, at, STALE_NAN)
        self._written[rule] = now

    def _check_alerts(self, test: "_AlertTest") -> list[str]:
        found = sorted(
            (alert.labels, dict(alert.annotations))
            for group in self._groups
            for rule in group.alerts
            if rule.name == test.name
            for alert in self._alerts.get((group.name, rule.key), {}).values()
            if alert.state.fired_at is not None
        ) if test.name else []  # fmt: skip
        wanted = sorted(test.alerts, key=lambda one: (one[0], sorted(one[1].items())))
        if [(labels, notes) for labels, notes in found] == wanted:
            return []
        shown = [
            f"Labels:{render(labels)} Annotations:{render(tuple(sorted(notes.items())))}" for labels, notes in wanted
        ]
        got = [f"Labels:{render(labels)} Annotations:{render(tuple(sorted(notes.items())))}" for labels, notes in found]
        what = f"alertname: {test.name}, time: {format_duration(test.at)}"
        return [f"{what},\n        exp:[{', '.join(shown)}],\n        got:[{', '.join(got)}]"]

    def _check_expression(self, test: "_ExpressionTest") -> list[str]:
        what = f"expr: {quote(test.text)}, time: {format_duration(test.at)}"
        try:
            found = sorted(self._view(test.at).vector(parse(test.text)))
        except ModelmeterError as error:
            return [f"{what}, err: {error.detail}"]
        wanted = sorted(test.samples, key=lambda one: one[0])
        same = len(found) == len(wanted) and all(
            labels == its_labels and self._equal(value, its_value)
            for (labels, value), (its_labels, its_value) in zip(found, wanted, strict=True)
        )
        return [] if same else [f"{what},\n        exp:{_listed(wanted)}\n        got:{_listed(found)}"]

    def _equal(self, value: float, wanted: float) -> bool:
        if value == wanted or (math.isnan(value) and math.isnan(wanted)):
            return True
        return self._fuzzy and math.isclose(value, wanted, rel_tol=1e-13)


def _series_of(alert: Alert) -> list[tuple[Labels, float]]:
    """ALERTS and ALERTS_FOR_STATE, as Prometheus writes them."""
    labels = dict(alert.labels)
    return [
        (make_labels(labels | {METRIC_NAME: "ALERTS", "alertstate": alert.state.name}), 1.0),
        (make_labels(labels | {METRIC_NAME: "ALERTS_FOR_STATE"}), float(alert.state.active_at // SECOND)),
    ]


def _listed(samples: Sequence[tuple[Labels, float]]) -> str:
    return ", ".join(f"{render(labels)} {format_general(value)}" for labels, value in samples) or "nil"


@dataclass(frozen=True, slots=True)
class _AlertTest:
    name: str
    at: int
    alerts: Sequence[tuple[Labels, dict[str, str]]]


@dataclass(frozen=True, slots=True)
class _ExpressionTest:
    text: str
    at: int
    samples: Sequence[tuple[Labels, float]]


def _alert_test(document: object) -> _AlertTest:
    found = _mapping(document, "an alert_rule_test", {"eval_time", "alertname", "exp_alerts"})
    name = str(found.get("alertname") or "")
    alerts = []
    for one in found.get("exp_alerts") or []:
        expected = _mapping(one, "an expected alert", {"exp_labels", "exp_annotations"})
        labels = {str(key): str(value) for key, value in (expected.get("exp_labels") or {}).items()}
        notes = {str(key): str(value) for key, value in (expected.get("exp_annotations") or {}).items()}
        alerts.append((make_labels(labels | {"alertname": name}), notes))
    return _AlertTest(name, _duration(found.get("eval_time", "0"), "eval_time"), alerts)


def _expression_test(document: object) -> _ExpressionTest:
    found = _mapping(document, "a promql_expr_test", {"expr", "eval_time", "exp_samples"})
    samples = []
    for one in found.get("exp_samples") or []:
        expected = _mapping(one, "an expected sample", {"labels", "value"})
        labels = make_labels(parse_metric(str(expected.get("labels") or "{}")))
        samples.append((labels, float(expected.get("value", 0))))
    return _ExpressionTest(str(found.get("expr", "")), _duration(found.get("eval_time", "0"), "eval_time"), samples)


def _mapping(document: object, what: str, known: set[str]) -> dict[str, Any]:
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ValueError(f"{what} must be a mapping with {', '.join(sorted(known))}")  # noqa: TRY004  it is text
    unknown = [str(key) for key in document if key not in known]
    if unknown:
        raise ValueError(f"{what} has no field {unknown[0]!r}; known: {', '.join(sorted(known))}")
    return document


def _duration(text: object, what: str) -> int:
    if str(text) == "0":
        return 0
    try:
        return parse_duration(str(text))
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
