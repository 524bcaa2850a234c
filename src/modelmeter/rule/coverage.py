"""How many events stand behind a result: what `min_samples` and `no_data` go by.

Every selector that the result needs is counted over its own range, in those series whose labels agree with the
result's. Of selectors that are needed together the fewest count, of those where one will do (`or`) the most.
What an expression reads through `absent`, `scalar` and on the right of `unless` is no evidence of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from modelmeter.matcher import Matcher
from modelmeter.promql.expression import (
    At,
    Binary,
    Call,
    Expression,
    MatrixSelector,
    Subquery,
    VectorSelector,
    children,
    kind_of,
)
from modelmeter.promql.labels import Labels

_NO_EVIDENCE = frozenset({"absent", "absent_over_time", "scalar", "time", "vector"})
MANY = 1 << 62
"""Behind a result that needs no events."""


@dataclass(frozen=True, slots=True)
class Read:
    """One selector: what it looks at. `range_` 0 stands for the lookback; durations in microseconds."""

    matchers: tuple[Matcher, ...]
    range_: int
    offset: int = 0
    at: At = None


@dataclass(frozen=True, slots=True)
class Together:
    """All of them are needed."""

    parts: tuple["Coverage", ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of them is enough."""

    parts: tuple["Coverage", ...]


Coverage = Read | Together | Either


@lru_cache(maxsize=16_384)
def coverage_of(expression: Expression) -> Coverage:
    """What the result of an expression rests on; Together(()) when on nothing."""
    return _reads(expression, 0, 0)


def _reads(node: Expression, range_: int, offset: int) -> Coverage:
    match node:
        case VectorSelector():
            return Read(node.matchers, range_, node.offset + offset, node.at)
        case MatrixSelector(vector):
            return Read(vector.matchers, node.range + range_, vector.offset + offset, vector.at)
        case Subquery():
            return _reads(node.inner, node.range + range_, node.offset + offset)
        case Call() if node.function in _NO_EVIDENCE:
            return Together(())
        case Binary("unless", left):
            return _reads(left, range_, offset)
        case Binary("or", left, right):
            sides = (_reads(left, range_, offset), _reads(right, range_, offset))
            return Either(tuple(side for side in sides if side != Together(())))
    parts = tuple(_reads(child, range_, offset) for child in children(node) if kind_of(child) in ("vector", "matrix"))
    kept = tuple(part for part in parts if part != Together(()))
    return kept[0] if len(kept) == 1 else Together(kept)


def reads_of(coverage: Coverage) -> list[Read]:
    """All selectors in it."""
    if isinstance(coverage, Read):
        return [coverage]
    return [read for part in coverage.parts for read in reads_of(part)]


Counts = Sequence[tuple[Mapping[str, str], int]]
"""The series that a selector matches, and how many events of each lie in its range; without those that have none."""


def count_behind(coverage: Coverage, labels: Labels, counts_of: Callable[[Read], Counts]) -> int:
    """How many events stand behind a result with these labels."""
    if isinstance(coverage, Read):
        wanted = labels
        return sum(
            count
            for found, count in counts_of(coverage)
            if all(found.get(name, value) == value for name, value in wanted)
        )
    if not coverage.parts:
        return MANY
    parts = [count_behind(part, labels, counts_of) for part in coverage.parts]
    return min(parts) if isinstance(coverage, Together) else max(parts)
