import numpy as np
import pytest

from modelmeter.web.dashboard import wording
from modelmeter.web.dashboard.overview import Cell, Change, Row
from modelmeter.window import DAY, HOUR, MINUTE, SECOND
from tests.history import NOON


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.86123, "0.861"), (0.1, "0.100"), (12.7578, "12.8"), (999.7, "1000"), (1234.5, "1234"), (38_200, "38.2k"),
        (1_204_000, "1.20M"), (999_999, "1000k"), (0.0, "0"), (-0.5, "\N{MINUS SIGN}0.500"),
        (2e-7, "2.00e\N{MINUS SIGN}07"),
        (None, "\N{EN DASH}"), (float("nan"), "\N{EN DASH}"), (float("inf"), "\N{EN DASH}"),
    ],
)  # fmt: skip
def test_three_digits_that_matter(value: float | None, shown: str) -> None:
    assert wording.number(value) == shown


def test_a_unit_comes_from_the_settings_then_from_the_name() -> None:
    assert wording.unit_of("inference_time", {"inference_time": "ms"}) == "ms"
    assert wording.unit_of("latency_seconds", {}) == "s"
    assert wording.unit_of("drift", {}) == ""
    assert wording.with_unit(12.7578, "ms").split(wording.NARROW) == ["12.8", "ms"]


@pytest.mark.parametrize(
    ("reference", "now", "shown"),
    [
        (2.0, 1.0, "\N{MINUS SIGN}50 %"),
        (100, 104.2, "+4.2 %"),
        (5, 5.0001, "0 %"),
        (0.0, 0.3, "+0.300"),
        (0.01, 5, "+4.99"),
    ],
)
def test_a_change_is_relative_where_that_says_something(reference: float, now: float, shown: str) -> None:
    assert wording.change(Change(reference, now, 1.0, sure=True)).replace(wording.NARROW, " ") == shown


def test_the_verdict_needs_a_sure_change_and_a_direction() -> None:
    down = Change(2.0, 1.0, -3.0, sure=True)
    assert wording.verdict(down, 1) == "worse"
    assert wording.verdict(down, -1) == "better"
    assert wording.verdict(down, 0) == "changed"
    assert wording.verdict(Change(2.0, 1.0, -3.0, sure=False), 1) == "same"
    assert wording.verdict(None, 1) == "none"


def test_the_headline_says_what_since_when_and_against_what() -> None:
    cell = Cell("accuracy", 0.2, np.zeros(4), Change(0.9, 0.2, -4.0, sure=True), None, 1, 4.0, NOON - 2 * HOUR)
    row = Row("Mistral", "v2", 9, np.zeros(4), NOON, "v1", {"accuracy": cell})
    what, against = wording.headline(row, NOON) or ("", "")
    assert what.replace(wording.NARROW, " ") == "accuracy down 78 %"
    assert against == "since 10:00, against yesterday"
    fine = Cell("accuracy", 0.9, np.zeros(4), Change(0.9, 0.9, 0.0, sure=False), None, 1, 0.0, None)
    assert wording.headline(Row("Mistral", "v2", 9, np.zeros(4), NOON, "v1", {"accuracy": fine}), NOON) is None


def test_ages_and_durations() -> None:
    ages = [wording.ago(NOON - age, NOON).replace(wording.NARROW, " ") for age in (0, 40 * SECOND, 3 * HOUR, 5 * DAY)]
    assert ages == ["just now", "40 s ago", "3 h ago", "5 d ago"]
    spans = [wording.duration(one).replace(wording.NARROW, " ") for one in (DAY, 7 * DAY, 90 * MINUTE, 10 * SECOND)]
    assert spans == ["24 h", "7 days", "90 min", "10 s"]


def test_a_sparkline_breaks_where_nothing_came_and_keeps_noise_small() -> None:
    paths = wording.sparkline(np.array([1.0, 2.0, np.nan, 3.0, 1.0]))
    assert len(paths) == 2
    assert paths[0].startswith("M2 ")
    assert wording.sparkline(np.full(5, np.nan)) == []
    heights = [float(pair.split(" ")[1]) for pair in wording.sparkline(np.array([100.0, 100.5]))[0][1:].split("L")]
    assert abs(heights[0] - heights[1]) < 2
