"""Silences over HTTP, by our own paths and by Alertmanager's, with amtool itself."""

import json
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from modelmeter.matcher import parse_matchers
from modelmeter.silence import Silence
from modelmeter.store.silences import Silences
from modelmeter.window import SECOND
from tests.history import NOON
from tests.notifying import Dispatching, Evaluator, inbox, status, webhooks
from tests.web.conftest import Served, serve

GOOD = {"matchers": ['name="Mistral"'], "author": "ana", "comment": "retraining", "duration": "2h"}


def amtool(served: Served, *argv: str) -> str:
    done = subprocess.run(
        ["amtool", f"--alertmanager.url={served.url}", *argv], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_silence_is_made_changed_and_ended(served: Served) -> None:
    made = served.client.post("/silences", json=GOOD)
    assert made.status_code == 201
    silence = made.json()
    assert (silence["state"], silence["matchers"]) == ("active", ['name="Mistral"'])
    path = f"/silences/{silence['id']}"
    assert served.client.get(path).json() == silence
    assert served.client.get("/silences").json() == {"silences": [silence]}
    changed = served.client.put(path, json={**GOOD, "starts_at": "+1h", "comment": "later"}).json()
    assert (changed["id"], changed["state"], changed["comment"]) == (silence["id"], "pending", "later")
    assert served.client.get("/silences?state=active").json() == {"silences": []}
    assert len(served.client.get("/silences?state=pending").json()["silences"]) == 1
    ended = served.client.delete(path).json()
    assert ended["state"] == "expired"
    assert served.client.delete(path).json()["ends_at"] == ended["ends_at"], "ended once"
    nowhere = "/silences/6a8c9f80-5d0c-4a8b-9a55-0f6f1f0c7d11"
    for answer in (
        served.client.get(nowhere),
        served.client.delete(nowhere),
        served.client.put(nowhere, json=GOOD),
        served.client.get("/silences/x"),
    ):
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"matchers": []}, "matchers"),
        ({"matchers": ["name"]}, "matchers"),
        ({"matchers": 'name=~".*"'}, "matchers"),
        ({"matchers": [1]}, "matchers"),
        ({"author": ""}, "author"),
        ({"comment": 3}, "comment"),
        ({"comment": "a\0"}, "comment"),
        ({"duration": "soon"}, "duration"),
        ({"duration": "0s"}, "ends_at"),
        ({"ends_at": "+1h"}, "duration"),
        ({"starts_at": "yesterday"}, "starts_at"),
        ({"auther": "x"}, "auther"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_field(shared: Served, change: dict[str, object], field: str) -> None:
    answer = shared.client.post("/silences", json={**GOOD, **change})
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert shared.client.get("/silences").json() == {"silences": []}


def test_a_body_that_is_none_is_refused(shared: Served) -> None:
    assert shared.client.post("/silences", content=b"{").status_code == 400
    assert shared.client.post("/silences", json=[]).status_code == 400
    assert shared.client.post("/silences", content=b"x" * 70_000).status_code == 413
    assert shared.client.get("/silences?state=over").json()["field"] == "state"


def test_there_is_a_limit_on_silences(database_url: str) -> None:
    with serve(database_url, silence_limit=2) as served:
        first = served.client.post("/silences", json=GOOD).json()
        assert served.client.post("/silences", json=GOOD).status_code == 201
        answer = served.client.post("/silences", json=GOOD)
        assert answer.status_code == 429
        assert "MODELMETER_SILENCE_LIMIT" in answer.json()["detail"]
        served.client.delete(f"/silences/{first['id']}")
        assert served.client.post("/silences", json=GOOD).status_code == 201


def test_amtool_makes_shows_changes_and_ends_silences(served: Served) -> None:
    add = ["silence", "add", "--author=ana", "--comment=why"]
    silence_id = amtool(served, *add, "--duration=2h", "name=Mistral", "env=~prod|staging", "zone!=x").strip()
    (ours,) = served.client.get("/silences").json()["silences"]
    assert ours["id"] == silence_id
    assert sorted(ours["matchers"]) == ['env=~"prod|staging"', 'name="Mistral"', 'zone!="x"']
    assert (ours["author"], ours["comment"]) == ("ana", "why")
    other = amtool(served, *add, "name=Other").strip()
    (shown,) = json.loads(amtool(served, "silence", "query", "-o", "json", "name=Mistral"))
    assert (shown["id"], shown["status"]["state"], shown["createdBy"]) == (silence_id, "active", "ana")
    assert {one["id"] for one in json.loads(amtool(served, "silence", "query", "-o", "json"))} == {silence_id, other}
    amtool(served, "silence", "update", "--duration=5h", "--comment=longer", silence_id)
    changed = served.client.get(f"/silences/{silence_id}").json()
    assert changed["comment"] == "longer"
    assert changed["ends_at"] > ours["ends_at"]
    amtool(served, "silence", "expire", silence_id)
    assert served.client.get(f"/silences/{silence_id}").json()["state"] == "expired"
    assert [one["id"] for one in json.loads(amtool(served, "silence", "query", "-o", "json"))] == [other]
    gone = served.client.get("/api/v2/silence/6a8c9f80-5d0c-4a8b-9a55-0f6f1f0c7d11")
    assert (gone.status_code, gone.json()) == (404, "silence not found")
    assert served.client.post("/api/v2/silences", json={"matchers": []}).status_code == 400


FILE = """
route: {receiver: log, routes: [{matchers: ['name="A"'], receiver: team}]}
receivers: [{name: log}, {name: team}]
inhibit_rules:
  - {source_matchers: ['severity="critical"'], target_matchers: ['severity="warning"'], equal: [name]}
"""


def test_amtool_shows_alerts_with_what_is_silenced_and_inhibited(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "n.yml"
    file.write_text(FILE)
    with serve(database_url, notifications=file) as served, Evaluator(database_url) as evaluator:
        evaluator.fire(name="A", severity="critical")
        evaluator.fire(name="A", severity="warning")
        evaluator.fire(name="B", severity="warning")
        amtool(served, "silence", "add", "--author=a", "--comment=c", "name=B")

        def names(*argv: str) -> list[tuple[str, str, str]]:
            shown = json.loads(amtool(served, "alert", "query", "-o", "json", *argv))
            return sorted((one["labels"]["name"], one["labels"]["severity"], one["status"]["state"]) for one in shown)

        assert names() == [("A", "critical", "active")]
        assert names("--silenced") == [("B", "warning", "suppressed")]
        assert names("--inhibited") == [("A", "warning", "suppressed")]
        assert names("--silenced", "--inhibited", "--active", "name=A") == [
            ("A", "critical", "active"),
            ("A", "warning", "suppressed"),
        ]
        assert names("--receiver=te.*", "--inhibited", "--active") == names("--inhibited", "--active", "name=A")
        (alert,) = json.loads(amtool(served, "alert", "query", "-o", "json"))
        assert alert["receivers"] == [{"name": "team"}]
        assert alert["annotations"] == {"summary": "Drift of A"}
        assert served.client.get("/api/v2/receivers").json() == [{"name": "log"}, {"name": "team"}]
        for wrong in ("filter=x", "active=maybe", "receiver=("):
            assert served.client.get(f"/api/v2/alerts?{wrong}").status_code == 400


def test_notifications_say_what_waits_and_what_became_of_the_rest(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "n.yml"
    with inbox() as well, inbox(status(500, body="overloaded")) as ill, Evaluator(database_url) as evaluator:
        both = json.loads(webhooks(a=well.url))
        both["receivers"][0]["webhook_configs"].append({"url": ill.url})
        with Dispatching(database_url, file, json.dumps(both)) as it, serve(database_url, notifications=file) as served:
            evaluator.fire(name="A")
            it.step()
            answer = served.client.get("/notifications").json()
            first, second = answer["destinations"]
            assert (first["destination"], first["pending"], first["in_file"]) == ("a/webhook/0", 0, True)
            assert (second["destination"], second["pending"], second["retrying"]) == ("a/webhook/1", 1, 1)
            (waits,) = answer["pending"]
            assert (waits["status"], waits["attempts"], waits["reason"]) == ("retrying", 1, "HTTP 500: overloaded")
            assert waits["next_attempt_at"] == "2026-03-01T12:00:01Z"
            (done,) = answer["history"]
            assert (done["status"], done["why"], done["alerts"], done["reason"]) == ("delivered", "new alert", 1, None)
            ill.answer = status(400, body="no such hook")
            it.step(1)
            (over,) = served.client.get("/notifications?status=given_up").json()["history"]
            assert (over["reason"], over["attempts"]) == ("HTTP 400: no such hook", 2)
            assert served.client.get("/notifications?status=pending").json()["pending"] == []
            assert served.client.get("/notifications?status=lost").json()["field"] == "status"
            assert served.client.get("/notifications?limit=0").json()["field"] == "limit"


def test_a_silenced_alert_is_told_when_the_silence_ends(database_url: str, tmp_path: Path) -> None:
    store = Silences(database_url, 10, 30)
    silence = Silence(UUID(int=0), parse_matchers('name="A"'), "a", "c", NOON, NOON + 600 * SECOND, NOON)
    store.put(silence, NOON, new=True)
    with (
        inbox() as box,
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, tmp_path / "n.yml", webhooks(a=box.url)) as it,
    ):
        evaluator.fire(name="A")
        evaluator.fire(name="B")
        it.step()
        assert [one for request in box.take() for one in request.alerts] == [("firing", "B")]
        it.step(599)
        assert box.take() == []
        it.step(60)
        assert [one for request in box.take() for one in request.alerts] == [("firing", "A")]
        it.step(31 * 86_400)
    assert store.newest(NOON) == [], "one that is long over is forgotten"
