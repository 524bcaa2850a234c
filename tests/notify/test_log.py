"""The ALERT line is exactly the one that people know; a flood is bounded and counted."""

import io
from collections.abc import Sequence

import numpy as np
import pytest

from modelmeter.batch import Batch, make_labels
from modelmeter.event_alert import find
from modelmeter.notify.log import AlertLog
from modelmeter.rule import EventRule, parse_event

LINE = (
    "ALERT prediction_accuracy lower than 0.3, {'name': 'Mistral', 'version': 'v1', "
    "'prediction_accuracy': 0.19342903578218118, 'drift': 0.11206803927678188, 'inference_time': 12.757847941304057}\n"
)


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Told:
    """A log, what it wrote, and its clock."""

    def __init__(self, limit: int, *events: str) -> None:
        self.out, self.clock = io.StringIO(), Clock()
        self.rules = [EventRule(f"Rule{number}", *parse_event(event)) for number, event in enumerate(events)]
        self.log = AlertLog(self.rules, limit, self.out, self.clock)

    def look_at(self, batches: Sequence[Batch]) -> None:
        self.log.tell(find(self.rules, batches))

    def use(self, rules: list[EventRule]) -> None:
        self.rules = rules
        self.log.use(rules)

    def lines(self) -> list[str]:
        found = self.out.getvalue().splitlines()
        self.out.seek(0)
        self.out.truncate()
        return found


def batch(count: int, metric: str = "m") -> Batch:
    return Batch(
        [make_labels({"name": "a", "version": "1"})],
        np.zeros(count, np.int32),
        np.zeros(count, np.int64),
        {metric: np.arange(count, dtype=np.float64)},
    )


def test_the_line_of_the_default_rule_is_exactly_this() -> None:
    told = Told(20, "prediction_accuracy < 0.3")
    columns = {
        "prediction_accuracy": 0.19342903578218118,
        "drift": 0.11206803927678188,
        "inference_time": 12.757847941304057,
    }
    told.look_at(
        [
            Batch(
                [make_labels({"name": "Mistral", "version": "v1"})],
                np.zeros(1, np.int32),
                np.zeros(1, np.int64),
                {name: np.array([value]) for name, value in columns.items()},
            )
        ]
    )
    assert told.out.getvalue() == LINE


def test_a_flood_is_cut_to_so_many_lines_a_second_and_then_counted_in_one() -> None:
    told = Told(3, "m >= 0")
    told.look_at([batch(5), batch(5)])
    assert [line.endswith("more") for line in told.lines()] == [False, False, False]
    told.clock.now += 0.9
    told.look_at([batch(1)])
    told.log.flush()
    assert told.lines() == []
    told.clock.now += 0.1
    told.log.flush()
    assert told.lines() == ["ALERT m at least 0, 8 more"]
    told.clock.now += 1
    told.log.flush()
    assert told.lines() == []


def test_the_next_second_says_how_many_more_before_its_own_lines() -> None:
    told = Told(2, "m >= 0")
    told.look_at([batch(5)])
    told.lines()
    told.clock.now += 1
    told.look_at([batch(1)])
    more, line = told.lines()
    assert more == "ALERT m at least 0, 3 more"
    assert line.startswith("ALERT m at least 0, {'name': 'a'")


def test_each_rule_has_a_limit_of_its_own() -> None:
    told = Told(1, "m >= 0", "n >= 0")
    told.look_at([batch(3), batch(3, "n")])
    assert [line.split(",")[0] for line in told.lines()] == ["ALERT m at least 0", "ALERT n at least 0"]
    told.clock.now += 1
    told.log.flush()
    assert told.lines() == ["ALERT m at least 0, 2 more", "ALERT n at least 0, 2 more"]


def test_a_limit_of_none_writes_only_how_many() -> None:
    told = Told(0, "m >= 0")
    told.look_at([batch(3)])
    told.clock.now += 1
    told.log.flush()
    assert told.lines() == ["ALERT m at least 0, 3 more"]


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.0])
def test_nothing_is_lost_between_lines_and_counts_whatever_the_clock(seconds: float) -> None:
    told = Told(2, "m >= 0")
    for _ in range(20):
        told.look_at([batch(3)])
        told.clock.now += seconds
    told.clock.now += 2
    told.log.flush()
    lines = told.lines()
    counted = [int(line.split(", ")[1].split()[0]) for line in lines if line.endswith(" more")]
    assert sum(counted) + len(lines) - len(counted) == 60


def test_a_line_break_in_a_label_stays_on_its_line() -> None:
    told = Told(5, "m >= 0")
    told.look_at(
        [
            Batch(
                [make_labels({"name": "a\nALERT b", "version": "é"})],
                np.zeros(1, np.int32),
                np.zeros(1, np.int64),
                {"m": np.ones(1)},
            )
        ]
    )
    assert told.lines() == [r"ALERT m at least 0, {'name': 'a\nALERT b', 'version': 'é', 'm': 1.0}"]


def test_other_rules_hold_from_the_next_event_on_and_nothing_stays_unsaid() -> None:
    told = Told(1, "m >= 0")
    told.look_at([batch(3)])
    told.lines()
    told.use([EventRule("Other", *parse_event("m >= 2"))])
    assert told.lines() == ["ALERT m at least 0, 2 more"]
    told.look_at([batch(3)])
    assert [line.partition(",")[0] for line in told.lines()] == ["ALERT m at least 2"]
