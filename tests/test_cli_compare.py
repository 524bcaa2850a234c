"""`modelmeter compare` and `modelmeter drift` against a real server; and the small plots that they draw."""

import re
from collections.abc import Iterator

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from modelmeter.cli.plot import distributions, shorten, sparkline
from modelmeter.distance import bin_of
from modelmeter.overlay import overlay
from modelmeter.window import to_rfc3339
from tests.history import message_of, send
from tests.test_cli import call
from tests.web.conftest import Served, serve
from tests.web.test_compare import BEGIN, END, EVENTS

SPAN = ("--start", to_rfc3339(BEGIN), "--end", to_rfc3339(END))


@pytest.fixture(scope="module")
def stocked(postgres: str, template_database: str) -> Iterator[Served]:
    name = f"{template_database}_cli_compare"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}".encode())
    url = make_conninfo(postgres, dbname=name)
    try:
        send(url, message_of(*EVENTS))
        with serve(url) as served:
            served.store()
            yield served
    finally:
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def ask(stocked: Served, *arguments: str) -> str:
    code, shown, said = call(*arguments, "--url", stocked.url)
    assert code == 0, said
    return shown


def test_compare_prints_the_verdicts_and_both_distributions(stocked: Served) -> None:
    shown = ask(stocked, "compare", "Mistral", "v1", "v2", *SPAN)
    assert f'a: {{name="Mistral",version="v1"}}, {to_rfc3339(BEGIN)} to {to_rfc3339(END)}, 800 events' in shown
    assert "prediction_accuracy: better: b is higher, and higher is better" in shown
    assert "inference_time: worse: b is higher, and lower is better" in shown
    assert re.search(r"│ prediction_accuracy +│ better +│ 800 │ 800 │ 0\.7936 │ 0\.8608 │", shown)
    assert "░ a   ▒ b   █ both" in shown
    assert shown.count("█") > 100
    assert max(map(len, shown.splitlines())) <= 140


def test_compare_takes_labels_windows_and_one_metric(stocked: Served) -> None:
    middle = to_rfc3339((BEGIN + END) // 2)
    windows = ("--a-end", middle, "--b-start", middle)
    shown = ask(
        stocked, "compare", "Mistral", '{version="v2",env="prod"}', "v2", *SPAN, *windows, "--metric", "inference_time",
        "--no-plot",
    )  # fmt: skip
    assert 'a: {name="Mistral",version="v2",env="prod"}' in shown
    assert "inference_time: worse" in shown
    assert "prediction_accuracy" not in shown
    assert "█" not in shown


def test_drift_prints_the_scores_and_a_sparkline_for_each_metric(stocked: Served) -> None:
    shown = ask(stocked, "drift", "Mistral", "v2", "--reference", "v1", *SPAN, "--step", "1h")
    assert "inference_time: strong drift: PSI is 0.39, at least 0.25" in shown
    assert "PSI over time, 48 windows of 1h" in shown
    lines = dict(re.findall(r"^  (\w+) +([·▁▂▃▄▅▆▇█]+)  at most [\d.]+$", shown, re.MULTILINE))
    assert {*lines} == {"height", "inference_time", "prediction_accuracy"}
    assert {len(line) for line in lines.values()} == {48}
    assert max(lines["inference_time"][:24]) < max(lines["inference_time"][24:]) == "█", "v2 is slower on day two"


def test_drift_from_a_baseline(stocked: Served) -> None:
    body = {"match": '{name="Mistral",version="v1"}', "start": to_rfc3339(BEGIN), "end": to_rfc3339(END)}
    assert stocked.client.put("/baselines/golden", json=body).status_code == 201
    shown = ask(stocked, "drift", "Mistral", "v2", "--reference", "baseline:golden", *SPAN)
    assert 'reference: baseline golden, {name="Mistral",version="v1"}' in shown


def test_what_is_empty_or_unknown_is_said(stocked: Served) -> None:
    long_ago = ("--start", "2001-01-01T00:00:00Z", "--end", "2001-01-02T00:00:00Z")
    assert "neither side has a value" in ask(stocked, "compare", "Mistral", "v1", "v2", *long_ago)
    assert "there is no value now" in ask(stocked, "drift", "Mistral", "v1", *long_ago)
    code, _, said = call("compare", "Mistral", "v1", "v3", "--url", stocked.url)
    assert (code, said.strip()) == (1, "modelmeter: Mistral has no version 'v3'; there is v2, v1")
    code, _, said = call("drift", "Mistral", "v1", "--step", "30s", "--url", stocked.url)
    assert code == 1
    assert "step: '30s' is not in whole minutes" in said


def test_a_sparkline_has_a_letter_for_each_value() -> None:
    assert sparkline([0.0, 0.5, 1.0, None]) == "▁▄█·"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([]) == ""
    assert shorten([1.0, 3.0, 2.0, None, 5.0, None], 3) == [3.0, 2.0, 5.0]
    assert shorten([None, None, 1.0], 2) == [None, 1.0]


def test_two_distributions_lie_where_their_values_do() -> None:
    rng = np.random.default_rng(4)
    sides = rng.normal(100, 5, 4000), rng.normal(140, 5, 4000)
    bins = np.unique(bin_of(np.concatenate(sides)))
    a, b = (np.bincount(np.searchsorted(bins, bin_of(one)), minlength=bins.size) for one in sides)
    extremes = (float(np.concatenate(sides).min()), float(np.concatenate(sides).max()))
    histogram = overlay(a, b, bins, extremes, 60)
    *lines, axis = distributions(histogram.edges, histogram.a, histogram.b, 60, 8)
    assert len(lines) == 8
    assert "░" in lines[-1][:25]
    assert "▒" in lines[-1][35:]
    assert "▒" not in lines[-1][:25]
    assert "░" not in lines[-1][35:]
    assert len(axis) == 60
    assert distributions([2.0, 2.0], [3], [4], 60, 8) == ["all values are 2"]
