"""Short hands for tests: load series, ask a query, get plain values."""

import json
import math
from collections.abc import Mapping, Sequence

from modelmeter.promql import Limits, Result, evaluate_instant, evaluate_range, parse_selector
from modelmeter.window import MINUTE, SECOND
from tests.promql.memory_source import MemorySource

GAP = None
Table = dict[str, float] | dict[str, list[float | None]]


def load(series: Mapping[str, Sequence[float | None]], step: int = MINUTE, start: int = 0) -> MemorySource:
    """Series as `metric{a="b"}` with one value per step from `start` on; None is a gap."""
    source = MemorySource()
    for selector, values in series.items():
        labels = {matcher.name: matcher.value for matcher in parse_selector(selector)}
        source.add(labels, [(start + number * step, value) for number, value in enumerate(values) if value is not None])
    return source


def result(query: str, source: MemorySource, minutes: float = 10, limits: Limits | None = None) -> Result:
    return evaluate_instant(query, int(minutes * MINUTE), source, limits)


def _name(metric: dict[str, str]) -> str:
    rest = ",".join(f"{name}={value}" for name, value in sorted(metric.items()) if name != "__name__")
    return metric.get("__name__", "") + (f"{{{rest}}}" if rest or "__name__" not in metric else "")


def instant(query: str, source: MemorySource, minutes: float = 10) -> dict[str, float]:
    """The answer as `{"metric{a=b}": value}`, in its order; a scalar is named "scalar"."""
    data = json.loads(result(query, source, minutes).data_json())
    if data["resultType"] == "scalar":
        return {"scalar": float(data["result"][1])}
    return {_name(one["metric"]): float(one["value"][1]) for one in data["result"]}


def over_range(
    query: str, source: MemorySource, start: float = 0, end: float = 10, step: float = 1
) -> dict[str, list[float | None]]:
    """The answer at each step; None where a series is absent."""
    spans = [int(part * MINUTE) for part in (start, end, step)]
    answer = evaluate_range(query, spans[0], spans[1], spans[2], source)
    steps = [at / SECOND for at in answer.times.tolist()]
    table = {}
    for one in json.loads(answer.data_json())["result"]:
        values = {float(at): float(value) for at, value in one["values"]}
        table[_name(one["metric"])] = [values.get(at) for at in steps]
    return table


def same(found: Mapping[str, float], expected: Mapping[str, float]) -> bool:
    """Equal names in any order, equal values, NaN equal to NaN."""
    return found.keys() == expected.keys() and all(
        (math.isnan(found[name]) and math.isnan(value))
        or math.isclose(found[name], value, rel_tol=1e-12, abs_tol=1e-15)
        for name, value in expected.items()
    )
