"""Batches join and split without moving an event; labels are canonical; limits count bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmeter.batch import Batch, Labels, Refused, check_key, check_label, concat, fingerprint, make_labels, take

many = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def labels(number: int) -> Labels:
    return (("name", f"a{number}"), ("version", "1"))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    streams = draw(st.lists(st.integers(0, 5).map(labels), min_size=1, max_size=4, unique=True))
    codes = draw(st.lists(st.integers(0, len(streams) - 1), max_size=10))
    return Batch(
        streams,
        np.array(codes, np.int32),
        np.array(draw(st.lists(st.integers(0, 99), min_size=len(codes), max_size=len(codes))), np.int64),
        {"m": np.array(draw(st.lists(st.floats(), min_size=len(codes), max_size=len(codes))), np.float64)},
    )


def rows(batch: Batch) -> list[tuple[Labels, int, bytes]]:
    return [
        (batch.streams[batch.stream[row]], int(batch.timestamp[row]), batch.metrics["m"][row].tobytes())
        for row in range(len(batch))
    ]


@many
@given(st.lists(batches(), min_size=1, max_size=5))
def test_joined_batches_hold_the_same_events_in_the_same_order(parts: list[Batch]) -> None:
    whole = concat(parts)
    assert rows(whole) == [row for part in parts for row in rows(part)]
    assert len(set(whole.streams)) == len(whole.streams)
    assert whole.stream.dtype == np.int32


@many
@given(batches(), st.data())
def test_taking_rows_takes_those_events(batch: Batch, data: st.DataObject) -> None:
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(batch), max_size=len(batch))), bool)
    kept = [row for row, keep in zip(rows(batch), mask, strict=True) if keep]
    assert rows(take(batch, mask)) == kept
    assert rows(take(batch, np.flatnonzero(mask))) == kept
    assert rows(take(batch, slice(1, 3))) == rows(batch)[1:3]


@many
@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["", "x", "é"])), st.randoms(use_true_random=False))
def test_labels_are_the_same_in_any_order_and_an_empty_one_is_absent(others: dict[str, str], random: object) -> None:
    pairs = [("name", "n"), ("version", "v"), *others.items()]
    found = make_labels(dict(pairs))
    random.shuffle(pairs)  # type: ignore[attr-defined]
    assert make_labels(dict(pairs)) == found == tuple(sorted((key, value) for key, value in pairs if value))
    assert fingerprint(make_labels(dict(pairs))) == fingerprint(found)


def test_fingerprints_tell_labels_apart_and_stay_for_ever() -> None:
    some = [
        (("name", "a"), ("version", "b")),
        (("name", "b"), ("version", "a")),
        (("name", 'a"],["x'), ("version", "b")),
        (("a", "b"), ("name", "a"), ("version", "b")),
    ]
    assert len({fingerprint(one) for one in some}) == len(some)
    assert fingerprint(some[0]).hex() == "4e5c79b6a943ac50d83f1f2ccf9351f8"


@pytest.mark.parametrize(
    ("pairs", "field", "code"),
    [
        ({}, "name", "missing"),
        ({"name": "a"}, "version", "missing"),
        ({"name": "", "version": "1"}, "name", "empty"),
        ({"name": "a", "version": ""}, "version", "empty"),
        ({"name": "a" * 201, "version": "1"}, "name", "too_long"),
        ({"name": "a", "version": "é" * 101}, "version", "too_long"),
        ({"name": "a", "version": "1", "__e": ""}, "__e", "reserved_name"),
        ({"name": "a", "version": "1", "e": "x" * 1025}, "e", "too_long"),
        ({"name": "a", "version": "1", "e": "\ud800"}, "e", "bad_text"),
        ({"name": "a", "version": "1"} | {f"l{n}": "x" for n in range(63)}, None, "too_many_labels"),
    ],
)
def test_wrong_labels_are_refused_by_field(pairs: dict[str, str], field: str | None, code: str) -> None:
    with pytest.raises(Refused) as caught:
        make_labels(pairs)
    assert (caught.value.field, caught.value.code) == (field, code)


def test_limits_are_in_bytes_and_inclusive() -> None:
    check_key("k" * 128)
    check_key("é" * 64)
    check_label("name", "x" * 200)
    check_label("env", "é" * 512)
    make_labels({"name": "a", "version": "1"} | {f"l{n}": "x" for n in range(62)})
    for wrong in ("", "k" * 129, "é" * 64 + "k", "__x", "a\0"):
        with pytest.raises(Refused):
            check_key(wrong)


def test_a_refusal_says_the_limit() -> None:
    with pytest.raises(Refused, match="over 200 bytes"):
        check_label("name", "x" * 201)
    with pytest.raises(Refused, match="over 1024 bytes"):
        check_label("env", "x" * 1025)
    with pytest.raises(Refused, match="over 128 bytes"):
        check_key("x" * 129)
