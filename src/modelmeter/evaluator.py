"""The evaluator: judges all rules on their intervals; alerts, history and notifications commit in one transaction.

Groups are evaluated at whole multiples of their interval since 1970, all that are due at one time on one snapshot.
A round commits only if no other evaluator has moved its groups on; a window that was missed is made up for, at its
own time. So of any number of evaluators, killed at any statement, each window is judged once.
"""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import psycopg

from modelmeter import telemetry
from modelmeter.alert import Reason
from modelmeter.config import Config
from modelmeter.errors import ModelmeterError
from modelmeter.judge import Alert, Outcome, Transition, judge, record, removed
from modelmeter.promql.labels import Labels
from modelmeter.reader import Reader
from modelmeter.recorder import Recorder, as_stored
from modelmeter.rule import AlertRule, Group, Rule
from modelmeter.rule_book import RuleBook
from modelmeter.rule_document import document_of
from modelmeter.rule_reads import RuleReads
from modelmeter.series import Catalog
from modelmeter.shared_source import RecordedSource
from modelmeter.store.alerts import (
    SQL,
    Report,
    Round,
    RuleKey,
    Superseded,
    commit_end,
    commit_round,
    put_loaded,
    read_alerts,
    read_clock,
    read_evaluations,
)
from modelmeter.window import DAY, SECOND, floor

log = logging.getLogger(__name__)

Connection = psycopg.Connection[tuple[object, ...]]

_LOOK_SECONDS = 1.0
_ROUNDS_AT_ONCE = 20
_BACK_STEP_SECONDS = 600
"""A clock that was set back by less is waited for; after more, evaluation goes on from the new time."""


class Evaluator:
    """`run_once(now)` evaluates what is due at `now`, the database's time in microseconds."""

    def __init__(self, config: Config, book: RuleBook, recorder: Recorder) -> None:
        self._config = config
        self._book = book
        self._recorder = recorder
        self._reader = Reader(config.database_url)
        self._catalog = Catalog()
        self._interval = round(config.evaluation_interval_seconds * SECOND)
        self._connection: Connection | None = None
        self._evaluated: dict[str, int] | None = None
        self._loaded_version = -1
        self._looked_at = -_LOOK_SECONDS
        self._ran_at, self._ran_clock = 0, 0.0
        self._said: dict[RuleKey, str] = {}
        self._standing: dict[str, Counter[str]] = {}

    def close(self) -> None:
        self._forget()
        self._reader.close()
        self._recorder.close()

    def now(self) -> int:
        """The time to give to `run_once`."""
        return read_clock(self._connect())

    def wait_seconds(self) -> float:
        """Until the next round is due, or the rules want to be looked at again; for one that stands by, too."""
        if self._evaluated is None:
            return _LOOK_SECONDS
        now = self._ran_at + round((time.monotonic() - self._ran_clock) * SECOND)
        due = [self._next(group, now) for group in self._book.groups if group.queries]
        return min(max((min(due, default=now + DAY) - now) / SECOND, 0.01), _LOOK_SECONDS)

    def forget(self) -> None:
        """Somebody else may have been the leader: trust nothing that was remembered."""
        self._evaluated = None
        self._loaded_version = -1

    def run_once(self, now: int) -> bool:
        """Whether there was anything to do. Database errors pass through, with nothing committed."""
        self._ran_at, self._ran_clock = now, time.monotonic()
        try:
            self._look()
            return self._run(now)
        except Superseded:
            log.info("evaluator: another one was faster")
            self.forget()
            return True
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        self.forget()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._config.database_url, autocommit=True, connect_timeout=5, application_name="modelmeter evaluator"
            )
        return self._connection

    def _look(self) -> None:
        """The rules as they are now; shown to all processes when they have changed."""
        if time.monotonic() - self._looked_at >= _LOOK_SECONDS or self._loaded_version != self._book.version:
            self._looked_at = time.monotonic()
            self._book.look()
            rows = self._connect().execute(SQL["stored_groups"]).fetchall()
            self._book.put_stored([(str(name), str(content)) for name, content, _, _ in rows])
        if self._loaded_version != self._book.version:
            documents = [
                document_of(group, position, group.interval or self._interval)
                for position, group in enumerate(self._book.groups)
            ]
            put_loaded(self._connect(), documents)
            telemetry.RULES.set(sum(len(group.queries) for group in self._book.groups))
            self._loaded_version = self._book.version

    def _run(self, now: int) -> bool:
        if self._evaluated is None:
            self._evaluated = read_evaluations(self._connect())
        groups = {group.name: group for group in self._book.groups if group.queries}
        for name in [name for name in self._evaluated if name not in groups]:
            self._end(name, self._evaluated.pop(name), now)
        times: dict[int, list[Group]] = {}
        for group in groups.values():
            for at in self._due(group, now):
                times.setdefault(at, []).append(group)
        for at in sorted(times)[:_ROUNDS_AT_ONCE]:
            self._evaluate(at, times[at])
            telemetry.EVALUATION_LAG_SECONDS.set(max(now - at, 0) / SECOND)
        return bool(times)

    def _width(self, group: Group) -> int:
        return group.interval or self._interval

    def _next(self, group: Group, now: int) -> int:
        """When it is due next."""
        width = self._width(group)
        was = (self._evaluated or {}).get(group.name)
        if was is None or was > now + _BACK_STEP_SECONDS * SECOND:
            return floor(now, width)
        return floor(was, width) + width

    def _due(self, group: Group, now: int) -> list[int]:
        """The times that are to be evaluated, ascending; those too long ago are given up."""
        width = self._width(group)
        last, first = floor(now, width), self._next(group, now)
        earliest = last - round(self._config.catch_up_limit_seconds * SECOND) // width * width
        if first < earliest:
            missed = (earliest - first) // width
            telemetry.EVALUATIONS_MISSED.inc(missed)
            log.warning(
                "evaluator: group %s: %d windows were missed and are too old to make up for", group.name, missed
            )
            first = earliest
        return list(range(first, last + 1, width))

    def _end(self, name: str, evaluated_at: int, now: int) -> None:
        """A group whose rules are gone: its alerts end."""
        alerts = read_alerts(self._connect(), [name])
        ended = [(key, removed(one, Reason.RULE_REMOVED, now)) for key, some in alerts.items() for one in some.values()]
        commit_end(self._connect(), name, evaluated_at, Round(now, {}, transitions=ended))
        self._standing.pop(name, None)
        self._count(ended)

    def _evaluate(self, at: int, groups: Sequence[Group]) -> None:
        began = time.monotonic()
        round_ = self._judge(at, groups)
        if not round_.read:
            return
        assert self._evaluated is not None
        try:
            commit_round(self._connect(), round_)
        except psycopg.errors.UniqueViolation:
            # The clock was set back far, and these alerts have changed at this very time before.
            log.warning("evaluator: the history has this window already; it is left as it is")
            telemetry.EVALUATIONS_MISSED.inc(len(round_.read))
            commit_round(self._connect(), Round(at, round_.read))
        else:
            self._count(round_.transitions)
        self._evaluated |= dict.fromkeys(round_.read, at)
        telemetry.EVALUATION_SECONDS.observe(time.monotonic() - began)

    def _count(self, transitions: Sequence[tuple[RuleKey, Transition]]) -> None:
        for _, one in transitions:
            telemetry.ALERT_TRANSITIONS.labels(one.after).inc()
        standing = sum(self._standing.values(), Counter[str]())
        for state in ("pending", "firing"):
            telemetry.ALERTS.labels(state).set(standing[state])

    def _judge(self, at: int, groups: Sequence[Group]) -> Round:
        """All that is found in one snapshot."""
        with self._reader.snapshot() as connection:
            evaluated = read_evaluations(connection)
            remembered = self._evaluated or {}
            if any(evaluated.get(group.name) != remembered.get(group.name) for group in groups):
                raise Superseded
            round_ = Round(at, {group.name: evaluated.get(group.name) for group in groups})
            alerts = read_alerts(connection, [group.name for group in groups])
            reads = RuleReads(self._config, connection, self._catalog)
            reads.expect([rule for group in groups for rule in group.queries])
            recordings = [
                (group.name, at - group.query_offset, self._judge_group(group, reads, alerts, round_))
                for group in groups
            ]
        for name, its_at, samples in recordings:
            # Durable before the round commits; evaluated again, it has the same id and counts once.
            self._recorder.write(name, its_at, samples)
        return round_

    def _judge_group(
        self, group: Group, reads: RuleReads, alerts: Mapping[RuleKey, Mapping[Labels, Alert]], round_: Round
    ) -> list[tuple[Labels, float]]:
        """What is found goes into the round; the samples of recording rules come back."""
        began = time.perf_counter()
        recorded = RecordedSource(reads.shared)
        view = reads.view(round_.at, group.query_offset, recorded)
        seconds: list[float] = []
        errors: list[str] = []
        samples: list[tuple[Labels, float]] = []
        standing: Counter[str] = Counter()
        for rule in group.queries:
            rule_began = time.perf_counter()
            error = ""
            try:
                if isinstance(rule, AlertRule):
                    key = (group.name, rule.key)
                    before = alerts.get(key, {})
                    outcome = judge(reads.expanded(rule), before, view, group.limit)
                    _keep(round_, key, before, outcome)
                    standing.update(alert.state.name for alert in outcome.alerts.values())
                else:
                    found = as_stored(record(rule, view, group.limit))
                    recorded.add(found, view.at())
                    samples += found
            except (ModelmeterError, ValueError) as problem:
                error = getattr(problem, "detail", str(problem))
            self._say(group, rule, error)
            seconds.append(time.perf_counter() - rule_began)
            errors.append(error)
        known = {(group.name, rule.key) for rule in group.alerts}
        for key, some in alerts.items():
            if key[0] == group.name and key not in known:
                gone = [(key, removed(one, Reason.RULE_REMOVED, round_.at)) for one in some.values()]
                round_.transitions += gone
        self._standing[group.name] = standing
        telemetry.EVALUATIONS.inc(len(seconds))
        round_.reports.append(Report(group.name, time.perf_counter() - began, seconds, errors))
        return samples

    def _say(self, group: Group, rule: Rule, error: str) -> None:
        """The same again is only counted."""
        key = (group.name, rule.key if isinstance(rule, AlertRule) else rule.name)
        if error:
            telemetry.EVALUATION_FAILURES.inc()
            if self._said.get(key) != error:
                log.warning("evaluator: group %s, rule %s: %s", group.name, rule.name, error)
            self._said[key] = error
        elif key in self._said:
            del self._said[key]
            log.info("evaluator: group %s, rule %s: works again", group.name, rule.name)


def _keep(round_: Round, key: RuleKey, before: Mapping[Labels, Alert], outcome: Outcome) -> None:
    """What of an outcome is to be written: alerts that are not as they were, and transitions."""
    round_.alerts += [(key, alert) for labels, alert in outcome.alerts.items() if before.get(labels) != alert]
    round_.transitions += [(key, one) for one in outcome.transitions]
