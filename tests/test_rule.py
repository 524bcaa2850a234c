"""A rule fires for exactly the events that its line describes; a wrong file is refused at its line."""

import contextlib
import math
import operator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmeter.batch import Batch, Labels, make_labels
from modelmeter.errors import WrongSetting
from modelmeter.rule import EventRule, event_fields, parse_event, read_rules

many = settings(max_examples=150, deadline=None, derandomize=True, database=None)
COMPARISONS = {
    "<": (operator.lt, "lower than"),
    "<=": (operator.le, "at most"),
    ">": (operator.gt, "higher than"),
    ">=": (operator.ge, "at least"),
    "==": (operator.eq, "equal to"),
    "!=": (operator.ne, "not equal to"),
}


def rule(text: str, name: str = "Rule") -> EventRule:
    return EventRule(name, *parse_event(text))


def batch(values: list[float], streams: list[Labels] | None = None, metric: str = "m") -> Batch:
    streams = streams or [make_labels({"name": "a", "version": "1"})]
    codes = np.arange(len(values), dtype=np.int32) % len(streams)
    return Batch(streams, codes, np.zeros(len(values), np.int64), {metric: np.array(values, np.float64)})


def mistral() -> Batch:
    columns = {
        "prediction_accuracy": 0.19342903578218118,
        "drift": 0.11206803927678188,
        "inference_time": 12.757847941304057,
    }
    return Batch(
        [make_labels({"version": "v1", "name": "Mistral"})],
        np.zeros(1, np.int32),
        np.zeros(1, np.int64),
        {name: np.array([value]) for name, value in columns.items()},
    )


@pytest.mark.parametrize("comparison", COMPARISONS)
@given(values=st.lists(st.one_of(st.floats(), st.sampled_from([0.3, math.nan])), max_size=20))
@many
def test_a_rule_fires_where_its_comparison_holds_and_never_for_an_absent_metric(
    comparison: str, values: list[float]
) -> None:
    holds = COMPARISONS[comparison][0]
    found = rule(f"m {comparison} 0.3").judge(batch(values)).tolist()
    assert found == [row for row, value in enumerate(values) if not math.isnan(value) and holds(value, 0.3)]


def test_an_event_without_the_metric_is_no_alert() -> None:
    assert rule("n < 0.3").judge(batch([0.1])).tolist() == []
    assert rule("m != 0.3").judge(batch([math.nan, 1.0])).tolist() == [1]


@pytest.mark.parametrize(
    ("matchers", "fires"),
    [
        ('env="prod"', [0]),
        ('env!="prod"', [1, 2]),
        ('env=~"pro|dev"', [1]),
        ('env=~"pro.*|dev"', [0, 1]),
        ('env!~"pro.*"', [1, 2]),
        ('env=""', [2]),
        ('env=~".*"', [0, 1, 2]),
        ('env=~".+"', [0, 1]),
        ('other=""', [0, 1, 2]),
        ('env="prod",name="a"', [0]),
        ('env="prod",name="b"', []),
        ('version="1",env!=""', [0, 1]),
    ],
)
def test_matchers_are_those_of_prometheus_and_an_absent_label_is_empty(matchers: str, fires: list[int]) -> None:
    base = {"name": "a", "version": "1"}
    streams = [make_labels(base | {"env": env}) for env in ("prod", "dev", "")]
    assert rule(f"m{{{matchers}}} < 1").judge(batch([0.0, 0.0, 0.0], streams)).tolist() == fires


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((f"m {sign} 0.3", f"m {words} 0.3") for sign, (_, words) in COMPARISONS.items()),
        ("prediction_accuracy < 0.3", "prediction_accuracy lower than 0.3"),
        ("m > 5", "m higher than 5"),
        ("m > 5.0", "m higher than 5"),
        ("m > -5.5", "m higher than -5.5"),
        ("m > 1e300", "m higher than 1e+300"),
        ('m{env="prod"} > 5', "m higher than 5"),
    ],
)
def test_a_rule_says_itself_in_words(text: str, words: str) -> None:
    assert rule(text).words == words


def test_the_fields_of_an_event_are_in_its_senders_order_without_what_is_absent() -> None:
    fields = event_fields(mistral(), 0)
    assert list(fields) == ["name", "version", "prediction_accuracy", "drift", "inference_time"]
    some = batch([math.nan, 1.0], [make_labels({"name": "a", "version": "1", "env": "e", "abc": "x"})])
    assert event_fields(some, 0) == {"name": "a", "version": "1", "abc": "x", "env": "e"}
    assert event_fields(some, 1)["m"] == 1.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cannot be read"),
        ("m", "no comparison"),
        ("m <", "cannot be read"),
        ("m + 1", "no comparison"),
        ("0.3 > m", "no comparison"),
        ("m < n", "no number"),
        ("m < NaN", "no number"),
        ("m < bool 0.3", "no number"),
        ("rate(m[5m]) < 1", "no comparison"),
        ("m offset 5m < 1", "without offset"),
        ("m @ 5 < 1", "without offset"),
        ('{env="prod"} < 1', "needs a metric's name"),
        ('m{a="1" or b="2"} < 1', "by or"),
    ],
)
def test_what_is_no_event_rule_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_event(text)


GOOD = """\
groups:
  - name: quality
    rules:
      - alert: LowAccuracy
        event: prediction_accuracy{env="prod"} < 0.3
        labels: {severity: page}
        annotations: {summary: low}
      - alert: Slow
        event: inference_time > 500
"""


def read(tmp_path: Path, text: str | bytes) -> list[EventRule]:
    path = tmp_path / "rules.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_rules(path)


def test_a_file_of_rules_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert [one.name for one in found] == ["LowAccuracy", "Slow"]
    assert (found[0].metric, found[0].comparison, found[0].threshold) == ("prediction_accuracy", "<", 0.3)
    assert [(one.name, one.value) for one in found[0].matchers] == [("env", "prod")]
    assert read(tmp_path, "") == read(tmp_path, "# nothing\n") == read(tmp_path, "groups: []") == []


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("groups: [", 1, "not YAML"),
        ("groups:\n\t- x", 2, "not YAML"),
        ("a: 1\n\x07", 2, "not YAML"),
        ("5", 1, "must be a mapping"),
        ("{}", 1, "groups must be a list"),
        ("groups: 5", 1, "groups must be a list"),
        ("group: []", 1, "did you mean groups"),
        ("[a]: []", 1, "must be a mapping|a word"),
        ("? [a]\n: []", 1, "a word"),
        ("groups:\n  - 5", 2, "a group must be a mapping"),
        ("groups:\n  - name: q", 2, "rules must be a list"),
        ("groups: []\ngroups: []", 2, "stands twice"),
        (GOOD.replace("event: inference", "evnt: inference"), 9, "did you mean event"),
        (GOOD.replace("> 500", "> fast"), 9, "no number"),
        (GOOD.replace("- alert: Slow\n        event", "- event"), 8, "a rule needs alert"),
        (GOOD.replace("        event: inference_time > 500\n", ""), 8, "a rule needs expr or event"),
        (GOOD.replace("alert: Slow", "alert: [Slow]"), 8, "a rule needs alert"),
        (GOOD.replace("< 0.3", "under 0.3"), 5, "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_with_file_line_and_reason(tmp_path: Path, text: str, line: int, reason: str) -> None:
    with pytest.raises(WrongSetting, match=rf"(?s)rules\.yaml:{line}: .*({reason})"):
        read(tmp_path, text)


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match="nowhere"):
        read_rules(tmp_path / "nowhere.yaml")
    with pytest.raises(WrongSetting, match=r"rules\.yaml"):
        read(tmp_path, b"\xff\xff")


@many
@given(st.text(max_size=60))
def test_any_other_text_is_a_rule_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_event(text)
