"""`modelmeter compare`: two versions, or any two sides, asked from a running server."""

import sys
import urllib.parse
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from modelmeter.cli.options import Url
from modelmeter.cli.plot import LEGEND, distributions
from modelmeter.cli.server import get

_WIDTH, _HEIGHT = 60, 6

Start = Annotated[
    str | None, typer.Option(help="Begin: RFC 3339, Unix or relative, like -6h.", show_default="24 h before the end")
]
End = Annotated[str | None, typer.Option(help="End, not included.", show_default="now")]
Metric = Annotated[str | None, typer.Option(help="Only this metric.", show_default="all")]
MinSamples = Annotated[int | None, typer.Option(help="Values that each side needs for a verdict.", show_default="30")]


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 140, markup=False, highlight=False)


def side_of(told: dict[str, Any]) -> str:
    named = f"baseline {told['baseline']}, " if "baseline" in told else ""
    return f"{named}{told['match']}, {told['start']} to {told['end']}, {told['events']:,} events"


def compare(
    name: Annotated[str, typer.Argument(help="A model.")],
    a: Annotated[str, typer.Argument(help="What was: a version, labels ('{env=\"prod\"}') or baseline:NAME.")],
    b: Annotated[str, typer.Argument(help="What is: the same.")],
    start: Start = None,
    end: End = None,
    a_start: Annotated[str | None, typer.Option(help="Begin of a's own span.", show_default="--start")] = None,
    a_end: Annotated[str | None, typer.Option(help="End of a's own span.", show_default="--end")] = None,
    b_start: Annotated[str | None, typer.Option(help="Begin of b's own span.", show_default="--start")] = None,
    b_end: Annotated[str | None, typer.Option(help="End of b's own span.", show_default="--end")] = None,
    metric: Metric = None,
    min_samples: MinSamples = None,
    min_effect: Annotated[
        float | None,
        typer.Option(help="Standard deviations below which a difference is negligible.", show_default="0.2"),
    ] = None,
    plot: Annotated[bool, typer.Option(help="Draw both distributions of each metric.")] = True,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Compare two versions metric by metric: a verdict in words, the difference and its tests, both distributions.

    Example: modelmeter compare Mistral v1 v2 --start -7d
    """
    found = get(
        url,
        f"/compare/{urllib.parse.quote(name, safe='')}",
        a=a,
        b=b,
        start=start,
        end=end,
        a_start=a_start,
        a_end=a_end,
        b_start=b_start,
        b_end=b_end,
        metric=metric,
        min_samples=None if min_samples is None else str(min_samples),
        min_effect=None if min_effect is None else str(min_effect),
        histograms="true" if plot else None,
    )
    out = console()
    for side in ("a", "b"):
        out.print(f"{side}: {side_of(found[side])}", soft_wrap=True)
    if not found["metrics"]:
        out.print("neither side has a value in its span")
        return
    table = Table("metric", "verdict", title=f"{name}: b against a")
    for heading in ("n a", "n b", "mean a", "mean b", "difference", "95 % interval", "p", "d", "delta", "PSI", "KS"):
        table.add_column(heading, justify="right")
    for its_metric, one in found["metrics"].items():
        interval = "-" if one["interval"] is None else " to ".join(f"{end:.3g}" for end in one["interval"])
        sides = [one["a"] or {}, one["b"] or {}]
        table.add_row(
            its_metric,
            one["verdict"],
            *(number(side.get("count", 0)) for side in sides),
            *(number(side.get("mean")) for side in sides),
            number(one["difference"]),
            interval,
            *(_short(one[key]) for key in ("p", "cohens_d", "cliffs_delta", "psi")),
            _short(one["ks"] and one["ks"]["statistic"]),
        )
    out.print(table)
    for its_metric, one in found["metrics"].items():
        out.print(f"{its_metric}: {one['verdict']}: {one['reason']}", soft_wrap=True)
        if plot and one["a"] and one["b"]:
            for line in distributions(**one["histogram"], width=_WIDTH, height=_HEIGHT):
                out.print(f"  {line}", soft_wrap=True)
    if plot:
        out.print(f"  {LEGEND}")
