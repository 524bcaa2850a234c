from modelmeter.alert_reader import LoadedGroup
from modelmeter.web.dashboard import alerts_page
from modelmeter.web.dashboard.chart_reader import Period
from modelmeter.web.dashboard.page import Range
from modelmeter.window import DAY, HOUR, MINUTE, Span
from tests.history import NOON

LABELS = {"name": "Mistral", "version": "v1", "alertname": "Low"}


def period(start: int, end: int | None, **labels: str) -> Period:
    return Period("Low", LABELS | labels, start, end, "condition", 0.2)


def test_a_lane_has_a_bar_for_each_period_within_the_span() -> None:
    span = Span(NOON, NOON + 10 * HOUR)
    lanes = alerts_page.lanes_of(
        [
            period(NOON - HOUR, NOON + HOUR),
            period(NOON + 5 * HOUR, NOON + 6 * HOUR),
            period(NOON - 3 * HOUR, NOON - 2 * HOUR),
            period(NOON + 9 * HOUR, None, version="v2"),
        ],
        span,
        NOON + 10 * HOUR,
    )
    assert [lane["labels"] for lane in lanes] == ["name Mistral, version v2", "name Mistral, version v1"]
    assert lanes[0]["bars"] == [{"x": 90.0, "width": 10.0, "open": True}]
    assert lanes[1]["bars"] == [{"x": 0.0, "width": 10.0, "open": False}, {"x": 50.0, "width": 10.0, "open": False}]


def test_ticks_are_few_and_round() -> None:
    for length in (HOUR, DAY, 7 * DAY, 30 * DAY, 7300 * DAY):
        ticks = alerts_page.ticks_of(Span(NOON + 7, NOON + length))
        assert 2 <= len(ticks) <= 9
        assert ticks[0]["words"]


def test_a_rule_that_fails_says_so() -> None:
    rule = {"type": "alerting", "name": "Low", "key": "k", "query": "a < 1", "duration": 600.0}
    group = LoadedGroup("quality", "", 15, 0, [rule], NOON, 0.1, [0.1], ["division by nothing"])
    chosen = Range(Span(NOON - DAY, NOON), NOON, "", "")
    values = alerts_page.values_of([], [], [group], {}, chosen)
    groups = values["groups"]
    assert isinstance(groups, list)
    shown = groups[0]["rules"][0]
    assert (shown["state"], shown["error"]) == ("error", "division by nothing")
    assert shown["hold_seconds"] == 10 * MINUTE // 1_000_000
