"""Lines, bands and heatmaps over time out of rollups. Pure arithmetic on arrays; steps of time are the last axis."""

import base64
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelmeter import packed, sketch
from modelmeter.distance import value_of
from modelmeter.rollup import Rollups
from modelmeter.web.dashboard.overview import Places, add_up

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HEAT_ROWS = 40
_HEAT_TOP = 0.98  # of the cells are below the strongest colour: a lonely event is all of its step
_HEAT_TAIL = 0.002  # of all values may lie above and below what a heatmap shows
_HALF_BIN = float(np.sqrt(sketch.BASE))


@dataclass(frozen=True, slots=True)
class Lines:
    """One metric: shape (versions, steps) each; NaN where nothing came."""

    count: Ints
    mean: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True)
class Heat:
    """How the values of one version were spread: `shares` (steps, rows) of 0 to 255, `edges` (rows + 1) ascending.

    255 is a share of `top` of a step's events in one row, or more.
    """

    edges: Floats
    shares: NDArray[np.uint8]
    top: float

    def packed(self) -> str:
        return base64.b64encode(self.shares.tobytes()).decode()


@dataclass(frozen=True, slots=True)
class Grid:
    """Steps of time: `count` of them, `step` microseconds wide, from `start` on."""

    start: int
    step: int
    count: int


def _cells(rollups: Rollups, places: Places, grid: Grid) -> tuple[Ints, Ints, NDArray[np.intp]]:
    """Metric column, and version by step, of the partials on the grid."""
    row, column, kept = places.find(rollups)
    at = (rollups.window[kept] - grid.start) // grid.step
    inside = (at >= 0) & (at < grid.count)
    return column[inside], row[inside] * grid.count + at[inside], kept[inside]


def count_events(rollups: Rollups, places: Places, grid: Grid) -> Ints:
    """Of the first metric, shape (versions, steps)."""
    column, cell, kept = _cells(rollups, places, grid)
    mine = column == 0
    counts = add_up(cell[mine], rollups.count[kept[mine]], places.row_count * grid.count)
    return counts.astype(np.int64).reshape(places.row_count, grid.count)


def lines_and_heat(
    rollups: Rollups, places: Places, grid: Grid, quantiles: tuple[float, float], focus: int
) -> dict[int, tuple[Lines, Heat | None]]:
    """By metric id: the lines of all versions, and the heatmap of the version in row `focus`."""
    column, cell, kept = _cells(rollups, places, grid)
    found = {}
    for place, metric in enumerate(places.metric_ids.tolist()):
        mine = column == place
        if place == 0 or not mine.any():
            continue
        found[metric] = _of_metric(rollups, kept[mine], cell[mine], places.row_count, grid, quantiles, focus)
    return found


def _of_metric(
    rollups: Rollups,
    kept: NDArray[np.intp],
    cell: Ints,
    versions: int,
    grid: Grid,
    quantiles: tuple[float, float],
    focus: int,
) -> tuple[Lines, Heat | None]:
    shape = (versions, grid.count)
    cells = versions * grid.count
    count = add_up(cell, rollups.count[kept], cells)
    least, most = np.full(cells, np.inf), np.full(cells, -np.inf)
    np.minimum.at(least, cell, rollups.min[kept])
    np.maximum.at(most, cell, rollups.max[kept])
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = add_up(cell, rollups.sum[kept], cells) / count
    owner, bins, counts = packed.decode_many(packed.take(rollups.sketch, kept))
    used, number = np.unique(bins, return_inverse=True)
    table = add_up(cell[owner] * used.size + number, counts, cells * used.size).reshape(cells, used.size)
    values = value_of(used)
    low, high = (_quantile(table, values, q, least, most) for q in quantiles)
    lines = Lines(count.astype(np.int64).reshape(shape), *(part.reshape(shape) for part in (mean, low, high)))
    return lines, _heat(table.reshape(*shape, used.size)[focus], used)


def _quantile(table: Floats, values: Floats, q: float, least: Floats, most: Floats) -> Floats:
    """As sketch.quantiles, for all cells at once; NaN where a cell is empty."""
    cumulative = np.cumsum(table, axis=1)
    total = cumulative[:, -1] if values.size else np.zeros(len(table))
    rank = q * np.maximum(total - 1, 0)
    below = np.floor(rank)

    def at(position: Floats) -> Floats:
        place = np.minimum((cumulative <= position[:, None]).sum(axis=1), values.size - 1)
        bounded: Floats = np.clip(values[place], least, most)
        bounded = np.where(position <= 0, least, bounded)
        return np.where(position >= total - 1, most, bounded)

    with np.errstate(invalid="ignore"):
        left, right = at(below), at(np.minimum(below + 1, np.maximum(total - 1, 0)))
        return np.where(total > 0, left + np.where(left == right, 0.0, right - left) * (rank - below), np.nan)


def _heat(table: Floats, bins: Ints) -> Heat | None:
    """Rows are bins, several together when there are many; the tails beyond 0.2 % are the outermost rows' no more."""
    by_bin = table.sum(axis=0)
    total = by_bin.sum()
    if not total:
        return None
    order = np.argsort(bins)
    share = np.cumsum(by_bin[order]) / total
    first = int(np.searchsorted(share, _HEAT_TAIL, side="right"))
    last = min(int(np.searchsorted(share, 1 - _HEAT_TAIL, side="left")), bins.size - 1)
    low, high = int(bins[order[min(first, last)]]), int(bins[order[last]])
    if np.sign(low) != np.sign(high) or low == 0:
        return _even_heat(table, bins, low, high)
    together = -(-(high - low + 1) // _HEAT_ROWS)
    rows = -(-(high - low + 1) // together)
    inside = (bins >= low) & (bins <= high)
    row = (bins[inside] - low) // together
    shown = _by_row(table[:, inside], row, rows)
    starts = np.minimum(low + np.arange(rows + 1) * together, high + 1)
    return _shares(table, shown, np.concatenate((_lower_edges(starts[:-1]), _upper_edge(np.array([high])))))


def _lower_edges(bins: Ints) -> Floats:
    """Where signed bins begin: a bin's value stands in the middle, up to the sketch's error."""
    values = value_of(bins)
    return np.where(values > 0, values / _HALF_BIN, values * _HALF_BIN)


def _upper_edge(bins: Ints) -> Floats:
    values = value_of(bins)
    return np.where(values > 0, values * _HALF_BIN, values / _HALF_BIN)


def _even_heat(table: Floats, bins: Ints, low: int, high: int) -> Heat:
    """Across zero bins grow ever smaller: rows of one height instead."""
    values = value_of(bins)
    edges = np.linspace(
        float(_lower_edges(np.array([low]))[0]), float(_upper_edge(np.array([high]))[0]), _HEAT_ROWS + 1
    )
    if edges[0] == edges[-1]:
        edges = np.array([edges[0] - 0.5, edges[0] + 0.5])
    row = np.searchsorted(edges, values, side="right") - 1
    inside = (row >= 0) & (row < edges.size - 1)
    shown = _by_row(table[:, inside], row[inside], edges.size - 1)
    return _shares(table, shown, edges)


def _by_row(table: Floats, row: Ints, rows: int) -> Floats:
    steps = len(table)
    cells = np.arange(steps)[:, None] * rows + row
    return add_up(cells.ravel(), table.ravel(), steps * rows).reshape(steps, rows)


def _shares(table: Floats, shown: Floats, edges: Floats) -> Heat:
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.nan_to_num(shown / table.sum(axis=1, keepdims=True))
    top = float(np.quantile(share[share > 0], _HEAT_TOP)) if share.any() else 1.0
    scaled = np.ceil(np.minimum(share / top, 1) * 255)
    return Heat(edges, scaled.astype(np.uint8), top)


def plain(values: Floats, digits: int = 6) -> list[float | None]:
    """For JSON: so many digits, null for what is no number."""
    known = np.isfinite(values).tolist()
    return [
        float(f"{value:.{digits}g}") if is_known else None
        for value, is_known in zip(values.tolist(), known, strict=True)
    ]
