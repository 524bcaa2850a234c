"""Random PromQL expressions, and the samples they are about, from a seeded generator.

Samples lie off every edge: their times are never whole seconds, while evaluation times end in 3 s and every range,
offset and step is a multiple of 10 s; no subquery is in another. So it does not matter that Prometheus 2 closes
ranges on the left. Left out is where Prometheus 2.42 differs from 3 in other ways: `atan2` keeps the metric name, a
counter near zero (so after a reset, too) is extrapolated otherwise, `predict_linear` of a range pinned by `@` stops
after one step, `timestamp` of a selector with both `@` and `offset` half forgets the offset, `-` refuses series that
differ in name only even when they never meet, and `stddev` of a single NaN is 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from modelmeter.window import SECOND

START = 1_700_000_000 * SECOND  # ends in 0 s
MINUTES = 70
NOW = START + 3_003 * SECOND

Point = tuple[int, float]


@dataclass(frozen=True)
class Data:
    series: list[tuple[dict[str, str], list[Point]]]


def make_data(rng: Random) -> Data:
    """Gauges, counters with resets, classic histograms; gaps, series that start late, NaN and Inf here and there."""
    series: list[tuple[dict[str, str], list[Point]]] = []
    for name in ("acc", "drift"):
        for version in ("v1", "v2", "v10"):
            for env in ("dev", "prod"):
                if rng.random() < 0.15:
                    continue
                labels = {"__name__": name, "name": "mistral", "version": version, "env": env}
                level = rng.uniform(-50, 50)
                series.append((labels, _walk(rng, _around(rng, level))))
    for env in ("dev", "prod"):
        series.append(({"__name__": "wild", "env": env}, _walk(rng, lambda: _wild(rng))))
        series.append(({"__name__": "info", "env": env, "team": f"team-{env}"}, _walk(rng, lambda: 1.0)))
        level = rng.randrange(3)
        series.append(({"__name__": "steps", "env": env}, _walk(rng, _few(rng, level))))
    series.extend(_counters(rng))
    series.extend(_buckets(rng))
    return Data(series)


def _around(rng: Random, level: float) -> Callable[[], float]:
    return lambda: level + rng.gauss(0, 10)


def _wild(rng: Random) -> float:
    return rng.choice((float("nan"), float("inf"), float("-inf"))) if rng.random() < 0.1 else rng.gauss(0, 3)


def _few(rng: Random, level: int) -> Callable[[], float]:
    return lambda: float(rng.randrange(4) + level)


def _times(rng: Random) -> list[int]:
    """About every 15 s with jitter, with gaps of minutes; milliseconds that are no whole second."""
    first = rng.choice([0, 0, 0, rng.randrange(600, 2400)])
    times, at = [], first * 1000
    while at < MINUTES * 60_000:
        if rng.random() < 0.01:
            at += rng.randrange(60_000, 600_000)
        at += 15_000 + rng.randrange(-2_000, 2_000)
        times.append(START + (at - at % 1000 + rng.randrange(100, 900)) * 1000)
    return times


def _walk(rng: Random, value: Callable[[], float]) -> list[Point]:
    return [(at, value()) for at in _times(rng)]


def _counters(rng: Random) -> list[tuple[dict[str, str], list[Point]]]:
    found = []
    for name, reset_share in (("events_total", 0.0), ("restarts_total", 0.05)):
        for env in ("dev", "prod"):
            for version in ("v1", "v2"):
                total, points = rng.uniform(90_000, 120_000), []
                for at in _times(rng):
                    total = rng.uniform(0, 60) if rng.random() < reset_share else total + rng.expovariate(0.2)
                    points.append((at, total))
                found.append(({"__name__": name, "env": env, "version": version}, points))
    return found


def _buckets(rng: Random) -> list[tuple[dict[str, str], list[Point]]]:
    found = []
    for env in ("dev", "prod"):
        times = _times(rng)
        counts: list[list[float]] = [[] for _ in range(4)]
        for column in counts:
            column.extend(accumulate((rng.randrange(5) for _ in times), initial=rng.uniform(90_000, 120_000)))
        for bucket, bound in enumerate(("0.1", "0.5", "2.5", "+Inf")):
            points = [(at, sum(column[i + 1] for column in counts[: bucket + 1])) for i, at in enumerate(times)]
            found.append(({"__name__": "latency_bucket", "env": env, "le": bound}, points))
    return found


_TAME = ("abs", "sqrt", "sgn", "deg", "rad", "atan", "asinh", "tanh")
# These make a last digit into a first one, and so get values that are exact on both sides.
_WILD = (
    "ceil",
    "floor",
    "exp",
    "ln",
    "log2",
    "log10",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "sinh",
    "cosh",
    "acosh",
    "atanh",
)
_DATES = ("minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year")
_HISTOGRAMS = ("latency_bucket", "rate(latency_bucket[5m])", "sum by (le) (latency_bucket)")


class Generator:
    """Expressions by type: `vector(depth)`, `scalar(depth)`, and `matrix(depth)` for range arguments."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.in_subquery = False

    def pick(self, *options: str) -> str:
        return self.rng.choice(options)

    def duration(self) -> str:
        return self.pick("30s", "1m", "2m", "5m", "10m", "20m", "1m30s")

    def modifiers(self) -> str:
        text = ""
        if self.rng.random() < 0.2:
            text += f" offset {self.pick('', '-')}{self.duration()}"
        if self.rng.random() < 0.12:
            text += self.pick(" @ start()", " @ end()", f" @ {(NOW - 600 * SECOND) // SECOND}")
        return text

    def selector(self) -> str:
        name = self.pick("acc", "drift", "acc", "drift", "events_total", "wild", "steps", "info", "restarts_total")
        matcher = self.pick(
            "",
            "",
            "",
            '{env="prod"}',
            '{env!="prod"}',
            '{env=~"p.*"}',
            '{env!~"d.."}',
            '{version=""}',
            '{version=~"v1.*"}',
        )
        return name + matcher

    def matrix(self, depth: int) -> str:
        if depth > 0 and not self.in_subquery and self.rng.random() < 0.25:
            step = self.pick("", "20s", "30s", "1m")
            self.in_subquery = True
            inner = self.vector(depth - 1)
            self.in_subquery = False
            return f"({inner})[{self.pick('5m', '10m', '2m')}:{step}]" + self.modifiers()
        return f"{self.selector()}[{self.duration()}]" + self.modifiers()

    def scalar(self, depth: int) -> str:
        options: list[Callable[[], str]] = [
            lambda: repr(round(self.rng.uniform(-5, 20), 2)),
            lambda: self.pick("2", "0.5", "pi()", "-1", "1e3", "60"),
            lambda: f"scalar({self.vector(depth - 1)})" if depth > 0 else "3",
            lambda: (
                f"({self.scalar(depth - 1)} {self.pick('+', '-', '*', '/')} {self.scalar(depth - 1)})"
                if depth > 0
                else "7"
            ),
            lambda: "(time() % 1000)",
        ]
        return self.rng.choice(options)()

    def over_time(self, depth: int) -> str:
        function = self.pick(
            *(
                f"{name}_over_time"
                for name in ("avg", "sum", "min", "max", "count", "stddev", "stdvar", "last", "present")
            ),
            *("delta", "idelta", "deriv", "resets", "changes", "absent_over_time"),
            *("rate", "increase", "irate", "rate"),
        )
        if function in ("rate", "increase", "irate"):
            name = "restarts_total" if function == "irate" else "events_total"
            step = "" if self.in_subquery else self.pick("", "", ":", ":20s")
            return f"{function}({name}[{self.duration()}{step}]{self.modifiers()})"
        # Prometheus loses digits in deriv of values as large as timestamps
        return f"{function}({self.matrix(0 if function == 'deriv' else depth)})"

    def matching(self) -> str:
        return self.pick("", "", "", "on(env)", "on(env, version)", "ignoring(version)", "ignoring(name)", "on()")

    def binary(self, depth: int) -> str:
        left, right = self.vector(depth - 1), self.vector(depth - 1)
        if self.rng.random() < 0.1:
            return f"{self.vector(0)} {self.pick('%', '^')} {self.pick('3', '-0.5', '2', 'on(env, version) drift')}"
        arithmetic = self.pick("+", "-", "*", "/", ">", "<", "==", "!=", ">=", "<= bool", "> bool")
        kind = self.rng.random()
        if kind < 0.25:
            return f"({left}) {self.pick('and', 'or', 'unless')} {self.matching()} ({right})"
        if kind < 0.5:
            return f"({left}) {arithmetic} {self.scalar(depth - 1)}"
        if kind < 0.6:
            return f"{self.scalar(depth - 1)} {arithmetic} ({left})"
        if kind < 0.75:
            group = self.pick("group_left", "group_left(team)")
            return f"({left}) {arithmetic} on(env) {group} info"
        if kind < 0.8:
            return f"info {arithmetic} on(env) group_right(team) ({left})"
        if kind < 0.85:
            return f"({left}) atan2 on(env, version) ({right})"
        return f"({left}) {arithmetic} {self.matching()} ({right})"

    def aggregate(self, depth: int) -> str:
        by = self.pick("", "by (env)", "by (env, version)", "without (version)", "without (env, name)", "by (__name__)")
        inner = self.vector(depth - 1)
        kind = self.rng.random()
        if kind < 0.6:
            return f"{self.pick('sum', 'avg', 'min', 'max', 'count', 'group')} {by} ({inner})"
        if kind < 0.7:
            return (
                f"{self.pick('stddev', 'stdvar')} {by} ({self.pick('acc', 'drift', 'events_total')}{self.modifiers()})"
            )
        if kind < 0.8:
            return f"quantile {by} ({self.pick('0.5', '0.9', '0', '1', '0.25')}, {inner})"
        if kind < 0.87:
            return f'count_values {by} ("value", steps)'
        operator, name = self.pick("topk", "bottomk"), self.pick("acc", "drift", "events_total")
        return f"{operator} {by} ({self.pick('1', '2', '3')}, {name})"

    def function(self, depth: int) -> str:
        inner = self.vector(depth - 1)
        options: list[Callable[[], str]] = [
            lambda: f"{self.pick(*_TAME)}({inner})",
            lambda: f"{self.pick(*_WILD)}({self.vector(0)})",
            lambda: f"round({self.vector(0)}, {self.pick('1', '0.5', '10', '0.1')})",
            lambda: f"clamp({inner}, {self.scalar(0)}, {self.scalar(0)})",
            lambda: f"{self.pick('clamp_min', 'clamp_max')}({inner}, {self.scalar(depth - 1)})",
            lambda: f"timestamp({self.pick(self.selector(), self.selector() + ' offset 1m', inner + ' + 0')})",
            lambda: f"timestamp({self.selector()} @ {self.pick('start()', 'end()')})",
            lambda: f"{self.pick(*_DATES)}(timestamp({self.selector()}) * 37)",
            lambda: f"absent({self.pick(inner, 'nothing', self.selector())})",
            lambda: f'label_replace({inner}, "to", "$1-x", "{self.pick("version", "env", "none")}", "(.).*")',
            lambda: f'label_join({inner}, "to", "-", "env", "version")',
            lambda: f"vector({self.scalar(depth - 1)})",
            lambda: f"-({self.vector(0)})",
            lambda: f"histogram_quantile({self.pick('0.5', '0.9', '0', '1', '1.5')}, {self.pick(*_HISTOGRAMS)})",
            lambda: f"quantile_over_time({self.pick('0.5', '0.9', '0.1', '0', '1')}, {self.matrix(depth - 1)})",
            lambda: f"predict_linear({self.selector()}[{self.duration()}], {self.pick('60', '600', '-60')})",
            lambda: (
                f"holt_winters({self.matrix(depth - 1)}, {self.pick('0.1', '0.5', '0.9')}, {self.pick('0.2', '0.7')})"
            ),
        ]
        return self.rng.choice(options)()

    def vector(self, depth: int) -> str:
        if depth <= 0:
            return self.selector() + self.modifiers()
        kind = self.rng.random()
        if kind < 0.1:
            return self.vector(0)
        if kind < 0.35:
            return self.over_time(depth - 1)
        if kind < 0.55:
            return self.binary(depth)
        return self.aggregate(depth) if kind < 0.75 else self.function(depth)
