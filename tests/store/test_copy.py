"""Rows for binary COPY come back as they were."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmeter import rollup
from modelmeter.chunk import Chunk
from modelmeter.rollup import FIELDS, Rollups
from modelmeter.store.copy import HEADER, POSTGRES_EPOCH, TRAILER, chunk_rows, rollup_rows, rollups_of

many = settings(max_examples=150, deadline=None, derandomize=True, database=None)
IDS, INTS, FLOATS = (
    ("stream", "metric"),
    ("window", "count", "first_at", "last_at"),
    ("sum", "deviation", "min", "max", "last"),
)


@st.composite
def any_rollups(draw: st.DrawFn) -> Rollups:
    count = draw(st.integers(0, 8))

    def column(elements: st.SearchStrategy[Any], dtype: Any) -> Any:
        return np.array(draw(st.lists(elements, min_size=count, max_size=count)), dtype)

    ids, ints = st.integers(0, 2**31 - 1), st.integers(0, 2**60)
    return Rollups(
        **{name: column(ids, np.int32) for name in IDS},
        **{name: column(ints, np.int64) for name in INTS},
        **{name: column(st.floats(), np.float64) for name in FLOATS},
        sketch=draw(st.lists(st.binary(max_size=300), min_size=count, max_size=count)),
    )


@many
@given(any_rollups())
def test_rollups_come_back_bit_for_bit(sent: Rollups) -> None:
    back = rollups_of([rollup_rows(sent)])
    for name in FIELDS:
        found, wanted = getattr(back, name), getattr(sent, name)
        assert found.dtype == wanted.dtype, name
        assert found.tobytes() == wanted.tobytes(), name
    assert list(back.sketch) == list(sent.sketch)


@many
@given(any_rollups(), st.booleans(), st.lists(st.integers(1, 400), max_size=30))
def test_rollups_come_back_however_the_bytes_are_cut(sent: Rollups, by_row: bool, cuts: list[int]) -> None:
    data = rollup_rows(sent)
    if by_row:
        ends = [len(rollup_rows(rollup.select(sent, np.arange(len(sent)) < end))) - 2 for end in range(len(sent) + 1)]
        ends = [*ends[1 if len(sent) else 0 :], len(data)]
    else:
        ends = [*np.cumsum(cuts).tolist(), len(data)]
    blocks = [data[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    back = rollups_of([block for block in blocks if block])
    assert rollup_rows(back) == data


def test_no_rollups_are_no_rows_and_come_back() -> None:
    assert rollup_rows(rollup.EMPTY) == HEADER + TRAILER
    assert len(rollups_of([HEADER + TRAILER])) == 0


def fields_of(data: bytes) -> list[list[bytes]]:
    """The fields of each row, by the format's description."""
    assert data.startswith(HEADER)
    at, rows = len(HEADER), []
    while data[at : at + 2] != TRAILER:
        (count,) = struct.unpack_from(">h", data, at)
        at, row = at + 2, []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", data, at)
            row.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        rows.append(row)
    assert at + 2 == len(data)
    return rows


def array_of(data: bytes) -> list[bytes]:
    dimensions, _, _, count, _ = struct.unpack_from(">iiiii", data)
    assert dimensions == 1
    at, found = 20, []
    for _ in range(count):
        (length,) = struct.unpack_from(">i", data, at)
        found.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    assert at == len(data)
    return found


@pytest.mark.parametrize("minutely", [True, False])
def test_a_chunk_is_a_row_of_its_fields(minutely: bool) -> None:
    chunks = [Chunk(3, POSTGRES_EPOCH + 5, POSTGRES_EPOCH + 9, 2, minutely, [8, 9], [b"t", b"", b"xyz"])] * 2
    assert fields_of(chunk_rows(chunks))[1][7] == b"\0\0", "of no class"
    rows = fields_of(chunk_rows(chunks, [4, 5]))
    assert len(rows) == 2
    stream, start, end, count, flag, metrics, columns, class_id = rows[1]
    assert class_id == b"\0\5"
    assert [struct.unpack(">i", one)[0] for one in (stream, count)] == [3, 2]
    assert [struct.unpack(">q", one)[0] for one in (start, end)] == [5, 9]
    assert flag == bytes([minutely])
    assert [struct.unpack(">i", one)[0] for one in array_of(metrics)] == [8, 9]
    assert array_of(columns) == [b"t", b"", b"xyz"]
