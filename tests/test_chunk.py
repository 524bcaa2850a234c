"""What was packed comes back, bit for bit; bytes that are no column are a ValueError."""

import contextlib
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmeter.chunk import (
    STORE_LEVEL,
    WIRE_LEVEL,
    pack,
    pack_chunk,
    pack_codes,
    unpack_codes,
    unpack_floats,
    unpack_ints,
)

many = settings(max_examples=150, deadline=None, derandomize=True, database=None)
NAN_OF_OTHER_BITS = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_DEAD_BEEF))[0]
SPECIAL = [0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1e308, -1e308, 1.7976931348623157e308, math.nan]
SIZES = [0, 1, 2, 47, 48, 49, 1000]
levels = pytest.mark.parametrize("level", [STORE_LEVEL, WIRE_LEVEL])


def check_floats(column: np.ndarray[tuple[int], np.dtype[np.float64]], level: int) -> None:
    back = unpack_floats(pack(column, level), column.size)
    assert back.dtype == np.float64
    assert back.tobytes() == column.tobytes()


@levels
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("value", [*SPECIAL, NAN_OF_OTHER_BITS, math.inf, 0.1])
def test_a_constant_column_comes_back(value: float, size: int, level: int) -> None:
    check_floats(np.full(size, value), level)


@levels
@pytest.mark.parametrize("size", SIZES)
def test_a_column_of_every_kind_of_value_comes_back(size: int, level: int) -> None:
    random = np.random.default_rng(size)
    check_floats(random.choice(np.array(SPECIAL), size), level)
    check_floats(random.random(size).round(4), level)
    check_floats(random.integers(0, 2**64, size, np.uint64).view(np.float64), level)
    check_floats(np.where(random.random(size) < 0.5, math.nan, random.random(size)), level)


@levels
def test_a_column_of_zeros_of_both_signs_is_not_taken_for_constant(level: int) -> None:
    check_floats(np.array([0.0, -0.0] * 30 + [0.0]), level)


@many
@given(
    st.lists(st.one_of(st.floats(), st.sampled_from(SPECIAL)), max_size=120), st.sampled_from([WIRE_LEVEL, STORE_LEVEL])
)
def test_any_column_of_floats_comes_back(values: list[float], level: int) -> None:
    check_floats(np.array(values, np.float64), level)


@many
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=120), st.sampled_from([WIRE_LEVEL, STORE_LEVEL]))
def test_any_column_of_integers_comes_back(values: list[int], level: int) -> None:
    assert unpack_ints(pack(np.array(values, np.int64), level), len(values)).tolist() == values


def test_a_column_with_strides_comes_back() -> None:
    table = np.random.default_rng(1).random((200, 3))
    for column in (table[:, 1], table[:10, 1], table[::-2, 2]):
        assert unpack_floats(pack(column), column.size).tolist() == column.tolist()


@pytest.mark.parametrize("codomain", [0, 1, 2, 256, 257, 65_536, 65_537, 2**31 - 1])
def test_codes_come_back(codomain: int) -> None:
    codes = np.array([] if not codomain else [0, codomain - 1, codomain // 2], np.int32)
    assert unpack_codes(pack_codes(codes, codomain), codomain).tolist() == codes.tolist()


@pytest.mark.parametrize(
    ("data", "codomain"), [(b"\x02", 2), (b"\x00", 0), (b"\xff\xff\xff\xff", 70_000), (b"\0\0\0", 70_000)]
)
def test_codes_that_name_nothing_are_a_value_error(data: bytes, codomain: int) -> None:
    with pytest.raises(ValueError):
        unpack_codes(data, codomain)


COLUMN = np.random.default_rng(7).random(100)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"", 0),
        (b"\x07", 0),
        (b"\0" + bytes(7), 1),
        (b"\0" + bytes(8), 2),
        (b"\1", 5),
        (b"\1garbage", 5),
        (b"\2", 5),
        (b"\2" + bytes(7), 5),
        (b"\2" + bytes(16), 2),
        (pack(COLUMN), 99),
        (pack(COLUMN), 101),
        (pack(COLUMN)[:-1], 100),
        (pack(COLUMN.view(np.int64)), 100),
    ],
)
def test_bytes_that_are_no_such_column_are_a_value_error(data: bytes, count: int) -> None:
    with pytest.raises(ValueError):
        unpack_floats(data, count)


@many
@given(st.data())
def test_broken_bytes_are_a_value_error_or_a_column(data: st.DataObject) -> None:
    packed = bytearray(pack(COLUMN))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(ValueError):
        assert unpack_floats(bytes(packed), 100).size == 100


def test_a_chunk_is_half_open_and_holds_its_columns_in_order() -> None:
    timestamp = np.array([5, 5, 9], np.int64)
    columns = [np.array([1.0, math.nan, -0.0]), np.array([2.0, 2.0, 2.0])]
    chunk = pack_chunk(3, [8, 9], timestamp, columns, minutely=True)
    assert (chunk.stream_id, chunk.start, chunk.end, chunk.count, list(chunk.metrics)) == (3, 5, 10, 3, [8, 9])
    assert unpack_ints(chunk.columns[0], 3).tolist() == [5, 5, 9]
    for packed, column in zip(chunk.columns[1:], columns, strict=True):
        assert unpack_floats(packed, 3).tobytes() == column.tobytes()
