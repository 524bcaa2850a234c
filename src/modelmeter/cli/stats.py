"""`modelmeter stats`: tables of stats, asked from a running server."""

import shutil
import sys
import urllib.parse
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from modelmeter.cli.options import Url
from modelmeter.cli.plot import shorten, sparkline
from modelmeter.cli.server import ask, get
from modelmeter.errors import WrongSetting
from modelmeter.window import parse_duration, rfc3339_to_micros

_SPARKS = 60


class Form(StrEnum):
    """What is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


_ACCEPT = {Form.TABLE: "application/json", Form.JSON: "application/json", Form.CSV: "text/csv"}

Start = Annotated[
    str | None, typer.Option(help="Begin: RFC 3339, Unix or relative, like -6h.", show_default="24 h before the end")
]
End = Annotated[str | None, typer.Option(help="End, not included.", show_default="now")]
LabelFilter = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="LABEL=VALUE", help="Only events with this label; may be given many times."),
]
Match = Annotated[
    str | None,
    typer.Option(metavar="MATCHERS", help='Only events whose labels match: \'{env="prod",region=~"eu-.*"}\'.'),
]
Where = Annotated[
    str | None, typer.Option(metavar="CONDITION", help="Only events for which it holds: 'latency>100 and drift<=0.2'.")
]


def label_filters(labels: list[str] | None) -> dict[str, str | None]:
    """LABEL=VALUE as parameters of a question."""
    found: dict[str, str | None] = {}
    for text in labels or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise WrongSetting(f"label: {text!r} is no LABEL=VALUE")
        found[f"label.{name}"] = value
    return found


def path_of(kind: str, *names: str | None) -> str:
    return "/".join([f"/{kind}", *(urllib.parse.quote(name, safe="") for name in names if name is not None)])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def stats(
    name: Annotated[str | None, typer.Argument(help="A model; without it, all models.")] = None,
    version: Annotated[str | None, typer.Argument(help="A version; without it, all of the model's.")] = None,
    start: Start = None,
    end: End = None,
    metric: Annotated[str | None, typer.Option(help="Only these metrics, comma-separated.", show_default="all")] = None,
    label: LabelFilter = None,
    match: Match = None,
    where: Where = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="LABELS", help="Groups: labels, comma-separated.", show_default="version, if none is given"
        ),
    ] = None,
    step: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Over time, in windows like 5m or 1h: a plot of the means.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Quantiles of the raw values.")] = False,
    quantiles: Annotated[
        str | None, typer.Option(help="Comma-separated, each from 0 to 1.", show_default="0.5,0.95,0.99")
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="What to print.")] = Form.TABLE,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Print stats, asked from a running server: all models, one model, or one version of it.

    Example: modelmeter stats Mistral v1 --start -6h --label env=prod --step 10m
    """
    out = Console(width=None if sys.stdout.isatty() else 140, markup=False)
    query = {
        "start": start,
        "end": end,
        "metric": metric,
        "match": match,
        "where": where,
        "step": step,
        "exact": "true" if exact else None,
        "quantiles": quantiles,
        **label_filters(label),
    }
    if name is None and by is None and not any(query.values()) and form != Form.CSV:
        found = get(url, "/stats")
        if form == Form.JSON:
            out.print_json(data=found)
        else:
            out.print(_models(found["models"]))
        return
    groups = by or ("version" if name is not None else "name,version")
    path = path_of("stats", name, version)
    if form != Form.TABLE:
        with ask(url, path, _ACCEPT[form], {"by": groups, **query}) as answer:
            shutil.copyfileobj(answer, sys.stdout.buffer)
        if form == Form.JSON:
            print()
        return
    found = get(url, path, by=groups, **query)
    title = f"{name or 'all models'}, {found['start']} to {found['end']}"
    if step is not None:
        title += f", by {found['step']}"
    shown = _over_time(found, groups, title) if step is not None else _table(found, groups, title)
    out.print(shown if shown.row_count else f"{name or 'all models'}: no event in this span")


def _models(models: list[dict[str, Any]]) -> Table:
    table = Table("model", "version", "events", "first seen", "last seen", title="models")
    for row in models:
        table.add_row(row["name"], row["version"], _number(row["events"]), row["first_seen"], row["last_seen"])
    return table


def _table(found: dict[str, Any], groups: str, title: str) -> Table:
    """A row for each group and metric."""
    rows = [(group, metric, values) for group in found["groups"] for metric, values in group["metrics"].items()]
    names = ["count", "mean", "stddev", "min"]
    quantiles = rows[0][2]["quantiles"] if rows else {}
    shown = Table(*groups.split(","), "metric", title=title)
    for column in (*names, *(f"p{float(q) * 100:g}" for q in quantiles), "max", "last"):
        shown.add_column(column, justify="right")
    for group, metric, values in rows:
        cells = [values[key] for key in names] + [*values["quantiles"].values(), values["max"], values["last"]]
        shown.add_row(*_labels(group), metric, *map(_number, cells))
    return shown


def _over_time(found: dict[str, Any], groups: str, title: str) -> Table:
    """A row for each group and metric, with the means of its windows as a sparkline from 0 on."""
    step = parse_duration(found["step"])
    first = rfc3339_to_micros(found["start"]) // step
    slots = -(-rfc3339_to_micros(found["end"]) // step) - first
    shown = Table(*groups.split(","), "metric", title=title)
    for column in ("count", "least mean", "greatest mean", "newest mean"):
        shown.add_column(column, justify="right")
    shown.add_column("means over time", no_wrap=True)
    for group in found["groups"]:
        series: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for point in group["points"]:
            for metric, values in point["metrics"].items():
                series.setdefault(metric, []).append((rfc3339_to_micros(point["start"]) // step - first, values))
        for metric, points in sorted(series.items()):
            means: list[float | None] = [None] * slots
            for place, values in points:
                means[place] = values["mean"]
            known = [mean for mean in means if mean is not None]
            cells = (min(known), max(known), known[-1]) if known else (None, None, None)
            count = sum(values["count"] for _, values in points)
            line = sparkline(shorten(means, _SPARKS))
            shown.add_row(*_labels(group), metric, _number(count), *map(_number, cells), line)
    return shown


def _labels(group: dict[str, Any]) -> list[str]:
    return [value or "" for value in group["labels"].values()]
