"""What the overview shows: rows out of one snapshot, by rollups without their sketches in one pass, and alerts."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelmeter import rollup
from modelmeter.alert_reader import ActiveAlert, AlertReader
from modelmeter.batch import Labels
from modelmeter.fold import Connection, fold_raw
from modelmeter.matcher import Matcher
from modelmeter.reader import Reader
from modelmeter.rollup import EVENTS, Rollups
from modelmeter.series import Catalog
from modelmeter.store.rollups import read_rollups
from modelmeter.store.sql import load
from modelmeter.web.dashboard import overview
from modelmeter.web.dashboard.overview import Measured, Places, Row, Sums
from modelmeter.window import DAY, HOUR, MINUTE, Span, ceil, floor, to_micros

SQL = load("dashboard.sql")

_NAME, _VERSION = "name", "version"
_STEPS = 60
_TABLES = {
    DAY: ("rollup_1d", "rollup_partial_1h", "rollup_partial_1m"),
    HOUR: ("rollup_1h", "rollup_partial_1h", "rollup_partial_1m"),
    MINUTE: ("rollup_1m", "rollup_partial_1m"),
}
_WIDTHS = [*(m * MINUTE for m in (1, 2, 5, 10, 15, 30)), *(h * HOUR for h in (1, 2, 3, 4, 6, 12)), DAY]
_LABEL_VALUES = 30


@dataclass(frozen=True, slots=True)
class Overview:
    """All rows, and what there is to filter by. `recent` is what "now" means: at most the last 24 hours."""

    span: Span
    step: int
    recent: Span
    rows: list[Row]
    metrics: list[str]
    labels: dict[str, list[str]]
    alerts: list[ActiveAlert]
    models_known: int


@dataclass(frozen=True, slots=True)
class _Scope:
    """The streams that match, and the row of each: one for each name and version."""

    streams: list[int]
    row_of: dict[int, int]
    keys: list[tuple[str, str]]

    @staticmethod
    def make(streams: Mapping[int, Labels], matchers: Sequence[Matcher]) -> "_Scope":
        kept = sorted(streams)
        for matcher in matchers:
            mask = matcher.matches([dict(streams[one]).get(matcher.name, "") for one in kept])
            kept = [one for one, keep in zip(kept, mask.tolist(), strict=True) if keep]
        named = {one: (dict(streams[one])[_NAME], dict(streams[one])[_VERSION]) for one in kept}
        keys = sorted(set(named.values()))
        number = {key: row for row, key in enumerate(keys)}
        return _Scope(kept, {one: number[key] for one, key in named.items()}, keys)


def concerns(alert: ActiveAlert, name: str, version: str) -> bool:
    """An alert without a version is about all of them; one without a name is about no model."""
    return alert.labels.get(_NAME) == name and alert.labels.get(_VERSION, version) == version


def choose_step(length: int, width: int, steps: int) -> int:
    """The least usual step, a multiple of `width`, of which at most so many make `length`."""
    fitting = (step for step in _WIDTHS if step % width == 0 and step * steps >= length)
    return next(fitting, ceil(-(-length // steps), DAY))


def read_windows(
    connection: Connection, streams: list[int], metrics: list[int] | None, span: Span, width: int, *, sketches: bool
) -> Rollups:
    """Partials by windows of `width` (a minute, an hour, a day); `span` is aligned to it."""
    ranges = [(table, span.start, span.end) for table in _TABLES[width]]
    rows = read_rollups(connection, ranges, streams, metrics, needs=None if sketches else rollup.FIELDS)
    if width == MINUTE:  # slow streams have none of a minute
        raw = fold_raw(connection, streams, metrics, span, minutely=False, width=MINUTE)
        rows = rollup.concat([rows, raw])
    return rows


class OverviewReader:
    """Safe to use from many threads. `direction_of`: 1 for a metric of which more is better, -1 for less, else 0."""

    def __init__(self, reader: Reader, alerts: AlertReader, direction_of: Callable[[str], int]) -> None:
        self._reader = reader
        self._alerts = alerts
        self._catalog = Catalog()
        self._direction_of = direction_of

    def read(self, span: Span, matchers: Sequence[Matcher]) -> Overview:
        """Every version that matches, what got worse first."""
        with self._reader.snapshot() as connection:
            streams, metrics = self._catalog.refresh(connection)
            times = {one: (first, last) for one, first, last in connection.execute(SQL["stream_times"])}
            streams = {one: labels for one, labels in streams.items() if one in times}
            scope = _Scope.make(streams, matchers)
            measured, recent = self._measure(connection, scope, dict(sorted(metrics.items())), times, span)
        alerts = self._alerts.alerts()
        rows = overview.make_rows(measured, self._direction_of)
        for row in rows:
            row.states = [alert.state for alert in alerts if concerns(alert, row.name, row.version)]
        rows.sort(key=overview.rank)
        seen = Counter(metric for row in rows for metric in row.cells)
        by_use = sorted(seen, key=lambda metric: (-seen[metric], -self._direction_of(metric), metric))
        return Overview(
            span, measured.step, recent, rows, by_use, _label_values(streams.values()), alerts, len(streams)
        )

    @staticmethod
    def _measure(
        connection: Connection, scope: _Scope, metrics: dict[int, str], times: Mapping[int, Any], span: Span
    ) -> tuple[Measured, Span]:
        columns = [EVENTS, *metrics]
        stream_ids = np.array(scope.streams, np.int64)
        rows_of = np.array([scope.row_of[one] for one in scope.streams], np.int64)
        places = Places(stream_ids, rows_of, np.array(columns, np.int64), len(scope.keys))
        length = span.end - span.start
        fine = MINUTE if length <= 6 * HOUR else HOUR
        width = DAY if length > 8 * DAY else fine
        step = choose_step(length, width, _STEPS)
        whole = Span(floor(span.start, step), ceil(span.end, step))
        end = ceil(span.end, fine)
        recent = Span(max(end - DAY, floor(span.start, fine)), end)
        before = Span(recent.start - DAY, recent.end - DAY)

        def read(part: Span, its_width: int) -> Rollups:
            return read_windows(connection, scope.streams, None, part, its_width, sketches=False)

        trend_rows = read(whole, width)
        have_fine = width == fine
        recent_rows = _within(trend_rows, recent) if have_fine else read(recent, fine)
        have_before = have_fine and before.start >= whole.start
        before_rows = _within(trend_rows, before) if have_before else read(before, fine)
        now = overview.sum_up(recent_rows, places)

        first_at, last_at = [0] * len(scope.keys), [0] * len(scope.keys)
        newest = overview.newest(recent_rows, places), overview.newest(trend_rows, places)
        for one, row in scope.row_of.items():
            first, last = times[one]
            last_at[row] = max(last_at[row], to_micros(last) if last else 0, *(int(part[row]) for part in newest))
            began = to_micros(first) if first else last_at[row]
            first_at[row] = min(first_at[row], began) if first_at[row] else began
        older = _previous_rows(scope.keys, first_at)
        silent = {row for row, other in older.items() if not now.count[other, 0]}
        of_previous = places.moved(older)
        last_known = Sums(*(np.full(now.count.shape, fill) for fill in (0.0, np.nan, np.nan)))
        quiet = [one for one in scope.streams if scope.row_of[one] in {older[row] for row in silent}]
        if quiet:
            last_days = {row: floor(last_at[row], DAY) for row in {scope.row_of[one] for one in quiet}}
            wanted = Span(max(max(last_days.values()) - 30 * DAY, 0), max(last_days.values()) + DAY)
            found = read_windows(connection, quiet, None, wanted, DAY, sketches=False)
            found = rollup.coarsen(found, DAY)
            days = np.array([last_days[scope.row_of[one]] for one in found.stream.tolist()], np.int64)
            last_known = overview.sum_up(rollup.select(found, found.window == days), of_previous)
        alike = overview.sum_up_alike(recent_rows, recent_rows, places, 0, fine, of_previous)
        return (
            Measured(
                scope.keys,
                ["", *metrics.values()],
                overview.trend_of(trend_rows, places, whole.start, step, (whole.end - whole.start) // step),
                whole.start,
                step,
                now,
                overview.sum_up_alike(recent_rows, before_rows, places, DAY, fine),
                (
                    _merged(now, alike[0], silent),
                    _merged(last_known, alike[1], silent),
                ),
                older,
                last_at,
            ),
            recent,
        )


def _within(rollups: Rollups, span: Span) -> Rollups:
    return rollup.select(rollups, (rollups.window >= span.start) & (rollups.window < span.end))


def _previous_rows(keys: Sequence[tuple[str, str]], first_at: Sequence[int]) -> dict[int, int]:
    """The row of each version to that of the one before it."""
    number = {key: row for row, key in enumerate(keys)}
    by_name: dict[str, list[tuple[str, int]]] = {}
    for (name, version), at in zip(keys, first_at, strict=True):
        by_name.setdefault(name, []).append((version, at))
    return {
        number[name, version]: number[name, older]
        for name, versions in by_name.items()
        for version, older in overview.previous_versions(versions).items()
    }


def _merged(of_silent: Sums, of_others: Sums, silent: set[int]) -> Sums:
    """For the rows whose previous version is silent now the one, else the other."""
    rows = sorted(silent)
    merged = Sums(of_others.count.copy(), of_others.mean.copy(), of_others.deviation.copy())
    for field in ("count", "mean", "deviation"):
        getattr(merged, field)[rows] = getattr(of_silent, field)[rows]
    return merged


def _label_values(all_labels: Any) -> dict[str, list[str]]:
    """The label names beside name and version, and the commonest values of each."""
    seen: dict[str, Counter[str]] = {}
    for labels in all_labels:
        for name, value in labels:
            if name not in (_NAME, _VERSION):
                seen.setdefault(name, Counter())[value] += 1
    return {
        name: sorted(value for value, _ in counts.most_common(_LABEL_VALUES)) for name, counts in sorted(seen.items())
    }
