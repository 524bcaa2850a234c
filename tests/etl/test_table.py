from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmeter import window
from modelmeter.errors import WrongSetting
from modelmeter.etl.table import check_renames, check_schema, to_events, to_times

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-31T12:00:00Z", NOON),
        ("2026-01-31 12:00", NOON),
        ("2026-01-31T13:30:00.123456789+01:30", NOON.replace(microsecond=123456)),
        ("2026-01-31T08:29:59,5-0330", NOON.replace(hour=11, minute=59, second=59, microsecond=500_000)),
        ("2026-01-31", NOON.replace(hour=0)),
        ("1769860800", NOON),
        ("1769860800.25", NOON.replace(microsecond=250_000)),
        ("1769860800123456789", NOON.replace(microsecond=123456)),
        ("2026-02-30", None),
        ("1960-01-01", None),
        ("yesterday", None),
        ("-5", None),
        ("inf", None),
        ("", None),
        (None, None),
    ],
)
def test_text_is_read_as_utc_and_what_is_no_time_as_nothing(text: str | None, instant: datetime | None) -> None:
    assert to_times(pl.Series([text], dtype=pl.String)).to_list() == [instant]


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_are_read_as_the_server_does(value: int) -> None:
    try:
        expected = window.unix_to_micros(value)
    except ValueError:
        expected = None
    assert to_times(pl.Series([value])).to_physical().to_list() == [expected]
    assert to_times(pl.Series([str(value)])).to_physical().to_list() == [expected]


@given(st.floats(0, 1e18))
def test_floats_are_read_as_the_server_does(value: float) -> None:
    try:
        expected = window.unix_to_micros(value)
    except ValueError:
        expected = None
    found = to_times(pl.Series([value])).to_physical().to_list()[0]
    assert found == expected or (found is not None and expected is not None and abs(found - expected) <= 1)


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.timezones()))  # noqa: DTZ001
def test_rfc3339_is_read_as_the_server_does(instant: datetime) -> None:
    text = instant.isoformat()
    if len(text.rpartition(":")[2]) > 2:
        return  # an offset with seconds, before time zones were whole minutes
    expected = window.rfc3339_to_micros(text)
    assert to_times(pl.Series([text])).to_physical().to_list() == [expected]


def test_datetimes_and_dates_become_utc_microseconds() -> None:
    naive = pl.Series([datetime(2026, 1, 31, 12)])  # noqa: DTZ001
    assert to_times(naive).to_list() == [NOON]
    assert to_times(naive.cast(pl.Datetime("ns"))).to_list() == [NOON]
    assert to_times(naive.dt.replace_time_zone("America/New_York")).to_list() == [NOON.replace(hour=17)]
    assert to_times(pl.Series([date(2026, 1, 31)])).to_list() == [NOON.replace(hour=0)]


def test_rows_become_events_and_those_without_a_readable_time_are_refused() -> None:
    frame = pl.DataFrame(
        {
            "name": ["a", "b", "c"],
            "version": [1, 2, 3],
            "timestamp": ["2026-01-31T12:00:00Z", "soon", None],
            "ok": [True, False, None],
            "count": [1, 2, 3],
            "nothing": [None, None, None],
        }
    )
    events, kept, refused = to_events(frame)
    assert events.to_dict(as_series=False) == {
        "name": ["a", "c"],
        "version": ["1", "3"],
        "timestamp": [NOON, None],
        "ok": [1.0, None],
        "count": [1.0, 3.0],
    }
    assert events.schema["timestamp"] == pl.Datetime("us", "UTC")
    assert kept.tolist() == [0, 2]
    assert [row for row, _ in refused] == [1]
    assert "'soon'" in refused[0][1]


def test_a_missing_name_lists_the_columns_and_suggests_a_map() -> None:
    schema = {"nme": pl.String(), "version": pl.String(), "x": pl.Float64()}
    with pytest.raises(WrongSetting, match=r"no such column. The columns are: nme, version, x.*--map nme=name"):
        check_schema(schema, "f.csv")


@pytest.mark.parametrize(
    ("column", "dtype", "message"),
    [
        ("x", pl.String(), "no column of numbers"),
        ("x", pl.List(pl.Float64), r"exclude \(x\)"),
        ("x", pl.Datetime("us"), "neither text nor number"),
        ("timestamp", pl.Boolean(), "'timestamp' must be"),
        ("version", pl.Date(), "'version' must be"),
    ],
)
def test_columns_that_make_no_events_are_named(column: str, dtype: pl.DataType, message: str) -> None:
    schema = {"name": pl.String(), "version": pl.String(), column: dtype}
    with pytest.raises(WrongSetting, match=message):
        check_schema(schema, "f.csv")


@pytest.mark.parametrize(
    ("renames", "message"),
    [
        ({"modle": "name"}, "did you mean 'model'"),
        ({"zzz": "name"}, "The columns are: model, acc, drift"),
        ({"acc": "drift"}, "there is a column 'drift' already"),
        ({"acc": "x", "drift": "x"}, "mapped to one field"),
    ],
)
def test_renames_that_cannot_be_are_told(renames: dict[str, str], message: str) -> None:
    with pytest.raises(WrongSetting, match=message):
        check_renames(["model", "acc", "drift"], renames, "f.csv")


def test_two_columns_may_change_places() -> None:
    check_renames(["a", "b"], {"a": "b", "b": "a"}, "f.csv")
