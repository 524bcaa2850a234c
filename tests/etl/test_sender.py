import socket
import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmeter.errors import WrongSetting
from modelmeter.etl.sender import (
    JSON,
    Answer,
    Parcel,
    Sender,
    SenderPool,
    SendRefused,
    SendStopped,
    ServerAway,
    backoff_seconds,
    base_url,
    retry_after_seconds,
)
from tests.etl.stub import Fault, Stub

ONE = Parcel(b'[{"name":"m","version":"v1","drift":0.1}]', JSON, "key-1", 1)


def quick(stub: Stub, notices: list[str] | None = None, patience_seconds: float = 10) -> Sender:
    notice = notices.append if notices is not None else None
    return Sender(stub.url, first_wait_seconds=0.001, patience_seconds=patience_seconds, notice=notice)


@pytest.mark.parametrize("ending", ["", "/", "/stats", "/stats/", "/events"])
def test_a_url_may_end_in_stats_or_events_or_not(ending: str) -> None:
    assert base_url(f"http://host:8000/prefix{ending}") == "http://host:8000/prefix"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "", "http://host/?x=1", "http://[::1"])
def test_a_url_that_cannot_work_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(WrongSetting, match=r"http://127\.0\.0\.1:8000"):
        base_url(url)


@given(st.integers(0, 2000), st.floats(0, 1))
def test_a_wait_is_never_longer_than_the_cap_and_never_under_half_of_the_first(attempt: int, jitter: float) -> None:
    assert 0.125 <= backoff_seconds(attempt, 0.25, 30, jitter) <= 30


def test_waits_double() -> None:
    assert [backoff_seconds(attempt, 0.25, 30, 1) for attempt in range(9)] == [
        0.25, 0.5, 1, 2, 4, 8, 16, 30, 30,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("7", 7),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0),
        ("soon", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float) -> None:
    assert retry_after_seconds(value, datetime(2026, 11, 23, 12, tzinfo=UTC)) == seconds


def test_it_retries_until_the_events_are_taken_with_the_same_key(stub: Stub) -> None:
    stub.faults += [Fault(503), Fault(429), Fault(0), Fault(502), Fault(504)]
    with quick(stub) as sender:
        assert sender.send(ONE).accepted == 1
    assert stub.keys == ["key-1"] * 6
    assert stub.events.height == 1


def test_events_counted_before_the_connection_broke_count_once(stub: Stub) -> None:
    stub.faults += [Fault(0, is_counted=True), Fault(503, is_counted=True)]
    with quick(stub) as sender:
        assert sender.send(ONE).accepted == 1
    assert stub.keys == ["key-1"] * 3
    assert stub.events.height == 1


def test_retry_after_is_waited_for(stub: Stub) -> None:
    stub.faults += [Fault(429, {"Retry-After": "1"})]
    notices: list[str] = []
    with quick(stub, notices) as sender:
        sender.send(ONE)
    assert notices == ["the server is busy (429 Too Many Requests); trying again in 1.0 s"]


def test_a_retry_after_beyond_all_patience_gives_up_at_once(stub: Stub) -> None:
    stub.faults += [Fault(503, {"Retry-After": "3600"}, {"detail": "postgres is away"})]
    with quick(stub) as sender, pytest.raises(ServerAway, match=r"postgres is away.*asks to wait 3600 s"):
        sender.send(ONE)


def test_patience_ends() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    sender = Sender(f"http://127.0.0.1:{port}", first_wait_seconds=0.01, patience_seconds=0.05)
    with sender, pytest.raises(ServerAway, match="no answer"):
        sender.send(ONE)


def test_a_refused_request_quotes_the_servers_words_and_is_not_repeated(stub: Stub) -> None:
    stub.faults += [Fault(413, body={"title": "Content too large", "detail": "over 32 MiB"})]
    with quick(stub) as sender, pytest.raises(SendRefused, match="413 over 32 MiB"):
        sender.send(ONE)
    assert len(stub.requests) == 1


def test_422_is_an_answer_when_it_says_which_events(stub: Stub) -> None:
    with quick(stub) as sender:
        answer = sender.send(Parcel(b'[{"name":null,"x":1}]', JSON, "key-1", 1))
    assert (answer.accepted, answer.rejected, answer.errors[0].detail) == (0, 1, "name: missing")


def test_422_without_counts_is_an_error(stub: Stub) -> None:
    stub.faults += [Fault(422, body={"detail": "nothing could be kept"})]
    with quick(stub) as sender, pytest.raises(SendRefused, match="nothing could be kept"):
        sender.send(ONE)


def test_a_server_that_is_no_modelmeter_is_told(stub: Stub) -> None:
    stub.faults += [Fault(200, body={"hello": "world"})]
    with quick(stub) as sender, pytest.raises(SendRefused, match="Is the URL right"):
        sender.send(ONE)


def test_a_redirect_is_named_and_not_followed(stub: Stub) -> None:
    stub.faults += [Fault(308, {"Location": "https://elsewhere/events"})]
    with quick(stub) as sender, pytest.raises(SendRefused, match="redirects to https://elsewhere/events"):
        sender.send(ONE)


def test_stop_ends_a_wait(stub: Stub) -> None:
    stub.faults += [Fault(503, {"Retry-After": "3000"})]
    sender = Sender(stub.url, patience_seconds=5000, notice=lambda _: sender.stop())
    with sender, pytest.raises(SendStopped):
        sender.send(ONE)


def test_a_pool_sends_everything_once_through_faults(stub: Stub) -> None:
    faults = [Fault(503), Fault(0, is_counted=True), Fault(429), Fault(503, is_counted=True), Fault(0)]
    stub.on_request = lambda number: faults[number % 12] if number % 12 < len(faults) else None
    answers: list[Answer] = []
    with quick(stub, patience_seconds=60) as sender, SenderPool(sender) as pool:
        for number in range(60):
            pool.put(Parcel(ONE.body, JSON, f"key-{number}", 1), answers.append)
    assert len(answers) == 60
    assert stub.events.height == 60


def test_a_pool_raises_its_first_failure_and_sends_no_more(stub: Stub) -> None:
    stub.on_request = lambda number: Fault(400, body={"detail": "bad"}) if number > 3 else None

    def send_all(sender: Sender) -> None:
        with SenderPool(sender, threads=1) as pool:
            for number in range(100):
                pool.put(Parcel(ONE.body, JSON, f"key-{number}", 1), lambda _: None)

    with quick(stub) as sender, pytest.raises(SendRefused, match="bad"):
        send_all(sender)
    assert len(stub.requests) == 4
    assert stub.events.height == 3


def test_leaving_a_pool_by_an_exception_ends_its_waits(stub: Stub) -> None:
    waiting = threading.Event()
    stub.on_request = lambda _: Fault(503, {"Retry-After": "3000"})

    def be_interrupted(sender: Sender) -> None:
        with SenderPool(sender) as pool:
            pool.put(ONE, lambda _: None)
            assert waiting.wait(10)
            raise KeyboardInterrupt

    sender = Sender(stub.url, patience_seconds=5000, notice=lambda _: waiting.set())
    with sender, pytest.raises(KeyboardInterrupt):
        be_interrupted(sender)
    assert len(stub.requests) == 1
