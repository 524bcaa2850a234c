"""Alerts of events in Postgres: rows for the dispatcher, in the transaction of the worker that stores the events."""

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import psycopg

from modelmeter.batch import fingerprint
from modelmeter.event_alert import REASON, EventAlert
from modelmeter.store.sql import load
from modelmeter.window import to_rfc3339

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SQL = load("event_alerts.sql")


def write_event_alerts(connection: Connection, alerts: Sequence[EventAlert], most: int) -> int:
    """The first of them that fit while at most `most` notifications wait; how many these are."""
    rows = [
        {
            "fingerprint": str(uuid.UUID(bytes=fingerprint(one.labels))),
            "labels": _storable(dict(one.labels)),
            "annotations": _storable(one.annotations),
            "value": repr(one.value).replace("inf", "Infinity") if math.isinf(one.value) else one.value,
            "starts_at": to_rfc3339(one.starts_at),
        }
        for one in alerts
    ]
    parameters = {"alerts": json.dumps(rows), "reason": REASON, "most": most}
    return connection.execute(SQL["write_event_alerts"], parameters).rowcount


def _storable(texts: Mapping[str, str]) -> dict[str, str]:
    """Without what Postgres' jsonb cannot hold."""
    return {name: text.replace("\0", "\ufffd").encode(errors="replace").decode() for name, text in texts.items()}
