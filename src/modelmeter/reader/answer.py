"""The stats of many groups and windows, as columns; a page of them."""

import base64
import binascii
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from modelmeter import packed, rollup
from modelmeter.bins import count_bins, quantiles
from modelmeter.errors import Malformed
from modelmeter.rollup import Rollups

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Group = tuple[str, ...]
"""The values of the labels that were asked for with `by`; "" where there is none."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The stats of one metric in one group and window each, shape (n,), sorted by `row`, then metric.

    `row` is the row of the answer, `metric` a place in its `metrics`. Mean and deviation beyond float64 are not finite.
    """

    row: Ints
    metric: Ints
    count: Ints
    mean: Floats
    stddev: Floats
    min: Floats
    max: Floats
    last: Floats
    quantiles: Floats

    def at(self, chosen: slice) -> "Cells":
        return Cells(**{one.name: getattr(self, one.name)[chosen] for one in fields(self)})


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of (group, window), sorted, those with events; shape (rows,). `resolution` is the coarsest that was read.

    `widened`: where finer data is retired, the ends of the span stand for whole windows of so many microseconds; or 0.
    """

    groups: list[Group]
    group: Ints
    window: Ints
    events: Ints
    metrics: list[str]
    cells: Cells
    resolution: str
    widened: int = 0

    def __len__(self) -> int:
        return self.group.size


_NONE = np.zeros(0, np.int64)
_NO_FLOATS = np.zeros(0)


def make_answer(
    rows: Rollups,
    groups: list[Group],
    names: dict[int, str],
    qs: Sequence[float],
    resolution: str,
    exact: dict[tuple[int, int, int], Floats] | None = None,
) -> Answer:
    """Of partials whose `stream` is the number of a group (in order) and whose windows are those of the answer.

    `exact` has the quantiles by (group, metric id, window) when they come from raw values.
    """
    if not len(rows):
        nothing = Cells(
            _NONE, _NONE, _NONE, _NO_FLOATS, _NO_FLOATS, _NO_FLOATS, _NO_FLOATS, _NO_FLOATS, np.zeros((0, len(qs)))
        )
        return Answer(groups, _NONE, _NONE, _NONE, [], nothing, resolution)
    metric_ids = np.unique(rows.metric[rows.metric != rollup.EVENTS])
    ordered = sorted(metric_ids.tolist(), key=lambda one: names[one])
    number = np.zeros(int(rows.metric.max()) + 1, np.int64)  # of each metric id, from 1; EVENTS is 0
    number[ordered] = np.arange(len(ordered)) + 1
    # Windows and metrics as numbers, so that one key sorts by group, window and metric.
    windows, window = np.unique(rows.window, return_inverse=True)
    key = (rows.stream.astype(np.int64) * windows.size + window) * (len(ordered) + 1) + number[rows.metric]
    keys, cell = np.unique(key, return_inverse=True)
    merged = rollup.merge(
        replace(rows, stream=cell.astype(np.int32), sketch=packed.blank(len(rows))), by_window=False
    )  # in the order of the keys
    place, metric = np.divmod(keys, len(ordered) + 1)
    is_row = metric == 0
    row_keys = place[is_row]
    of_metric = np.flatnonzero(~is_row)
    low, high, count = merged.min[of_metric], merged.max[of_metric], merged.count[of_metric]
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.clip(merged.sum[of_metric] / count, low, high)  # rounding may have carried it an ulp outside
        mean = np.where(np.isfinite(merged.sum[of_metric]), mean, np.nan)
        stddev = np.sqrt(merged.deviation[of_metric] / count)
    if exact is not None:
        at = zip(place[of_metric].tolist(), metric[of_metric].tolist(), strict=True)
        found = [
            exact[row // windows.size, ordered[its_metric - 1], int(windows[row % windows.size])]
            for row, its_metric in at
        ]
        its_quantiles = np.array(found).reshape(len(found), len(qs))
    elif qs:
        new = np.cumsum(~is_row) - 1  # the number of each cell among those of metrics
        mine = np.flatnonzero(rows.metric != rollup.EVENTS)
        its_bins = count_bins(packed.take(rows.sketch, mine), new[cell[mine]])
        its_quantiles = quantiles(its_bins, qs, low, high)
    else:
        its_quantiles = np.zeros((of_metric.size, 0))
    cells = Cells(
        np.searchsorted(row_keys, place[of_metric]),
        metric[of_metric] - 1,
        count,
        mean,
        stddev,
        low,
        high,
        merged.last[of_metric],
        its_quantiles,
    )
    return Answer(
        groups,
        row_keys // windows.size,
        windows[row_keys % windows.size],
        merged.count[is_row],
        [names[one] for one in ordered],
        cells,
        resolution,
    )


def take_page(answer: Answer, cursor: str | None, limit: int | None) -> tuple[Answer, str | None]:
    """The rows after `cursor`, at most `limit`; and the cursor of the next page, None when this is the last.

    A cursor names the row that the page before ended with, so rows that come in between are neither lost nor doubled.
    """
    first = 0 if cursor is None else _place_after(answer, *_decode_cursor(cursor))
    end = len(answer) if limit is None else min(first + limit, len(answer))
    if first == 0 and end == len(answer):
        return answer, None
    rows = slice(first, end)
    chosen = slice(*np.searchsorted(answer.cells.row, [first, end]).tolist())
    cells = answer.cells.at(chosen)
    page = replace(
        answer,
        group=answer.group[rows],
        window=answer.window[rows],
        events=answer.events[rows],
        cells=replace(cells, row=cells.row - first),
    )
    more = end < len(answer) and end > first
    return page, _encode_cursor(answer.groups[int(page.group[-1])], int(page.window[-1])) if more else None


def _place_after(answer: Answer, group: Group, window: int) -> int:
    number = bisect_left(answer.groups, group)
    begin = int(np.searchsorted(answer.group, number))
    if number == len(answer.groups) or answer.groups[number] != group:
        return begin
    end = int(np.searchsorted(answer.group, number, side="right"))
    return begin + int(np.searchsorted(answer.window[begin:end], window, side="right"))


def _encode_cursor(group: Group, window: int) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((group, window))).decode().rstrip("=")


def _decode_cursor(text: str) -> tuple[Group, int]:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(data, type=tuple[tuple[str, ...], int])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise Malformed("cursor: is none; send the `next` of the page before as it came", field="cursor") from None
