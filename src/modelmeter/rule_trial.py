"""Rules tried on what is stored, without keeping them: what they find now."""

import time

from modelmeter.alert_reader import BadRules, finite
from modelmeter.backtest import AlertPast, backtest, record_past
from modelmeter.config import Config
from modelmeter.errors import ModelmeterError
from modelmeter.judge import judge, record
from modelmeter.reader import Reader
from modelmeter.rule import AlertRule, Group, WrongRules, parse_any
from modelmeter.rule_reads import RuleReads
from modelmeter.series import Catalog
from modelmeter.shared_source import RecordedSource
from modelmeter.window import MINUTE, SECOND, floor, to_rfc3339

_RULE_LIMIT = 1000
_STEP_LIMIT = 50_000


def read_trial(content: str) -> list[Group]:
    """A file of rules, a group, or one rule. BadRules with the line."""
    try:
        groups = parse_any(content, "rules")
    except WrongRules as error:
        raise BadRules(error.detail, line=error.extra["line"]) from None
    if sum(len(group.queries) for group in groups) > _RULE_LIMIT:
        raise BadRules(f"over {_RULE_LIMIT} rules; try fewer at a time")
    if not any(group.queries for group in groups):
        raise BadRules("there is no rule with an expr to evaluate; event rules are judged by the workers")
    return groups


class Trial:
    """Safe to use from many threads."""

    def __init__(self, config: Config, reader: Reader) -> None:
        self._config = config
        self._reader = reader
        self._catalog = Catalog()

    def now(self, content: str) -> dict[str, object]:
        """What the rules find now, as if nothing had been pending before; a rule that fails says so."""
        groups = read_trial(content)
        now = time.time_ns() // 1000
        found: list[dict[str, object]] = []
        with self._reader.snapshot() as connection:
            reads = RuleReads(self._config, connection, self._catalog)
            for group in groups:
                found += self._group(group, reads, now)
        return {"rules": found}

    def past(self, content: str, start: int, end: int, width: int | None) -> dict[str, object]:
        """What the rules would have come to from `start` to `end`, evaluated every `width` (microseconds).

        Without a width: on each group's interval, a minute at least, so that rollups answer.
        """
        groups = read_trial(content)
        found: list[dict[str, object]] = []
        with self._reader.snapshot() as connection:
            reads = RuleReads(self._config, connection, self._catalog)
            for group in groups:
                its_width = width or max(group.interval, MINUTE)
                if (end - start) // its_width > _STEP_LIMIT:
                    raise BadRules(f"step: over {_STEP_LIMIT:,} evaluations; take a longer step or a shorter span")
                found += self._past_of(group, reads, floor(start, its_width), floor(end, its_width), its_width)
        return {"start": to_rfc3339(start), "end": to_rfc3339(end), "rules": found}

    def _past_of(self, group: Group, reads: RuleReads, start: int, end: int, width: int) -> list[dict[str, object]]:
        recorded = RecordedSource(reads.shared)
        shown: list[dict[str, object]] = []
        for rule in group.queries:
            one: dict[str, object] = {"group": group.name, "name": rule.name, "query": rule.query, "error": None}
            try:
                if not isinstance(rule, AlertRule):
                    record_past(rule, start, end, width, recorded, reads.limits())
                    continue
                expanded = reads.expanded(rule)
                pasts = backtest(expanded, start, end, width, recorded, reads.limits(), self._config.no_data)
                one |= {
                    "query": expanded.query,
                    "step_seconds": width / SECOND,
                    "firings": sum(len(past.firings) for past in pasts),
                    "firing_seconds": sum(past.firing_for(end) for past in pasts) / SECOND,
                    "flaps": sum(past.flaps for past in pasts),
                    "alerts": [_past(past, end) for past in pasts],
                }
            except (ModelmeterError, ValueError) as error:
                one["error"] = getattr(error, "detail", str(error))
            shown.append(one)
        return shown

    @staticmethod
    def _group(group: Group, reads: RuleReads, now: int) -> list[dict[str, object]]:
        recorded = RecordedSource(reads.shared)
        view = reads.view(now, group.query_offset, recorded)
        shown: list[dict[str, object]] = []
        for rule in group.queries:
            one: dict[str, object] = {"group": group.name, "name": rule.name, "query": rule.query, "error": None}
            try:
                if isinstance(rule, AlertRule):
                    expanded = reads.expanded(rule)
                    one["query"] = expanded.query
                    outcome = judge(expanded, {}, view, group.limit)
                    one["alerts"] = [
                        {
                            "state": alert.state.name,
                            "labels": dict(alert.labels),
                            "annotations": dict(alert.annotations),
                            "value": finite(alert.value),
                            "reason": alert.reason.value,
                        }
                        for alert in outcome.alerts.values()
                    ]
                else:
                    samples = record(rule, view, group.limit)
                    recorded.add(samples, view.at())
                    one["samples"] = [{"labels": dict(labels), "value": finite(value)} for labels, value in samples]
            except (ModelmeterError, ValueError) as error:
                one["error"] = getattr(error, "detail", str(error))
            shown.append(one)
        return shown


def _past(past: AlertPast, end: int) -> dict[str, object]:
    return {
        "labels": dict(past.labels),
        "firings": len(past.firings),
        "firing_seconds": past.firing_for(end) / SECOND,
        "flaps": past.flaps,
        "intervals": [
            {
                "state": one.state,
                "start": to_rfc3339(one.start),
                "end": None if one.end is None else to_rfc3339(one.end),
                "reason": one.reason,
                "value": finite(one.value),
            }
            for one in past.intervals
        ],
    }
