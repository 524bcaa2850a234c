"""What there is to say of rules and alerts: those in use, those that are pending or firing, and what they have been."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from modelmeter.alert import Reason
from modelmeter.config import Config
from modelmeter.errors import Busy, CallerError, NotFound, Unavailable
from modelmeter.judge import removed
from modelmeter.matcher import Matcher
from modelmeter.reader import Reader
from modelmeter.rule import parse_group
from modelmeter.rule.file import WrongRules
from modelmeter.store.alerts import SQL, Round, commit_dismissal, read_alerts, read_clock
from modelmeter.window import Span, to_datetime, to_micros

_PAGE = 1000
_SCAN_LIMIT = 200_000


class BadRules(CallerError):
    """Rules in a request that cannot be used; `line` counts from 1."""

    title = "Bad rules"


class Conflict(CallerError):
    status = 409
    title = "Conflict"


@dataclass(frozen=True, slots=True)
class LoadedGroup:
    """A group in use. `rules` are documents of `rule_document`; instants in microseconds."""

    name: str
    origin: str
    interval_seconds: float
    limit: int
    rules: Sequence[Mapping[str, Any]]
    evaluated_at: int | None
    seconds: float
    rule_seconds: Sequence[float]
    rule_errors: Sequence[str]


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """One that is pending or firing; instants in microseconds, `value` None without data."""

    group: str
    rule: str
    fingerprint: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    state: str
    value: float | None
    reason: str
    active_at: int
    fired_at: int | None
    kept_since_at: int | None
    evaluated_at: int


@dataclass(frozen=True, slots=True)
class PastTransition:
    """A line of the history."""

    transition_id: int
    at: int
    group: str
    rule: str
    fingerprint: str
    labels: Mapping[str, str]
    before: str
    after: str
    reason: str
    value: float | None


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A group that came over HTTP, as it came."""

    name: str
    content: str
    updated_at: int
    updated_by: str


def matches(selectors: Sequence[Sequence[Matcher]], labels: Mapping[str, str]) -> bool:
    """Whether one of the selectors matches; no selector matches all."""
    return not selectors or any(
        all(bool(matcher.matches([labels.get(matcher.name, "")])[0]) for matcher in selector) for selector in selectors
    )


def _micros(instant: datetime | None) -> int | None:
    return None if instant is None else to_micros(instant)


class AlertReader:
    """Safe to use from many threads."""

    def __init__(self, config: Config, reader: Reader) -> None:
        self._config = config
        self._reader = reader

    def groups(self) -> list[LoadedGroup]:
        with self._reader.snapshot() as connection:
            rows = connection.execute(SQL["loaded"]).fetchall()
        return [
            LoadedGroup(name, origin, interval, limit, rules, _micros(at), seconds or 0.0, its_seconds, its_errors)
            for name, origin, interval, limit, rules, at, seconds, its_seconds, its_errors in rows
        ]

    def alerts(self, selectors: Sequence[Sequence[Matcher]] = ()) -> list[ActiveAlert]:
        with self._reader.snapshot() as connection:
            rows = connection.execute(SQL["alerts"]).fetchall()
        return [
            ActiveAlert(
                group, rule, str(fingerprint), labels, annotations, state, value, reason,
                to_micros(active), _micros(fired), _micros(kept), to_micros(evaluated),
            )
            for group, rule, fingerprint, labels, annotations, state, value, reason, active, fired, kept, evaluated
            in rows
            if matches(selectors, labels)
        ]  # fmt: skip

    def history(
        self,
        span: Span,
        limit: int,
        *,
        selectors: Sequence[Sequence[Matcher]] = (),
        group: str | None = None,
        rule: str | None = None,
        state: str | None = None,
        before: tuple[int, int] | None = None,
    ) -> tuple[list[PastTransition], tuple[int, int] | None]:
        """Newest first, and from where to go on (time and id), None at the end."""
        found: list[PastTransition] = []
        scope: dict[str, object] = {
            "start": to_datetime(span.start), "end": to_datetime(span.end),
            "rule": rule, "group": group, "state": state,
        }  # fmt: skip
        seen = 0
        with self._reader.snapshot() as connection:
            while len(found) < limit and seen < _SCAN_LIMIT:
                size = limit - len(found) if not selectors else _PAGE
                place = (None, None) if before is None else (to_datetime(before[0]), before[1])
                scope |= {"before_at": place[0], "before_id": place[1], "limit": size}
                rows = connection.execute(SQL["history"], scope).fetchall()
                for number, at, its_group, its_rule, fingerprint, labels, was, became, reason, value in rows:
                    seen += 1
                    before = (to_micros(at), number)
                    if matches(selectors, labels):
                        found.append(
                            PastTransition(
                                number,
                                before[0],
                                its_group,
                                its_rule,
                                str(fingerprint),
                                labels,
                                was,
                                became,
                                reason,
                                value,
                            )
                        )
                        if len(found) == limit:
                            return found, before
                if len(rows) < size:
                    return found, None
        return found, before

    def stored_groups(self) -> list[StoredGroup]:
        with self._reader.snapshot() as connection:
            rows = connection.execute(SQL["stored_groups"]).fetchall()
        return [StoredGroup(name, content, to_micros(at), by) for name, content, at, by in rows]

    def put_group(self, name: str, content: str, by: str) -> bool:
        """Keep a group; whether it is new. BadRules with the line, Conflict when a file has the name."""
        try:
            group = parse_group(content, f"group {name}")
        except WrongRules as error:
            raise BadRules(error.detail, line=error.extra["line"]) from None
        if group.name != name:
            raise BadRules(
                f"name: the group is called {group.name!r} and the path says {name!r}; make them the same", field="name"
            )
        if group.events:
            raise BadRules(
                f"event: {group.events[0].name}: event rules are read from files by the workers; put it there"
            )
        if "\0" in content:
            raise BadRules("the character NUL cannot be stored; remove it")
        with self._connect() as connection, connection.transaction():
            row = connection.execute(SQL["origin_of"], (name,)).fetchone()
            if row is not None and row[0]:
                raise Conflict(
                    f"the group {name!r} stands in the file {row[0]}; change it there, or choose another name"
                )
            made = connection.execute(SQL["put_group"], {"name": name, "content": content, "by": by}).fetchone()
            count = connection.execute(SQL["count_groups"]).fetchone()
            if count is not None and count[0] > self._config.rule_group_limit:
                raise Busy(
                    f"there are {self._config.rule_group_limit} groups (MODELMETER_RULE_GROUP_LIMIT); delete one first",
                    60,
                )
        return made is not None and bool(made[0])

    def drop_group(self, name: str) -> None:
        """Delete a group; its alerts end. NotFound when there is none that came over HTTP."""
        with self._connect() as connection:
            if connection.execute(SQL["drop_group"], (name,)).fetchone() is None:
                raise NotFound(f"there is no group {name!r} that came over HTTP", what="group")

    def dismiss(self, fingerprint: str) -> int:
        """End the alerts with this fingerprint, of whatever rule, until the rule finds them again; how many."""
        found = [alert for alert in self.alerts() if alert.fingerprint == fingerprint]
        ended = 0
        with self._connect() as connection:
            now = read_clock(connection)
            for group in sorted({alert.group for alert in found}):
                with connection.transaction():
                    round_ = Round(now, {})
                    for key, some in read_alerts(connection, [group]).items():
                        wanted = {tuple(sorted(one.labels.items())) for one in found if (one.group, one.rule) == key}
                        gone = [alert for labels, alert in some.items() if labels in wanted]
                        round_.transitions += [(key, removed(alert, Reason.DISMISSED, now)) for alert in gone]
                    commit_dismissal(connection, group, round_)
                    ended += len(round_.transitions)
        if not ended:
            raise NotFound(f"there is no alert {fingerprint!r} that is pending or firing", what="alert")
        return ended

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        try:
            return psycopg.connect(
                self._config.database_url, autocommit=True, connect_timeout=5, application_name="modelmeter rules"
            )
        except psycopg.OperationalError as error:
            raise Unavailable(f"the database is away: {str(error).strip().splitlines()[0]}") from error


def finite(value: float | None) -> float | None:
    """As JSON can carry it."""
    return value if value is not None and math.isfinite(value) else None
