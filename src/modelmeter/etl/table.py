"""Rows of a file to event columns: text is a label, a number a metric, `timestamp` UTC microseconds.

A row whose timestamp cannot be read is refused: without one the server would take it for an event of now.
"""

import difflib
from collections.abc import Collection, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelmeter.errors import WrongSetting
from modelmeter.window import EARLIEST, LATEST, SECOND

NAME, VERSION, TIMESTAMP = "name", "version", "timestamp"
FIELDS = (NAME, VERSION, TIMESTAMP)

_TEXTS = (pl.String, pl.Categorical, pl.Enum)
_TIME = pl.Datetime("us", "UTC")
_RFC3339 = (
    r"^(?<date>\d{4}-\d{2}-\d{2})(?:[Tt ](?<time>\d{2}:\d{2})(?<second>:\d{2})?(?:[.,](?<fraction>\d{1,6})"
    r"\d*)? ?(?:[Zz]|(?<sign>[+-])(?<hours>\d{2}):?(?<minutes>\d{2})?)?)?$"
)


def source_of(field: str, renames: Mapping[str, str]) -> str:
    """The column that becomes `field`."""
    return next((column for column, to in renames.items() if to == field), field)


def check_renames(columns: Collection[str], renames: Mapping[str, str], where: str) -> None:
    """WrongSetting when a --map names a column that is not there, or two columns would get one name."""
    for column, to in renames.items():
        if column not in columns:
            raise WrongSetting(f"{where}: --map {column}={to}: there is no column {column!r}{_near(column, columns)}")
        if to in columns and to not in renames:
            raise WrongSetting(f"{where}: --map {column}={to}: there is a column {to!r} already; map that one as well")
    if len(set(renames.values())) < len(renames):
        raise WrongSetting(f"{where}: --map: two columns are mapped to one field")


def check_schema(schema: Mapping[str, pl.DataType], where: str) -> None:
    """WrongSetting unless the columns make events: name, version, a number, nothing nested."""
    for field in (NAME, VERSION):
        if field not in schema:
            free = [column for column in schema if column not in FIELDS]
            near = difflib.get_close_matches(field, free, n=1, cutoff=0.5) or [
                column for column in free if field[:3] in column.lower() or "model" in column.lower()
            ]
            raise WrongSetting(
                f"{where}: every event needs a {field!r}, and there is no such column. The columns are: "
                f"{', '.join(schema)}. Say which one it is: --map {near[0] if near else 'COLUMN'}={field}"
            )
        if not isinstance(schema[field], (*_TEXTS, pl.Boolean)) and not schema[field].is_numeric():
            raise WrongSetting(f"{where}: {field!r} must be text or a number, but it is {schema[field]}")
    metrics = 0
    for column, dtype in schema.items():
        if column == TIMESTAMP:
            if not isinstance(dtype, (pl.Datetime, pl.Date, pl.String, pl.Null)) and not dtype.is_numeric():
                raise WrongSetting(f"{where}: 'timestamp' must be a time, a date, text or a number, but it is {dtype}")
        elif dtype.is_numeric() or isinstance(dtype, pl.Boolean):
            metrics += column not in FIELDS
        elif not isinstance(dtype, (*_TEXTS, pl.Null)):
            raise WrongSetting(
                f"{where}: {column!r} is {dtype}, neither text nor number. "
                f'Leave it out: --sql "select * exclude ({column}) from data"'
            )
    if not metrics:
        raise WrongSetting(
            f"{where}: there is no column of numbers, so no metric. The columns are: "
            f"{', '.join(f'{column} ({dtype})' for column, dtype in schema.items())}"
        )


def to_events(frame: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.int64], list[tuple[int, str]]]:
    """The events of a frame that passed `check_schema`, the row of each, and (row, why) of the refused."""
    columns = []
    rows = np.arange(frame.height)
    unreadable = np.zeros(frame.height, bool)
    refused: list[tuple[int, str]] = []
    for series in frame:
        if series.name == TIMESTAMP:
            times = to_times(series)
            unreadable = (series.is_not_null() & times.is_null()).to_numpy()
            texts = series.filter(pl.Series(unreadable)).cast(pl.String).to_list()
            refused = [
                (row, f"timestamp: {text!r:.60} is no time like 2026-01-31T12:00:00Z or Unix seconds")
                for row, text in zip(np.flatnonzero(unreadable).tolist(), texts, strict=True)
            ]
            columns.append(times)
        elif series.name in (NAME, VERSION) or isinstance(series.dtype, _TEXTS):
            columns.append(series.cast(pl.String))
        elif not isinstance(series.dtype, pl.Null):
            columns.append(series.cast(pl.Float64))
    events = pl.DataFrame(columns)
    if refused:
        events, rows = events.filter(pl.Series(~unreadable)), rows[~unreadable]
    return events, rows, refused


def to_times(series: pl.Series) -> pl.Series:
    """A column of times as UTC microseconds; null where there is none or it cannot be read.

    A time without an offset is UTC. Numbers, also as text, are Unix times in s, ms, us or ns, told apart by
    their size as `window.unix_to_micros` does.
    """
    dtype = series.dtype
    if isinstance(dtype, pl.Datetime):
        aware = series if dtype.time_zone else series.dt.replace_time_zone("UTC")
        micros = aware.dt.convert_time_zone("UTC").dt.cast_time_unit("us").to_physical()
    elif isinstance(dtype, pl.Date):
        micros = series.cast(pl.Datetime("us")).to_physical()
    elif isinstance(dtype, pl.String):
        micros = _text_to_micros(series)
    elif dtype.is_integer():
        micros = _integers_to_micros(series.cast(pl.Int64, strict=False))
    else:
        micros = _floats_to_micros(series.cast(pl.Float64, strict=False))
    inside = micros.to_frame("t").select(pl.when(pl.col("t").is_between(EARLIEST, LATEST)).then("t")).to_series()
    return inside.cast(_TIME).alias(series.name)


def _integers_to_micros(numbers: pl.Series) -> pl.Series:
    n = pl.col("n")
    micros = (
        pl.when(n.is_between(-(10**11), 10**11, "none")).then(n * SECOND)
        .when(n.is_between(-(10**14), 10**14, "none")).then(n * 1_000)
        .when(n.is_between(-(10**17), 10**17, "none")).then(n)
        .otherwise(n // 1_000)
    )  # fmt: skip
    return numbers.to_frame("n").select(micros).to_series()


def _floats_to_micros(numbers: pl.Series) -> pl.Series:
    n = pl.col("n")
    micros = (
        pl.when(n.abs() < 1e11).then(n * SECOND).when(n.abs() < 1e14).then(n * 1_000)
        .when(n.abs() < 1e17).then(n).otherwise(n / 1_000)
    )  # fmt: skip
    return numbers.to_frame("n").select(micros.round().cast(pl.Int64, strict=False)).to_series()


def _text_to_micros(texts: pl.Series) -> pl.Series:
    text = texts.str.strip_chars()
    part = text.to_frame("t").select(pl.col("t").str.extract_groups(_RFC3339)).to_series().struct.unnest()
    minute = part["date"] + "T" + part["time"].fill_null("00:00") + part["second"].fill_null(":00")
    micros = minute.str.to_datetime("%Y-%m-%dT%H:%M:%S", time_unit="us", strict=False).to_physical()
    micros += part["fraction"].fill_null("0").str.pad_end(6, "0").cast(pl.Int64)
    offset = (part["hours"].fill_null("0").cast(pl.Int64) * 60 + part["minutes"].fill_null("0").cast(pl.Int64)) * 60
    micros -= offset * SECOND * (part["sign"].fill_null("+") + "1").cast(pl.Int64)
    whole = _integers_to_micros(text.cast(pl.Int64, strict=False))
    broken = _floats_to_micros(text.cast(pl.Float64, strict=False))
    return pl.select(pl.coalesce(micros, whole, broken)).to_series()


def _near(column: str, columns: Collection[str]) -> str:
    near = difflib.get_close_matches(column, columns, n=1)
    return f"; did you mean {near[0]!r}?" if near else f". The columns are: {', '.join(columns)}"
