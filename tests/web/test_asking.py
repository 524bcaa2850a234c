"""Questions over HTTP: groups, series over time, conditions; their shapes, forms, pages and limits."""

import io
import json
from typing import Any

import polars as pl
import psycopg
import pytest

from tests.web.conftest import Served, serve
from tests.web.test_ingest import check_problem

DAY = "2026-01-31T"
SPAN = f"start={DAY}09:00:00Z&end={DAY}22:53:20Z"
ARROW = "application/vnd.apache.arrow.stream"
EVENTS = [
    {"name": "Mistral", "version": "v1", "env": "prod", "drift": 1, "timestamp": f"{DAY}12:00:00Z"},
    {"name": "Mistral", "version": "v1", "env": "prod", "drift": 3, "latency": 8, "timestamp": f"{DAY}12:00:30.5Z"},
    {"name": "Mistral", "version": "v1", "drift": 5, "timestamp": f"{DAY}13:00:00Z"},
    {"name": "Mistral", "version": "v2", "env": "test", "drift": 2, "timestamp": f"{DAY}12:00:00Z"},
    {"name": "Llama", "version": "v1", "env": "prod", "latency": 4, "timestamp": f"{DAY}12:59:59.999999Z"},
]


@pytest.fixture(scope="module")
def stocked(shared: Served) -> Served:
    assert shared.post(json.dumps(EVENTS)).json()["rejected"] == 0
    assert shared.store() == len(EVENTS)
    return shared


def one_value(value: float) -> dict[str, Any]:
    stats = dict.fromkeys(("mean", "min", "max", "last"), value)
    return {"count": 1, "stddev": 0.0, **stats, "quantiles": {"0.5": value}}


def ask(served: Served, address: str) -> Any:
    answer = served.client.get(address)
    assert answer.status_code == 200, answer.text
    assert answer.headers["vary"] == "Accept"
    return answer.json()


def test_groups_have_this_shape(stocked: Served) -> None:
    found = ask(stocked, f"/stats/Mistral?by=version,env&{SPAN}&quantiles=0.5&metric=drift")
    pair = found["groups"][1]["metrics"].pop("drift")
    assert (pair["count"], pair["mean"], pair["quantiles"]["0.5"]) == (2, 2.0, pytest.approx(2))
    assert found == {
        "name": "Mistral",
        "start": f"{DAY}09:00:00Z",
        "end": f"{DAY}22:53:20Z",
        "resolution": "1h",
        "groups": [
            {"labels": {"version": "v1", "env": None}, "events": 1, "metrics": {"drift": one_value(5.0)}},
            {"labels": {"version": "v1", "env": "prod"}, "events": 2, "metrics": {}},
            {"labels": {"version": "v2", "env": "test"}, "events": 1, "metrics": {"drift": one_value(2.0)}},
        ],
        "next": None,
    }


def test_a_series_over_time_has_this_shape(stocked: Served) -> None:
    found = ask(stocked, f"/stats/Mistral/v1?step=30s&{SPAN}&quantiles=0.5")
    assert found == {
        "name": "Mistral",
        "version": "v1",
        "start": f"{DAY}09:00:00Z",
        "end": f"{DAY}22:53:20Z",
        "step": "30s",
        "resolution": "raw",
        "points": [
            {"start": f"{DAY}12:00:00Z", "events": 1, "metrics": {"drift": one_value(1.0)}},
            {
                "start": f"{DAY}12:00:30Z",
                "events": 1,
                "metrics": {"drift": one_value(3.0), "latency": one_value(8.0)},
            },
            {"start": f"{DAY}13:00:00Z", "events": 1, "metrics": {"drift": one_value(5.0)}},
        ],
        "next": None,
    }
    assert ask(stocked, f"/stats/Mistral/v1?step=30&{SPAN}&quantiles=0.5") == found


def test_groups_over_time_hold_points(stocked: Served) -> None:
    found = ask(stocked, f"/stats?by=name&step=1h&{SPAN}&quantiles=0.5&metric=latency,drift")
    assert "name" not in found
    assert found["resolution"] == "1h"
    assert [group["labels"] for group in found["groups"]] == [{"name": "Llama"}, {"name": "Mistral"}]
    assert [[point["events"] for point in group["points"]] for group in found["groups"]] == [[1], [3, 1]]
    assert found["groups"][0]["points"][0]["metrics"] == {"latency": one_value(4.0)}


@pytest.mark.parametrize(
    ("query", "events"),
    [
        ('match={env="prod"}', 3),
        ('match={env!="prod"}', 2),
        ('match={env=~"pr.*|test",name="Mistral"}', 3),
        ('match={env!~".%2B"}', 1),
        ("match={}", 5),
        ('match={env="prod"}&label.version=v1&label.name=Llama', 1),
        ('match={env="prod"}&label.env=test', 0),
        ('match=latency{env="prod"}', 3),
        ('match={__name__="latency"}', 5),
        ("where=drift>=2 and drift<5", 2),
        ("where=latency>0&exact=true", 2),
        ("exact=1", 5),
        ("label.env=prod", 3),
    ],
)
def test_matchers_and_conditions_choose_events(stocked: Served, query: str, events: int) -> None:
    found = ask(stocked, f"/stats?{SPAN}&{query}")
    assert found["events"] == events
    if "latency" in query:
        assert "latency" in found["metrics"]


def test_a_name_before_the_braces_chooses_the_metric(stocked: Served) -> None:
    assert [*ask(stocked, f"/stats?{SPAN}&match=latency")["metrics"]] == ["latency"]


def test_raw_answers_say_so_and_are_exact(stocked: Served) -> None:
    found = ask(stocked, f"/stats/Mistral?{SPAN}&exact=true&quantiles=0.3")
    assert found["resolution"] == "raw"
    assert found["metrics"]["drift"]["quantiles"]["0.3"] == pytest.approx(1.9, rel=1e-15)


BAD = {
    "/stats/Mistral?step=0": "step",
    "/stats/Mistral?step=999ms": "step",
    "/stats/Mistral?step=often": "step",
    "/stats/Mistral?step=11y": "step",
    "/stats/Mistral?by=": None,
    "/stats/Mistral?by=a,a": "by",
    "/stats/Mistral?by=a,,b": "by",
    "/stats/Mistral?where=drift": "where",
    "/stats/Mistral?where=drift=1": "where",
    "/stats/Mistral?match={env=": "match",
    '/stats/Mistral?match={env=~"("}': "match",
    "/stats/Mistral?match=rate(a[5m])": "match",
    "/stats/Mistral?exact=maybe": "exact",
    "/stats/Mistral?by=env&limit=0": "limit",
    "/stats/Mistral?by=env&cursor=!": "cursor",
    "/stats/Mistral?by=env&cursor=bm9uZQ": "cursor",
    "/stats?limit=1": "limit",
    "/stats?end=now": "end",
}


@pytest.mark.parametrize("address", [*BAD])
def test_what_cannot_be_read_is_named(stocked: Served, address: str) -> None:
    answer = stocked.client.get(address)
    if BAD[address] is None:
        assert answer.status_code == 200
    else:
        assert check_problem(answer, 400)["field"] == BAD[address]


def test_csv_and_arrow_hold_a_line_for_each_group_window_and_metric(stocked: Served) -> None:
    address = f"/stats/Mistral?by=version,env&step=1h&{SPAN}&quantiles=0.5,1"
    answer = stocked.client.get(address, headers={"accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    lines = answer.text.splitlines()
    assert lines[0] == "version,env,start,events,metric,count,mean,stddev,min,max,last,q0.5,q1"
    assert lines[1] == f"v1,,{DAY}13:00:00.000000Z,1,drift,1,5.0,0.0,5.0,5.0,5.0,5.0,5.0"
    assert len(lines) == 5
    arrow = stocked.client.get(address, headers={"accept": ARROW})
    assert arrow.headers["content-type"] == ARROW
    frame = pl.read_ipc_stream(io.BytesIO(arrow.content))
    assert frame.columns == lines[0].split(",")
    assert frame["start"].dtype == pl.Datetime("us", "UTC")
    assert frame.equals(
        pl.read_csv(answer.content, schema_overrides={"env": pl.String}).with_columns(
            pl.col("start").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us", time_zone="UTC")
        )
    )


def test_a_label_with_the_name_of_a_column_gets_a_prefix(stocked: Served) -> None:
    answer = stocked.client.get(f"/stats/Mistral?by=count&{SPAN}&quantiles=", headers={"accept": "text/csv"})
    assert answer.text.splitlines()[0] == "label.count,events,metric,count,mean,stddev,min,max,last"


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("text/*", "text/csv; charset=utf-8"),
        ("application/json;q=0.5, text/csv;q=0.9", "text/csv; charset=utf-8"),
        ("text/csv;q=0, */*;q=0.1", "application/json"),
        ("application/json;q=0, application/*", ARROW),
        (f"TEXT/CSV;q=0.3,{ARROW};q=0.31", ARROW),
    ],
)
def test_the_accepted_form_with_the_greatest_quality_is_sent(stocked: Served, accept: str, media: str) -> None:
    answer = stocked.client.get(f"/stats/Mistral/v1?{SPAN}", headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, media)


@pytest.mark.parametrize("accept", ["image/png", "text/html", "application/json;q=0", "*/*;q=0", "text/csv;q=no"])
def test_a_form_that_is_not_there_is_a_406_that_lists_what_is(stocked: Served, accept: str) -> None:
    found = check_problem(stocked.client.get(f"/stats/Mistral/v1?{SPAN}", headers={"accept": accept}), 406)
    assert found["offers"] == ["application/json", "text/csv", ARROW]


def test_pages_follow_one_another(stocked: Served) -> None:
    address = f"/stats/Mistral?by=version,env&step=1h&{SPAN}"
    whole = ask(stocked, address)
    points = [(group["labels"], point) for group in whole["groups"] for point in group["points"]]
    found, cursor = [], ""
    while cursor is not None:
        page = ask(stocked, f"{address}&limit=1{cursor and f'&cursor={cursor}'}")
        found += [(group["labels"], point) for group in page["groups"] for point in group["points"]]
        cursor = page["next"]
    assert found == points
    lines = stocked.client.get(f"{address}&limit=2", headers={"accept": "text/csv"})
    following = lines.headers["modelmeter-next"]
    assert ask(stocked, f"{address}&limit=2&cursor={following}")["next"] is None


def test_limits_come_from_the_settings(database_url: str) -> None:
    with serve(database_url, stats_limit_points=10, stats_limit_samples=3, stats_limit_groups=2) as served:
        served.post(json.dumps(EVENTS))
        served.store()
        for query, field in (("step=1h", "step"), ("exact=true", "start"), ("by=name,version", "by")):
            found = check_problem(served.client.get(f"/stats?{SPAN}&{query}"), 422)
            assert found["field"] == field
            assert "choose" in found["detail"]
        assert check_problem(served.client.get(f"/stats?{SPAN}&by=name&limit=11"), 400)["field"] == "limit"


@pytest.mark.parametrize(
    "address",
    [
        "/stats",
        "/stats/Mistral",
        "/stats/Mistral/v1",
        f"/stats?by=name&step=1h&{SPAN}",
        "/stats/Mistral/v1?start=-40000d",
    ],
)
def test_what_is_known_is_not_sent_again_until_something_new_came(served: Served, address: str) -> None:
    served.post(json.dumps(EVENTS))
    served.store()
    first = served.client.get(address)
    tag = first.headers["etag"]
    assert tag.startswith('W/"')
    for known in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        again = served.client.get(address, headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert served.client.get(address, headers={"if-none-match": '"other"'}).content[:20] == first.content[:20]
    now = {"timestamp": EVENTS[0]["timestamp"]} if "start" in address else {}
    served.post(json.dumps({"name": "Mistral", "version": "v1", "drift": 2, **now}))
    served.store()
    newer = served.client.get(address, headers={"if-none-match": tag})
    assert newer.status_code == 200
    assert newer.headers["etag"] != tag
    assert newer.content != first.content


def test_each_form_and_each_question_has_a_tag_of_its_own(stocked: Served) -> None:
    addresses = [
        f"/stats/Mistral/v1?{SPAN}",
        f"/stats/Mistral/v1?{SPAN}&quantiles=0.5",
        f"/stats/Mistral?{SPAN}&by=env",
    ]
    tags = {
        stocked.client.get(address, headers={"accept": media}).headers["etag"]
        for address in addresses
        for media in ("application/json", "text/csv", ARROW)
    }
    assert len(tags) == 9


def test_a_histogram_has_this_shape(stocked: Served) -> None:
    found = ask(stocked, f"/histogram/Mistral/v1?metric=drift&step=1h&{SPAN}&bins=8")
    edges = found.pop("edges")
    assert edges == pytest.approx([0.9786, 1, 2.9537, 3.0183, 4.9674, 5.0762], abs=1e-3)
    assert found == {
        "name": "Mistral",
        "version": "v1",
        "metric": "drift",
        "start": f"{DAY}09:00:00Z",
        "end": f"{DAY}22:53:20Z",
        "step": "1h",
        "resolution": "1h",
        "rows": [
            {"start": f"{DAY}12:00:00Z", "counts": [1, 0, 1, 0, 0]},
            {"start": f"{DAY}13:00:00Z", "counts": [0, 0, 0, 0, 1]},
        ],
    }
    whole = ask(stocked, f"/histogram/Mistral?metric=drift&{SPAN}")
    assert [(row["start"], sum(row["counts"])) for row in whole["rows"]] == [(f"{DAY}09:00:00Z", 4)]
    table = stocked.client.get(f"/histogram/Mistral?metric=drift&step=1d&{SPAN}&bins=8", headers={"accept": "text/csv"})
    assert table.text.splitlines()[0] == "start,low,high,count"
    assert len(table.text.splitlines()) == 5


@pytest.mark.parametrize(
    ("query", "field"), [("", "metric"), ("metric=drift,latency", "metric"), ("metric=drift&bins=7", "bins")]
)
def test_a_histogram_is_of_one_metric_and_enough_bins(stocked: Served, query: str, field: str) -> None:
    assert check_problem(stocked.client.get(f"/histogram/Mistral?{query}"), 400)["field"] == field


def test_a_correction_and_a_retirement_are_never_answered_by_a_304(served: Served) -> None:
    served.post(json.dumps(EVENTS))
    served.store()
    tags = []
    address = f"/stats?{SPAN}&match={{}}"
    for match in ('{name="Llama"}', '{version="v2"}'):
        first = served.client.get(address)
        tags.append(first.headers["etag"])
        assert served.client.get(address, headers={"if-none-match": tags[-1]}).status_code == 304
        removed = served.client.delete("/events", params={"match": match, "start": "0", "end": "now"})
        assert removed.status_code == 200, removed.text
        served.wait_until(lambda first=first: served.client.get(address).json()["events"] < first.json()["events"])  # type: ignore[misc]
        assert served.client.get(address, headers={"if-none-match": tags[-1]}).status_code == 200
    tags.append(served.client.get(address).headers["etag"])
    with psycopg.connect(served.database_url) as connection:
        connection.execute("INSERT INTO modelmeter.retired VALUES (0, 'raw', '2020-01-01')")
    tags.append(served.client.get(address).headers["etag"])
    assert len(set(tags)) == 4
