"""`modelmeter drift`: how far a version has moved from a reference, asked from a running server."""

import urllib.parse
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from modelmeter.cli.compare import End, Metric, MinSamples, Start, console, number, side_of
from modelmeter.cli.options import Url
from modelmeter.cli.plot import shorten, sparkline
from modelmeter.cli.server import get

_WIDTH = 60


def drift(
    name: Annotated[str, typer.Argument(help="A model.")],
    version: Annotated[str, typer.Argument(help="Its version.")],
    reference: Annotated[
        str | None,
        typer.Option(
            help="Another version, labels ('{env=\"prod\"}') or baseline:NAME.", show_default="itself, the week before"
        ),
    ] = None,
    reference_start: Annotated[str | None, typer.Option(help="Begin of the reference.")] = None,
    reference_end: Annotated[str | None, typer.Option(help="End of the reference.")] = None,
    start: Start = None,
    end: End = None,
    step: Annotated[str | None, typer.Option(help="Also over time, a window every so often, like 1h.")] = None,
    metric: Metric = None,
    min_samples: MinSamples = None,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Print how far the values of a version now are from those of a reference; with --step, over time.

    Example: modelmeter drift Mistral v2 --reference v1 --start -7d --step 1d
    """
    path = f"/drift/{urllib.parse.quote(name, safe='')}/{urllib.parse.quote(version, safe='')}"
    query = {
        "reference": reference,
        "reference_start": reference_start,
        "reference_end": reference_end,
        "start": start,
        "end": end,
        "metric": metric,
        "min_samples": None if min_samples is None else str(min_samples),
    }
    found = get(url, path, **query)
    over_time = None if step is None else get(url, path, **query, step=step)
    out = console()
    for side in ("current", "reference"):
        out.print(f"{side}: {side_of(found[side])}", soft_wrap=True)
    if not found["metrics"]:
        out.print("there is no value now, and none in the reference")
        return
    table = Table("metric", "verdict", title=f"{name} {version}: drift")
    for heading in ("n now", "n reference", "PSI", "KS", "p of KS", "Jensen-Shannon", "Wasserstein"):
        table.add_column(heading, justify="right")
    keys = ("count", "reference_count", "psi", "ks", "ks_p", "jensen_shannon", "wasserstein")
    for its_metric, one in found["metrics"].items():
        table.add_row(its_metric, one["verdict"], *(number(one[key]) for key in keys))
    out.print(table)
    for its_metric, one in found["metrics"].items():
        out.print(f"{its_metric}: {one['verdict']}: {one['reason']}", soft_wrap=True)
    if over_time is not None:
        _print_over_time(out, over_time)


def _print_over_time(out: Console, found: dict[str, Any]) -> None:
    windows = found["windows"]
    out.print(f"PSI over time, {len(windows):,} windows of {found['step']}, from {found['current']['start']}")
    width = max(map(len, found["metrics"]), default=0)
    for its_metric, series in found["metrics"].items():
        line = sparkline(shorten(series["psi"], _WIDTH))
        highest = max((value for value in series["psi"] if value is not None), default=None)
        out.print(f"  {its_metric.ljust(width)}  {line}  at most {number(highest)}", soft_wrap=True)
