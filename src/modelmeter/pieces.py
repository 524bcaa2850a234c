"""Windows of time cut into pieces that do not overlap, and which rollups to read for them.

Pieces lie end to end between ascending borders; every window `(end - range, end]` is a run of them. A rollup belongs to
a piece when its first and its last event do: so a window of a rollup that a border cuts is read all the same where
no event lies on the border's other side, and only what is really cut is read again, finer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelmeter.window import DAY, HOUR, MINUTE, Span, floor

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_FEW = 8  # so many windows that borders cut are tried whole; of more, finer ones are read at once
_SPANS = 64  # so many stretches of time are read one by one; of more, neighbours with what lies between


@dataclass(frozen=True, slots=True)
class Pieces:
    """Piece i is `[borders[i], borders[i + 1])`, microseconds; those that are not `wanted` lie in no window."""

    borders: Ints
    wanted: Mask

    def __len__(self) -> int:
        return self.wanted.size

    def of(self, instants: Ints) -> Ints:
        """The piece of each instant: -1 before the first, `len(self)` after the last."""
        return np.searchsorted(self.borders, instants, "right") - 1

    def wants(self, low: Ints, high: Ints) -> Mask:
        """Whether any piece from `low` to `high`, both included, is wanted; numbers as of `of`."""
        before = np.concatenate(([0, 0], np.cumsum(self.wanted), [0]))
        before[-1] = before[-2]
        found: Mask = before[high + 2] > before[low + 1]
        return found

    def spans(self) -> list[Span]:
        """What is wanted, in few stretches: where there are many, with the shortest gaps between them."""
        edges = np.flatnonzero(np.diff(self.wanted, prepend=False, append=False))
        starts, ends = self.borders[edges[::2]], self.borders[edges[1::2]]
        if starts.size > _SPANS:
            widest = np.sort(np.argsort(starts[1:] - ends[:-1])[-(_SPANS - 1) :])
            starts, ends = starts[np.append(0, widest + 1)], ends[np.append(widest, ends.size - 1)]
        return [Span(start, end) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def one_piece(span: Span) -> Pieces:
    return Pieces(np.array([span.start, span.end], np.int64), np.ones(1, np.bool_))


def cut_windows(starts: Ints, ends: Ints) -> tuple[Pieces, Ints, Ints]:
    """The pieces of windows `[starts, ends)`, and the run `[since, until)` of each; empty windows have an empty run."""
    some = starts < ends
    borders = np.unique(np.concatenate((starts[some], ends[some])))
    if borders.size < 2:
        return Pieces(np.zeros(1, np.int64), np.zeros(0, np.bool_)), np.zeros_like(starts), np.zeros_like(starts)
    since = np.where(some, np.searchsorted(borders, starts), 0)
    until = np.where(some, np.searchsorted(borders, ends), 0)
    depth = np.bincount(since, minlength=borders.size) - np.bincount(until, minlength=borders.size)
    return Pieces(borders, np.cumsum(depth)[:-1] > 0), since, until


@dataclass(frozen=True, slots=True)
class Retired:
    """Before these instants, raw events, rollups of a minute and of an hour may be retired; microseconds."""

    raw: int = 0
    minutes: int = 0
    hours: int = 0


WHOLE = Retired()


@dataclass(frozen=True, slots=True)
class Plan:
    """(table, start, end) of rollups, no window of a table twice; and what is read raw: of slow streams, of all."""

    ranges: list[tuple[str, int, int]]
    slow: list[Span]
    raw: list[Span]


def plan(pieces: Pieces, coarsest: int = DAY, retired: Retired = WHOLE, few: int = _FEW) -> Plan:
    """What holds every event of the wanted pieces: the coarsest windows that they do not cut, finer ones elsewhere.

    A border on the grid, or one microsecond after it, is taken to cut nothing: few events lie there. Where no more than
    a `few` hours are cut, once each, they are read whole, since events may lie on one side only.
    """
    spans, borders = pieces.spans(), pieces.borders
    days: list[Span] = []
    hours: list[Span] = []
    within = _windows(spans, DAY)
    if coarsest >= DAY:
        days, within = _split(within, borders, DAY, 0, retired.hours)
    within = _common(within, _windows(spans, HOUR))
    if coarsest >= HOUR:
        hours, within = _split(within, borders, HOUR, few, max(retired.raw, retired.minutes))
    exact, minutes = _common(within, spans), _common(within, _windows(spans, MINUTE))
    cut = _cut(minutes, borders, MINUTE)[0].size
    raw = cut > _FEW and 2 * cut * MINUTE > sum(one.end - one.start for one in minutes)
    if raw:
        minutes = []
    tables = {
        "rollup_1d": days,
        "rollup_1h": hours,
        "rollup_1m": minutes,
        "rollup_partial_1h": _joined([*days, *hours]),
        "rollup_partial_1m": _joined([*days, *hours, *minutes]),
    }
    ranges = [(table, one.start, one.end) for table, some in tables.items() for one in some]
    return Plan(ranges, [] if raw else exact, exact if raw else [])


def runs(starts: Ints, width: int) -> list[Span]:
    """Windows by their ascending starts, those that touch as one."""
    if not starts.size:
        return []
    first = np.flatnonzero(np.diff(starts, prepend=-1) != width)
    lasts = np.append(first[1:], starts.size) - 1
    return [Span(low, high + width) for low, high in zip(starts[first].tolist(), starts[lasts].tolist(), strict=True)]


def _windows(spans: Sequence[Span], width: int) -> list[Span]:
    """The windows of `width` in which the spans lie."""
    return _joined([Span(floor(one.start, width), floor(one.end - 1, width) + width) for one in spans])


def _cut(within: Sequence[Span], borders: Ints, width: int) -> tuple[Ints, Ints]:
    """The starts of the windows that borders lie in, and not at the beginning of; and how many borders."""
    borders = borders[borders % width > 1]
    places, counts = np.unique(borders - borders % width, return_counts=True)
    starts = np.array([one.start for one in within], np.int64)
    ends = np.array([0, *(one.end for one in within)], np.int64)
    inside = places < ends[np.searchsorted(starts, places, "right")]
    return places[inside], counts[inside]


def _split(within: list[Span], borders: Ints, width: int, few: int, until: int) -> tuple[list[Span], list[Span]]:
    """What to read in windows of `width`, and what finer. Of those that are cut, these are tried whole: those that one
    border cuts, when they are `few`, and those before `until`, since what is finer may be retired there.
    """
    cut, times = _cut(within, borders, width)
    once = times == 1
    if int(once.sum()) > few:
        once[:] = False
    finer = runs(cut[(cut >= until) & ~once], width)
    return _without(within, finer), finer


def _joined(spans: Iterable[Span]) -> list[Span]:
    """The same stretches of time in order, those that touch or overlap as one."""
    found: list[Span] = []
    for one in sorted(spans, key=lambda span: span.start):
        if found and one.start <= found[-1].end:
            found[-1] = Span(found[-1].start, max(found[-1].end, one.end))
        else:
            found.append(one)
    return found


def _common(left: Sequence[Span], right: Sequence[Span]) -> list[Span]:
    """What lies in both; each is in order and free of overlaps."""
    found, ours, theirs = [], 0, 0
    while ours < len(left) and theirs < len(right):
        one, other = left[ours], right[theirs]
        if max(one.start, other.start) < min(one.end, other.end):
            found.append(Span(max(one.start, other.start), min(one.end, other.end)))
        if one.end <= other.end:
            ours += 1
        else:
            theirs += 1
    return found


def _without(spans: Sequence[Span], holes: Sequence[Span]) -> list[Span]:
    """What lies in `spans` and not in `holes`; each is in order and free of overlaps."""
    ends = [0, *(hole.end for hole in holes)]
    starts = [*(hole.start for hole in holes), max((one.end for one in spans), default=0)]
    return _common(spans, [Span(*pair) for pair in zip(ends, starts, strict=True) if pair[0] < pair[1]])
