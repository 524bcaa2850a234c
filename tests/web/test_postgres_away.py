"""Postgres goes away and comes back: nothing is acknowledged meanwhile, and nobody has to help."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelmeter.store.embedded import EmbeddedPostgres
from modelmeter.store.migrations import migrate
from tests.history import count_rows
from tests.web.conftest import serve
from tests.web.test_ingest import GOOD, check_problem


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[EmbeddedPostgres]:
    home = Path(tempfile.mkdtemp(prefix="modelmeter-test-", dir="/tmp"))
    home.chmod(0o755)
    try:
        with EmbeddedPostgres(home / "data") as server:
            yield server
    finally:
        shutil.rmtree(home)


def stop(server: EmbeddedPostgres) -> None:
    """As when it dies: ensure_running brings it back at the same address."""
    assert server._child is not None
    server._child.stop()


def test_postgres_away_at_the_start_is_a_503_until_it_is_there(own_postgres: EmbeddedPostgres) -> None:
    stop(own_postgres)
    with serve(own_postgres.conninfo, ready=False) as served:
        answer = served.post(json.dumps(GOOD))
        check_problem(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
        for path in ("/readyz", "/stats"):
            check_problem(served.client.get(path), 503)
        assert served.client.get("/healthz").status_code == 200
        own_postgres.ensure_running()
        served.wait_until(lambda: "schema" in served.client.get("/readyz").json()["detail"])
        check_problem(served.client.get("/stats"), 503)
        migrate(own_postgres.conninfo)
        served.wait_until_ready()
        assert served.post(json.dumps(GOOD)).status_code == 202
        served.store()
        assert served.client.get("/stats").json()["models"][0]["events"] == 1


def test_postgres_away_in_between_is_a_503_and_what_was_acknowledged_is_there(own_postgres: EmbeddedPostgres) -> None:
    own_postgres.ensure_running()
    migrate(own_postgres.conninfo)
    with serve(own_postgres.conninfo) as served:
        waiting = count_rows(own_postgres.conninfo, "queue")
        acknowledged = sum(served.post(json.dumps(GOOD)).status_code == 202 for _ in range(3))
        assert served.client.get("/stats").status_code == 200
        stop(own_postgres)
        for _ in range(3):
            answer = served.post(json.dumps(GOOD))
            check_problem(answer, 503)
            assert int(answer.headers["retry-after"]) >= 1
        served.wait_until(lambda: served.client.get("/readyz").status_code == 503)
        own_postgres.ensure_running()
        served.wait_until_ready()
        assert served.client.get("/stats").status_code == 200, "no connection that died with it is handed out"
        acknowledged += served.post(json.dumps(GOOD)).status_code == 202
        assert acknowledged == 4
        assert count_rows(own_postgres.conninfo, "queue") - waiting <= 4
        before = {model["version"]: model["events"] for model in served.client.get("/stats").json()["models"]}
        assert served.store() == 4
        after = {model["version"]: model["events"] for model in served.client.get("/stats").json()["models"]}
        assert after["v1"] - before.get("v1", 0) == 4
