"""Many sketches at once say what each of them says alone."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelmeter import packed
from modelmeter.packed import decode_many, join, merge_groups, pack, take, values_at
from modelmeter.sketch import ABOVE_ALL, Sketch, decode, encode, merge, sketch_of, value_of

many = settings(max_examples=200, deadline=None, derandomize=True, database=None)
finite = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(1, 100),
    st.integers(-3, 3).map(float),
)
repeated = st.tuples(finite, st.integers(1, 300)).map(lambda pair: [pair[0]] * pair[1])
values = st.one_of(
    st.lists(finite, max_size=60),
    st.lists(st.floats(1, 50), min_size=30, max_size=90),
    st.lists(repeated, max_size=4).map(lambda parts: [value for part in parts for value in part]),
)


@st.composite
def some_sketches(draw: st.DrawFn) -> list[bytes]:
    parts = draw(st.lists(values, min_size=1, max_size=8))
    return [encode(sketch_of(np.array(part, np.float64))) if part else b"" for part in parts]


wide = [encode(Sketch(-7, np.array([1, 0, count]), zeros, 0, np.zeros(0, np.int64))) for count, zeros in
        ((3, 0), (300, 2), (70_000, 0), (2**33, 2**40))]  # fmt: skip


def expanded(one: bytes) -> list[float]:
    """The value of every single one that a sketch counts, ascending."""
    if not one:
        return []
    found = decode(one)
    negative = np.repeat(found.negative_offset + np.arange(found.negative_counts.size), found.negative_counts)
    positive = np.repeat(found.offset + np.arange(found.counts.size), found.counts)
    return [*(-value_of(negative)[::-1]).tolist(), *[0.0] * found.zeros, *value_of(positive).tolist()]


@many
@given(some_sketches(), st.data())
@example(wide[:2], None)
def test_a_rank_in_many_is_that_in_each(sketches: list[bytes], data: st.DataObject | None) -> None:
    sketches = [one for one in sketches if one]
    counted = [expanded(one) for one in sketches]
    ranks = np.array(
        [
            [0, len(one) - 1, data.draw(st.integers(0, len(one) - 1)) if data else len(one) // 2]
            for one in counted
        ],
        np.int64,
    ).reshape(-1, 3)  # fmt: skip
    wanted = [[one[rank] for rank in row] for one, row in zip(counted, ranks.tolist(), strict=True)]
    assert values_at(sketches, ranks).tolist() == wanted
    behind = join([pack([b"other"]), pack(sketches)])
    assert values_at(take(behind, np.arange(1, len(behind))), ranks).tolist() == wanted


def test_counts_of_any_width_are_ranked() -> None:
    last = [[decode(one).count - 1] for one in wide]
    assert values_at(wide, np.array(last, np.int64))[:, 0].tolist() == [float(value_of(np.array([-5]))[0])] * 4
    assert values_at(wide[3:], np.array([[2**40 - 1, 2**40]]))[0].tolist() == [0.0, float(value_of(np.array([-7]))[0])]


@many
@given(some_sketches(), st.data())
@example(wide, None)
def test_groups_are_merged_as_each_of_them_would_be(sketches: list[bytes], data: st.DataObject | None) -> None:
    cuts = data.draw(st.sets(st.integers(1, len(sketches)))) if data else {2}
    starts = np.array(sorted({0, *cuts} - {len(sketches)}), np.int64)
    ends = np.append(starts[1:], len(sketches))
    wanted = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        filled = [decode(one) for one in sketches[start:end] if one]
        wanted.append(encode(merge(filled)) if filled else b"")
    assert merge_groups(sketches, starts) == wanted
    small, packed._CELLS_AT_ONCE = packed._CELLS_AT_ONCE, 16
    try:
        assert merge_groups(pack(sketches), starts) == wanted
    finally:
        packed._CELLS_AT_ONCE = small


@many
@given(some_sketches())
def test_many_are_decoded_as_each_of_them_would_be(sketches: list[bytes]) -> None:
    row, signed, counts = decode_many(sketches)
    for number, one in enumerate(sketches):
        mine = row == number
        magnitude = value_of(np.abs(signed[mine]) - ABOVE_ALL)
        found = np.where(signed[mine] == 0, 0.0, np.sign(signed[mine]) * magnitude)
        assert sorted(np.repeat(found, counts[mine]).tolist()) == sorted(expanded(one))


@many
@given(some_sketches())
def test_packed_sketches_are_the_same_sequence(sketches: list[bytes]) -> None:
    one = pack(sketches)
    assert list(one) == sketches
    assert list(one[1:]) == sketches[1:]
    assert list(join([one, [], pack([]), one])) == sketches * 2
    assert list(join([one, [b"x"]])) == [*sketches, b"x"]
    back = np.arange(len(sketches))[::-1]
    assert list(take(one, back)) == take(sketches, back) == sketches[::-1]
