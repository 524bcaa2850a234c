"""Baselines: pinned once, they stay what they were, whatever happens to the events that they were made of."""

import json
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import psycopg
import pytest

from modelmeter.reader import Event
from modelmeter.sketch import sketch_of
from modelmeter.store.baselines import read_baseline, read_baseline_sketch
from modelmeter.window import DAY, to_rfc3339
from tests.history import labels_of, message_of, send
from tests.web.conftest import Served, serve
from tests.web.test_compare import BEGIN, END, EVENTS, SPAN, check_drift, compact, found, values
from tests.web.test_ingest import check_problem
from tests.web.test_stats import NAMES

BODY = {"match": '{name="Mistral",version="v1"}', "start": to_rfc3339(BEGIN), "end": to_rfc3339(END)}


@pytest.fixture
def stocked(served: Served) -> Served:
    send(served.database_url, message_of(*EVENTS))
    served.store()
    return served


def put(served: Served, name: str, status: int = 201, **more: object) -> dict[str, object]:
    answer = served.client.put(f"/baselines/{quote(name, safe='')}", json=BODY | more)
    assert answer.status_code == status, answer.text
    body: dict[str, object] = answer.json()
    return body


def forget_events(url: str) -> None:
    """What retention does in the end."""
    with psycopg.connect(url) as connection:
        for table in ("chunk", "rollup_partial_1m", "rollup_partial_1h", "rollup_1m", "rollup_1h", "rollup_1d"):
            connection.execute(f"DELETE FROM modelmeter.{table}".encode())


def test_a_baseline_has_this_shape(stocked: Served) -> None:
    made = put(stocked, "golden", created_by="ana")
    drawn = values("inference_time", version="v1")
    assert {key: made[key] for key in ("name", "match", "start", "end", "events", "created_by")} == {
        "name": "golden",
        **BODY,
        "events": drawn.size,
        "created_by": "ana",
    }
    listed = stocked.client.get("/baselines").json()["baselines"]
    assert listed == [{key: value for key, value in made.items() if key != "metrics"}]
    assert "modelmeter_baselines 1.0" in stocked.client.get("/metrics").text
    one = stocked.client.get("/baselines/golden?quantiles=0.5").json()
    assert [*one["metrics"]] == ["height", "inference_time", "prediction_accuracy"]
    assert one["metrics"]["inference_time"]["count"] == drawn.size
    assert one["metrics"]["inference_time"]["mean"] == pytest.approx(drawn.mean())
    assert [*one["metrics"]["inference_time"]["quantiles"]] == ["0.5"]


def test_drift_from_a_baseline_stays_when_its_events_are_gone(stocked: Served) -> None:
    then = values("inference_time", version="v1")
    put(stocked, "golden")
    addresses = [
        f"/drift/Mistral/v2?reference=baseline:golden&{SPAN}",
        f"/compare/Mistral?a=baseline:golden&b=v2&{SPAN}",
        f"/drift/Mistral/v2?reference=baseline:golden&{SPAN}&step=1d",
    ]
    before = [found(stocked, address) for address in addresses]
    assert before[0]["reference"]["baseline"] == before[1]["a"]["baseline"] == "golden"
    assert before[0]["reference"]["match"] == BODY["match"]
    check_drift(before[0]["metrics"]["inference_time"], values("inference_time", version="v2"), then)
    forget_events(stocked.database_url)
    send(stocked.database_url, message_of(*[one for one in EVENTS if dict(one.labels)["version"] == "v2"]))
    stocked.store()
    assert [found(stocked, address)["metrics"] for address in addresses] == [one["metrics"] for one in before]


def test_a_baseline_is_the_same_as_the_span_that_it_was_made_of(stocked: Served) -> None:
    put(stocked, "golden")
    pinned = found(stocked, f"/compare/Mistral?a=baseline:golden&b=v2&{SPAN}")
    direct = found(stocked, f"/compare/Mistral?a=v1&b=v2&{SPAN}")
    assert pinned["metrics"] == direct["metrics"]


def test_the_same_put_again_changes_nothing_even_when_the_events_are_gone(stocked: Served) -> None:
    first = put(stocked, "golden", created_by="ana")
    send(stocked.database_url, message_of(Event(labels_of(env="prod"), BEGIN, {"inference_time": 1.0})))
    stocked.store()
    assert put(stocked, "golden", 200, created_by="bob") == first
    forget_events(stocked.database_url)
    assert put(stocked, "golden", 200) == first
    reordered = '{ version = "v1", name="Mistral" }'
    assert put(stocked, "golden", 200, match=reordered) == first


def test_a_put_of_other_events_replaces_the_whole(stocked: Served) -> None:
    put(stocked, "golden")
    other = put(stocked, "golden", 200, match='{name="Mistral",version="v2",env="prod"}', end=to_rfc3339(BEGIN + DAY))
    assert other["events"] == values("inference_time", end=BEGIN + DAY, version="v2", env="prod").size
    assert len(stocked.client.get("/baselines").json()["baselines"]) == 1


def test_a_put_of_no_events_is_refused_and_takes_nothing(stocked: Served) -> None:
    first = put(stocked, "golden")
    answer = stocked.client.put("/baselines/golden", json=BODY | {"end": "2001-01-02T00:00:00Z", "start": 0})
    assert "has no event from 1970-01-01T00:00:00Z" in check_problem(answer, 422)["detail"]
    assert stocked.client.get("/baselines/golden").json() == first


def test_a_deleted_baseline_is_gone_with_all_that_was_kept(stocked: Served) -> None:
    put(stocked, "golden")
    assert stocked.client.delete("/baselines/golden").status_code == 204
    check_problem(stocked.client.delete("/baselines/golden"), 404)
    check_problem(stocked.client.get("/baselines/golden"), 404)
    with psycopg.connect(stocked.database_url) as connection:
        assert connection.execute("SELECT count(*) FROM modelmeter.baseline_rollup").fetchone() == (0,)


def test_any_name_can_be_given(stocked: Served) -> None:
    for name in NAMES:
        path = quote(name, safe="").replace("..", "%2E%2E")
        answer = stocked.client.put(f"/baselines/{path}", json=BODY)
        assert answer.status_code == 201, answer.text
        assert stocked.client.get(f"/baselines/{path}").json()["name"] == name
        body = found(stocked, f"/drift/Mistral/v2?reference=baseline:{quote(name)}&{SPAN}")
        assert body["reference"]["baseline"] == name
        assert stocked.client.delete(f"/baselines/{path}").status_code == 204


def test_no_more_than_the_limit_also_when_many_come_at_once(database_url: str) -> None:
    send(database_url, message_of(*EVENTS))
    with serve(database_url, baseline_limit=3) as served:
        served.store()

        def one(number: int) -> int:
            return served.client.put(f"/baselines/b{number}", json=BODY).status_code

        with ThreadPoolExecutor(8) as pool:
            codes = sorted(pool.map(one, range(8)))
        assert codes == [201] * 3 + [422] * 5
        kept = [one["name"] for one in served.client.get("/baselines").json()["baselines"]]
        answer = served.client.put("/baselines/more", json=BODY)
        assert "MODELMETER_BASELINE_LIMIT" in check_problem(answer, 422)["detail"]
        put(served, kept[0], 200, end=to_rfc3339(BEGIN + DAY))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"match": None}, "match"),
        ({"match": ""}, "match"),
        ({"match": "v1"}, "match"),
        ({"match": '{version="v1"}'}, "match"),
        ({"match": '{name="a\\u0000"}'}, "match"),
        ({"start": "yesterday"}, "start"),
        ({"start": True}, "start"),
        ({"start": BODY["end"]}, "start"),
        ({"end": ""}, "end"),
        ({"created_by": "x" * 201}, "created_by"),
        ({"created_by": "\0"}, "created_by"),
        ({"labels": {}}, "labels"),
    ],
)
def test_a_field_that_cannot_be_read_is_a_400_that_names_it(
    shared: Served, body: dict[str, object], field: str
) -> None:
    problem = check_problem(shared.client.put("/baselines/x", json=BODY | body), 400)
    assert problem["field"] == field
    assert problem["detail"].startswith(field)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'"x"', b"{}"])
def test_a_body_that_is_no_object_is_a_400(shared: Served, content: bytes) -> None:
    check_problem(shared.client.put("/baselines/x", content=content), 400)


def test_what_is_too_long_or_unknown_is_refused(shared: Served) -> None:
    check_problem(shared.client.put("/baselines/x", content=b" " * 70_000), 413)
    assert check_problem(shared.client.put(f"/baselines/{'x' * 201}", json=BODY), 400)["field"] == "name"
    assert check_problem(shared.client.put("/baselines/a%00", json=BODY), 400)["field"] == "name"
    assert check_problem(shared.client.get("/baselines?label.env=x"), 400)["field"] == "label.env"
    assert check_problem(shared.client.put("/baselines/x?start=0", json=BODY), 400)["field"] == "start"
    assert check_problem(shared.client.put("/baselines/x", json=BODY), 404)["what"] == "model"


def test_the_nearest_baseline_is_named(stocked: Served) -> None:
    put(stocked, "golden")
    problem = check_problem(stocked.client.get("/baselines/goldne"), 404)
    assert (problem["what"], problem["nearest"]) == ("baseline", ["golden"])


def test_the_histogram_of_a_metric_can_be_read_alone(stocked: Served) -> None:
    put(stocked, "golden")
    compact(stocked.database_url)
    with psycopg.connect(stocked.database_url) as connection:
        ids: dict[str, int] = dict(connection.execute("SELECT name, metric_id FROM modelmeter.metric").fetchall())
        sketch = read_baseline_sketch(connection, "golden", ids["inference_time"])
        expected = sketch_of(values("inference_time", version="v1"))
        assert sketch is not None
        assert (sketch.offset, sketch.counts.tolist()) == (expected.offset, expected.counts.tolist())
        assert read_baseline_sketch(connection, "golden", 12345) is None
        assert read_baseline_sketch(connection, "none", ids["inference_time"]) is None
        assert len(read_baseline(connection, "golden", [ids["height"]])) == 1
    json.dumps(stocked.client.get("/baselines/golden").json(), allow_nan=False)
