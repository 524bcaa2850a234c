"""The fast readers say what the strict one says, bit for bit; and what the strict one refuses, and why."""

import datetime as dt
import io
import json
import math
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modelmeter.batch import Batch, Refused
from modelmeter.decoder import ERRORS_SHOWN, Bounds, Decoded, Decoder
from modelmeter.decoder.strict import load_json, load_ndjson
from modelmeter.errors import Malformed
from modelmeter.window import DAY, LATEST, MINUTE, SECOND, to_datetime

NOW = 1_760_000_000_123_456
BOUNDS = Bounds(NOW, 0, NOW + 10 * MINUTE)
WIDE = Bounds(NOW, 0, LATEST)

many = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)


def admit_all(_: object) -> None:
    """No limit."""


def new_decoder() -> Decoder:
    return Decoder(admit_all, admit_all)


def decode(body: str | bytes, bounds: Bounds = BOUNDS) -> Decoded:
    return new_decoder().json(body.encode() if isinstance(body, str) else body, bounds)


def one(bounds: Bounds = BOUNDS, **fields: Any) -> Decoded:
    """One good event, changed by `fields`; a field that is ... is left out."""
    event = {"name": "a", "version": "1", "m": 1.5} | fields
    return decode(json.dumps({key: value for key, value in event.items() if value is not ...}), bounds)


def refusal(decoded: Decoded) -> tuple[str | None, str]:
    assert (decoded.accepted, decoded.rejected, len(decoded.refusals)) == (0, 1, 1), decoded
    found = decoded.refusals[0]
    assert decoded.codes == {found.code: 1}
    assert found.detail.startswith(f"{found.field}: ") or found.field in (None, "") or found.code == "name_too_long"
    msgspec.json.encode(found)
    return found.field, found.code


Event = tuple[tuple[tuple[str, str], ...], int, list[tuple[str, bytes]]]


def events_of(batches: list[Batch]) -> list[Event]:
    """Every event: labels, timestamp, and the metrics that it has, by their bits. Sorted: shapes have no order."""
    found: list[Event] = []
    for batch in batches:
        assert batch.stream.dtype == np.int32
        assert batch.timestamp.dtype == np.int64
        assert all(column.dtype == np.float64 for column in batch.metrics.values())
        assert all(column.shape == batch.timestamp.shape == batch.stream.shape for column in batch.metrics.values())
        for row in range(len(batch)):
            metrics = {
                name: struct.pack("<d", column[row])
                for name, column in batch.metrics.items()
                if not math.isnan(column[row])
            }
            found.append((batch.streams[batch.stream[row]], int(batch.timestamp[row]), sorted(metrics.items())))
    return sorted(found)


def answer(read: Callable[..., Decoded], *sent: Any) -> Any:
    """All that a reader says."""
    try:
        decoded = read(*sent)
    except Malformed as error:
        return "malformed", error.detail
    return events_of(decoded.batches), decoded.accepted, decoded.rejected, decoded.refusals, decoded.codes


def strictly(body: bytes, bounds: Bounds, *, lines: bool) -> Any:
    return answer(lambda: new_decoder()._strict((load_ndjson if lines else load_json)(body), body, bounds))


# Bodies.

spaces = st.text(" \t\n\r", max_size=2)
flat_spaces = st.text(" \t", max_size=2)
plain = st.text(st.characters(min_codepoint=32, exclude_characters='"\\', codec="utf-8"), max_size=6)
tricky = st.sampled_from(
    ["a", "é", "日本", "😀", "1.5", "null", "true", "{", "}", "[1]", "a:b", "-0,", ",", " ", "\x7f"]
)
escaped = st.sampled_from([r"a\"b", r"\\", r"\u00e9", r"\ud83d\ude00", r"\ud800", r"\u0000", r"\n", r"\/", r'":\"'])
texts = st.one_of(tricky, tricky, plain).map(lambda text: f'"{text}"')
any_texts = st.one_of(texts, texts, texts, escaped.map(lambda text: f'"{text}"'))
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**66), 2**66).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-1000, max_value=1000).map(str),
    st.sampled_from(
        [
            "0",
            "-0",
            "-0.0",
            "0.0",
            "1e400",
            "-1e400",
            "1e-400",
            "-1e-400",
            "5e-324",
            "4.9e-324",
            "2.2250738585072011e-308",
        ]
    ),
    st.sampled_from(["1E5", "1e+5", "9007199254740993", "1.7976931348623157e308", "1.7976931348623159e308", "0.1"]),
    st.sampled_from(
        ["NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "1" * 400, "0." + "1" * 400, "true", "false"]
    ),
)
good_numbers = st.floats(-1e6, 1e6, allow_nan=False).map(repr)
stamps = st.one_of(
    st.integers(0, 2 * NOW // SECOND).map(str),
    st.integers(0, 2 * NOW // 1000).map(str),
    st.integers(NOW - DAY, NOW + 20 * MINUTE).map(str),
    st.integers(NOW * 1000 - 10**12, NOW * 1000).map(str),
    st.floats(0, NOW / SECOND).map(repr),
    st.floats(1e17, NOW * 1000.0).map(repr),
    st.integers(-5, 2**80).map(str),
    st.integers(-DAY, NOW).map(lambda at: f'"{to_datetime(at).isoformat()}"'),
    st.sampled_from(
        [
            '"2025-01-31T12:00:00.1234567+02:00"',
            '"2025-01-31"',
            '""',
            '"x"',
            "null",
            "true",
            "1e400",
            "-0",
            "1e9",
            "NaN",
        ]
    ),
    st.sampled_from(['"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59-14:00"', "100000000000", "99999999999.9"]),
)
values = st.one_of(
    numbers, numbers, any_texts, st.sampled_from(["null", "{}", "[]", '{"a":1}', '[{"a":"b"}]', "tru", ""])
)
KEYS = [
    "m",
    "n",
    "env",
    "é",
    "name",
    "version",
    "timestamp",
    "__x",
    "",
    "m n",
    "a:b",
    "k" * 128,
    "k" * 129,
    r"q\"q",
    r"\u006d",
]


def written(fields: list[tuple[str, str]], space: str) -> str:
    inner = f"{space},{space}".join(f'"{key}"{space}:{space}{value}' for key, value in fields)
    return f"{{{space}{inner}{space}}}"


@st.composite
def fields(draw: st.DrawFn, stamp: st.SearchStrategy[str], *, wild: bool) -> list[tuple[str, str]]:
    """The fields of one event; mostly a good one."""
    found = [("name", draw(texts if draw(st.integers(0, 20)) else values)), ("version", '"1"')]
    found += [(key, draw(good_numbers if draw(st.integers(0, 2)) else numbers)) for key in ("m", "n")]
    if draw(st.booleans()):
        found.append(("env", draw(texts)))
    if draw(st.integers(0, 3)):
        found.append(("timestamp", draw(stamp)))
    if wild:
        for _ in range(draw(st.integers(0, 2))):
            found.append((draw(st.sampled_from(KEYS)), draw(values)))
        for _ in range(draw(st.integers(0, 1))):
            found.pop(draw(st.integers(0, len(found) - 1)))
        if draw(st.booleans()):
            found = draw(st.permutations(found))
    return found


@st.composite
def bodies(draw: st.DrawFn, *, lines: bool) -> tuple[bytes, bytes]:
    """A body to learn from, and one that begins with the same names and may hold anything."""
    stamp = draw(st.sampled_from([stamps, st.integers(0, NOW // SECOND).map(str), st.integers(0, NOW).map(str)]))
    first = draw(fields(stamp, wild=False))
    good = {
        "m": "1.5",
        "n": "-2",
        "name": '"a"',
        "timestamp": draw(st.sampled_from(["1700000000", "1.7e9", '"2025-01-01T00:00:00Z"'])),
    }
    lesson = [(key, good.get(key, value)) for key, value in first]
    space = draw(flat_spaces if lines else spaces)
    events = [written(first, space)] + [
        written(draw(fields(stamp, wild=draw(st.booleans()))), space) for _ in range(draw(st.integers(0, 4)))
    ]
    if lines:
        ends = st.sampled_from(["\n", "\n", "\n", "\n", "\r\n", "\n\n", " ", "", ",", "\n \n", "\nx\n", "\n[]\n"])
        body = "".join(event + draw(ends) for event in events)
        if draw(st.integers(0, 9)) == 0:
            body = body.replace(",", ",\n", 1)
        return written(lesson, "").encode() + b"\n", body.encode()
    body = events[0] if len(events) == 1 and draw(st.booleans()) else f"[{space}{','.join(events)}{space}]"
    return f"[{written(lesson, space)}]".encode(), (draw(spaces) + body + draw(spaces)).encode()


def check_fast_is_strict(lesson: bytes, body: bytes, *, lines: bool) -> None:
    for bounds in (BOUNDS, WIDE):
        decoder = new_decoder()
        read = decoder.ndjson if lines else decoder.json
        read(lesson, bounds)
        wanted = strictly(body, bounds, lines=lines)
        assert answer(read, body, bounds) == wanted
        assert answer(read, body, bounds) == wanted, "after it has learned from this very body"


@many
@given(bodies(lines=False))
@example(
    (b'[{"name":"a","version":"1","m":1}]', b'[{"name":"a","version":"1","m":-0},{"name":"a","version":"1","m":1}]')
)
@example((b'[{"name":"a","version":"1","m":1}]', b'[{"name":"a","version":"1","m":-0.0}]'))
@example((b'[{"name":"a","version":"1","m":1}]', b'[{"name":"a","version":"1","m":1,"m":2}]'))
@example((b'[{"name":"a","version":"1","m":1}]', b'[{"name":"a","version":"1","m":1,"n":2}]'))
@example((b'[{"name":"a","version":"1","x\\"y":1}]', b'[{"name":"a","version":"1","x\\"y":1}]'))
@example(
    (
        b'[{"name":"a","version":"1","m":1,"timestamp":1.5}]',
        b'[{"name":"a","version":"1","m":1,"timestamp":1700000000123456789}]',
    )
)
@example(
    (
        b'[{"name":"a","version":"1","m":1,"timestamp":1.5}]',
        b'[{"name":"a","version":"1","m":1,"timestamp":12345678901234567890}]',
    )
)
def test_the_fast_reader_says_of_json_what_the_strict_one_says(bodies: tuple[bytes, bytes]) -> None:
    check_fast_is_strict(*bodies, lines=False)


@many
@given(bodies(lines=True))
@example((b'{"name":"a","version":"1","m":1}', b'{"name":"a","version":"1","m":1}{"name":"a","version":"1","m":1}'))
@example((b'{"name":"a","version":"1","m":1}', b'{"name":"a","version":"1",\n"m":1}'))
@example((b'{"name":"a","version":"1","m":1}', b'{"name":"a","version":"1","m":1}{\n"name":"a","version":"1","m":1}'))
def test_the_fast_reader_says_of_ndjson_what_the_strict_one_says(bodies: tuple[bytes, bytes]) -> None:
    check_fast_is_strict(*bodies, lines=True)


@many
@given(bodies(lines=False), st.data())
def test_the_fast_reader_says_of_a_broken_body_what_the_strict_one_says(
    bodies: tuple[bytes, bytes], data: st.DataObject
) -> None:
    lesson, body = bodies
    at = data.draw(st.integers(0, len(body) - 1))
    octet = bytes([data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b'"{}[],:\\\n 0')))])
    broken = data.draw(st.sampled_from([body[:at], body[:at] + octet + body[at:], body[:at] + octet + body[at + 1 :]]))
    check_fast_is_strict(lesson, broken, lines=False)


def test_an_ordinary_body_takes_the_fast_way() -> None:
    body = json.dumps(
        [{"name": f"a{n % 3}", "version": "1", "m": n / 7, "n": n, "timestamp": 1_700_000_000 + n} for n in range(50)]
    ).encode()
    lines = b"\n".join(msgspec.json.encode(event) for event in json.loads(body)) + b"\n"
    decoder = new_decoder()
    for read, sent in ((decoder.json, body), (decoder.ndjson, lines)):
        read(sent, BOUNDS)
        assert decoder._fast(sent, BOUNDS, lines=sent is lines) is not None


# Arrow.


def arrow(frame: pl.DataFrame, **options: Any) -> bytes:
    out = io.BytesIO()
    frame.write_ipc_stream(out, **options)
    return out.getvalue()


@st.composite
def plain_events(draw: st.DrawFn) -> list[dict[str, Any]]:
    finite = st.floats(allow_nan=False, allow_infinity=False)
    name = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
    event = st.fixed_dictionaries(
        {"name": name, "version": st.sampled_from(["1", "2", ""]), "m": finite},
        optional={
            "n": finite,
            "flag": st.booleans(),
            "env": name,
            "timestamp": st.integers(-10, NOW // SECOND + 700),
        },
    )
    return draw(st.lists(event, min_size=1, max_size=8))


@many
@given(plain_events())
def test_the_same_events_are_the_same_as_json_as_ndjson_and_as_arrow(events: list[dict[str, Any]]) -> None:
    types = {"timestamp": pl.Int64, "m": pl.Float64, "n": pl.Float64, "flag": pl.Boolean}
    columns = sorted({key for event in events for key in event})
    frame = pl.DataFrame(
        {key: pl.Series([event.get(key) for event in events], dtype=types.get(key, pl.String)) for key in columns}
    )
    decoder = new_decoder()
    as_json = answer(lambda: decoder.json(json.dumps(events).encode(), BOUNDS))
    lines = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events).encode()
    as_ndjson = answer(lambda: decoder.ndjson(lines, BOUNDS))
    as_arrow = answer(lambda: decoder.arrow(arrow(frame), BOUNDS))
    assert as_ndjson == as_json
    assert as_arrow[:3] == as_json[:3]
    assert [(one.index, one.code) for one in as_arrow[3]] == [(one.index, one.code) for one in as_json[3]]


def frame_of(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"name": ["a", "a"], "version": ["1", "1"], "m": [1.0, 2.0]} | columns)


@pytest.mark.parametrize(
    ("unit", "raw", "instant"),
    [
        ("ms", 1_700_000_000_001, 1_700_000_000_001_000),
        ("us", 1_700_000_000_000_001, 1_700_000_000_000_001),
        ("ns", 1_700_000_000_000_001_999, 1_700_000_000_000_001),
        ("ms", 2**62, None),
        ("ms", 18_446_745_833_709_551, None),
        ("us", -(2**63), None),
        ("ns", -1, None),
    ],
)
def test_an_arrow_timestamp_of_any_unit_is_exact_or_refused(unit: Any, raw: int, instant: int | None) -> None:
    stamps = pl.Series([raw, None], dtype=pl.Int64).cast(pl.Datetime(unit))
    for bounds in (BOUNDS, WIDE):
        decoded = new_decoder().arrow(arrow(frame_of(timestamp=stamps)), bounds)
        assert [at for _, at, _ in events_of(decoded.batches)] == ([NOW] if instant is None else [instant, NOW])
        assert [one.field for one in decoded.refusals] == (["timestamp"] if instant is None else [])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"name": ["", "a"]}, ("name", "empty")),
        ({"name": [None, "a"]}, ("name", "missing")),
        ({"m": [math.nan, 1]}, ("m", "not_finite")),
        ({"m": [-math.inf, 1]}, ("m", "not_finite")),
        ({"m": [None, 1.0]}, (None, "no_metric")),
        ({"x": [[1], None]}, ("x", "nested")),
        ({"x": [dt.date(2025, 1, 1), None]}, ("x", "nested")),
        ({"x": [b"b", None]}, ("x", "nested")),
        ({"__x": [1, None]}, ("__x", "reserved_name")),
        ({"x" * 129: [1, None]}, ("x" * 128, "name_too_long")),
        ({"env": ["e" * 1025, None]}, ("env", "too_long")),
        ({"env": ["\0", None]}, ("env", "bad_text")),
        ({"timestamp": ["x", None]}, ("timestamp", "bad_timestamp")),
        ({"timestamp": [True, None]}, ("timestamp", "bad_timestamp")),
        ({f"m{n}": [1, None] for n in range(1024)}, (None, "too_many_metrics")),
    ],
)
def test_a_wrong_row_of_an_arrow_table_is_refused_and_the_other_kept(
    columns: dict[str, Any], expected: tuple[str | None, str]
) -> None:
    decoded = new_decoder().arrow(arrow(frame_of(**columns)), BOUNDS)
    assert decoded.accepted == 1
    assert [(one.index, one.field, one.code) for one in decoded.refusals] == [(0, *expected)]


def test_a_name_column_of_numbers_is_refused_whole() -> None:
    decoded = new_decoder().arrow(arrow(frame_of(version=[1, 2])), BOUNDS)
    assert decoded.codes == {"not_a_string": 2}


def test_a_table_may_have_more_columns_than_an_event_may_have_metrics() -> None:
    wide = {f"m{n}": [1.0, None] if n < 600 else [None, 1.0] for n in range(1200)}
    assert new_decoder().arrow(arrow(frame_of(**wide)), BOUNDS).accepted == 2


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"ARROW1\0\0", b"\xff" * 64, arrow(frame_of())[:100], arrow(frame_of()[:0])]
)
def test_what_is_no_arrow_stream_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        new_decoder().arrow(body, BOUNDS)


# What is refused, and why: the table of the issue.

UNREADABLE: list[Any] = [
    *("", "yesterday", "2025-01-31", "2025-01-31T12:00:00", True, [], {}, math.nan, math.inf, -1, 10**30),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1969-12-31T23:59:59Z"),
]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        *(({key: value}, (key, code)) for key in ("name", "version") for value, code in (
            (..., "missing"), ("", "empty"), (5, "not_a_string"), (None, "not_a_string"), (["a"], "not_a_string"),
            ("x" * 201, "too_long"), ("é" * 101, "too_long"), ("a\0", "bad_text"), ("\ud800", "bad_text"),
        )),
        ({"x": {"a": 1}}, ("x", "nested")),
        ({"x": []}, ("x", "nested")),
        ({"m": math.nan}, ("m", "not_finite")),
        ({"m": math.inf}, ("m", "not_finite")),
        ({"m": 10**309}, ("m", "not_finite")),
        ({"m": ...}, (None, "no_metric")),
        ({"m": None}, (None, "no_metric")),
        ({"m": "1.5"}, (None, "no_metric")),
        ({"": 1}, ("", "empty_name")),
        ({"": "a"}, ("", "empty_name")),
        ({"k" * 129: 1}, ("k" * 128, "name_too_long")),
        ({"é" * 65: "a"}, ("é" * 65, "name_too_long")),
        ({"__x": 1}, ("__x", "reserved_name")),
        ({"__x": "a"}, ("__x", "reserved_name")),
        ({"a\0": 1}, ("a\0", "bad_text")),
        ({"\ud800": 1}, ("?", "bad_text")),
        ({f"l{n}": "a" for n in range(63)}, (None, "too_many_labels")),
        ({f"m{n}": n for n in range(1024)}, (None, "too_many_metrics")),
        ({"env": "e" * 1025}, ("env", "too_long")),
        ({"env": "é" * 513}, ("env", "too_long")),
        *(({"timestamp": value}, ("timestamp", "bad_timestamp")) for value in UNREADABLE),
        ({"timestamp": (NOW + 10 * MINUTE + 1)}, ("timestamp", "in_future")),
    ],
)  # fmt: skip
def test_a_wrong_event_is_refused_with_its_field_and_code(
    changes: dict[str, Any], expected: tuple[str | None, str]
) -> None:
    assert refusal(one(**changes)) == expected


def test_an_event_older_than_any_retention_is_refused_with_the_limit() -> None:
    bounds = Bounds(NOW, NOW - DAY, NOW)
    assert one(bounds, timestamp=NOW - DAY).accepted == 1
    found = one(bounds, timestamp=NOW - DAY - 1).refusals[0]
    assert found.code == "too_old"
    assert "before 2025-10-08T08:53:20.123456Z" in found.detail


def test_an_event_ahead_of_now_is_refused_with_the_limit() -> None:
    assert "more than 10m ahead" in one(timestamp=NOW + 10 * MINUTE + 1).refusals[0].detail


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "x" * 200},
        {"version": "é" * 100},
        {"k" * 128: 1},
        {"é" * 64: 1},
        {"env": "e" * 1024},
        {"env": "é" * 512},
        {f"l{n}": "a" for n in range(62)},
        {f"l{n}": "" for n in range(100)},
        {f"m{n}": n for n in range(1023)},
        {"m": 1.7976931348623157e308},
        {"m": True},
        {"x": None},
        {"timestamp": None},
        {"timestamp": NOW + 10 * MINUTE},
        {"timestamp": 0},
    ],
)
def test_an_event_at_the_limit_is_kept(changes: dict[str, Any]) -> None:
    assert (one(**changes).accepted, one(**changes).rejected) == (1, 0)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ('{"name":"a","version":"1","m":1,"m":1}', ("m", "duplicate_key")),
        ('{"name":"a","name":"a","version":"1","m":1}', ("name", "duplicate_key")),
        ('{"name":"a","version":"1","m":1,"timestamp":1,"timestamp":1}', ("timestamp", "duplicate_key")),
        ('{"name":"a","version":"1","m":1e400}', ("m", "not_finite")),
        ("[[]]", (None, "not_an_object")),
        ("[1]", (None, "not_an_object")),
        ("[null]", (None, "not_an_object")),
        ("{}", (None, "missing")),
    ],
)
def test_a_wrong_object_is_refused_by_name(event: str, expected: tuple[str | None, str]) -> None:
    decoded = decode(event)
    found = decoded.refusals[0]
    assert found.code == expected[1]
    assert found.field == (expected[0] or found.field)


@given(st.lists(st.booleans(), min_size=1, max_size=150))
@many
def test_good_events_beside_bad_ones_are_kept_and_the_bad_ones_are_counted_from_0(good: list[bool]) -> None:
    events: list[dict[str, Any]] = [
        {"name": "a", "version": "1", "m": number if fine else []} for number, fine in enumerate(good)
    ]
    bad = [number for number, fine in enumerate(good) if not fine]
    lines = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    for decoded in (decode(json.dumps(events)), new_decoder().ndjson(lines, BOUNDS)):
        assert (decoded.accepted, decoded.rejected) == (len(good) - len(bad), len(bad))
        assert [one.index for one in decoded.refusals] == bad[:ERRORS_SHOWN]
        kept = [value for batch in decoded.batches for value in batch.metrics["m"].tolist()]
        assert kept == [number for number, fine in enumerate(good) if fine]


def test_a_line_that_is_no_json_is_refused_and_the_others_kept() -> None:
    good = b'{"name":"a","version":"1","m":1}\n'
    decoded = new_decoder().ndjson(good + b"\n{oops\n" + good, BOUNDS)
    assert decoded.accepted == 2
    assert [(one.index, one.field, one.code) for one in decoded.refusals] == [(1, None, "not_json")]
    assert "line 3" in decoded.refusals[0].detail


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"[]", "no event"),
        (b"1", "neither an object nor an array"),
        (b'"a"', "neither an object nor an array"),
        (b'{"name":\n "a",}', "line 2, column 6"),
        (b'{"name":"a', "line 1, column 9"),
        (b'{"name":"a"}x', "line 1, column 13"),
        (b'{"name":"\xff"}', "byte 9 is 0xff"),
        (b"\xef\xbb\xbf{}", "line 1, column 1"),
        (b"[" * 100_000, "nested too deep"),
    ],
)
def test_a_body_that_is_no_json_is_malformed_at_its_place(body: bytes, place: str) -> None:
    with pytest.raises(Malformed, match=place):
        new_decoder().json(body, BOUNDS)


@pytest.mark.parametrize(
    ("body", "place"),
    [(b"\n \n", "empty"), (b"x", "line 1 .* column 1"), (b"\nx\ny", "line 2"), (b"\xff", "byte 0 is")],
)
def test_a_body_of_which_no_line_is_json_is_malformed_at_its_place(body: bytes, place: str) -> None:
    with pytest.raises(Malformed, match=place):
        new_decoder().ndjson(body, BOUNDS)


def test_a_stream_too_many_is_refused_and_the_known_ones_kept() -> None:
    def admit(labels: tuple[tuple[str, str], ...]) -> None:
        if dict(labels)["name"] != "a":
            raise Refused(None, "stream_limit", "no more")

    decoder = Decoder(admit, admit_all)
    body = b'[{"name":"a","version":"1","m":1},{"name":"b","version":"1","m":1}]'
    for _ in range(2):
        decoded = decoder.json(body, BOUNDS)
        assert (decoded.accepted, decoded.codes, decoded.refusals[0].index) == (1, {"stream_limit": 1}, 1)
    assert decoder.arrow(arrow(frame_of(name=["a", "b"])), BOUNDS).codes == {"stream_limit": 1}


def test_a_metric_too_many_is_refused() -> None:
    def admit(name: str) -> None:
        if name != "m":
            raise Refused(name, "metric_limit", "no more")

    decoder = Decoder(admit_all, admit)
    assert decoder.json(b'[{"name":"a","version":"1","n":1},{"name":"a","version":"1","m":1}]', BOUNDS).codes == {
        "metric_limit": 1
    }
    assert decoder.arrow(arrow(frame_of(n=[1, None])), BOUNDS).codes == {"metric_limit": 1}
