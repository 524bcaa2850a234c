"""What the settings of retention mean, and how a wrong one is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmeter.config import Config
from modelmeter.errors import WrongSetting
from modelmeter.partitioner import borders_of
from modelmeter.retention import KINDS, read_retention
from modelmeter.store.partitions import HELD, end_of, span_of, start_of
from modelmeter.window import DAY, LATEST, to_datetime
from tests.history import NOON, labels_of


def retention(**settings: Any) -> Any:
    return read_retention(Config(database_url="host=/nowhere", **settings))


def test_the_defaults_are_30_days_90_days_2_years_and_for_ever() -> None:
    assert retention().keep == {"raw": 30 * DAY, "1m": 90 * DAY, "1h": 730 * DAY, "1d": None}
    assert retention().history == 365 * DAY
    assert retention().classes == ()


def test_a_coarser_resolution_is_kept_at_least_as_long_as_the_finer() -> None:
    assert retention(retention_raw="1y").keep == {"raw": 365 * DAY, "1m": 365 * DAY, "1h": 730 * DAY, "1d": None}
    assert set(retention(retention_raw="forever").keep.values()) == {None}
    found = retention(retention_1d="1y", retention_classes="[{name: gold, match: '{name=\"A\"}', raw: 1y, 1m: 200d}]")
    assert found.classes[0].keep == {"raw": 365 * DAY, "1m": 365 * DAY, "1h": 730 * DAY, "1d": 730 * DAY}


def test_the_first_class_that_matches_takes_a_stream() -> None:
    listed = """
    - {name: gold, match: '{name="Mistral",env=~"prod|test"}', raw: 90d}
    - {name: short, match: '{env!=""}', raw: 7d}
    """
    streams = [labels_of(env="prod"), labels_of(), labels_of("Llama", env="prod"), labels_of(env="dev")]
    assert retention(retention_classes=listed).classify(streams) == ["gold", None, "short", "short"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"retention_raw": "30"}, "retention_raw: '30'"),
        ({"retention_1m": "12h"}, "retention_1m: '12h' is less than a day"),
        ({"retention_history": "for ever"}, "retention_history"),
        ({"retention_classes": "{"}, "retention_classes: no YAML"),
        ({"retention_classes": "gold"}, "retention_classes: no list"),
        ({"retention_classes": "[gold]"}, r"retention_classes\[0\]"),
        ({"retention_classes": "[{name: default, match: '{a=\"b\"}'}]"}, r"retention_classes\[0\].name"),
        ({"retention_classes": "[{name: a, match: '{'}]"}, r"retention_classes\[0\].match"),
        ({"retention_classes": "[{name: a, match: '{a=~\"(\"}'}]"}, r"retention_classes\[0\].match"),
        ({"retention_classes": "[{name: a, match: 'drift{a=\"b\"}'}]"}, "names a metric"),
        ({"retention_classes": "[{name: a, match: '{a=\"b\"}', raw: 9}]"}, r"retention_classes\[0\].raw"),
        ({"retention_classes": "[{name: a, match: '{a=\"b\"}', rew: 9d}]"}, r"retention_classes\[0\].rew: unknown"),
        ({"retention_classes": "[{name: a, match: '{a=\"b\"}'}, {name: a, match: '{a=\"c\"}'}]"}, "stands twice"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(settings: dict[str, str], said: str) -> None:
    with pytest.raises(WrongSetting, match=said):
        retention(**settings)


@given(st.integers(0, LATEST - 365 * DAY), st.lists(st.integers(1, 4000), min_size=4, max_size=4))
def test_a_border_keeps_what_the_setting_says_and_less_than_a_partition_more(now: int, days: list[int]) -> None:
    keep = retention(**{f"retention_{kind}": f"{span}d" for kind, span in zip(KINDS, days, strict=True)}).keep
    borders = borders_of(keep, now)
    kinds = [kind for kind in KINDS if kind in borders]
    assert [borders[kind] for kind in kinds] == sorted((borders[kind] for kind in kinds), reverse=True)
    for table, kind in HELD.items():
        if kind in borders:
            assert borders[kind] <= now - keep[kind] < end_of(table, borders[kind])
            assert start_of(table, borders[kind]) == borders[kind]


@given(st.sampled_from(sorted(HELD)), st.integers(0, LATEST - 365 * DAY))
def test_a_partition_is_found_by_its_name(table: str, instant: int) -> None:
    start = start_of(table, instant)
    assert span_of(f"{table}_{to_datetime(start):%Y%m%d}") == (table, start, None)
    assert span_of(f"{table}_{to_datetime(start):%Y%m%d}_c7") == (table, start, 7)
    assert start <= instant < end_of(table, start)
    assert NOON
