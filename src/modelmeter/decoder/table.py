"""An Arrow table to a batch: string columns are labels, number columns metrics."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelmeter.batch import METRIC_LIMIT, NAME, TIMESTAMP, VERSION, Batch, Refused, check_key
from modelmeter.decoder.codebook import Codebook
from modelmeter.decoder.decoded import Bounds, Decoded
from modelmeter.decoder.strict import read_timestamp

AdmitMetric: TypeAlias = Callable[[str], None]
"""Raises Refused when this metric name would be one too many."""

_YEAR_1, _YEAR_9999 = -62_135_596_800_000_000, 253_402_300_799_999_999  # what an answer can name


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class Table:
    """One table to one batch; the rows that are wrong are refused one by one."""

    def __init__(self, codebook: Codebook, admit_metric: AdmitMetric, table: pl.DataFrame, bounds: Bounds) -> None:
        self._codebook = codebook
        self._admit_metric = admit_metric
        self._table = table
        self._bounds = bounds
        self._refused: dict[int, Refused] = {}

    def _refuse(self, rows: NDArray[np.integer], refused: Refused) -> None:
        for row in rows.tolist():
            self._refused.setdefault(row, refused)

    def read(self) -> Decoded:
        table, count = self._table, self._table.height
        labels: dict[str, pl.Series] = {}
        metrics: dict[str, NDArray[np.float64]] = {}
        for column in table:
            key, dtype = column.name, column.dtype
            if key == TIMESTAMP:
                continue
            filled = column.is_not_null()
            try:
                if key in (NAME, VERSION) and dtype not in (pl.String, pl.Categorical, pl.Enum):
                    raise Refused(key, "not_a_string", f"{key}: must be a string column, not {dtype}")
                check_key(key)
                if dtype in (pl.String, pl.Categorical, pl.Enum):
                    labels[key] = column
                elif dtype.is_numeric() or dtype == pl.Boolean:
                    self._admit_metric(key)
                    metrics[key] = self._metric(column)
                elif dtype != pl.Null:
                    raise Refused(key, "nested", f"{key}: {dtype} is neither a string, a number nor a boolean column")
            except Refused as refused:
                self._refuse(
                    np.flatnonzero(filled.to_numpy()) if key not in (NAME, VERSION) else np.arange(count), refused
                )
        timestamp = self._timestamp()
        codes = self._codes(labels)
        if len(metrics) > METRIC_LIMIT:
            present = np.zeros(count, np.int64)
            for values in metrics.values():
                present += ~np.isnan(values)
            for row in np.flatnonzero(present > METRIC_LIMIT).tolist():
                detail = f"{present[row]} metrics; at most {METRIC_LIMIT} are kept"
                self._refused.setdefault(row, Refused(None, "too_many_metrics", detail))
        bare = np.ones(count, bool)
        for values in metrics.values():
            bare &= np.isnan(values)
        self._refuse(
            np.flatnonzero(bare), Refused(None, "no_metric", "no metric: an event needs at least one number field")
        )
        decoded = Decoded()
        for row in sorted(self._refused):
            decoded.refuse(row, self._refused[row])
        kept = np.ones(count, bool)
        kept[list(self._refused)] = False
        if kept.any():
            streams, stream = self._codebook.streams_of(codes[kept])
            metrics = {key: values[kept] for key, values in metrics.items()}
            metrics = {key: values for key, values in metrics.items() if not np.isnan(values).all()}
            decoded.keep(Batch(streams, stream, timestamp[kept], metrics))
        return decoded

    def _metric(self, column: pl.Series) -> NDArray[np.float64]:
        values = column.cast(pl.Float64)
        raw: NDArray[np.float64] = values.fill_null(np.nan).to_numpy().copy()
        wrong = ~np.isfinite(raw)
        if column.null_count():
            wrong &= column.is_not_null().to_numpy()
        if wrong.any():
            key = column.name
            detail = f"{key}: must be a finite number within float64; send null instead"
            self._refuse(np.flatnonzero(wrong), Refused(key, "not_finite", detail))
        return raw

    def _timestamp(self) -> NDArray[np.int64]:
        count, bounds = self._table.height, self._bounds
        if TIMESTAMP not in self._table.columns:
            return np.full(count, bounds.now)
        column = self._table[TIMESTAMP]
        instants = np.full(count, bounds.now)
        if isinstance(column.dtype, pl.Datetime):
            raw = column.to_physical().drop_nulls().to_numpy()  # Polars' own cast panics on what is out of range
            unit = column.dtype.time_unit
            filled = column.is_not_null().to_numpy()
            instants[filled] = (
                raw.clip(-(10**15), 10**15) * 1000 if unit == "ms" else raw if unit == "us" else raw // 1000
            )
            for row in np.flatnonzero((instants < bounds.earliest) | (instants > bounds.latest)).tolist():
                try:
                    bounds.check(min(max(int(instants[row]), _YEAR_1), _YEAR_9999))
                except Refused as refused:
                    self._refused.setdefault(row, refused)
            return instants
        for row, value in enumerate(column.to_list()):
            if value is not None:
                try:
                    instants[row], _ = read_timestamp(value, bounds)
                except Refused as refused:
                    self._refused.setdefault(row, refused)
        return instants

    def _codes(self, labels: dict[str, pl.Series]) -> NDArray[np.int64]:
        count = self._table.height
        codes = np.zeros(count, np.int64)
        for key in (NAME, VERSION):
            if key not in self._table.columns:
                self._refuse(np.arange(count), Refused(key, "missing", f"{key}: missing; every event needs one"))
        if NAME not in labels or VERSION not in labels:
            return codes
        frame = pl.DataFrame([series.cast(pl.String) for series in labels.values()])
        combined = frame.select(pl.struct(pl.all()).rank("dense").alias("rank"))["rank"].to_numpy().astype(np.int64) - 1
        first = np.zeros(int(combined.max()) + 1, np.int64)
        first[combined[::-1]] = np.arange(count - 1, -1, -1)
        found: NDArray[np.int64] = np.zeros(first.size, np.int64)
        for number, values in enumerate(frame[first].iter_rows()):
            try:
                found[number] = self._codebook.code_of(zip(labels, values, strict=True))
            except Refused as refused:
                self._refuse(np.flatnonzero(combined == number), refused)
        coded: NDArray[np.int64] = found[combined]
        return coded
