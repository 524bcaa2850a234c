"""`where=`: which events count, by their metrics. Comparisons with a number, joined by `and`.

A comparison with a metric that an event does not have is false, whatever its operator.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_OPERATORS: dict[str, Callable[[Any, float], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARISON = re.compile(
    r"""\s*(?:"(?P<quoted>(?:[^"\\]|\\.)+)"|(?P<bare>[^\s"<>=!]+))\s*"""
    r"""(?P<operator>[<>=!]+)\s*(?P<number>[^\s"<>=!]+)(?:\s+(?P<rest>and\s.*)|\s*)""",
    re.DOTALL,
)
COMPARISON_LIMIT = 32


@dataclass(frozen=True, slots=True)
class Comparison:
    """`metric operator number`"""

    metric: str
    operator: str
    number: float

    def holds(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """For each value, shape (n,); NaN is absent."""
        held: NDArray[np.bool_] = _OPERATORS[self.operator](values, self.number)
        return held & ~np.isnan(values) if self.operator == "!=" else held


@dataclass(frozen=True, slots=True)
class Condition:
    """All comparisons must hold."""

    comparisons: tuple[Comparison, ...]

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset(one.metric for one in self.comparisons)

    def holds_for(self, metrics: Mapping[str, float]) -> bool:
        """For one event."""
        return all(
            one.metric in metrics and _OPERATORS[one.operator](metrics[one.metric], one.number)
            for one in self.comparisons
        )


def parse(text: str) -> Condition:
    """`inference_time>100 and "odd name"<=0.2`. ValueError says what cannot be read."""
    comparisons: list[Comparison] = []
    rest = text
    while True:
        found = _COMPARISON.fullmatch(rest)
        if found is None:
            raise ValueError(
                f"{rest.strip()!r:.80} is no comparison; write metric>number, joined by and "
                '(a metric with blanks in its name in "quotes")'
            )
        if found["operator"] not in _OPERATORS:
            raise ValueError(f"{found['operator']!r} is no comparison; there are {', '.join(sorted(_OPERATORS))}")
        metric = found["bare"] or re.sub(r"\\(.)", r"\1", found["quoted"])
        comparisons.append(Comparison(metric, found["operator"], _number(found["number"])))
        if len(comparisons) > COMPARISON_LIMIT:
            raise ValueError(f"more than {COMPARISON_LIMIT} comparisons")
        if not found["rest"]:
            return Condition(tuple(comparisons))
        rest = found["rest"][len("and") :]


def _number(text: str) -> float:
    try:
        number = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r:.60} is no number")
    return number
