"""`modelmeter export`: raw events of a running server into a file, or to standard output."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from modelmeter.cli.options import Url
from modelmeter.cli.server import ask
from modelmeter.cli.stats import End, LabelFilter, Match, Start, Where, label_filters, path_of
from modelmeter.errors import ModelmeterError, WrongSetting

_PART_BYTES = 1 << 18


class Form(StrEnum):
    """The form of a file."""

    PARQUET = "parquet"
    ARROW = "arrow"
    CSV = "csv"
    NDJSON = "ndjson"


_ACCEPT = {
    Form.PARQUET: "application/vnd.apache.parquet",
    Form.ARROW: "application/vnd.apache.arrow.stream",
    Form.CSV: "text/csv",
    Form.NDJSON: "application/x-ndjson",
}
_LINES = {Form.CSV, Form.NDJSON}  # an event each


def export(
    name: Annotated[str, typer.Argument(help="A model.")],
    version: Annotated[str | None, typer.Argument(help="A version; without it, all of the model's.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file.", show_default="standard output")
    ] = None,
    form: Annotated[
        Form | None, typer.Option("--format", help="Its form.", show_default="by the file's name, else ndjson")
    ] = None,
    start: Start = None,
    end: End = None,
    label: LabelFilter = None,
    match: Match = None,
    where: Where = None,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Write the raw events of a model, oldest first; `modelmeter etl load` reads them back (all but Arrow).

    The file appears under its name when it is whole. CSV knows no types: labels that are all numbers come back from
    it as metrics, so for keeping, take Parquet.

    Example: modelmeter export Mistral --start 2026-01-01T00:00:00Z --output mistral.parquet
    """
    form = form or _form_of(output)
    query = {"start": start, "end": end, "match": match, "where": where, **label_filters(label)}
    if output is None:
        if sys.stdout.isatty() and form not in _LINES:
            raise WrongSetting(f"format: {form} is not for a terminal; give --output, or send it into a pipe")
        _copy(url, path_of("events", name, version), form, query, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    partial = output.with_name(f"{output.name}.part")
    try:
        with partial.open("wb") as file:
            _copy(url, path_of("events", name, version), form, query, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(output)
    except OSError as error:
        raise ModelmeterError(f"{output}: cannot be written ({error.strerror or error})") from None
    finally:
        partial.unlink(missing_ok=True)


def _form_of(output: Path | None) -> Form:
    if output is None:
        return Form.NDJSON
    suffix = output.suffix.removeprefix(".").lower()
    found = {"pq": "parquet", "jsonl": "ndjson", "arrows": "arrow"}.get(suffix, suffix)
    if found not in [*Form]:
        raise WrongSetting(f"format: {output.name!r} does not tell it; give --format {'|'.join(Form)}")
    return Form(found)


def _copy(url: str, path: str, form: Form, query: dict[str, str | None], file: IO[bytes]) -> None:
    """With a bar on standard error: of events where a line is one, else of bytes alone."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[events]}"), DownloadColumn(),
        TransferSpeedColumn(), TimeElapsedColumn(), console=Console(stderr=True), disable=not sys.stderr.isatty(),
    )  # fmt: skip
    with ask(url, path, _ACCEPT[form], query) as answer, bar:
        told = answer.headers.get("Modelmeter-Events")
        total = int(told) if told else None
        lines = received = 0
        task = bar.add_task("exporting", total=None, events=f"{total:,} events" if total is not None else "")
        while part := answer.read1(_PART_BYTES):
            file.write(part)
            received += len(part)
            lines += part.count(b"\n")
            guess = received * total // lines if form in _LINES and total and lines else None
            bar.update(task, completed=received, total=guess)
        bar.update(task, completed=received, total=received)
    if total is not None and form is Form.NDJSON and lines != total:
        raise ModelmeterError(f"{lines:,} of {total:,} events came; the server's log may say why")
