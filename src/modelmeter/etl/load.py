"""Files to the server, slice by slice as Arrow; a load that broke off is simply run again.

A slice's Idempotency-Key is made of the file's content, what decides which rows a slice holds (--map, --sql,
--slice-events) and the slice's number: the same command on the same bytes repeats the same keys with the same
events, wherever the file lies and whenever it was touched. Everything is checked before anything is sent.
"""

import functools
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelmeter.errors import ModelmeterError, WrongSetting
from modelmeter.etl.sender import ARROW, Answer, Parcel, SenderPool, Tally
from modelmeter.etl.source import Stamp, content_hash, first_line, is_changed, open_source, stamp
from modelmeter.etl.table import FIELDS, TIMESTAMP, check_renames, check_schema, source_of, to_events

SLICE_EVENTS = 10_000
_SLICE_CELLS = 500_000  # 4 MB of numbers: a slice of a very wide file stays far below the server's body limit
_KEY_FORMAT = 1  # to be raised when the same file and options are cut or read in another way than before
# These give rows in an order that may change from run to run.
_UNORDERED = re.compile(r"\b(group|distinct|join|union|intersect|except|order|over|unnest|limit)\b", re.IGNORECASE)


class SourceChanged(ModelmeterError):
    """The file was written to while it was loaded."""

    title = "The file changed"


@dataclass(frozen=True, slots=True)
class Options:
    """What to make of a file: SQL over the table `data`, then columns renamed, cut into slices."""

    renames: Mapping[str, str] = field(default_factory=dict)
    sql: str | None = None
    slice_events: int = SLICE_EVENTS


@dataclass(frozen=True, slots=True)
class Load:
    """One file, checked and ready: `rows` rows of `table` in slices of `slice_rows`."""

    path: Path
    stamp: Stamp
    table: pl.LazyFrame
    schema: pl.Schema
    rows: int
    slice_rows: int
    key: str

    @property
    def slices(self) -> int:
        """How many slices there are."""
        return -(-self.rows // self.slice_rows)


@dataclass(frozen=True, slots=True)
class _Slice:
    """A slice on its way: `kept` are the rows that were sent, `refused` those that were not, and why."""

    path: Path
    first: int
    height: int
    kept: NDArray[np.int64]
    refused: Sequence[tuple[int, str]]

    def count(self, tally: Tally, advance: Callable[[int], None], answer: Answer) -> None:
        """The server has answered. Its indexes count the rows sent; people count those of the file."""
        places = list(self.refused)
        places += [(int(self.kept[error.index]), error.detail) for error in answer.errors]
        tally.count(
            answer.accepted,
            answer.rejected + len(self.refused),
            [f"{self.path}, row {self.first + row + 1}: {detail}" for row, detail in sorted(places)],
        )
        advance(self.height)


def parse_renames(pairs: Iterable[str]) -> dict[str, str]:
    """`column=field` texts to a mapping. WrongSetting for another form or a column named twice."""
    renames: dict[str, str] = {}
    for pair in pairs:
        column, equals, to = pair.rpartition("=")
        if not equals or not column or not to:
            raise WrongSetting(f"--map {pair}: write it as column=field")
        if column in renames:
            raise WrongSetting(f"--map {pair}: {column!r} is mapped twice")
        renames[column] = to
    return renames


def prepare(path: Path, options: Options) -> Load:
    """Read the file to its end and check it. WrongSetting when it cannot be loaded as a whole."""
    texts = {source_of(name, options.renames) for name in FIELDS}
    texts -= {column for column, to in options.renames.items() if to not in FIELDS}
    before = stamp(path)
    source = open_source(path, texts)
    where = str(path)
    if source.nested and options.sql is None:
        name, line = next(iter(source.nested.items()))
        raise WrongSetting(
            f"{where}, line {line}: {name!r} is nested; name the columns that you want, without it: "
            '--sql "select ... from data"'
        )
    try:
        table = source.data if options.sql is None else _ask(source.data, options.sql)
        check_renames(table.collect_schema().names(), options.renames, where)
        table = table.rename(dict(options.renames))
        schema = table.collect_schema()
        rows = int(table.select(pl.len()).collect(engine="streaming").item())
        if rows:  # the columns of an empty CSV have no type
            check_schema(schema, where)
        if source.format not in {"csv", "tsv"} or options.sql is not None:  # those were read to the end already
            table.select(pl.all().null_count()).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise WrongSetting(f"{where}: {first_line(error)}") from None
    slice_rows = max(1, min(options.slice_events, _SLICE_CELLS // len(schema)))
    # The same numbers without a time may well be reported twice, on purpose, by two files of one content.
    modified_ns = None if TIMESTAMP in schema else before.modified_ns
    parts = (
        _KEY_FORMAT,
        content_hash(path),
        modified_ns,
        source.format,
        sorted(options.renames.items()),
        options.sql,
        slice_rows,
    )
    key = hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()
    return Load(path, before, table, schema, rows, slice_rows, key)


def _ask(data: pl.LazyFrame, sql: str) -> pl.LazyFrame:
    """The query's rows, in an order that is the same in every run."""
    table = data.sql(sql, table_name="data")
    columns = table.collect_schema().names()
    return table.sort(columns) if _UNORDERED.search(sql) else table


def send(loads: Sequence[Load], pool: SenderPool, tally: Tally, advance: Callable[[int], None]) -> None:
    """Send every slice. `tally` counts what is acknowledged, `advance` is told of rows done as they are.

    Returns when all are acknowledged or by the pool's failure; SourceChanged when a file is not what it was.
    """
    for load in loads:
        first = 0
        for number, rows in enumerate(_read(load)):
            if is_changed(load.path, load.stamp):
                raise SourceChanged(f"{load.path}: was changed while it was loaded; load it again when it is at rest")
            events, kept, refused = to_events(rows)
            done = functools.partial(_Slice(load.path, first, rows.height, kept, refused).count, tally, advance)
            if events.is_empty():
                done(Answer(0, 0))
            else:
                pool.put(Parcel(_arrow(events), ARROW, f"load-{load.key}-{number}", events.height), done)
            first += rows.height


def _arrow(events: pl.DataFrame) -> bytes:
    body = io.BytesIO()
    events.write_ipc_stream(body)
    return body.getvalue()


def _read(load: Load) -> Iterator[pl.DataFrame]:
    try:
        yield from _slices(load.table, load.slice_rows)
    except pl.exceptions.PolarsError as error:  # it could be read a moment ago
        raise SourceChanged(f"{load.path}: cannot be read any more ({first_line(error)})") from None


def _slices(table: pl.LazyFrame, rows: int) -> Iterator[pl.DataFrame]:
    """The table in slices of exactly `rows` rows, the last one of what is left; a few of them in memory."""
    waiting: list[pl.DataFrame] = []
    height = 0
    batches = table.collect_batches(chunk_size=rows, maintain_order=True, engine="streaming")
    for batch in batches:
        waiting.append(batch)
        height += batch.height
        if height < rows:
            continue
        joined = pl.concat(waiting) if len(waiting) > 1 else batch
        whole = height - height % rows
        for start in range(0, whole, rows):
            yield joined.slice(start, rows)
        waiting, height = [joined.slice(whole)], height - whole
    if height:
        yield pl.concat(waiting)
