"""The tree of a template."""

from collections.abc import Sequence
from dataclasses import dataclass, field


class TemplateError(ValueError):
    """A template that cannot be read, or that fails on its data."""


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Literal:
    value: str | float | bool | None


@dataclass(frozen=True, slots=True)
class Dot:
    pass


@dataclass(frozen=True, slots=True)
class Variable:
    """With its dollar sign."""

    name: str


@dataclass(frozen=True, slots=True)
class Function:
    name: str


@dataclass(frozen=True, slots=True)
class Chain:
    """Fields of a value: `$labels.name`, `.Labels.name`, `(query "x").Value`."""

    of: "Operand"
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each taking what the one before gave as its last argument. `declare`: variables it is kept in."""

    commands: tuple["Command", ...]
    declare: tuple[str, ...] = ()
    assign: bool = False


Operand = Literal | Dot | Variable | Function | Chain | Pipeline


@dataclass(frozen=True, slots=True)
class Command:
    """An operand, or a function and its arguments."""

    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Action:
    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class Branch:
    """`if`, `with` and `range`."""

    kind: str
    pipeline: Pipeline
    body: Sequence["Node"]
    otherwise: Sequence["Node"] = field(default=())


@dataclass(frozen=True, slots=True)
class Leave:
    """`break` and `continue`."""

    kind: str


@dataclass(frozen=True, slots=True)
class Call:
    """`template "name" pipeline`."""

    name: str
    pipeline: Pipeline | None


Node = Text | Action | Branch | Leave | Call
