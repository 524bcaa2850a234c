"""CSV, Parquet and NDJSON files as lazy tables, with the type of each column settled from the whole file.

Nothing is guessed from the first rows: a file is read to its end before a single event leaves, so that a bad
line far down is an error before the load and not in the middle of it. Memory stays bounded. WrongSetting
names the file and the place.
"""

import glob
import gzip
import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from modelmeter.errors import WrongSetting

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A file as a table. `nested` are NDJSON fields that are no column of `data`, with a line of each."""

    path: Path
    format: str
    data: pl.LazyFrame
    nested: dict[str, int]


@dataclass(frozen=True, slots=True)
class Stamp:
    """Tells whether a file was written to."""

    size_bytes: int
    modified_ns: int


def format_of(path: Path) -> str:
    """csv, tsv, parquet or ndjson by the suffix, with or without `.gz`. WrongSetting when unknown."""
    name = path.name.lower()
    packed = name.endswith(".gz")
    kind = FORMATS.get(Path(name.removesuffix(".gz")).suffix)
    if kind is None or (packed and kind == "parquet"):
        raise WrongSetting(
            f"{path}: unknown kind of file; the name must end in .csv, .tsv, .ndjson, .jsonl "
            "(each may be followed by .gz), .parquet or .pq"
        )
    return kind


def stamp(path: Path) -> Stamp:
    """The file as it is now. WrongSetting when there is no such file."""
    try:
        stat = path.stat()
        with path.open("rb"):
            return Stamp(stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise WrongSetting(f"{path}: cannot be read ({error.strerror or error})") from None


def is_changed(path: Path, before: Stamp) -> bool:
    """Whether the file was written, replaced or removed since `before`, judged by size and time."""
    try:
        stat = path.stat()
    except OSError:
        return True
    return Stamp(stat.st_size, stat.st_mtime_ns) != before


def content_hash(path: Path) -> str:
    """BLAKE2b of the file's bytes. WrongSetting when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise WrongSetting(f"{path}: cannot be read ({error.strerror or error})") from None


def open_source(path: Path, texts: Collection[str]) -> Source:
    """The table in `path`. The columns `texts` of CSV and NDJSON stay text as written (`1.10` is a version).

    WrongSetting when the file is broken.
    """
    kind = format_of(path)
    try:
        if kind == "parquet":
            data = pl.scan_parquet(path, glob=False)
            data.collect_schema()
            return Source(path, kind, data, {})
        if kind == "ndjson":
            schema, nested = _ndjson_schema(path, texts)
            pattern = glob.escape(str(path))  # scan_ndjson knows no glob=False
            return Source(path, kind, pl.scan_ndjson(pattern, schema=schema), nested)
        raw = pl.scan_csv(path, infer_schema=False, glob=False, separator="\t" if kind == "tsv" else ",")
        return Source(path, kind, _typed_csv(raw, texts), {})
    except (pl.exceptions.PolarsError, OSError, EOFError) as error:
        raise WrongSetting(f"{path}: cannot be read as {kind} ({first_line(error)})") from None


def first_line(error: BaseException) -> str:
    """What a library's error says, without the pages that follow."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _typed_csv(raw: pl.LazyFrame, texts: Collection[str]) -> pl.LazyFrame:
    """A column is a number (or boolean) if every value in the file is one, else text. Empty is absent."""
    columns = raw.collect_schema().names()
    filled = raw.with_columns(pl.when(pl.all() != "").then(pl.all()).name.keep())
    guessed = [column for column in columns if column not in texts]
    tests = [pl.col(column).null_count() for column in columns if column in texts]  # all must be readable
    for index, column in enumerate(guessed):
        value = pl.col(column)
        wrong = {
            "empty": value.is_not_null(),
            "number": value.is_not_null() & value.cast(pl.Float64, strict=False).is_null(),
            "boolean": value.is_not_null() & ~value.str.to_lowercase().is_in(["true", "false"]),
        }
        tests += [test.any().alias(f"{kind} {index}") for kind, test in wrong.items()]
    found = filled.select(tests).collect(engine="streaming").row(0, named=True)
    typed = []
    for index, column in enumerate(guessed):
        if not found[f"empty {index}"]:
            continue
        if not found[f"number {index}"]:
            typed.append(pl.col(column).cast(pl.Float64))
        elif not found[f"boolean {index}"]:
            typed.append(pl.col(column).str.to_lowercase() == "true")
    return filled.with_columns(typed)


def _ndjson_schema(path: Path, texts: Collection[str]) -> tuple[dict[str, pl.DataType], dict[str, int]]:
    """The fields of all lines, each of one type; numbers mixed with text would be coerced: refused."""
    kinds: dict[str, dict[type, int]] = {}
    seen: set[tuple[tuple[str, type], ...]] = set()
    decode = msgspec.json.Decoder().decode
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                event = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise WrongSetting(f"{path}, line {number}: is no JSON ({error})") from None
            if type(event) is not dict:
                raise WrongSetting(f"{path}, line {number}: is no JSON object")
            shape = tuple(zip(event, map(type, event.values()), strict=True))
            if shape not in seen:
                seen.add(shape)
                for field, kind in shape:
                    kinds.setdefault(field, {}).setdefault(kind, number)
    schema: dict[str, pl.DataType] = {}
    nested = {}
    for field, lines in kinds.items():
        lines.pop(type(None), None)
        if lines.keys() & {dict, list}:
            nested[field] = min(line for kind, line in lines.items() if kind in {dict, list})
        elif field in texts:
            schema[field] = pl.String()
        elif lines:
            schema[field] = _ndjson_type(path, field, lines)
    return schema, nested


_JSON_KINDS: dict[Any, tuple[str, pl.DataType]] = {
    str: ("text", pl.String()),
    bool: ("a boolean", pl.Boolean()),
    int: ("a number", pl.Float64()),
    float: ("a number", pl.Float64()),
}


def _ndjson_type(path: Path, field: str, lines: dict[type, int]) -> pl.DataType:
    first: dict[str, int] = {}
    for kind, line in lines.items():
        word, dtype = _JSON_KINDS[kind]
        first[word] = min(line, first.get(word, line))
    if len(first) > 1:
        places = " and ".join(
            f"{word} in line {line}" for word, line in sorted(first.items(), key=lambda item: item[1])
        )
        raise WrongSetting(f"{path}: {field!r} is {places}; a field must be of one kind")
    return dtype
