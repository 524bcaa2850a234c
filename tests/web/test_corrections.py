"""Corrections over HTTP and from the command line."""

import json

import psycopg
import pytest
from typer.testing import CliRunner

from modelmeter.cli import app
from tests.web.conftest import Served

DAY = "2026-11-01"
SPAN = {"start": f"{DAY}T00:00:00Z", "end": f"{DAY}T23:00:00Z"}


def body(*minutes: int, drift: float = 0.5, env: str = "prod") -> str:
    return json.dumps(
        [
            {"name": "Mistral", "version": "v1", "env": env, "timestamp": f"{DAY}T12:{minute:02d}:00Z", "drift": drift}
            for minute in minutes
        ]
    )


def drift(served: Served, **query: str) -> tuple[int, float]:
    found = served.client.get("/stats/Mistral/v1", params={**SPAN, **query}).json()
    return found["events"], found["metrics"]["drift"]["mean"] if found["events"] else 0.0


def test_events_are_counted_then_removed_and_a_record_is_left(served: Served) -> None:
    served.post(body(*range(10)))
    served.post(body(*range(5), env="test"))
    served.store()
    query = {"match": '{name="Mistral",env="prod"}', "start": f"{DAY}T12:03:00Z", "end": f"{DAY}T12:06:00Z"}
    dry = served.client.delete("/events", params={**query, "dry_run": "true"})
    assert dry.json() == {"correction_id": None, "streams": 1, "removed": 3, "dry_run": True}
    assert drift(served)[0] == 15
    done = served.client.delete("/events", params={**query, "by": "me", "reason": "a bad sensor"})
    assert done.status_code == 200
    assert done.json() == {"correction_id": 1, "streams": 1, "removed": 3, "dry_run": False}
    assert drift(served)[0] == 12
    (record,) = served.client.get("/corrections").json()["corrections"]
    assert record.pop("at") <= record.pop("applied_at")
    assert record == {
        "correction_id": 1, "kind": "delete", "match": query["match"], "named_streams": None, "by": "me",
        "start": query["start"], "end": query["end"], "reason": "a bad sensor", "streams": 1, "removed": 3, "added": 0,
    }  # fmt: skip


def test_what_was_acknowledged_before_and_not_stored_yet_is_removed_and_what_comes_after_is_not(served: Served) -> None:
    served.post(body(1, 2))
    assert (
        served.client.delete("/events", params={"match": '{name="Mistral"}', "start": "0", "end": "now"}).json()[
            "removed"
        ]
        == 0
    ), "it was not stored yet"
    served.post(body(3))
    assert served.store() == 1
    assert drift(served)[0] == 1


def test_new_events_replace_those_of_their_streams_in_their_span(served: Served) -> None:
    served.post(body(*range(20), drift=1))
    served.post(body(*range(20), drift=1, env="test"))
    served.store()
    for _ in range(2):
        answer = served.post(body(5, 6, 9, drift=3), "/events?replace=true", idempotency_key="run-17")
        assert answer.status_code == 200, "sent again, it is acknowledged again and does nothing"
    assert answer.json()["accepted"] == 3
    assert answer.json()["correction_id"] is None
    assert drift(served, **{"label.env": "prod"}) == (18, (15 * 1 + 3 * 3) / 18)
    assert drift(served, **{"label.env": "test"}) == (20, 1)
    served.post(body(7, drift=3), f"/events?replace=true&start={DAY}T12:00:00Z&end={DAY}T13:00:00Z&by=me")
    assert drift(served, **{"label.env": "prod"}) == (1, 3)
    newest, first = served.client.get("/corrections", params={"limit": 2}).json()["corrections"]
    assert (newest["kind"], newest["by"], newest["removed"], newest["added"]) == ("replace", "me", 18, 1)
    assert (first["named_streams"], first["removed"], first["added"]) == (1, 5, 3)
    assert first["by"] == "127.0.0.1"


def test_nothing_is_replaced_when_one_event_is_refused(served: Served) -> None:
    served.post(body(1, 2))
    served.store()
    bad = [*json.loads(body(1)), {"name": "Mistral", "version": "v1"}]
    answer = served.post(json.dumps(bad), "/events?replace=true")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "no_metric"
    assert drift(served)[0] == 2


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"start": "0", "end": "now"}, "match"),
        ({"match": "{}", "start": "0", "end": "now"}, "match"),
        ({"match": '{a="b"}', "end": "now"}, "start"),
        ({"match": '{a="b"}', "start": "0"}, "end"),
        ({"match": '{a="b"}', "start": "now", "end": "0"}, "start"),
        ({"match": '{a="b"}', "start": "soon", "end": "now"}, "start"),
        ({"match": '{a="b"}', "start": "0", "end": "now", "dryrun": "true"}, "dryrun"),
        ({"match": '{a="b"}', "start": "0", "end": "now", "dry_run": "yes"}, "dry_run"),
        ({"match": '{a="b"}', "start": "0", "end": "now", "reason": "x" * 1001}, "reason"),
        ({"match": '{a="b"}', "start": "0", "end": "now", "by": "\0"}, "by"),
    ],
)
def test_a_deletion_that_is_not_clear_is_refused(shared: Served, query: dict[str, str], field: str) -> None:
    answer = shared.client.delete("/events", params=query)
    assert (answer.status_code, answer.json()["field"]) == (400, field)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("replac=true", "replac"),
        ("replace=yes", "replace"),
        ("start=0", "start"),
        ("replace=true&start=0", "end"),
        ("replace=true&start=0&end=5", "start"),
        ("replace=true&replace=true", "replace"),
    ],
)
def test_a_replacement_that_is_not_clear_is_refused(shared: Served, query: str, field: str) -> None:
    answer = shared.post(body(1), f"/events?{query}")
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_what_is_retired_is_refused_with_the_days_that_would_do(served: Served) -> None:
    served.post(body(1))
    served.store()
    with psycopg.connect(served.database_url) as connection:
        connection.execute("INSERT INTO modelmeter.retired VALUES (0, 'raw', '2026-11-02T00:00:00Z')")
    query = {"match": '{name="Mistral"}', "start": "0", "end": f"{DAY}T12:00:00Z"}
    answer = served.client.delete("/events", params=query)
    assert (answer.status_code, answer.json()["field"]) == (409, "end")
    assert "move it to 2026-11-01T00:00:00Z or 2026-11-02T00:00:00Z" in answer.json()["detail"]
    assert answer.json()["raw_since"] == "2026-11-02T00:00:00Z"
    whole = served.client.delete("/events", params={**query, "end": "2026-11-02T00:00:00Z"})
    assert whole.json()["removed"] == 1


def test_a_limit_that_is_none_is_refused(shared: Served) -> None:
    assert shared.client.get("/corrections", params={"limit": "0"}).status_code == 400


def test_forget_counts_then_removes(served: Served) -> None:
    served.post(body(*range(10)))
    served.store()
    command = ["forget", "--match", '{name="Mistral"}', "--start", f"{DAY}T12:00:00Z", "--end", f"{DAY}T12:04:00Z"]
    said = CliRunner().invoke(app, [*command, "--dry-run", "--url", served.url])
    assert said.output == "would remove 4 events of 1 streams; nothing was done\n"
    assert drift(served)[0] == 10
    said = CliRunner().invoke(app, [*command, "--url", served.url, "--reason", "test", "--by", "me"])
    assert said.output == "removed 4 events of 1 streams; correction 1\n"
    assert drift(served)[0] == 6
    said = CliRunner().invoke(app, ["forget", "--match", "{", "--start", "0", "--end", "now", "--url", served.url])
    assert "match" in str(said.exception)


def test_an_answer_that_a_client_has_is_given_anew_after_a_correction(served: Served) -> None:
    served.post(body(*range(10)))
    served.store()
    paths = ["/stats", f"/stats/Mistral/v1?start={SPAN['start']}&end={SPAN['end']}"]
    tags = [served.client.get(path).headers["etag"] for path in paths]

    def codes() -> list[int]:
        known = [{"if-none-match": tag} for tag in tags]
        return [served.client.get(path, headers=one).status_code for path, one in zip(paths, known, strict=True)]

    assert codes() == [304, 304]
    query = {"match": '{name="Mistral"}', "start": f"{DAY}T12:03:00Z", "end": f"{DAY}T12:06:00Z"}
    assert served.client.delete("/events", params=query).json()["removed"] == 3
    assert codes() == [200, 200]
