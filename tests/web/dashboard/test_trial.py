"""A rule tried on the past, against the plain reading of its words."""

import numpy as np
import pytest

from modelmeter.alert import Policy
from modelmeter.errors import Malformed
from modelmeter.promql.reader import Limits
from modelmeter.reader import Reader
from modelmeter.series import Catalog, SeriesSource
from modelmeter.web.dashboard import trial
from modelmeter.web.dashboard.trial import Firing, Wish
from modelmeter.window import DAY, HOUR, MINUTE
from tests.history import NOON, event, labels_of, store

LABELS = (("name", "Mistral"),)


def spells(holds: str, policy: Policy) -> list[tuple[int, int | None]]:
    """`holds`: x where the condition holds, . where it does not, space where there is no data; a step is a minute."""
    times = [NOON + step * MINUTE for step in range(len(holds))]
    there = np.array([one != " " for one in holds])
    found = trial.run(LABELS, np.array([one == "x" for one in holds]), there, np.ones(len(holds)), times, policy)
    return [((one.start - NOON) // MINUTE, None if one.end is None else (one.end - NOON) // MINUTE) for one in found]


def test_it_fires_while_the_condition_has_held_long_enough() -> None:
    assert spells("..xxx..xx", Policy()) == [(2, 5), (7, None)]
    assert spells("..xxx..xxxxx.", Policy(hold=3 * MINUTE)) == [(10, 12)]
    assert spells("xx..", Policy(keep_firing=2 * MINUTE)) == [(0, None)]
    assert spells("xx.....", Policy(keep_firing=2 * MINUTE)) == [(0, 4)]


def test_missing_data_resolves_nothing() -> None:
    assert spells(".xx   ..", Policy()) == [(1, 6)]


@pytest.mark.parametrize(
    ("expr", "drawn", "threshold"),
    [
        ("avg_over_time(accuracy[1h]) < 0.8", "avg_over_time(accuracy[1h])", 0.8),
        ("accuracy >= -1", "accuracy", -1.0),
        ("accuracy < bool 0.8", "accuracy < bool 0.8", None),
        ("a / b", "a / b", None),
        ("a < b", "a < b", None),
        ("a <", "a <", None),
    ],
)
def test_the_side_of_an_expression_that_is_worth_drawing(expr: str, drawn: str, threshold: float | None) -> None:
    parts = trial.take_apart(expr)
    assert (parts.drawn, parts.threshold) == (drawn, threshold)


def test_a_rule_is_tried_on_what_is_stored(database_url: str) -> None:
    bad = range(20, 27)
    events = [
        event(NOON + hour * HOUR + 30 * MINUTE, labels=labels_of(version=version), accuracy=value)
        for hour in range(48)
        for version, value in (("v1", 0.9), ("v2", 0.4 if hour in bad else 0.9))
    ]
    store(database_url, *events)
    reader = Reader(database_url)
    wish = Wish("avg_over_time(accuracy[1h]) < 0.8", HOUR, 0, HOUR, 2 * DAY)
    with reader.snapshot() as connection:
        found = trial.try_rule(wish, NOON + 2 * DAY, SeriesSource(connection, Catalog(), 10_000), Limits())
    reader.close()
    # The mean of an hour is bad at its end; one hour later it has held for an hour.
    assert found.firings == [Firing(labels_of(version="v2"), NOON + 22 * HOUR, NOON + 28 * HOUR, 0.4)]
    assert found.threshold == 0.8
    assert found.series == 2
    labels, values = found.lines[0]
    assert labels == labels_of(version="v2")
    assert values.size == found.times.size == 49
    assert np.nanmin(values) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [({"expr": ""}, "expr"), ({"for": "soon"}, "for"), ({"interval": "1s"}, "interval"), ({"since": "1s"}, "since")],
)
def test_what_cannot_be_tried_is_named(parameters: dict[str, str], field: str) -> None:
    with pytest.raises(Malformed) as refused:
        trial.read_wish({"expr": "a < 1", **parameters})
    assert refused.value.extra["field"] == field
