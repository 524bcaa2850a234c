"""A message comes back as it was sent; bytes that are none are a ValueError; each row has one id."""

import math
import time
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmeter import message
from modelmeter.batch import Batch, Labels
from modelmeter.ingester import assemble
from modelmeter.message import Keyed, Message, decode, encode, format_id, id_of_key, new_id, rows_without

many = settings(max_examples=150, deadline=None, derandomize=True, database=None)
ID, KEY_A, KEY_B = b"m" * 16, b"a" * 16, b"b" * 16


def labels(number: int) -> Labels:
    return (("env", "é\n"), ("name", f"a{number}"), ("version", "1"))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    count = draw(st.integers(0, 60))
    streams = draw(st.integers(1, 5))
    codes = st.lists(st.integers(0, streams - 1), min_size=count, max_size=count)
    column = st.lists(st.one_of(st.floats(), st.just(-0.0)), min_size=count, max_size=count)
    names = draw(st.sampled_from([["m"], ["m", "n"], ["n", "m"], ["é"], []]))
    return Batch(
        [labels(number) for number in range(streams)],
        np.array(draw(codes), np.int32),
        np.array(draw(st.lists(st.integers(0, 2**60), min_size=count, max_size=count)), np.int64),
        {name: np.array(draw(column), np.float64) for name in names},
    )


def rows(found: Batch) -> list[tuple[Labels, int, tuple[tuple[str, bytes], ...]]]:
    return [
        (
            found.streams[found.stream[row]],
            int(found.timestamp[row]),
            tuple((name, column[row].tobytes()) for name, column in found.metrics.items()),
        )
        for row in range(len(found))
    ]


def flat(number: int, count: int) -> Batch:
    """`count` events whose metric tells them apart."""
    values = np.arange(count, dtype=np.float64) + 1000 * number
    return Batch([labels(number)], np.zeros(count, np.int32), np.arange(count), {"m": values})


@many
@given(st.lists(batches(), max_size=4))
def test_a_message_comes_back_bit_for_bit(sent: list[Batch]) -> None:
    keyed = [Keyed(KEY_A, number, 0, len(batch)) for number, batch in enumerate(sent)]
    back = decode(encode(Message(ID, 5, keyed, sent)))
    assert (back.id, back.received_at, list(back.keyed)) == (ID, 5, keyed)
    assert [rows(batch) for batch in back.batches] == [rows(batch) for batch in sent]
    assert [list(batch.metrics) for batch in back.batches] == [list(batch.metrics) for batch in sent]
    assert back.events == sum(map(len, sent))


SENT = encode(Message(ID, 5, [Keyed(KEY_A, 0, 10, 60)], [flat(1, 100), flat(2, 3)]))


def test_a_message_cut_off_anywhere_is_a_value_error() -> None:
    for length in range(len(SENT)):
        with pytest.raises(ValueError):
            decode(SENT[:length])


def test_a_message_with_any_bit_turned_is_a_message_or_a_value_error() -> None:
    read = 0
    for at in range(len(SENT)):
        for bit in range(8):
            broken = bytearray(SENT)
            broken[at] ^= 1 << bit
            try:
                found = decode(bytes(broken))
            except ValueError:
                continue
            read += 1
            for batch in found.batches:
                rows(batch)
            rows_without(found, {KEY_A})
    assert read


@many
@given(st.binary(max_size=200))
def test_garbage_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode(data)


def wire(
    identity: bytes = ID,
    keyed: tuple[Keyed, ...] = (),
    count: int = 2,
    stream: bytes = b"\0\0",
    packed: bytes = b"\2" + bytes(8),
) -> bytes:
    columns = message._Columns([labels(0)], count, stream, packed, {"m": packed})
    return message._encoder.encode(message._Wire(identity, 5, list(keyed), [columns]))


def test_the_wire_made_here_is_a_message() -> None:
    assert decode(wire()).events == 2


@pytest.mark.parametrize(
    "data",
    [
        wire(identity=b"short"),
        wire(keyed=(Keyed(b"short", 0, 0, 1),)),
        wire(keyed=(Keyed(KEY_A, 1, 0, 1),)),
        wire(keyed=(Keyed(KEY_A, -1, 0, 1),)),
        wire(keyed=(Keyed(KEY_A, 0, 1, 0),)),
        wire(keyed=(Keyed(KEY_A, 0, -1, 1),)),
        wire(keyed=(Keyed(KEY_A, 0, 0, 3),)),
        wire(count=3),
        wire(count=-1),
        wire(count=2**62),
        wire(stream=b"\0\1"),
        wire(packed=b"\2"),
        wire(packed=b"\1x"),
        wire(packed=b"\0" + bytes(8)),
    ],
)
def test_parts_that_do_not_fit_together_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode(data)


def values_of(found: list[Batch]) -> list[float]:
    return [value for batch in found for value in batch.metrics["m"].tolist()]


def test_rows_go_by_their_key_or_else_by_the_message() -> None:
    sent = Message(ID, 5, [Keyed(KEY_A, 0, 1, 3), Keyed(KEY_B, 1, 0, 2)], [flat(0, 5), flat(1, 2)])
    assert rows_without(sent, set()) == list(sent.batches)
    assert values_of(rows_without(sent, {KEY_A})) == [0, 3, 4, 1000, 1001]
    assert values_of(rows_without(sent, {KEY_B})) == [0, 1, 2, 3, 4]
    assert values_of(rows_without(sent, {ID})) == [1, 2, 1000, 1001]
    assert values_of(rows_without(sent, {ID, KEY_A})) == [1000, 1001]
    assert values_of(rows_without(sent, {ID, KEY_A, KEY_B})) == []


@many
@given(st.lists(st.tuples(st.lists(batches(), max_size=3), st.sampled_from([None, 1, 2, 3])), max_size=6))
def test_an_assembled_message_has_every_row_once_under_its_own_id(
    requests: list[tuple[list[Batch], int | None]],
) -> None:
    ids = [(sent, None if key is None else bytes([key, number]) * 8) for number, (sent, key) in enumerate(requests)]
    found = decode(encode(assemble(ID, ids)))
    everything = {ID, *(key for _, key in ids if key)}
    for one in everything:
        wanted = [row for sent, key in ids for batch in sent for row in rows(batch) if (key or ID) == one]
        kept = [row for batch in rows_without(found, everything - {one}) for row in rows(batch)]
        assert sorted(map(repr, kept)) == sorted(map(repr, wanted))
    assert len({tuple(batch.metrics) for batch in found.batches}) == len(found.batches)


@given(st.lists(batches(), min_size=2, max_size=4))
@many
def test_rows_of_the_same_metrics_stay_in_their_order(sent: list[Batch]) -> None:
    found = assemble(ID, [([batch], None) for batch in sent])
    for batch in found.batches:
        alike = [row for one in sent if list(one.metrics) == list(batch.metrics) for row in rows(one)]
        assert rows(batch) == alike


def test_an_id_made_later_sorts_later_and_says_its_time() -> None:
    before = time.time_ns() // 1_000_000
    first = new_id()
    while time.time_ns() // 1_000_000 <= int.from_bytes(first[:6], "big"):
        pass
    second = new_id()
    assert before <= int.from_bytes(first[:6], "big") <= time.time_ns() // 1_000_000
    assert first < second
    assert len({new_id() for _ in range(1000)}) == 1000
    assert uuid.UUID(bytes=first).version == 7
    assert uuid.UUID(bytes=first).variant == uuid.RFC_4122


def test_the_id_of_a_key_is_for_ever_the_same() -> None:
    assert format_id(id_of_key("load-1")) == "2094f3b0-3393-8537-afd6-5185fa891505"
    assert id_of_key("load-1") != id_of_key("load-2")
    assert uuid.UUID(bytes=id_of_key("é")).version == 8
    assert len(id_of_key("")) == 16


def test_absent_values_stay_absent_on_the_wire() -> None:
    sent = Batch([labels(0)], np.zeros(2, np.int32), np.zeros(2, np.int64), {"m": np.array([math.nan, 1.0])})
    assert math.isnan(decode(encode(Message(ID, 5, [], [sent]))).batches[0].metrics["m"][0])
