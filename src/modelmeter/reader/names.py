"""Which streams and metrics a question means. What is unknown is a NotFound that names the nearest."""

import difflib
import json
from collections.abc import Sequence
from typing import Any, TypeAlias

import psycopg

from modelmeter import rollup
from modelmeter.batch import Labels, Refused, check_text
from modelmeter.errors import NotFound
from modelmeter.matcher import Matcher
from modelmeter.store.sql import load

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SQL = load("read.sql")
_MODEL = "model"


def can_be_stored(*texts: str) -> bool:
    """Whether Postgres can hold these; what it cannot hold, nothing is named."""
    try:
        for text in texts:
            check_text("", text)
    except Refused:
        return False
    return True


def no_model(connection: Connection, name: str, version: str | None) -> NotFound:
    names = [row[0] for row in connection.execute(SQL["model_names"])]
    if name in names and version is not None:
        versions = [row[0] for row in connection.execute(SQL["versions"], (name,))]
        near = difflib.get_close_matches(version, versions, n=3, cutoff=0) or sorted(versions)[:3]
        return NotFound(f"{name} has no version {version!r}; there is {', '.join(near)}", nearest=near, what="version")
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3)
    hint = f"; the nearest are {', '.join(near)}" if near else ("" if names else "; no event has come yet")
    return NotFound(f"there is no model {name!r}{hint}", nearest=near, what=_MODEL)


def find_streams(
    connection: Connection,
    name: str | None,
    version: str | None,
    labels: dict[str, str],
    matchers: Sequence[Matcher] = (),
) -> dict[int, Labels]:
    """The streams of a model (of all, when `name` is None) with these labels, by id. NotFound for an unknown model."""
    if name is not None and not can_be_stored(name, version or ""):
        raise no_model(connection, name, version)
    if not can_be_stored(*labels, *labels.values()):
        return {}
    scope = {"name": name, "version": version, "labels": json.dumps(labels)}
    found = {
        stream: tuple(sorted(its_labels.items()))
        for stream, _, its_labels in connection.execute(SQL["streams"], scope, prepare=True)
    }
    if (
        not found
        and name is not None
        and not (labels and connection.execute(SQL["streams"], scope | {"labels": "{}"}).fetchone() is not None)
    ):
        raise no_model(connection, name, version)
    for matcher in matchers:
        values = [dict(its_labels).get(matcher.name, "") for its_labels in found.values()]
        kept = matcher.matches(values).tolist()
        found = {stream: its_labels for (stream, its_labels), keep in zip(found.items(), kept, strict=True) if keep}
    return found


class MetricNames:
    """The names of metrics by id, remembered. Safe for many threads."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def all(self, connection: Connection) -> dict[int, str]:
        self._learn(connection)
        return self._names

    def of(self, connection: Connection, metrics: Sequence[int]) -> dict[int, str]:
        """At least those of `metrics`."""
        if any(metric != rollup.EVENTS and metric not in self._names for metric in metrics):
            self._learn(connection)
        return self._names

    def find(self, connection: Connection, metric: str) -> int:
        """NotFound when no event ever had it."""
        for _ in range(2):
            for metric_id, name in [*self._names.items()]:
                if name == metric:
                    return metric_id
            self._learn(connection)
        near = difflib.get_close_matches(metric, [*self._names.values()], n=3, cutoff=0.3)
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        raise NotFound(f"there is no metric {metric!r}{hint}", nearest=near, what="metric")

    def _learn(self, connection: Connection) -> None:
        # Only ever more: another thread's snapshot may be older than what this one counts on.
        self._names.update(connection.execute(SQL["metrics"]).fetchall())
