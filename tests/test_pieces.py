"""What is read of pieces of time: every event once, by windows that fit or by itself."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmeter.fold import cover
from modelmeter.pieces import Pieces, Retired, cut_windows, one_piece, plan, runs
from modelmeter.window import DAY, HOUR, LATEST, MINUTE, Span

many = settings(max_examples=300, deadline=None, derandomize=True, database=None)
WIDTHS = {
    "rollup_1m": MINUTE,
    "rollup_1h": HOUR,
    "rollup_1d": DAY,
    "rollup_partial_1m": MINUTE,
    "rollup_partial_1h": HOUR,
}
FOLDED = {"rollup_1d", "rollup_1h"}

edges = st.one_of(
    st.integers(0, 4 * DAY),
    st.integers(0, 96).map(lambda hour: hour * HOUR),
    st.builds(
        lambda hour, off: max(hour * HOUR + off, 0), st.integers(0, 96), st.sampled_from([-1, 1, MINUTE, -MINUTE])
    ),
)
spans = st.tuples(edges, edges).filter(lambda pair: pair[0] < pair[1]).map(lambda pair: Span(*pair))


@st.composite
def some_windows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """The starts and ends of windows `(end - range, end]`: by a step, on the grid or off it, or anywhere."""
    range_ = draw(st.sampled_from([1, 7, MINUTE, 5 * MINUTE, 7 * MINUTE + 3, HOUR, 3 * HOUR, DAY, 2 * DAY]))
    if draw(st.booleans()):
        ends = np.array(draw(st.lists(edges, min_size=1, max_size=6)), np.int64)
    else:
        step = draw(st.sampled_from([7_000_003, MINUTE, 5 * MINUTE, HOUR, HOUR + 1, DAY]))
        ends = draw(edges) + step * np.arange(draw(st.integers(1, 100)))
    return np.clip(ends - range_ + 1, 0, LATEST), np.clip(ends + 1, 0, LATEST)


instants = st.lists(st.one_of(edges, st.integers(0, 9 * DAY)), max_size=30)


@many
@given(some_windows(), instants)
def test_windows_are_runs_of_pieces(windows: tuple[np.ndarray, np.ndarray], events: list[int]) -> None:
    starts, ends = windows
    pieces, since, until = cut_windows(starts, ends)
    at = np.array([*events, *starts.tolist(), *ends.tolist()], np.int64)
    place = pieces.of(at)
    for start, end, first, last in zip(starts, ends, since, until, strict=True):
        assert ((place >= first) & (place < last)).tolist() == ((at >= start) & (at < end)).tolist()
        assert pieces.wanted[first:last].all()
    inside = ((at[:, None] >= starts) & (at[:, None] < ends)).any(axis=1)
    assert np.append(pieces.wanted, False)[place].tolist() == inside.tolist()


def count_readings(found: list[tuple[str, int, int]], tables: set[str], instant: int) -> int:
    """How many rows of the tables hold an event."""
    return sum(
        start <= instant - instant % WIDTHS[table] < end for table, start, end in found if table in tables
    )  # fmt: skip


def check_plan(pieces: Pieces, events: list[int], coarsest: int, retired: Retired) -> None:
    found = plan(pieces, coarsest, retired)
    place = pieces.of(np.array(events, np.int64)).tolist()
    for event, piece in zip(events, place, strict=True):
        slow, raw = (sum(one.start <= event < one.end for one in some) for some in (found.slow, found.raw))
        times = [
            count_readings(found.ranges, {*FOLDED, "rollup_1m"}, event) + raw,
            count_readings(found.ranges, {"rollup_partial_1m"}, event) + raw,
            count_readings(found.ranges, FOLDED, event) + slow + raw,
            count_readings(found.ranges, {"rollup_partial_1h"}, event) + slow + raw,
        ]
        if 0 <= piece < len(pieces) and pieces.wanted[piece]:
            assert times == [1, 1, 1, 1], event
        assert max(times) <= 1
    for table, start, end in found.ranges:
        assert start % WIDTHS[table] == end % WIDTHS[table] == 0
        assert start < end
        assert WIDTHS[table] <= coarsest


widths = st.sampled_from([DAY, DAY, HOUR, MINUTE])


@many
@given(some_windows(), instants, widths, st.tuples(edges, edges, edges))
def test_of_wanted_pieces_every_event_is_read_once_in_every_table_that_may_hold_it(
    windows: tuple[np.ndarray, np.ndarray], events: list[int], coarsest: int, retired: tuple[int, int, int]
) -> None:
    pieces, _, _ = cut_windows(*windows)
    near = [int(border) + off for border in pieces.borders[:20] for off in (-1, 0, 1)]
    check_plan(pieces, [event for event in [*events, *near] if event >= 0], coarsest, Retired())
    check_plan(pieces, [event for event in [*events, *near] if event >= 0], coarsest, Retired(*sorted(retired)[::-1]))


@many
@given(some_windows(), st.lists(st.tuples(edges, edges), max_size=20))
def test_whether_any_piece_between_two_is_wanted(
    windows: tuple[np.ndarray, np.ndarray], pairs: list[tuple[int, int]]
) -> None:
    pieces, _, _ = cut_windows(*windows)
    low, high = (pieces.of(np.sort(np.array(pairs, np.int64).reshape(-1, 2), axis=1)[:, side]) for side in (0, 1))
    wanted = [pieces.wanted[max(one, 0) : other + 1].any() for one, other in zip(low, high, strict=True)]
    assert pieces.wants(low, high).tolist() == wanted


def test_many_stretches_are_read_as_few_and_all_of_them() -> None:
    ends = np.arange(1, 1000) * HOUR
    pieces, _, _ = cut_windows(ends - 5 * MINUTE + 1, ends + 1)
    found = pieces.spans()
    assert len(found) == 64
    assert all(any(one.start <= end - 5 * MINUTE + 1 and end < one.end for one in found) for end in ends.tolist())


def test_a_span_to_the_latest_instant_is_covered() -> None:
    assert max(end for _, _, end in cover(Span(0, LATEST)).ranges) == LATEST
    assert max(end for _, _, end in cover(Span(0, LATEST - 1)).ranges) == LATEST


def test_whole_days_are_read_as_days_also_open_on_the_left() -> None:
    for off in (0, 1):
        found = plan(one_piece(Span(DAY + off, 31 * DAY + off)))
        assert ("rollup_1d", DAY, 31 * DAY + off * DAY) in found.ranges
        assert {table for table, *_ in found.ranges} == {"rollup_1d", "rollup_partial_1m", "rollup_partial_1h"}
        assert not found.slow
        assert not found.raw


def test_whole_hours_are_read_as_hours_however_many() -> None:
    ends = 30 * DAY + np.arange(1, 721) * HOUR
    found = plan(cut_windows(ends - HOUR + 1, ends + 1)[0])
    assert ("rollup_1h", 30 * DAY, 60 * DAY) in found.ranges
    assert not found.slow
    assert not found.raw


def test_a_span_within_an_hour_is_of_minutes() -> None:
    found = cover(Span(HOUR + 7, HOUR + 20 * MINUTE + 7))
    assert {table for table, *_ in found.ranges} == {"rollup_1m", "rollup_partial_1m"}
    assert found.slow == [Span(HOUR + 7, HOUR + 20 * MINUTE + 7)]


def test_windows_that_touch_are_one_run() -> None:
    assert runs(np.array([0, MINUTE, 5 * MINUTE]), MINUTE) == [Span(0, 2 * MINUTE), Span(5 * MINUTE, 6 * MINUTE)]
    assert runs(np.zeros(0, np.int64), MINUTE) == []
