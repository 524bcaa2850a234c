"""Alerts in Postgres: their states, their history and what is to be told of it; until when groups are evaluated."""

import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import psycopg

from modelmeter.alert import Reason, State
from modelmeter.batch import fingerprint
from modelmeter.judge import Alert, Transition
from modelmeter.promql.labels import Labels, make_labels
from modelmeter.store.sql import load
from modelmeter.window import to_datetime, to_micros, to_rfc3339

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SQL = load("alerts.sql")

RuleKey = tuple[str, str]
"""A group's name and a rule's key in it."""


class Superseded(Exception):
    """Another evaluator has moved the groups: what was found here is dropped, and what it found holds."""


@dataclass(frozen=True, slots=True)
class Report:
    """How the evaluation of a group went; a time and an error (or an empty text) for each of its rules."""

    name: str
    seconds: float
    rule_seconds: Sequence[float]
    rule_errors: Sequence[str]


@dataclass(slots=True)
class Round:
    """What evaluating some groups at one time came to. `read`: until when each was evaluated, None for never."""

    at: int
    read: dict[str, int | None]
    alerts: list[tuple[RuleKey, Alert]] = field(default_factory=list)
    transitions: list[tuple[RuleKey, Transition]] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)


def read_clock(connection: Connection) -> int:
    """The database's time in microseconds: the one that all keepers agree on."""
    row = connection.execute(SQL["clock"]).fetchone()
    assert row is not None
    return to_micros(row[0])


def read_evaluations(connection: Connection) -> dict[str, int]:
    return {name: to_micros(at) for name, at in connection.execute(SQL["evaluations"])}


def read_alerts(connection: Connection, groups: Iterable[str]) -> dict[RuleKey, dict[Labels, Alert]]:
    """The alerts of these groups, by rule and labels."""
    found: dict[RuleKey, dict[Labels, Alert]] = {}
    for group, rule, labels, annotations, value, reason, active, fired, kept in connection.execute(
        SQL["alerts_of"], (list(groups),)
    ):
        state = State(to_micros(active), _micros(fired), _micros(kept))
        its_labels = make_labels(labels)
        alert = Alert(its_labels, annotations, state, math.nan if value is None else value, Reason(reason))
        found.setdefault((group, rule), {})[its_labels] = alert
    return found


def _micros(instant: datetime | None) -> int | None:
    return None if instant is None else to_micros(instant)


def commit_round(connection: Connection, round_: Round) -> None:
    """All of it in one transaction. Superseded when any of the groups is no longer where it was read."""
    at = to_datetime(round_.at)
    with connection.transaction():
        new = [name for name, was in round_.read.items() if was is None]
        moved = {name: to_datetime(was) for name, was in round_.read.items() if was is not None}
        begun = connection.execute(SQL["begin_groups"], {"at": at, "groups": new}).fetchall() if new else []
        scope = {"at": at, "groups": list(moved), "read": list(moved.values())}
        advanced = connection.execute(SQL["advance_groups"], scope).fetchall() if moved else []
        if len(begun) + len(advanced) != len(round_.read):
            raise Superseded
        _write(connection, round_)
        if round_.reports:
            scope = {"at": at, "reports": json.dumps([_report(one) for one in round_.reports])}
            connection.execute(SQL["report_groups"], scope)


def commit_end(connection: Connection, group: str, evaluated_at: int, round_: Round) -> None:
    """A group that is no longer there: its alerts end. Superseded as above."""
    with connection.transaction():
        if connection.execute(SQL["end_group"], (group, to_datetime(evaluated_at))).fetchone() is None:
            raise Superseded
        _write(connection, round_)


def commit_dismissal(connection: Connection, group: str, round_: Round) -> None:
    """Somebody has dismissed an alert. No evaluation of the group comes in between."""
    with connection.transaction():
        connection.execute(SQL["lock_group"], (group,))
        _write(connection, round_)


def _write(connection: Connection, round_: Round) -> None:
    at = to_datetime(round_.at)
    gone = [_key(key, one.alert.labels) for key, one in round_.transitions if one.after == "inactive"]
    if gone:
        connection.execute(SQL["drop_alerts"], (json.dumps(gone),))
    if round_.alerts:
        rows = [_alert(key, alert) for key, alert in round_.alerts]
        connection.execute(SQL["put_alerts"], {"at": at, "alerts": json.dumps(rows)})
    if round_.transitions:
        rows = [_transition(key, one) for key, one in round_.transitions]
        connection.execute(SQL["write_transitions"], {"at": at, "transitions": json.dumps(rows)})


def _key(key: RuleKey, labels: Labels) -> dict[str, object]:
    return {"group_name": key[0], "rule_name": key[1], "fingerprint": str(uuid.UUID(bytes=fingerprint(labels)))}


def _number(value: float) -> str | None:
    return None if math.isnan(value) else repr(value).replace("inf", "Infinity")


def _instant(micros: int | None) -> str | None:
    return None if micros is None else to_rfc3339(micros)


def _storable(texts: Mapping[str, str]) -> dict[str, str]:
    """Without what Postgres' jsonb cannot hold."""
    return {name: text.replace("\0", "\ufffd").encode(errors="replace").decode() for name, text in texts.items()}


def _alert(key: RuleKey, alert: Alert) -> dict[str, object]:
    return _key(key, alert.labels) | {
        "labels": dict(alert.labels),
        "annotations": _storable(alert.annotations),
        "state": alert.state.name,
        "value": _number(alert.value),
        "reason": alert.reason.value,
        "active_at": _instant(alert.state.active_at),
        "fired_at": _instant(alert.state.fired_at),
        "kept_since_at": _instant(alert.state.kept_since),
    }


def _transition(key: RuleKey, one: Transition) -> dict[str, object]:
    fired_at = one.alert.state.fired_at
    return _key(key, one.alert.labels) | {
        "labels": dict(one.alert.labels),
        "annotations": _storable(one.alert.annotations),
        "from_state": one.before,
        "to_state": one.after,
        "reason": one.reason.value,
        "value": _number(one.value),
        "starts_at": _instant(fired_at if fired_at is not None else one.at),
    }


def _report(one: Report) -> dict[str, object]:
    return {
        "name": one.name,
        "evaluation_seconds": one.seconds,
        "rule_seconds": list(one.rule_seconds),
        "rule_errors": [error.replace("\0", "") for error in one.rule_errors],
    }


def put_loaded(connection: Connection, groups: Sequence[Mapping[str, object]]) -> None:
    """What is in use now; every process can show it."""
    with connection.transaction():
        connection.execute(SQL["drop_loaded"], ([group["name"] for group in groups],))
        connection.execute(SQL["put_loaded"], (json.dumps(groups),))


def read_versions(connection: Connection) -> dict[str, list[str]]:
    """The versions of each model, in the order of their first events."""
    return dict(connection.execute(SQL["versions"]).fetchall())


def read_baselines(connection: Connection) -> list[tuple[str, str, int, int]]:
    """Name, selector, start and end of each; none before there is a table of them."""
    row = connection.execute("SELECT to_regclass('modelmeter.baseline') IS NOT NULL").fetchone()
    if row is None or not row[0]:
        return []
    rows = connection.execute(SQL["baselines"]).fetchall()
    return [(name, match, to_micros(start), to_micros(end)) for name, match, start, end in rows]
