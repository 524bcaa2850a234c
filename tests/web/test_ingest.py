"""POST /events and POST /stats over HTTP: what is taken, what is refused, and how that is said."""

import gzip
import io
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import polars as pl
import psycopg
import pytest
import zstandard

from tests.history import count_rows
from tests.web.conftest import Served, serve

GOOD = {"name": "Mistral", "version": "v1", "prediction_accuracy": 0.19, "drift": 0.11, "inference_time": 12.7}
ARROW = "application/vnd.apache.arrow.stream"
NDJSON = "application/x-ndjson"
MEBIBYTE = 1024 * 1024


def without(*names: str, **more: object) -> dict[str, object]:
    return {key: value for key, value in {**GOOD, **more}.items() if key not in names}


def check_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail"} <= found.keys()
    assert found["status"] == status
    return found


def arrow(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_ipc_stream(out)
    return out.getvalue()


FRAME = pl.DataFrame([GOOD, {**GOOD, "drift": None}, {**GOOD, "version": "v2"}])


@pytest.mark.parametrize("path", ["/events", "/stats"])
def test_one_flat_object_is_taken(shared: Served, path: str) -> None:
    answer = shared.post(json.dumps(GOOD), path)
    assert answer.status_code == 202
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert [*found] == ["batch_id", "accepted", "rejected", "kept_without_raw", "errors"]
    assert isinstance(found["batch_id"], str)
    assert (found["accepted"], found["rejected"], found["errors"]) == (1, 0, [])


BODIES = {
    "an array": (json.dumps([GOOD] * 3).encode(), "application/json"),
    "JSON with a charset": (json.dumps([GOOD] * 3).encode(), "application/json; charset=utf-8"),
    "indented JSON": (json.dumps([GOOD] * 3, indent=2).encode(), "application/json"),
    "NDJSON": ("\n".join([json.dumps(GOOD)] * 3).encode(), NDJSON),
    "NDJSON with empty lines": (("\n\n".join([json.dumps(GOOD)] * 3) + "\r\n\n").encode(), NDJSON),
    "Arrow": (arrow(FRAME), ARROW),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": lambda body: body,
    "identity": lambda body: body,
    "gzip": gzip.compress,
    "GZIP": gzip.compress,
    "x-gzip": lambda body: gzip.compress(body[:20]) + gzip.compress(body[20:]),
    "zstd": zstandard.compress,
    "ZSTD": lambda body: zstandard.compress(body[:20]) + zstandard.compress(body[20:]),
}


@pytest.mark.parametrize("encoding", [*PACKED])
@pytest.mark.parametrize("what", [*BODIES])
def test_every_kind_of_body_is_taken_in_every_encoding(shared: Served, what: str, encoding: str) -> None:
    body, content_type = BODIES[what]
    answer = shared.post(PACKED[encoding](body), content_type=content_type, content_encoding=encoding)
    assert answer.status_code == 202, answer.text
    assert answer.json()["accepted"] == 3


def test_a_body_without_a_content_type_is_json(shared: Served) -> None:
    answer = httpx.request("POST", f"{shared.url}/events", content=json.dumps(GOOD))
    assert answer.status_code == 202


def test_a_body_in_pieces_of_unknown_length_is_taken(shared: Served) -> None:
    def pieces() -> Iterator[bytes]:
        body = json.dumps([GOOD] * 10).encode()
        for at in range(0, len(body), 100):
            yield body[at : at + 100]

    answer = shared.client.post("/events", content=pieces(), headers={"content-type": "application/json"})
    assert answer.json()["accepted"] == 10


UNREADABLE: dict[str, tuple[str | bytes, str, str]] = {
    "no JSON": ('{"name": "Mistral", oops}', "application/json", "line 1, column 21"),
    "no JSON on the third line": ('[\n{},\n{"a": }]', "application/json", "line 3"),
    "cut off JSON": (json.dumps([GOOD])[:-5], "application/json", "line 1, column"),
    "nothing": ("", "application/json", "empty"),
    "white space": (" \n ", "application/json", "empty"),
    "an empty array": ("[]", "application/json", "no event"),
    "a number": ("7", "application/json", "neither an object nor an array"),
    "no UTF-8": (b'{"name": "\xff"}', "application/json", "byte 10"),
    "nested without end": ("[" * 60_000, "application/json", "deep"),
    "no NDJSON": ("oops\noops", NDJSON, "line 1"),
    "empty NDJSON": ("\n\n", NDJSON, "empty"),
    "no Arrow": (b"oops", ARROW, "Arrow"),
    "empty Arrow": (b"", ARROW, "Arrow"),
    "cut off Arrow": (arrow(FRAME)[:-200], ARROW, "Arrow"),
    "Arrow without a row": (arrow(FRAME[:0]), ARROW, "no event"),
}


@pytest.mark.parametrize("what", [*UNREADABLE])
def test_an_unreadable_body_is_a_400_that_names_the_place(shared: Served, what: str) -> None:
    body, content_type, place = UNREADABLE[what]
    found = check_problem(shared.post(body, content_type=content_type), 400)
    assert place in found["detail"]


@pytest.mark.parametrize("cut", [1, 5, 12, 20, -1, -4, -9])
def test_a_gzip_body_that_is_cut_off_is_a_400(shared: Served, cut: int) -> None:
    body = gzip.compress(json.dumps([GOOD] * 20).encode())[:cut]
    found = check_problem(shared.post(body, content_encoding="gzip"), 400)
    assert "cut off" in found["detail"]


@pytest.mark.parametrize("cut", [1, 3, 5, 12, 20, -1, -9])
def test_a_zstd_body_that_is_cut_off_is_a_400(shared: Served, cut: int) -> None:
    body = zstandard.compress(json.dumps([GOOD] * 20).encode())[:cut]
    found = check_problem(shared.post(body, content_encoding="zstd"), 400)
    assert "cut off" in found["detail"]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_packed_body_that_is_damaged_is_a_400(shared: Served, encoding: str) -> None:
    whole = PACKED[encoding](json.dumps([GOOD] * 20).encode())
    for body in (b"oops", b"", whole[:30] + b"\xff\xff\xff" + whole[33:], whole + b"oops"):
        check_problem(shared.post(body, content_encoding=encoding), 400)


def test_an_unknown_content_type_or_encoding_is_a_415_that_names_it(shared: Served) -> None:
    for content_type in ("text/plain", "application/xml", "application/jsonx", "image/png"):
        assert content_type in check_problem(shared.post("{}", content_type=content_type), 415)["detail"]
    for encoding in ("br", "deflate", "gzip, gzip"):
        check_problem(shared.post("{}", content_encoding=encoding), 415)


def test_a_body_over_the_limit_is_a_413_that_names_it(shared: Served) -> None:
    body = b" " * 65_537
    for content in (body, iter([body[:40_000], body[40_000:]])):
        answer = shared.client.post("/events", content=content, headers={"content-type": "application/json"})
        found = check_problem(answer, 413)
        assert found["limit_bytes"] == 65_536
        assert "65536" in found["detail"]
    assert shared.post(json.dumps(GOOD) + " " * 60_000).status_code == 202


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_is_a_413_and_takes_little_memory(shared: Served, encoding: str) -> None:
    layers = 40 if encoding == "zstd" else 1
    bomb = b"".join([PACKED[encoding](b" " * (50 * MEBIBYTE))] * layers)
    assert len(bomb) < 65_536
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        found = check_problem(shared.post(bomb, content_encoding=encoding), 413)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found["limit_bytes"] == 65_536
    assert "unpacked" in found["detail"]
    assert peak - before < 4 * MEBIBYTE


def test_a_zstd_body_that_wants_a_huge_window_is_a_413(shared: Served) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = packer.compress(json.dumps(GOOD).encode()) + packer.flush()
    check_problem(shared.post(body, content_encoding="zstd"), 413)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_body_of_very_many_tiny_members_is_answered_soon(database_url: str, encoding: str) -> None:
    member = PACKED[encoding](b"")
    body = member * (2 * MEBIBYTE // len(member)) + PACKED[encoding](json.dumps(GOOD).encode())
    with serve(database_url) as served:
        began = time.monotonic()
        answer = served.post(body, content_encoding=encoding)
        assert answer.status_code in (202, 413)
        assert time.monotonic() - began < 5


LONG = "x" * 201
REFUSED: dict[str, tuple[str, str | None, str]] = {
    "no name": (json.dumps(without("name")), "name", "missing"),
    "no version": (json.dumps(without("version")), "version", "missing"),
    "an empty name": (json.dumps({**GOOD, "name": ""}), "name", "empty"),
    "a name that is a number": (json.dumps({**GOOD, "name": 7}), "name", "not_a_string"),
    "a version that is null": (json.dumps({**GOOD, "version": None}), "version", "not_a_string"),
    "a version that is a number": (json.dumps({**GOOD, "version": 1.5}), "version", "not_a_string"),
    "a long name": (json.dumps({**GOOD, "name": LONG}), "name", "too_long"),
    "a name long in bytes": (json.dumps({**GOOD, "name": "ü" * 101}), "name", "too_long"),
    "a long version": (json.dumps({**GOOD, "version": LONG}), "version", "too_long"),
    "a nested object": (json.dumps({**GOOD, "more": {"a": 1}}), "more", "nested"),
    "an array": (json.dumps({**GOOD, "more": [1]}), "more", "nested"),
    "NaN": (json.dumps({**GOOD, "drift": float("nan")}), "drift", "not_finite"),
    "Infinity": (json.dumps({**GOOD, "drift": float("inf")}), "drift", "not_finite"),
    "-Infinity": (json.dumps({**GOOD, "drift": float("-inf")}), "drift", "not_finite"),
    "a number beyond float64": (json.dumps(GOOD)[:-1] + ', "big": 1e309}', "big", "not_finite"),
    "an integer beyond float64": (json.dumps(GOOD)[:-1] + f', "big": {"9" * 400}}}', "big", "not_finite"),
    "no metric": (json.dumps({"name": "a", "version": "b"}), None, "no_metric"),
    "only labels": (json.dumps({"name": "a", "version": "b", "env": "prod", "x": None}), None, "no_metric"),
    "a key twice": (json.dumps(GOOD)[:-1] + ', "drift": 0.11}', "drift", "duplicate_key"),
    "a name twice": (json.dumps(GOOD)[:-1] + ', "name": "Mistral"}', "name", "duplicate_key"),
    "an empty key": (json.dumps({**GOOD, "": 1}), "", "empty_name"),
    "an empty label": (json.dumps({**GOOD, "": "x"}), "", "empty_name"),
    "a long key": (json.dumps({**GOOD, "k" * 129: 1}), "k" * 128, "name_too_long"),
    "a long label": (json.dumps({**GOOD, "k" * 129: "x"}), "k" * 128, "name_too_long"),
    "a reserved key": (json.dumps({**GOOD, "__name__": 1}), "__name__", "reserved_name"),
    "a reserved label": (json.dumps({**GOOD, "__x": "y"}), "__x", "reserved_name"),
    "65 labels": (json.dumps({**GOOD, **{f"l{n}": "x" for n in range(63)}}), None, "too_many_labels"),
    "1025 metrics": (json.dumps({**GOOD, **{f"m{n}": n for n in range(1022)}}), None, "too_many_metrics"),
    "a long value": (json.dumps({**GOOD, "env": "x" * 1025}), "env", "too_long"),
    "a NUL": (json.dumps({**GOOD, "env": "a\0b"}), "env", "bad_text"),
    "a lone surrogate": (json.dumps({**GOOD, "env": "\ud800"}), "env", "bad_text"),
    "a timestamp that is no time": (json.dumps({**GOOD, "timestamp": "yesterday"}), "timestamp", "bad_timestamp"),
    "a timestamp without offset": (
        json.dumps({**GOOD, "timestamp": "2026-01-31T12:00:00"}),
        "timestamp",
        "bad_timestamp",
    ),
    "a timestamp that is true": (json.dumps({**GOOD, "timestamp": True}), "timestamp", "bad_timestamp"),
    "a timestamp that is an object": (json.dumps({**GOOD, "timestamp": {}}), "timestamp", "bad_timestamp"),
    "a timestamp of NaN": (json.dumps({**GOOD, "timestamp": float("nan")}), "timestamp", "bad_timestamp"),
    "a timestamp before 1970": (
        json.dumps({**GOOD, "timestamp": "1969-12-31T23:59:59Z"}),
        "timestamp",
        "bad_timestamp",
    ),
    "a negative timestamp": (json.dumps({**GOOD, "timestamp": -5}), "timestamp", "bad_timestamp"),
    "a timestamp in the year 2100": (
        json.dumps({**GOOD, "timestamp": "2100-12-31T23:59:59Z"}),
        "timestamp",
        "in_future",
    ),
    "a string": ('"x"', None, "not_an_object"),
    "null": ("null", None, "not_an_object"),
    "an array in an array": ("[]", None, "not_an_object"),
}


@pytest.mark.parametrize("what", [*REFUSED])
def test_a_bad_event_is_refused_by_name_and_a_good_one_beside_it_is_kept(shared: Served, what: str) -> None:
    body, field, code = REFUSED[what]
    shared.post(json.dumps(GOOD))  # the fast reader knows the shape
    found = check_problem(shared.post(f"[{body}]"), 422)
    assert [found[key] for key in ("batch_id", "accepted", "rejected")] == [None, 0, 1]
    assert [(error["index"], error["field"], error["code"]) for error in found["errors"]] == [(0, field, code)]
    good = json.dumps(GOOD)
    for content, kind in ((f"[{good}, {body}, {good}]", "application/json"), (f"{good}\n{body}\n{good}\n", NDJSON)):
        answer = shared.post(content, content_type=kind)
        assert answer.status_code == 202
        mixed = answer.json()
        assert (mixed["accepted"], mixed["rejected"]) == (2, 1)
        assert [*mixed["errors"][0]] == ["index", "field", "code", "detail"]
        assert [(error["index"], error["field"], error["code"]) for error in mixed["errors"]] == [(1, field, code)]
        assert mixed["errors"][0]["detail"]


def test_a_timestamp_too_far_ahead_names_the_limit(shared: Served) -> None:
    now = time.time()
    assert shared.post(json.dumps({**GOOD, "timestamp": now + 590})).status_code == 202
    found = check_problem(shared.post(json.dumps({**GOOD, "timestamp": now + 700})), 422)
    assert "10m" in found["errors"][0]["detail"]


def test_only_the_first_hundred_errors_are_listed(shared: Served) -> None:
    found = shared.post(json.dumps([GOOD] + [{"name": "a"}] * 150)).json()
    assert (found["accepted"], found["rejected"], len(found["errors"])) == (1, 150, 100)
    assert [error["index"] for error in found["errors"]] == [*range(1, 101)]


def test_an_event_at_every_limit_is_kept(served: Served) -> None:
    event = {"name": "n" * 200, "version": "v" * 200, **{f"m{n}": n for n in range(1024)}}
    event |= {"l" * 128: "x" * 1024, **{f"l{n}": "" for n in range(80)}, **{f"k{n}": "x" for n in range(61)}}
    assert served.post(json.dumps(event)).json()["accepted"] == 1
    assert served.store() == 1
    found = served.client.get(f"/stats/{'n' * 200}/{'v' * 200}").json()
    assert len(found["metrics"]) == 1024


def test_a_refused_event_uses_up_no_limit(database_url: str) -> None:
    with serve(database_url, metric_limit=5, stream_limit=5) as served:
        for number in range(20):
            check_problem(served.post(json.dumps({"name": "a", f"m{number}": 1})), 422)
            check_problem(served.post(json.dumps({"name": f"a{number}", "version": "v", "drift": [1]})), 422)
        assert served.post(json.dumps(GOOD)).status_code == 202


def test_a_stream_too_many_is_refused_and_known_ones_go_on(database_url: str) -> None:
    with serve(database_url, stream_limit=3) as served:
        events = [{**GOOD, "env": f"e{number}"} for number in range(5)]
        found = served.post(json.dumps(events)).json()
        assert (found["accepted"], [error["code"] for error in found["errors"]]) == (3, ["stream_limit"] * 2)
        assert "3" in found["errors"][0]["detail"]
        served.store()
        assert served.post(json.dumps(events[:3])).json()["accepted"] == 3
        assert count_rows(database_url, "stream") == 3
        assert 'modelmeter_events_refused_total{code="stream_limit"}' in served.client.get("/metrics").text


def test_a_metric_too_many_is_refused_and_known_ones_go_on(database_url: str) -> None:
    with serve(database_url, metric_limit=3) as served:
        assert served.post(json.dumps(GOOD)).status_code == 202
        found = check_problem(served.post(json.dumps({**GOOD, "more": 1})), 422)
        assert found["errors"][0]["code"] == "metric_limit"
        assert found["errors"][0]["field"] == "more"
        assert served.post(json.dumps(GOOD)).status_code == 202


def test_the_same_idempotency_key_counts_once(served: Served) -> None:
    answers = [served.post(json.dumps([GOOD] * 3), idempotency_key="load 1 %") for _ in range(2)]
    served.store()
    answers.append(served.post(json.dumps([GOOD] * 3), idempotency_key="load 1 %"))
    served.store()
    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({answer.json()["batch_id"] for answer in answers}) == 1
    assert served.client.get("/stats").json()["models"][0]["events"] == 3
    served.post(json.dumps([GOOD] * 3), idempotency_key="load 2")
    served.post(json.dumps([GOOD] * 3))
    served.store()
    assert served.client.get("/stats").json()["models"][0]["events"] == 9


def test_the_same_idempotency_key_at_once_counts_once(served: Served) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: served.post(json.dumps(GOOD), idempotency_key="k"), range(24))]
    assert {answer.status_code for answer in answers} == {202}
    served.store()
    assert served.client.get("/stats").json()["models"][0]["events"] == 1


def test_a_long_idempotency_key_is_a_400(shared: Served) -> None:
    assert shared.post(json.dumps(GOOD), idempotency_key="k" * 255).status_code == 202
    check_problem(shared.post(json.dumps(GOOD), idempotency_key="k" * 256), 400)


def test_many_small_requests_at_once_are_all_kept(served: Served) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = [*pool.map(lambda _: served.post(json.dumps(GOOD)).json()["batch_id"], range(200))]
    assert len({*ids}) == 200
    assert served.store() == 200


def test_acknowledged_is_on_the_queue(served: Served) -> None:
    served.post(json.dumps([GOOD] * 7))
    with psycopg.connect(served.database_url) as connection:
        assert connection.execute("SELECT sum(events) FROM modelmeter.queue").fetchone() == (7,)


def test_a_backlog_over_the_limit_is_a_429_until_it_is_worked_off(database_url: str) -> None:
    with serve(database_url, queue_limit_bytes=1024) as served:
        rows = json.dumps([{**GOOD, "drift": number / 7} for number in range(500)])
        assert served.post(rows).status_code == 202
        served.wait_until(lambda: served.post(json.dumps(GOOD)).status_code == 429)
        answer = served.post(json.dumps(GOOD))
        assert "1024" in check_problem(answer, 429)["detail"]
        assert int(answer.headers["retry-after"]) >= 1
        before = count_rows(database_url, "queue")
        served.post(json.dumps(GOOD))
        assert count_rows(database_url, "queue") == before, "nothing is kept"
        served.store()
        served.wait_until(lambda: served.post(json.dumps(GOOD)).status_code == 202)


def test_what_is_sent_while_nobody_reads_is_bounded(database_url: str) -> None:
    """Bodies in hand count against the limit, also those of unknown length."""
    with serve(database_url, ingest_buffer_limit_bytes=1024) as served, psycopg.connect(database_url) as locking:
        locking.execute("LOCK TABLE modelmeter.queue IN ACCESS EXCLUSIVE MODE")
        body = json.dumps([GOOD] * 50)

        def post(number: int) -> httpx.Response:
            content = body if number % 2 else iter([body.encode()])
            return served.client.post("/events", content=content, headers={"content-type": "application/json"})

        with ThreadPoolExecutor(6) as pool:
            sent = [pool.submit(post, number) for number in range(6)]
            served.wait_until(lambda: sum(one.done() for one in sent) == 5)
            refused = [one.result() for one in sent if one.done()]
            locking.rollback()
            last = [one.result() for one in sent if one.result() not in refused]
        for answer in refused:
            check_problem(answer, 429)
            assert "retry-after" in answer.headers
        assert [answer.status_code for answer in last] == [202]


def test_timestamps_of_every_kind_arrive_as_meant(served: Served) -> None:
    second = 1_767_225_600
    stamps: list[object] = [
        second,
        second * 10**3,
        second * 10**6,
        second * 10**9,
        float(second),
        "2026-01-01T00:00:00Z",
    ]
    stamps += ["2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00.000000Z"]
    for body in (stamps, *([stamp] for stamp in stamps)):
        assert served.post(json.dumps([{**GOOD, "timestamp": stamp} for stamp in body])).json()["rejected"] == 0
    frame = pl.DataFrame([GOOD]).with_columns(timestamp=pl.lit("2026-01-01T00:00:00").str.to_datetime(time_unit="ns"))
    assert served.post(arrow(frame), content_type=ARROW).json()["accepted"] == 1
    served.store()
    found = served.client.get("/events/Mistral/v1?start=0&limit=100").json()["events"]
    assert {event["timestamp"] for event in found} == {"2026-01-01T00:00:00Z"}
    assert len(found) == 2 * len(stamps) + 1


def test_an_event_without_a_timestamp_gets_the_time_of_its_arrival(served: Served) -> None:
    before = time.time()
    served.post(json.dumps([GOOD, {**GOOD, "timestamp": None}]))
    after = time.time()
    served.store()
    found = served.client.get(f"/stats/Mistral/v1?start={before:.6f}&end={after + 0.001:.6f}").json()
    assert found["events"] == 2


def test_events_come_out_as_they_went_in(served: Served) -> None:
    odd = {
        "name": "a/b %2F ü?#",
        "version": "+ &=\"'\\",
        "env": "  \t€ 😀",
        "zero": -0.0,
        "small": 5e-324,
        "large": 1.7976931348623157e308,
        "third": 1 / 3,
        "yes": True,
        "count": 2**53 + 1,
        "timestamp": "2026-01-01T00:00:00.123456Z",
    }
    assert served.post(json.dumps(odd)).json()["accepted"] == 1
    served.store()
    answer = served.client.get(f"/events/{quoted(odd['name'])}/{quoted(odd['version'])}?start=0")
    expected = {**odd, "yes": 1.0, "count": float(2**53 + 1)}
    assert answer.json() == {"events": [expected]}
    assert str(answer.json()["events"][0]["zero"]) == "-0.0"


def quoted(text: object) -> str:
    return "".join(f"%{octet:02X}" for octet in str(text).encode())
