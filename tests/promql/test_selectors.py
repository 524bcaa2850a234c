"""Which samples a selector sees."""

import json
from math import nan

import numpy as np
import pytest

from modelmeter.promql.reader import STALE
from modelmeter.window import MINUTE, SECOND
from tests.promql.ask import instant, load, over_range, result

STALE_MARK = float(np.array([STALE], dtype=np.int64).view(np.float64)[0])


def test_a_sample_is_seen_for_less_than_five_minutes() -> None:
    source = load({"m": [1]})
    assert over_range("m", source, end=6) == {"m": [1, 1, 1, 1, 1, None, None]}


def test_a_stale_marker_ends_a_series_at_once_and_is_no_sample_of_a_range() -> None:
    source = load({"m": [1, STALE_MARK, 3]})
    assert over_range("m", source, end=2) == {"m": [1, None, 3]}
    assert instant("count_over_time(m[5m])", source, 2) == {"{}": 2}


def test_an_ordinary_nan_is_a_value() -> None:
    assert str(instant("m", load({"m": [1, nan]}), 1)) == "{'m': nan}"


def test_a_range_is_open_on_the_left_and_closed_on_the_right() -> None:
    source = load({"m": [0, 1, 2, 3, 4]})
    data = json.loads(result("m[2m]", source, 4).data_json())
    assert data["result"][0]["values"] == [[180, "3"], [240, "4"]]
    assert instant("count_over_time(m[2m])", source, 4) == {"{}": 2}


def test_offset_looks_back_and_negative_offset_ahead() -> None:
    source = load({"m": range(11)})
    assert instant("m offset 3m", source, 5) == {"m": 2}
    assert instant("m offset -3m", source, 5) == {"m": 8}
    assert instant("sum_over_time(m[2m] offset 1m)", source, 5) == {"{}": 7}


@pytest.mark.parametrize(
    ("modifier", "expected"),
    [("@ 120", 2), ("@ 120 offset 1m", 1), ("offset 1m @ 120", 1), ("@ start()", 1), ("@ end()", 9)],
)
def test_at_pins_a_selector_to_an_instant(modifier: str, expected: float) -> None:
    source = load({"m": range(11)})
    assert over_range(f"m {modifier}", source, 1, 9, 4) == {"m": [expected] * 3}
    assert over_range(f"sum(m {modifier}) + 0", source, 1, 9, 4) == {"{}": [expected] * 3}


def test_the_ends_of_the_query_are_meant_inside_a_subquery_too() -> None:
    source = load({"m": range(11)})
    assert over_range("sum_over_time((m @ end())[2m:1m])", source, 1, 9, 4) == {"{}": [18, 18, 18]}


def test_a_matcher_takes_a_missing_label_for_an_empty_one() -> None:
    source = load({'m{a="x"}': [1], "m": [2]})
    assert instant('m{a=""}', source, 0) == {"m": 2}
    assert instant('m{a!=""}', source, 0) == {"m{a=x}": 1}
    assert instant('m{a=~"x?"}', source, 0) == {"m": 2, "m{a=x}": 1}
    assert instant('m{a!~"x"}', source, 0) == {"m": 2}
    assert instant('m{b="",a=~".+"}', source, 0) == {"m{a=x}": 1}


def test_a_regex_must_match_the_whole_value() -> None:
    source = load({'m{a="xyz"}': [1], 'm{a="xy\\nz"}': [2]})
    assert instant('m{a=~"xy"}', source, 0) == {}
    assert instant('m{a=~"xyz|q"}', source, 0) == {"m{a=xyz}": 1}
    assert len(instant('m{a=~"x.*z"}', source, 0)) == 2


def test_a_hostile_regex_takes_no_time() -> None:
    source = load({f'm{{a="{"a" * 5000}b"}}': [1]})
    assert instant('m{a=~"(a+)+(a+)+(a*)*c"}', source, 0) == {}


def test_the_metric_name_can_be_matched_as_a_label() -> None:
    source = load({"acc": [1], "drift": [2], "other": [3]})
    assert instant('{__name__=~"acc|drift"}', source, 0) == {"acc": 1, "drift": 2}


def test_a_subquery_runs_on_whole_multiples_of_its_step() -> None:
    source = load({"m": range(1000)}, step=SECOND)
    data = json.loads(result("m[50s:20s]", source, 115 / 60).data_json())
    assert data["result"][0]["values"] == [[80, "80"], [100, "100"]]


def test_a_subquery_without_step_takes_the_default_of_a_minute() -> None:
    source = load({"m": range(1000)}, step=SECOND)
    assert instant("count_over_time(m[5m:])", source, 10) == {"{}": 5}


def test_a_subquery_offset_moves_its_window() -> None:
    source = load({"m": range(11)})
    assert instant("max_over_time(m[2m:1m] offset 3m)", source, 10) == {"{}": 7}
    assert instant("max_over_time(m[2m:1m] @ 240)", source, 10) == {"{}": 4}


def test_subqueries_nest() -> None:
    source = load({"m_total": [number * 60 for number in range(31)]})
    assert instant("max_over_time(rate(m_total[5m:1m])[10m:2m])", source, 30) == {"{}": 1}


def test_series_of_one_instant_may_hold_several_samples() -> None:
    source = load({"m": []})
    source.add({"__name__": "m"}, [(MINUTE, 1.0), (MINUTE, 2.0)])
    assert instant("count_over_time(m[5m])", source, 1) == {"{}": 2}
    assert instant("idelta(m[5m])", source, 1) == {}
