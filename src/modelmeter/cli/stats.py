"""`modelmeter stats`: tables of stats, asked from a running server."""

import sys
import urllib.parse
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from modelmeter.cli.options import Url
from modelmeter.cli.server import get
from modelmeter.errors import WrongSetting


def _no_label(text: str) -> Any:
    raise WrongSetting(f"label: {text!r} is no LABEL=VALUE")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def stats(
    name: Annotated[str | None, typer.Argument(help="A model; without it, all models.")] = None,
    version: Annotated[str | None, typer.Argument(help="A version; without it, all of the model's.")] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Begin: RFC 3339, Unix or relative, like -6h.", show_default="24 h before the end"),
    ] = None,
    end: Annotated[str | None, typer.Option(help="End, not included.", show_default="now")] = None,
    metric: Annotated[str | None, typer.Option(help="Only this metric.", show_default="all")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=VALUE", help="Only events with this label; may be given many times."),
    ] = None,
    quantiles: Annotated[
        str | None, typer.Option(help="Comma-separated, each from 0 to 1.", show_default="0.5,0.95,0.99")
    ] = None,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Print a table of stats, asked from a running server: all models, one model, or one version of it.

    Example: modelmeter stats Mistral v1 --start -6h --label env=prod
    """
    out = Console(width=None if sys.stdout.isatty() else 140, markup=False)
    if name is None:
        table = Table("model", "version", "events", "first seen", "last seen", title="models")
        for row in get(url, "/stats")["models"]:
            table.add_row(row["name"], row["version"], _number(row["events"]), row["first_seen"], row["last_seen"])
        out.print(table)
        return
    labels = dict(one.split("=", 1) if "=" in one else _no_label(one) for one in label or ())
    quoted = urllib.parse.quote(name, safe="")
    versions = [version] if version else [row["version"] for row in get(url, f"/stats/{quoted}")["versions"]]
    shown: Table | None = None
    for its_version in versions:
        path = f"/stats/{quoted}/{urllib.parse.quote(its_version, safe='')}"
        filters = {f"label.{key}": value for key, value in labels.items()}
        found = get(url, path, start=start, end=end, metric=metric, quantiles=quantiles, **filters)
        for its_metric, values in found["metrics"].items():
            if shown is None:
                title = f"{name}, {found['start']} to {found['end']}"
                shown = Table("version", "metric", "count", "mean", "stddev", "min", title=title)
                for q in values["quantiles"]:
                    shown.add_column(f"p{float(q) * 100:g}", justify="right")
                shown.add_column("max", justify="right")
                shown.add_column("last", justify="right")
                for column in shown.columns[2:]:
                    column.justify = "right"
            cells = [values[key] for key in ("count", "mean", "stddev", "min")]
            cells += [*values["quantiles"].values(), values["max"], values["last"]]
            shown.add_row(its_version, its_metric, *map(_number, cells))
    out.print(shown or f"{name}: no event in this span")
