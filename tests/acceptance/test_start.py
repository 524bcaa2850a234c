"""The database comes later than the rest, or without a schema: who waits, who says what, who comes up by itself."""

import signal
from collections.abc import Iterator

import httpx
import psutil
import pytest
from psycopg.conninfo import make_conninfo

from modelmeter.store.embedded import EmbeddedPostgres
from modelmeter.store.migrations import latest
from tests.acceptance.load import MODELS, Sent, audit, body_of
from tests.acceptance.yard import Yard, ask, connect, is_ready, until


class Database:
    """A Postgres of the test's own that can go away and come back under the same address."""

    def __init__(self, server: EmbeddedPostgres, name: str) -> None:
        self._server = server
        with connect(server.conninfo) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        self.url = make_conninfo(server.conninfo, dbname=name)

    def vanish(self) -> None:
        pid = int((self._server.data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
        psutil.Process(pid).send_signal(signal.SIGKILL)
        until(lambda: not psutil.pid_exists(pid), "Postgres is gone")

    def come(self) -> None:
        self._server.ensure_running()


@pytest.fixture
def database(yard: Yard) -> Iterator[Database]:
    with EmbeddedPostgres(yard.home / "own") as server:
        yield Database(server, "empty")


def post(url: str, events: list[Sent]) -> httpx.Response:
    headers = {"Content-Type": "application/json", "Idempotency-Key": str(events[0].number)}
    return httpx.post(f"{url}/events", content=body_of(events, "json"), headers=headers, timeout=15)


def check(url: str, numbers: range) -> None:
    """Events go all the way."""
    events = [Sent(MODELS[0], 1_700_000_000_000_000 + number, number, number) for number in numbers]
    assert post(url, events).status_code == 202
    where = f"{url}/stats/Mistral/v1?start=0&end=now"
    until(lambda: httpx.get(where).json().get("events", 0) >= numbers.stop - 1, "the events are stored")


def refused(url: str, why: str) -> bool:
    answer = httpx.get(f"{url}/readyz")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    return why in answer.json()["detail"]


def test_api_and_worker_wait_for_a_database_that_is_away_and_has_no_schema(yard: Yard, database: Database) -> None:
    database.vanish()
    api = yard.run("api", "--port", "0", database_url=database.url)
    worker = yard.run("worker", database_url=database.url)
    keeper = yard.run("keeper", database_url=database.url)
    until(lambda: refused(api.url, "the database is away: "), "/readyz says that the database is away")
    one = [Sent(MODELS[0], 1_700_000_000_000_000, 0, 0)]
    answer = post(api.url, one)
    assert answer.status_code == 503
    assert "the database is away" in answer.json()["detail"]
    assert httpx.get(f"{api.url}/healthz").status_code == 200
    assert httpx.get(f"{api.url}/stats", timeout=15).status_code == 503

    database.come()
    until(lambda: refused(api.url, "run: modelmeter migrate"), "/readyz says that the schema is missing")
    assert "run: modelmeter migrate" in post(api.url, one).json()["detail"]
    done = yard.command("migrate", database_url=database.url)
    assert done.returncode == 0, done.stderr
    until(lambda: is_ready(api.url), "the API comes up by itself")
    check(api.url, range(1, 21))

    database.vanish()
    until(lambda: refused(api.url, "the database is away: "), "/readyz says that the database is away again")
    database.come()
    until(lambda: is_ready(api.url), "the API comes up by itself again")
    until(lambda: httpx.get(f"{api.url}/stats", timeout=15).status_code == 200, "stats are answered at once", 4)
    check(api.url, range(21, 41))
    assert [process.code for process in (api, worker, keeper)] == [None, None, None]


def test_serve_waits_for_a_database_that_is_away_and_migrates_it(yard: Yard, database: Database) -> None:
    dice = yard.chance()
    database.vanish()
    serve = yard.run("serve", "--port", "0", "--database-url", database.url)
    until(lambda: refused(serve.url, "the database is away: "), "/readyz says that the database is away")
    assert serve.said.count("the database is away") < 10, "the same is said again and again"
    database.come()
    until(lambda: is_ready(serve.url), "serve comes up by itself")
    check(serve.url, range(1, 21))
    assert ask(database.url, "SELECT max(number) FROM modelmeter.migration") == latest()
    audit(serve.url, [Sent(MODELS[0], 1_700_000_000_000_000 + number, number, number) for number in range(1, 21)], dice)
    serve.signal(signal.SIGTERM)
    assert serve.end() == 0
