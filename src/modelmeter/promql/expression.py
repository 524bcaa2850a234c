"""A PromQL expression as a tree of values: what `parse` makes and the evaluator reads.

Durations are microseconds. Parentheses are gone: they mean nothing once the tree stands.
"""

from dataclasses import dataclass, field
from typing import Literal

from modelmeter.matcher import Matcher

At = int | Literal["start", "end"] | None
"""An instant in microseconds, or one of the query's ends, or the evaluation time."""

Kind = Literal["scalar", "vector", "matrix", "string"]
Cardinality = Literal["one-to-one", "many-to-one", "one-to-many", "many-to-many"]

COMPARISONS = frozenset({"==", "!=", ">", "<", ">=", "<="})
SET_OPERATORS = frozenset({"and", "or", "unless"})


@dataclass(frozen=True, slots=True)
class NumberLiteral:
    value: float


@dataclass(frozen=True, slots=True)
class StringLiteral:
    value: str


@dataclass(frozen=True, slots=True)
class VectorSelector:
    matchers: tuple[Matcher, ...]
    offset: int = 0
    at: At = None


@dataclass(frozen=True, slots=True)
class MatrixSelector:
    vector: VectorSelector
    range: int


@dataclass(frozen=True, slots=True)
class Subquery:
    """`step` 0 is the default step."""

    inner: "Expression"
    range: int
    step: int = 0
    offset: int = 0
    at: At = None


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    arguments: tuple["Expression", ...]
    returns: Kind


@dataclass(frozen=True, slots=True)
class Aggregate:
    operator: str
    inner: "Expression"
    parameter: "Expression | None" = None
    labels: tuple[str, ...] = ()
    without: bool = False


@dataclass(frozen=True, slots=True)
class Negation:
    inner: "Expression"


@dataclass(frozen=True, slots=True)
class Matching:
    """How the series of two vectors find each other. `include`: the labels of `group_left(...)`."""

    cardinality: Cardinality = "one-to-one"
    on: bool = False
    labels: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    fill_left: float | None = None
    fill_right: float | None = None


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: "Expression"
    right: "Expression"
    matching: Matching = field(default_factory=Matching)
    return_bool: bool = False


Expression = (
    NumberLiteral | StringLiteral | VectorSelector | MatrixSelector | Subquery | Call | Aggregate | Negation | Binary
)


def kind_of(expression: Expression) -> Kind:
    """The type of what the expression evaluates to."""
    match expression:
        case NumberLiteral():
            return "scalar"
        case StringLiteral():
            return "string"
        case MatrixSelector() | Subquery():
            return "matrix"
        case Call():
            return expression.returns
        case Negation():
            return kind_of(expression.inner)
        case Binary() if kind_of(expression.left) == kind_of(expression.right) == "scalar":
            return "scalar"
        case _:
            return "vector"


def children(expression: Expression) -> tuple[Expression, ...]:
    match expression:
        case Subquery() | Negation():
            return (expression.inner,)
        case MatrixSelector():
            return (expression.vector,)
        case Call():
            return expression.arguments
        case Aggregate():
            return (expression.inner,) if expression.parameter is None else (expression.inner, expression.parameter)
        case Binary():
            return (expression.left, expression.right)
        case _:
            return ()


# Their result moves with the evaluation time even when their arguments do not.
_MOVING = frozenset(
    {"days_in_month", "day_of_month", "day_of_week", "day_of_year", "hour", "minute", "month", "year"}
    | {"predict_linear", "time", "timestamp"}
)


def is_constant(expression: Expression) -> bool:
    """Whether it has the same value at every step: every selector in it is pinned by `@`."""
    match expression:
        case VectorSelector() | Subquery():
            return expression.at is not None
        case Call(function="timestamp", arguments=(VectorSelector(at=at),)):
            return at is not None
        case Call() if expression.function in _MOVING:
            return False
        case Aggregate() if expression.parameter is not None and not is_constant(expression.parameter):
            return False
        case _:
            return all(is_constant(child) for child in children(expression))
