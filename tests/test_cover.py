"""What the reader reads of a span: every event once, by windows that fit or by itself."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from modelmeter.fold import cover
from modelmeter.window import DAY, HOUR, LATEST, MINUTE, Span, ceil, floor

many = settings(max_examples=300, deadline=None, derandomize=True, database=None)
WIDTHS = {
    "rollup_1m": MINUTE,
    "rollup_1h": HOUR,
    "rollup_1d": DAY,
    "rollup_partial_1m": MINUTE,
    "rollup_partial_1h": HOUR,
}

edges = st.one_of(
    st.integers(0, 4 * DAY),
    st.integers(0, 96).map(lambda hour: hour * HOUR),
    st.builds(
        lambda hour, off: max(hour * HOUR + off, 0), st.integers(0, 96), st.sampled_from([-1, 1, MINUTE, -MINUTE])
    ),
)
spans = st.tuples(edges, edges).filter(lambda pair: pair[0] < pair[1]).map(lambda pair: Span(*pair))


def tiles(ranges: list[tuple[int, int]]) -> tuple[int, int]:
    """The first start and the last end of ranges that lie end to end."""
    ordered = sorted(ranges)
    assert all(left[1] == right[0] for left, right in pairwise(ordered))
    return ordered[0][0], ordered[-1][1]


@many
@given(spans)
def test_folded_windows_tile_the_minutes_of_a_span(span: Span) -> None:
    found = cover(span)
    folded = [(start, end) for table, start, end in found.ranges if not table.startswith("rollup_partial")]
    assert tiles(folded) == (floor(span.start, MINUTE), ceil(span.end, MINUTE))
    for table, start, end in found.ranges:
        assert start % WIDTHS[table] == end % WIDTHS[table] == 0
        assert start < end


@many
@given(spans)
def test_what_is_in_no_rollup_of_a_minute_is_read_by_whole_hours_and_raw_beside_them(span: Span) -> None:
    found = cover(span)
    hours = [(start, end) for table, start, end in found.ranges if table == "rollup_partial_1h"]
    assert tiles([*hours, *((raw.start, raw.end) for raw in found.raw)]) == (span.start, span.end)
    folded = [(start, end) for table, start, end in found.ranges if table in ("rollup_1h", "rollup_1d")]
    assert (tiles(folded) if folded else None) == (hours[0] if hours else None)


@many
@given(spans)
def test_partials_are_read_where_folded_rollups_are(span: Span) -> None:
    partials = [(start, end) for table, start, end in cover(span).ranges if table == "rollup_partial_1m"]
    assert partials == [(floor(span.start, MINUTE), ceil(span.end, MINUTE))]


def test_a_span_to_the_latest_instant_is_covered() -> None:
    assert max(end for _, _, end in cover(Span(0, LATEST)).ranges) == LATEST
    assert max(end for _, _, end in cover(Span(0, LATEST - 1)).ranges) == LATEST


def test_whole_days_are_read_as_days() -> None:
    found = cover(Span(DAY, 31 * DAY))
    assert ("rollup_1d", DAY, 31 * DAY) in found.ranges
    assert {table for table, _, _ in found.ranges} == {"rollup_1d", "rollup_partial_1m", "rollup_partial_1h"}
    assert not found.raw
