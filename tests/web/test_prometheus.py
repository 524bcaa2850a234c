"""Prometheus' HTTP API, asked as Prometheus is asked: by hand, beside the real one, and by promtool."""

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from modelmeter.reader import Event
from modelmeter.window import HOUR, SECOND
from tests.acceptance.yard import until
from tests.history import NOON, event, labels_of, store
from tests.promql.prometheus import running_prometheus
from tests.web.serving import serving

UNIX = NOON // SECOND
NOTHING: list[object] = []


def history() -> list[Event]:
    """Two versions for an hour, an event every 10 s, at times that are on no edge."""
    return [
        event(
            NOON - HOUR + number * 10 * SECOND + 3_217_000,
            labels=labels_of(version=version, env=env),
            drift=number / 8,
            accuracy=1 - number / 512,
        )
        for number in range(360)
        for version, env in (("v1", "prod"), ("v2", "test"))
    ]


@pytest.fixture
def client(database_url: str) -> Iterator[httpx.Client]:
    store(database_url, *history())
    with serving(database_url) as client:
        yield client


def ask(client: httpx.Client, path: str, **parameters: object) -> Any:
    """By GET and by POST of a form, where both are served: one answer."""
    form: dict[str, Any] = parameters
    got = client.get(f"/api/v1/{path}", params=form)
    assert got.headers["Content-Type"] == "application/json"
    if "label/" not in path and path not in ("metadata", "status/buildinfo"):
        posted = client.post(f"/api/v1/{path}", data=form)
        assert (posted.status_code, posted.json()) == (got.status_code, got.json())
    return got.json()


def test_an_instant_query_is_answered_to_the_letter(client: httpx.Client) -> None:
    metric = {"__name__": "drift", "env": "prod", "name": "Mistral", "version": "v1"}
    body = {
        "status": "success",
        "data": {"resultType": "vector", "result": [{"metric": metric, "value": [UNIX, "44.875"]}]},
    }
    assert ask(client, "query", query='drift{env="prod"}', time=UNIX) == body
    assert ask(client, "query", query='drift{env="prod"}', time="2026-03-01T12:00:00Z") == body
    scalar = {"status": "success", "data": {"resultType": "scalar", "result": [UNIX + 0.5, "2"]}}
    assert ask(client, "query", query="1 + 1", time=f"{UNIX}.5") == scalar
    string = {"status": "success", "data": {"resultType": "string", "result": [UNIX, "a"]}}
    assert ask(client, "query", query='"a"', time=UNIX) == string
    before = time.time()
    now = client.get("/api/v1/query", params={"query": "time()"}).json()["data"]["result"][0]
    assert before - 0.01 < now < time.time() + 0.01


def test_a_range_query_is_answered_to_the_letter(client: httpx.Client) -> None:
    found = ask(client, "query_range", query="count(drift)", start=UNIX - 60, end=UNIX, step="30s")
    values = [[UNIX - 60, "2"], [UNIX - 30, "2"], [UNIX, "2"]]
    assert found == {
        "status": "success",
        "data": {"resultType": "matrix", "result": [{"metric": {}, "values": values}]},
    }
    none = {"status": "success", "data": {"resultType": "matrix", "result": NOTHING}}
    assert ask(client, "query_range", query="nothing", start=UNIX - 60, end=UNIX, step=30) == none


def test_labels_values_and_series_are_found(client: httpx.Client) -> None:
    span = {"start": UNIX - 3600, "end": UNIX}
    names = ["__name__", "env", "name", "version"]
    assert ask(client, "labels", **span) == {"status": "success", "data": names}
    assert ask(client, "label/version/values", **span)["data"] == ["v1", "v2"]
    assert ask(client, "label/__name__/values", **span, **{"match[]": '{env="prod"}'})["data"] == ["accuracy", "drift"]
    assert ask(client, "label/version/values", **span, **{"match[]": 'drift{env="prod"}'})["data"] == ["v1"]
    assert ask(client, "label/unknown/values", **span)["data"] == []
    either = ['drift{env="prod"}', 'accuracy{version=~"v2"}']
    series = [
        {"__name__": "accuracy", "env": "test", "name": "Mistral", "version": "v2"},
        {"__name__": "drift", "env": "prod", "name": "Mistral", "version": "v1"},
    ]
    assert ask(client, "series", **span, **{"match[]": either})["data"] == series
    cut = {"status": "success", "data": series[:1], "warnings": ["results truncated due to limit"]}
    assert ask(client, "series", **span, limit=1, **{"match[]": either}) == cut
    assert ask(client, "series", start=1, end=2, **{"match[]": "drift"})["data"] == []


def test_the_version_the_metadata_and_the_pretty_form_are_told(client: httpx.Client) -> None:
    assert ask(client, "status/buildinfo")["data"]["version"]
    assert ask(client, "metadata")["status"] == "success"
    assert ask(client, "format_query", query="sum( a)by(b)") == {"status": "success", "data": "sum by (b) (a)"}


def test_parse_query_gives_a_tree(client: httpx.Client) -> None:
    found = ask(client, "parse_query", query="a[5m]")["data"]
    assert (found["type"], found["name"], found["range"]) == ("matrixSelector", "a", 300_000)


BAD: tuple[tuple[str, dict[str, Any]], ...] = (
    ("query", {}),
    ("query", {"query": "sum("}),
    ("query", {"query": "a", "time": "soon"}),
    ("query", {"query": "a", "timeout": "soon"}),
    ("query_range", {"query": "a"}),
    ("query_range", {"query": "a", "start": "1", "end": "x", "step": "1"}),
    ("query_range", {"query": "a", "start": "9", "end": "1", "step": "1"}),
    ("query_range", {"query": "a", "start": "1", "end": "9"}),
    ("query_range", {"query": "a", "start": "1", "end": "9", "step": "0"}),
    ("query_range", {"query": "a", "start": "1", "end": "9", "step": "-1m"}),
    ("query_range", {"query": "a", "start": "1", "end": "9", "step": "NaN"}),
    ("query_range", {"query": "a", "start": "1", "end": "99999", "step": "1"}),
    ("query_range", {"query": "a[5m]", "start": "1", "end": "9", "step": "1"}),
    ("query", {"query": "rate(a)"}),
    ("query", {"query": 'label_replace(drift, "to", "x", "version", "(")', "time": UNIX}),
    ("query", {"query": "drift + on (name) drift", "time": UNIX}),
    ("series", {}),
    ("series", {"match[]": "("}),
    ("series", {"match[]": "a", "start": "x"}),
    ("labels", {"end": "x"}),
    ("labels", {"match[]": "(", "start": "1"}),
    ("label/a/values", {"match[]": "a{"}),
    ("format_query", {"query": "a b"}),
)


def test_answers_and_refusals_are_those_of_prometheus(client: httpx.Client, tmp_path: Path) -> None:
    series: list[tuple[dict[str, str], Sequence[tuple[int, float]]]] = []
    for metric in ("drift", "accuracy"):
        points: dict[tuple[tuple[str, str], ...], list[tuple[int, float]]] = {}
        for one in history():
            points.setdefault(one.labels, []).append((one.timestamp, one.metrics[metric]))
        series += [({"__name__": metric, **dict(labels)}, own) for labels, own in points.items()]
    span = {"start": UNIX - 3600, "end": UNIX}
    good: list[tuple[str, dict[str, Any]]] = [
        ("query", {"query": "drift[40s]", "time": UNIX}),
        ("query", {"query": "sum by (env) (avg_over_time(drift[20m]))", "time": UNIX}),
        ("query", {"query": "-drift / 0", "time": UNIX}),
        ("query", {"query": "scalar(nothing)", "time": UNIX}),
        ("query_range", {**span, "query": "max_over_time(accuracy[10m])", "step": "5m"}),
        ("query_range", {**span, "query": "drift > 20", "step": 300}),
        ("series", {**span, "match[]": 'drift{version=~"v.*"}'}),
        ("labels", span),
        ("label/version/values", {**span, "match[]": "drift"}),
        ("label/__name__/values", span),
    ]
    with running_prometheus(tmp_path, series) as prometheus:
        theirs = prometheus._client
        for path, form in good:
            left, right = (one.get(f"/api/v1/{path}", params=form).json() for one in (client, theirs))
            assert ordered(left) == ordered(right), (path, form)
        for path, form in BAD:
            ours, real = (one.get(f"/api/v1/{path}", params=form) for one in (client, theirs))
            told, wanted = ours.json(), real.json()
            assert ours.status_code == real.status_code, (path, form, told, wanted)
            assert list(told) == list(wanted) == ["status", "errorType", "error"]
            assert told["errorType"] == wanted["errorType"], (path, form)
            # The parser has words of its own, and does not say where.
            own, other = (re.sub(r"(\d+:\d+: )?parse error: .*", "parse error", one["error"]) for one in (told, wanted))
            if "drift" not in str(form):
                assert own == other, (path, form)


def ordered(answer: Any) -> Any:
    data = answer["data"]
    rows = data["result"] if isinstance(data, dict) else data
    if isinstance(data, dict) and data["resultType"] in ("vector", "matrix"):
        rows.sort(key=json.dumps)
        assert all(list(row) == ["metric", "value" if data["resultType"] == "vector" else "values"] for row in rows)
    return answer


def test_limits_refuse_in_prometheus_words(database_url: str) -> None:
    store(database_url, *history())
    with serving(database_url, query_limit_samples=100, query_limit_series=3) as client:
        many = client.get("/api/v1/query", params={"query": "drift[1h]", "time": UNIX})
        assert (many.status_code, many.json()) == (
            422,
            {
                "status": "error",
                "errorType": "execution",
                "error": "query processing would load too many samples into memory in query execution",
            },
        )
        wide = client.get("/api/v1/query", params={"query": '{name="Mistral"}', "time": UNIX})
        assert (wide.status_code, wide.json()["errorType"]) == (422, "execution")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every query first sleeps in Postgres for a minute."""
    monkeypatch.setattr(
        "modelmeter.series.SeriesSource.find", lambda source, _: source.connection.execute("SELECT pg_sleep(60)")
    )


@pytest.mark.usefixtures("slow")
def test_a_query_that_takes_too_long_is_ended_in_postgres_and_says_timeout(client: httpx.Client) -> None:
    began = time.monotonic()
    answer = client.get("/api/v1/query", params={"query": "drift", "timeout": "300ms"})
    assert time.monotonic() - began < 20
    body = {"status": "error", "errorType": "timeout", "error": "query timed out in expression evaluation"}
    assert (answer.status_code, answer.json()) == (503, body)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_query_whose_client_has_gone_is_cancelled_in_postgres(
    client: httpx.Client, database_url: str, method: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:

        def sleeping() -> int:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND state = 'active' AND query LIKE 'SELECT pg_sleep%'"
            ).fetchone()
            assert row is not None
            return int(row[0])

        with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as gone:
            form = "query=drift"
            head = f"{method} /api/v1/query{'?' + form if method == 'GET' else ''} HTTP/1.1\r\nHost: x\r\n"
            body = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n\r\n{form}"
            gone.sendall((head + ("\r\n" if method == "GET" else body)).encode())
            until(lambda: sleeping() == 1, "the query runs")
        until(lambda: sleeping() == 0, "the query is cancelled", seconds=20)


def test_without_a_database_the_answer_says_unavailable() -> None:
    with serving("host=/nowhere") as client:
        answer = client.get("/api/v1/query", params={"query": "drift"})
        assert (answer.status_code, answer.json()["errorType"]) == (503, "unavailable")
        assert answer.headers["Retry-After"]


def promtool(*words: str) -> str:
    done = subprocess.run(["promtool", "query", *words], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_promtool_understands_the_answers(client: httpx.Client) -> None:
    url = str(client.base_url)
    at = f"--time={UNIX}"
    found = promtool("instant", at, url, 'drift{env="prod"}')
    assert found == f'drift{{env="prod", name="Mistral", version="v1"}} => 44.875 @[{UNIX}]\n'
    span = (f"--start={UNIX - 120}", f"--end={UNIX}")
    assert "2 @" in promtool("range", *span, "--step=1m", url, "count(drift)")
    values = promtool("labels", *span, url, "version")
    assert values.split() == ["v1", "v2"]
    series = promtool("series", *span, "--match=drift", url)
    assert 'version="v2"' in series
