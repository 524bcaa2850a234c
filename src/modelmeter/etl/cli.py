"""`modelmeter etl demo` and `modelmeter etl load`."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from modelmeter.errors import ModelmeterError, WrongSetting
from modelmeter.etl import demo as demo_source
from modelmeter.etl import load as load_source
from modelmeter.etl.sender import DEFAULT_URL, Sender, SenderPool, Tally, base_url
from modelmeter.etl.table import FIELDS, TIMESTAMP
from modelmeter.window import SECOND, parse_duration

_out = Console(soft_wrap=True, highlight=False)
_err = Console(stderr=True, soft_wrap=True, highlight=False)

etl_app = typer.Typer(
    help="Send events to a server: made-up models (demo), or files (load).",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


def _duration(text: str) -> int:
    """`30` (seconds) or `1h30m` to microseconds."""
    try:
        return int(float(text) * SECOND) if text.replace(".", "", 1).isdecimal() else parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="STATS_API_URL",
        help="The server. A final /stats or /events is left away, so the URL of older jobs does too.",
    ),
]
Patience = Annotated[
    str,
    typer.Option(
        metavar="DURATION",
        help="How long to try on when the server is away or busy (seconds, or like 10m).",
    ),
]


@etl_app.command()
def demo(
    *,
    models: Annotated[
        int, typer.Option(min=1, max=len(demo_source.MODELS), help="How many models, two versions each.")
    ] = 3,
    rate: Annotated[
        float,
        typer.Option(min=0.001, max=20_000, help="Events a second, all together, as a mean over a day."),
    ] = 200,
    duration: Annotated[str, typer.Option(metavar="DURATION", help="How long to stream (seconds, or like 5m).")] = "30",
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same models and numbers.")] = 1,
    history: Annotated[
        str,
        typer.Option(metavar="DURATION", help="First send so much of the past, at once, at the same rate (like 2h)."),
    ] = "0",
    url: Url = DEFAULT_URL,
    patience: Patience = "5m",
) -> None:
    """Stream made-up models to a server: a daily rhythm, one version that drifts, one with an incident.

    The metrics are prediction_accuracy, drift and inference_time (ms); the labels env and region. The volume
    and the latency follow the hour: 0.5 times the rate at 2:00 UTC, 1.5 times at 14:00. In the middle of the
    stream the first model's v1 has an incident: accuracy below 0.3, latency five times as high. The last
    model's v2 gets worse from the first event to the last.
    """
    now = time.time_ns() // 1_000
    patience_seconds = _duration(patience) / SECOND
    plan = demo_source.Plan(models, seed, rate, now, now + _duration(duration), _duration(history))
    tally = Tally()
    with _reported(tally, "Run it again to start a new stream."):
        bar = _progress(plan.expected_events, "streaming")
        with bar, _pool(url, patience_seconds, bar) as pool:
            demo_source.run(plan, pool, tally, lambda events: bar.advance(bar.task_ids[0], events))
    drifting, broken = demo_source.drifting_version(models), demo_source.incident_version(models)
    _out.print(f"{' '.join(drifting)} drifts; {' '.join(broken)} had an incident.")


@etl_app.command()
def load(
    files: Annotated[
        list[Path],
        typer.Argument(help="CSV (.csv, .tsv) or NDJSON (.ndjson, .jsonl), also with .gz; or Parquet."),
    ],
    *,
    renames: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="COLUMN=FIELD", help="Rename a column; may be given many times."),
    ] = None,
    sql: Annotated[
        str | None, typer.Option(help="Polars SQL over each file, whose table is `data`; before --map.")
    ] = None,
    slice_events: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Rows in one request.")
    ] = load_source.SLICE_EVENTS,
    url: Url = DEFAULT_URL,
    patience: Patience = "5m",
) -> None:
    """Load files into a server, each row an event. A load that broke off is run again: nothing counts twice.

    Columns of text become labels, columns of numbers (and booleans) metrics. `name` and `version` must be
    there, if need be by --map. `timestamp` may be a time, a date, RFC 3339 text or a Unix number; without an
    offset it is UTC; without the column, the time is that of the arrival.

    A file is known by its content: copied, renamed or touched it is still the same; with one
    byte changed, or with another --map, --sql or --slice-events, it is another. (Without a `timestamp` column its
    time of modification counts too.) The server remembers for a week by default.

    Example: modelmeter etl load run.csv --map model=name --map acc=prediction_accuracy
    """
    tally = Tally()
    patience_seconds = _duration(patience) / SECOND
    with _reported(tally, "To go on, run the same command again: what was acknowledged does not count twice."):
        base_url(url)
        options = load_source.Options(load_source.parse_renames(renames or ()), sql, slice_events)
        loads: list[load_source.Load] = []
        for path in files:
            with _err.status(f"reading {escape(str(path))}"):
                prepared = load_source.prepare(path, options)
            twin = next((other for other in loads if other.key == prepared.key), None)
            if twin:
                _say(f"{path}: has the content of {twin.path}; it counts once.")
                continue
            loads.append(prepared)
            _say(_columns(prepared))
        tally.expected_parcels = sum(prepared.slices for prepared in loads)
        bar = _progress(sum(prepared.rows for prepared in loads), "loading")
        with bar, _pool(url, patience_seconds, bar) as pool:
            load_source.send(loads, pool, tally, lambda rows: bar.advance(bar.task_ids[0], rows))


def _say(text: str) -> None:
    _err.print(text, markup=False)


def _columns(prepared: load_source.Load) -> str:
    """What the file's columns were taken for, so that a wrong guess is seen at once."""
    metrics = [
        column
        for column, dtype in prepared.schema.items()
        if column not in FIELDS and (dtype.is_numeric() or isinstance(dtype, pl.Boolean))
    ]
    labels = [column for column in prepared.schema if column not in metrics and column != TIMESTAMP]
    clock = "" if TIMESTAMP in prepared.schema else "; no timestamp, so the time of arrival"
    return (
        f"{prepared.path}: {prepared.rows:,} rows in {prepared.slices:,} slices; "
        f"labels {', '.join(labels)}; metrics {', '.join(metrics)}{clock}"
    )


def _progress(total: int, what: str) -> Progress:
    progress = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=_err,
    )  # fmt: skip
    progress.add_task(what, total=total)
    return progress


@contextlib.contextmanager
def _pool(url: str, patience_seconds: float, progress: Progress) -> Iterator[SenderPool]:
    notice = progress.console.print
    with (
        Sender(url, patience_seconds=patience_seconds, notice=lambda text: notice(text, markup=False)) as sender,
        SenderPool(sender) as pool,
    ):
        yield pool


@contextlib.contextmanager
def _reported(tally: Tally, how_to_go_on: str) -> Iterator[None]:
    """Whatever happens, say how far it came. Exit 130 after Ctrl-C, 2 for wrong input, 1 if nothing was kept."""
    began = time.monotonic()
    try:
        yield
    except KeyboardInterrupt:
        _say("Stopped.")
        _report(tally, began)
        _say(how_to_go_on)
        raise typer.Exit(130) from None
    except WrongSetting as error:
        _say(f"{error.title}: {error.detail}")
        raise typer.Exit(2) from None
    except ModelmeterError as error:
        _say(f"{error.title}: {error.detail}")
        _report(tally, began)
        _say(how_to_go_on)
        raise typer.Exit(1) from None
    _report(tally, began)
    if tally.rejected and not tally.accepted:
        raise typer.Exit(1)


def _report(tally: Tally, began: float) -> None:
    progress = f"{tally.parcels:,} requests"
    if tally.expected_parcels:
        progress = f"{tally.parcels:,} of {tally.expected_parcels:,} slices"
    seconds = max(1e-9, time.monotonic() - began)
    _out.print(
        f"{tally.accepted:,} events acknowledged ({progress}), "
        f"{tally.accepted / seconds:,.0f} a second; {tally.rejected:,} refused"
    )
    for example in tally.examples:
        _say(f"  refused: {example}")
    if tally.rejected > len(tally.examples) > 0:
        _say(f"  ... and {tally.rejected - len(tally.examples):,} more")
