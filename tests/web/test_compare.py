"""GET /compare and /drift over HTTP: two sides of any kind against SciPy over the raw values."""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import psycopg
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from modelmeter import distance
from modelmeter.compactor import Compactor
from modelmeter.config import Config
from modelmeter.reader import Event
from modelmeter.window import DAY, HOUR, MINUTE, to_datetime, to_rfc3339
from tests.history import NOON, labels_of, message_of, send
from tests.web.conftest import Served, serve
from tests.web.test_ingest import check_problem
from tests.web.test_stats import NAMES

BEGIN, END = NOON, NOON + 2 * DAY
SPAN = f"start={to_rfc3339(BEGIN)}&end={to_rfc3339(END)}"


def made_up() -> list[Event]:
    """Two versions over two days, from one minute before to one after; v2 is more accurate, and slower on day two."""
    rng = np.random.default_rng(20_260_301)
    events = []
    for version, accuracy in (("v1", 8), ("v2", 12)):
        for env in ("prod", "test"):
            for instant in np.sort(rng.integers(BEGIN - MINUTE, END + MINUTE, 400)).tolist():
                slower = 0.8 if version == "v2" and instant >= BEGIN + DAY else 0
                metrics = {
                    "prediction_accuracy": round(float(rng.beta(accuracy, 2)), 4),
                    "inference_time": float(rng.lognormal(2 + slower, 0.6)),
                    "height": float(rng.normal(-3, 1)) + (version == "v2"),
                }
                if rng.random() < 0.2:
                    del metrics["height"]
                events.append(Event(labels_of(version=version, env=env), instant, metrics))
    return events


EVENTS = made_up()


def values(metric: str, start: int = BEGIN, end: int = END, **labels: str) -> distance.Floats:
    return np.array(
        [
            one.metrics[metric]
            for one in EVENTS
            if metric in one.metrics and start <= one.timestamp < end and labels.items() <= dict(one.labels).items()
        ]
    )


def compact(url: str) -> None:
    compactor = Compactor(Config(database_url=url))
    while compactor.run_once(END + DAY):
        pass
    compactor.close()


@pytest.fixture(scope="module")
def stocked(shared: Served) -> Served:
    """Half of it compacted; and one event of each odd name."""
    send(shared.database_url, message_of(*EVENTS[::2]))
    shared.store()
    compact(shared.database_url)
    send(shared.database_url, message_of(*EVENTS[1::2]))
    odd = [Event(labels_of(name, name), BEGIN, {"x": 1.0}) for name in NAMES[1:]]
    send(shared.database_url, message_of(*odd))
    shared.store()
    return shared


def found(stocked: Served, address: str) -> dict[str, Any]:
    answer = stocked.client.get(address)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def on_bins(a: distance.Floats, b: distance.Floats) -> tuple[distance.Floats, distance.Floats]:
    return distance.value_of(distance.bin_of(a)), distance.value_of(distance.bin_of(b))


def check(one: dict[str, object], a: distance.Floats, b: distance.Floats) -> None:
    """One metric's comparison against SciPy."""
    shown = json.loads(json.dumps(one))
    assert (shown["a"]["count"], shown["b"]["count"]) == (a.size, b.size)
    welch = stats.ttest_ind(b, a, equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert shown["difference"] == pytest.approx(b.mean() - a.mean(), rel=1e-9)
    assert shown["welch"]["statistic"] == pytest.approx(welch.statistic, rel=1e-6)
    assert shown["welch"]["p"] == pytest.approx(welch.pvalue, rel=1e-4, abs=1e-300)
    assert shown["interval"] == pytest.approx([interval.low, interval.high], rel=1e-6)
    x, y = on_bins(a, b)
    ranks = stats.mannwhitneyu(y, x, method="asymptotic")
    assert shown["mann_whitney"]["statistic"] == ranks.statistic
    assert shown["mann_whitney"]["p"] == pytest.approx(ranks.pvalue, rel=1e-6, abs=1e-300)
    assert shown["ks"]["statistic"] == pytest.approx(stats.ks_2samp(y, x).statistic, rel=1e-9)
    assert shown["wasserstein"] == pytest.approx(stats.wasserstein_distance(x, y), rel=1e-9)
    line = np.unique(np.concatenate((x, y)))
    shares = [np.bincount(np.searchsorted(line, side), minlength=line.size) for side in (x, y)]
    assert shown["jensen_shannon"] == pytest.approx(jensenshannon(*shares, base=2), abs=1e-7)
    assert shown["psi"] == pytest.approx(float(distance.psi(shares[1], shares[0])), rel=1e-9)


def test_two_versions_are_compared_metric_by_metric(stocked: Served) -> None:
    body = found(stocked, f"/compare/Mistral?a=v1&b=v2&{SPAN}")
    assert [*body] == ["name", "a", "b", "metrics"]
    assert body["a"] == {
        "match": '{name="Mistral",version="v1"}',
        "start": to_rfc3339(BEGIN),
        "end": to_rfc3339(END),
        "events": values("inference_time", version="v1").size,
    }
    assert [*body["metrics"]] == ["height", "inference_time", "prediction_accuracy"]
    for metric, one in body["metrics"].items():
        check(one, values(metric, version="v1"), values(metric, version="v2"))
        assert "histogram" not in one
    verdicts = {metric: one["verdict"] for metric, one in body["metrics"].items()}
    assert verdicts == {"prediction_accuracy": "better", "inference_time": "worse", "height": "different"}


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ('{version="v1",env="prod"}', '{version="v2",env="prod"}'),
        ('{env="prod"}', '{env!="prod"}'),
        ('{version=~"v.",env=~"p.*"}', "v2"),
        ("{}", '{version="v1"}'),
        ("v1", "v1"),
    ],
)
def test_any_two_label_sets_are_compared_also_when_they_overlap(stocked: Served, a: str, b: str) -> None:
    body = found(stocked, f"/compare/Mistral?a={quote(a)}&b={quote(b)}&{SPAN}&metric=inference_time")
    sides: dict[str, Any] = {
        '{version="v1",env="prod"}': {"version": "v1", "env": "prod"},
        '{version="v2",env="prod"}': {"version": "v2", "env": "prod"},
        '{env="prod"}': {"env": "prod"},
        '{env!="prod"}': {"env": "test"},
        '{version=~"v.",env=~"p.*"}': {"env": "prod"},
        "{}": {},
        '{version="v1"}': {"version": "v1"},
        "v1": {"version": "v1"},
        "v2": {"version": "v2"},
    }
    assert [*body["metrics"]] == ["inference_time"]
    one = body["metrics"]["inference_time"]
    if a == b:
        assert (one["difference"], one["psi"], one["verdict"]) == (0, 0, "no difference")
    else:
        check(one, values("inference_time", **sides[a]), values("inference_time", **sides[b]))


def test_one_version_is_compared_in_two_windows(stocked: Served) -> None:
    middle = to_rfc3339(BEGIN + DAY)
    body = found(stocked, f"/compare/Mistral?a=v2&b=v2&{SPAN}&a_end={middle}&b_start={middle}&label.env=prod")
    check(
        body["metrics"]["inference_time"],
        values("inference_time", end=BEGIN + DAY, version="v2", env="prod"),
        values("inference_time", start=BEGIN + DAY, version="v2", env="prod"),
    )
    assert body["metrics"]["inference_time"]["verdict"] == "worse"
    assert body["metrics"]["prediction_accuracy"]["verdict"] == "no difference"


def test_a_ragged_span_is_exact_to_the_microsecond(stocked: Served) -> None:
    start, end = BEGIN + 7 * HOUR + 12_345_678, END - 3 * HOUR - 1
    body = found(stocked, f"/compare/Mistral?a=v1&b=v2&start={start}&end={end}&min_effect=0")
    for metric, one in body["metrics"].items():
        check(one, values(metric, start, end, version="v1"), values(metric, start, end, version="v2"))


def test_another_model_can_be_a_side(stocked: Served) -> None:
    other = quote('{name="a/b"}')
    body = found(stocked, f"/compare/Mistral?a=v1&b={other}&start=0")
    assert body["metrics"]["x"]["a"] is None
    assert body["metrics"]["x"]["verdict"] == "too few samples"
    assert body["b"]["match"] == '{name="a/b"}'


def test_histograms_have_common_edges_and_all_values(stocked: Served) -> None:
    body = found(stocked, f"/compare/Mistral?a=v1&b=v2&{SPAN}&histograms=true")
    for metric, one in body["metrics"].items():
        shown = json.loads(json.dumps(one["histogram"]))
        a, b = values(metric, version="v1"), values(metric, version="v2")
        assert (sum(shown["a"]), sum(shown["b"])) == (a.size, b.size)
        assert len(shown["edges"]) == len(shown["a"]) + 1 <= 61
        assert (shown["edges"][0], shown["edges"][-1]) == (min(a.min(), b.min()), max(a.max(), b.max()))
        assert shown["edges"] == sorted(shown["edges"])


def test_settings_say_what_is_better(database_url: str) -> None:
    send(database_url, message_of(*EVENTS))
    with serve(database_url, higher_is_better="height", lower_is_better="*accuracy") as served:
        served.store()
        body = found(served, f"/compare/Mistral?a=v1&b=v2&{SPAN}")
    verdicts = {metric: one["verdict"] for metric, one in body["metrics"].items()}
    assert verdicts == {"prediction_accuracy": "worse", "inference_time": "different", "height": "better"}


def check_drift(one: dict[str, object], now: distance.Floats, then: distance.Floats) -> None:
    x, y = on_bins(now, then)
    line = np.unique(np.concatenate((x, y)))
    actual, expected = (np.bincount(np.searchsorted(line, side), minlength=line.size) for side in (x, y))
    assert one["psi"] == pytest.approx(float(distance.psi(actual, expected)), rel=1e-9)
    assert one["ks"] == pytest.approx(stats.ks_2samp(x, y).statistic, rel=1e-9)
    assert one["jensen_shannon"] == pytest.approx(jensenshannon(actual, expected, base=2), abs=1e-7)
    assert one["wasserstein"] == pytest.approx(stats.wasserstein_distance(x, y), rel=1e-9)


def test_drift_from_another_version(stocked: Served) -> None:
    body = found(stocked, f"/drift/Mistral/v2?reference=v1&{SPAN}")
    assert [*body] == ["name", "version", "current", "reference", "metrics"]
    assert body["reference"]["match"] == '{name="Mistral",version="v1"}'
    assert body["reference"]["start"] == body["current"]["start"] == to_rfc3339(BEGIN)
    for metric, one in body["metrics"].items():
        check_drift(one, values(metric, version="v2"), values(metric, version="v1"))
        assert one["verdict"] in {"some drift", "strong drift"}, metric


def test_drift_from_an_earlier_window_of_itself(stocked: Served) -> None:
    for version, verdict in (("v1", "no drift"), ("v2", "strong drift")):
        body = found(stocked, f"/drift/Mistral/{version}?start={BEGIN + DAY}&end={END}")
        one = body["metrics"]["inference_time"]
        assert body["reference"]["start"] == to_rfc3339(BEGIN + DAY - 7 * DAY)
        assert body["reference"]["end"] == to_rfc3339(BEGIN + DAY)
        check_drift(
            one,
            values("inference_time", start=BEGIN + DAY, version=version),
            values("inference_time", start=0, end=BEGIN + DAY, version=version),
        )
        assert one["verdict"] == verdict
    hours = f"reference_start={BEGIN}&reference_end={BEGIN + 12 * HOUR}"
    body = found(stocked, f"/drift/Mistral/v2?reference=v1&{SPAN}&{hours}&label.env=prod")
    check_drift(
        body["metrics"]["height"],
        values("height", version="v2", env="prod"),
        values("height", end=BEGIN + 12 * HOUR, version="v1", env="prod"),
    )


@pytest.mark.parametrize(("step", "width"), [("1d", DAY), ("12h", 12 * HOUR), ("3h", 3 * HOUR), ("90m", 90 * MINUTE)])
def test_drift_over_time_has_a_score_for_each_window(stocked: Served, step: str, width: int) -> None:
    body = json.loads(json.dumps(found(stocked, f"/drift/Mistral/v2?reference=v1&{SPAN}&step={step}")))
    starts = range(BEGIN // width * width, END, width)
    assert body["windows"] == [to_rfc3339(start) for start in starts]
    assert (body["current"]["start"], body["current"]["end"]) == (to_rfc3339(BEGIN), to_rfc3339(END))
    assert body["current"]["events"] == values("inference_time", version="v2").size
    assert [*body["metrics"]] == ["height", "inference_time", "prediction_accuracy"]
    for metric, series in body["metrics"].items():
        then = values(metric, version="v1")
        assert series["reference_count"] == then.size
        for number, start in enumerate(starts):
            now = values(metric, max(start, BEGIN), min(start + width, END), version="v2")
            assert series["count"][number] == now.size
            scores = {name: series[name][number] for name in ("psi", "ks", "jensen_shannon", "wasserstein")}
            if now.size:
                check_drift(scores, now, then)
            else:
                assert set(scores.values()) == {None}


def test_drift_over_time_before_and_after_compaction_is_the_same(database_url: str) -> None:
    send(database_url, message_of(*EVENTS))
    with serve(database_url) as served:
        served.store()
        addresses = [f"/drift/Mistral/v2?reference=v1&{SPAN}&step={step}" for step in ("1d", "1h", "10m")]
        before = [found(served, address) for address in addresses]
        compact(database_url)
        after = [found(served, address) for address in addresses]
    assert before == after


def test_any_name_can_be_compared(stocked: Served) -> None:
    for name in NAMES[1:]:
        path = quote(name, safe="").replace("..", "%2E%2E")
        body = found(stocked, f"/compare/{path}?a={quote(name)}&b={quote(name)}&start=0")
        assert body["a"]["events"] == 1
        body = found(stocked, f"/drift/{path}/{path}?start={BEGIN}&reference_end=now")
        assert body["current"]["events"] == 1


BAD = {
    "/compare/Mistral?b=v2": "a",
    "/compare/Mistral?a=v1": "b",
    "/compare/Mistral?a=&b=v2": "a",
    "/compare/Mistral?a=v1&b={": "b",
    "/compare/Mistral?a=v1&b={env=~%22(%22}": "b",
    "/compare/Mistral?a=v1&b=v2&start=yesterday": "start",
    "/compare/Mistral?a=v1&b=v2&a_start=yesterday": "a_start",
    "/compare/Mistral?a=v1&b=v2&b_start=now&b_end=-1h": "b_start",
    "/compare/Mistral?a=baseline:x&b=v2&a_start=0": "a_start",
    "/compare/Mistral?a=v1&b=v2&min_samples=1": "min_samples",
    "/compare/Mistral?a=v1&b=v2&min_samples=nan": "min_samples",
    "/compare/Mistral?a=v1&b=v2&min_effect=-1": "min_effect",
    "/compare/Mistral?a=v1&b=v2&histograms=yes": "histograms",
    "/compare/Mistral?a=v1&b=v2&c=v3": "c",
    "/compare/Mistral?a=v1&b=v2&a=v3": "a",
    "/compare/Mistral?a=v1&b=v2&quantiles=2": "quantiles",
    "/drift/Mistral/v1?reference=": "reference",
    "/drift/Mistral/v1?start=0": "reference",
    "/drift/Mistral/v1?reference=baseline:x&reference_end=0": "reference_end",
    "/drift/Mistral/v1?reference=v2&reference_start=5&reference_end=5": "reference_start",
    "/drift/Mistral/v1?step=30s": "step",
    "/drift/Mistral/v1?step=1x": "step",
    "/drift/Mistral/v1?step=0m": "step",
    "/compare/Mistral?a=v1&b=v2&metric=height,height": "metric",
    "/drift/Mistral/v1?min_effect=1": "min_effect",
}


@pytest.mark.parametrize("address", [*BAD])
def test_a_parameter_that_cannot_be_read_is_a_400_that_names_it(stocked: Served, address: str) -> None:
    problem = check_problem(stocked.client.get(address), 400)
    assert problem["field"] == BAD[address]
    assert problem["detail"].startswith(BAD[address])


@pytest.mark.parametrize(
    ("address", "what", "nearest"),
    [
        ("/compare/Mistrl?a=v1&b=v2", "model", ["Mistral"]),
        ("/compare/Mistral?a=v1&b=v3", "version", ["v2", "v1"]),
        ("/compare/Mistral?a=v1&b={version=%22v3%22,env=%22prod%22}", "version", ["v2", "v1"]),
        ("/compare/Mistral?a=v1&b={name=%22Mistrak%22}", "model", ["Mistral"]),
        ("/compare/Mistral?a=v1&b=v2&metric=hight", "metric", ["height"]),
        ("/compare/Mistral?a=v1&b=baseline:none", "baseline", []),
        ("/compare/a%00b?a=v1&b=v2", "model", []),
        ("/compare/Mistral?a=v1&b=%00", "version", ["v2", "v1"]),
        ("/drift/Mistral/v3?reference=v1", "version", ["v2", "v1"]),
        ("/drift/Mistral/v1?reference=v9&step=1d", "version", ["v2", "v1"]),
        ("/drift/Mistral/v1?reference=baseline:%00", "baseline", []),
    ],
)
def test_what_is_unknown_is_a_404_with_the_nearest_names(
    stocked: Served, address: str, what: str, nearest: Sequence[str]
) -> None:
    problem = check_problem(stocked.client.get(address), 404)
    assert problem["what"] == what
    assert set(nearest) <= set(problem["nearest"])


def test_labels_that_nothing_has_are_an_empty_side(stocked: Served) -> None:
    for labels in ('{env="none"}', '{env="none\\u0000"}', '{env!~".*"}', '{version="v1",version="v2"}'):
        body = found(stocked, f"/compare/Mistral?a=v1&b={quote(labels)}&{SPAN}")
        assert body["b"]["events"] == 0
        assert {one["verdict"] for one in body["metrics"].values()} == {"too few samples"}


def test_a_query_over_its_limits_is_refused(database_url: str) -> None:
    send(database_url, message_of(*EVENTS))
    with serve(database_url, query_limit_series=1, stats_limit_samples=10) as served:
        served.store()
        problem = check_problem(served.client.get(f"/compare/Mistral?a=v1&b=v2&{SPAN}"), 422)
        assert "MODELMETER_QUERY_LIMIT_SERIES" in problem["detail"]
        problem = check_problem(served.client.get(f"/drift/Mistral/v2?{SPAN}&step=30m&label.env=prod"), 422)
        assert "MODELMETER_STATS_LIMIT_SAMPLES" in problem["detail"]


def test_a_query_that_takes_too_long_is_ended(database_url: str) -> None:
    send(database_url, message_of(*EVENTS))
    with serve(database_url, query_timeout_seconds=0.2) as served:
        served.store()
        with psycopg.connect(database_url) as blocking:
            blocking.execute("LOCK modelmeter.stream IN ACCESS EXCLUSIVE MODE")
            problem = check_problem(served.client.get(f"/compare/Mistral?a=v1&b=v2&{SPAN}"), 503)
            assert "it took longer than 0.2 s" in problem["detail"]
        assert served.client.get(f"/compare/Mistral?a=v1&b=v2&{SPAN}").status_code == 200


def test_more_windows_than_may_be_are_refused(stocked: Served) -> None:
    problem = check_problem(stocked.client.get("/drift/Mistral/v1?step=1m&start=-30d"), 422)
    assert problem["field"] == "step"
    assert "43,201 windows are more than 2,000" in problem["detail"]


def test_windows_that_are_no_longer_kept_are_refused_not_counted_short(database_url: str) -> None:
    send(database_url, message_of(*EVENTS))
    with serve(database_url) as served:
        served.store()
        compact(database_url)
        with psycopg.connect(database_url) as connection:
            connection.execute("DELETE FROM modelmeter.rollup_1h WHERE window_start < %s", (to_datetime(BEGIN + DAY),))
        address = f"/drift/Mistral/v2?reference=v1&start={to_rfc3339(BEGIN - 12 * HOUR)}&end={to_rfc3339(END)}"
        problem = check_problem(served.client.get(f"{address}&step=1h"), 422)
        assert "no longer kept" in problem["detail"]
        assert served.client.get(f"{address}&step=1d").status_code == 200


def test_spans_at_the_ends_of_time_are_empty_not_wrong(stocked: Served) -> None:
    late = "start=9999-12-30T00:00:00Z&end=9999-12-30T23:00:00Z"
    for address in (
        f"/compare/Mistral?a=v1&b=v2&{late}",
        f"/drift/Mistral/v1?reference=v2&{late}",
        f"/drift/Mistral/v1?reference=v2&{late}&step=1d",
        "/drift/Mistral/v1?start=1970-01-01T00:00:00Z&end=1970-01-02T00:00:00Z&reference_end=1970-01-03T00:00:00Z",
    ):
        assert stocked.client.get(address).status_code == 200, stocked.client.get(address).text


def test_answers_are_quick_json(stocked: Served) -> None:
    answer = stocked.client.get(f"/compare/Mistral?a=v1&b=v2&{SPAN}")
    assert answer.headers["content-type"] == "application/json"
    assert float(answer.headers["server-timing"].removeprefix("total;dur=")) > 0
    json.loads(answer.text, parse_constant=pytest.fail)
