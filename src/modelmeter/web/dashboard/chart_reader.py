"""What a model's page draws, out of one snapshot: lines, heatmaps, volume, and when alerts fired."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelmeter import rollup
from modelmeter.batch import Labels
from modelmeter.errors import NotFound
from modelmeter.fold import Connection, fold_raw
from modelmeter.matcher import Matcher
from modelmeter.reader import Reader
from modelmeter.rollup import EVENTS, Rollups
from modelmeter.series import Catalog
from modelmeter.store.sql import load
from modelmeter.web.dashboard import chart
from modelmeter.web.dashboard.chart import Grid, Heat, Lines
from modelmeter.web.dashboard.overview import Places, natural
from modelmeter.web.dashboard.reader import read_windows
from modelmeter.window import DAY, HOUR, LATEST, MINUTE, SECOND, Span, ceil, floor, to_datetime, to_micros

SQL = load("dashboard.sql")
SERIES = load("series.sql")

BAND = (0.05, 0.95)
_STEPS = 360
_MOST_RAW = 4_000_000  # events; beyond it the next coarser resolution does
_WIDTHS = [
    *(s * SECOND for s in (1, 2, 5, 10, 20, 30)),
    *(m * MINUTE for m in (1, 2, 5, 10, 15, 30)),
    *(h * HOUR for h in (1, 2, 3, 6, 12)),
    *(d * DAY for d in (1, 2, 7, 14, 28)),
]
_BEFORE = 30 * DAY  # an alert that fires for longer than that is shown since then


@dataclass(frozen=True, slots=True)
class Period:
    """An alert that fired; `end` is None while it does. Microseconds."""

    rule: str
    labels: dict[str, str]
    start: int
    end: int | None
    reason: str
    value: float | None


@dataclass(frozen=True, slots=True)
class Charts:
    """`versions` is the order of the first axis of all lines. `focus` is the version of the heatmaps."""

    grid: Grid
    versions: list[str]
    focus: str
    events: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]"
    metrics: dict[str, tuple[Lines, Heat | None]]
    periods: list[Period]


def grid_of(span: Span, margin: float, least: int) -> Grid:
    """Steps for `span` and a share of it on both sides; none narrower than `least`."""
    length = span.end - span.start
    step = next(
        (width for width in _WIDTHS if width >= least and width * _STEPS >= length), ceil(-(-length // _STEPS), DAY)
    )
    more = int(length * margin)
    start = max(floor(span.start - more, step), 0)
    end = min(ceil(span.end + more, step), floor(LATEST, DAY))
    return Grid(start, step, max((end - start) // step, 1))


class ChartReader:
    """Safe to use from many threads."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._catalog = Catalog()

    def read(
        self, name: str, versions: Sequence[str], focus: str, span: Span, margin: float, matchers: Sequence[Matcher]
    ) -> Charts:
        """The versions named, or all (at most six, the last ones). NotFound for an unknown model."""
        with self._reader.snapshot() as connection:
            streams, metrics = self._catalog.refresh(connection)
            kept = self._streams(streams, name, matchers)
            known = sorted({version for version, _ in kept.values()}, key=natural)
            shown = [one for one in known if one in versions] or known[-6:]
            focus = focus if focus in shown else shown[-1] if shown else ""
            ids = sorted(one for one, (version, _) in kept.items() if version in shown)
            columns = [EVENTS, *sorted(metrics)]
            places = Places(
                np.array(ids, np.int64),
                np.array([shown.index(kept[one][0]) for one in ids], np.int64),
                np.array(columns, np.int64),
                len(shown),
            )
            grid, rows = _read(connection, ids, columns, span, margin)
            periods = read_periods(
                connection, Span(grid.start, grid.start + grid.step * grid.count), name, before=_BEFORE
            )
        found = chart.lines_and_heat(rows, places, grid, BAND, shown.index(focus)) if shown else {}
        return Charts(
            grid,
            shown,
            focus,
            chart.count_events(rows, places, grid),
            {metrics[metric]: one for metric, one in found.items()},
            [period for period in periods if period.labels.get("version", focus) in shown],
        )

    def periods(self, span: Span) -> list[Period]:
        """When alerts fired, of whatever model."""
        with self._reader.snapshot() as connection:
            return read_periods(connection, span, None, before=_BEFORE)

    @staticmethod
    def _streams(
        streams: dict[int, Labels], name: str, matchers: Sequence[Matcher]
    ) -> dict[int, tuple[str, dict[str, str]]]:
        found = {one: dict(labels) for one, labels in streams.items() if ("name", name) in labels}
        if not found:
            raise NotFound(f"there is no model {name!r}", what="model")
        kept = [*found]
        for matcher in matchers:
            mask = matcher.matches([found[one].get(matcher.name, "") for one in kept])
            kept = [one for one, keep in zip(kept, mask.tolist(), strict=True) if keep]
        return {one: (found[one]["version"], found[one]) for one in kept}


def _read(
    connection: Connection, streams: list[int], metrics: list[int], span: Span, margin: float
) -> tuple[Grid, Rollups]:
    """As fine as it is worth drawing, and as it is affordable."""
    grid = grid_of(span, margin, SECOND)
    whole = Span(grid.start, grid.start + grid.step * grid.count)
    if grid.step < HOUR:
        scope = {
            "streams": streams,
            "metrics": metrics,
            "start": to_datetime(whole.start),
            "end": to_datetime(whole.end),
            "day": to_datetime(floor(whole.start, DAY)),
        }
        query = SERIES["count_samples"] if grid.step < MINUTE else SERIES["count_slow_samples"]
        row = connection.execute(query, scope).fetchone()
        if row is not None and row[0] > _MOST_RAW:
            grid = grid_of(span, margin, MINUTE if grid.step < MINUTE else HOUR)
            whole = Span(grid.start, grid.start + grid.step * grid.count)
    if grid.step < MINUTE:
        parts = [
            fold_raw(connection, streams, None, whole, minutely=minutely, width=grid.step) for minutely in (False, True)
        ]
        return grid, rollup.concat(parts)
    width = DAY if grid.step % DAY == 0 else HOUR if grid.step % HOUR == 0 else MINUTE
    return grid, read_windows(connection, streams, None, whole, width, sketches=True)


def read_periods(connection: Connection, span: Span, name: str | None, before: int = 0) -> list[Period]:
    """When alerts fired, in order of their begin; those that began up to `before` earlier and still fired too."""
    scope = {"start": to_datetime(max(span.start - before, 0)), "end": to_datetime(span.end), "name": name}
    open_ones: dict[tuple[str, str, str], Period] = {}
    found: list[Period] = []
    for at, group, rule, fingerprint, labels, from_state, to_state, reason, value in connection.execute(
        SQL["transitions"], scope
    ):
        key, instant = (group, rule, fingerprint), to_micros(at)
        if to_state == "firing":
            open_ones[key] = Period(rule, labels, instant, None, reason, value)
        elif from_state == "firing" and key in open_ones:
            one = open_ones.pop(key)
            found.append(Period(one.rule, one.labels, one.start, instant, one.reason, one.value))
    found += open_ones.values()
    return sorted(
        (one for one in found if one.end is None or one.end > span.start), key=lambda one: (one.start, one.rule)
    )
