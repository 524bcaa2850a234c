"""A template filled in with the labels and the value of an alert. It loops over data only, and its output ends."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from modelmeter.template.functions import FUNCTIONS, SPECIAL, Sample, check_arguments, is_true, path_of
from modelmeter.template.gofmt import Instant, kind_of, show
from modelmeter.template.node import (
    Action,
    Branch,
    Call,
    Chain,
    Command,
    Dot,
    Function,
    Leave,
    Literal,
    Node,
    Operand,
    Pipeline,
    TemplateError,
    Text,
    Variable,
)
from modelmeter.template.parse import Parsed, parse

__all__ = ["Scope", "Template", "TemplateError"]

_VARIABLES = ("$labels", "$externalLabels", "$externalURL", "$value")
_OUTPUT_LIMIT = 64 * 1024
_STEP_LIMIT = 100_000
_DEPTH_LIMIT = 50


def _no_query(_text: str) -> list[Sample]:
    raise TemplateError("query is not available here")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a template is filled in with. `query` evaluates PromQL at the time of the evaluation."""

    labels: Mapping[str, str]
    value: float
    now: int = 0
    query: Callable[[str], list[Sample]] = _no_query
    external_labels: Mapping[str, str] = field(default_factory=dict)
    external_url: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A text with actions. `plain`: it has none."""

    text: str
    plain: bool
    parsed: Parsed

    @staticmethod
    def of(text: str) -> "Template":
        """TemplateError when it cannot be read."""
        return _template(text)

    def fill(self, scope: Scope) -> str:
        """The text; TemplateError when it fails on these data."""
        if self.plain:
            return self.text
        try:
            return _Run(self.parsed, scope).text()
        except RecursionError:
            raise TemplateError("templates call each other too deeply") from None

    def render(self, name: str, scope: Scope) -> str:
        """As `fill`, but a failure is in the text, as Prometheus has it: an alert without a summary is still one."""
        try:
            return self.fill(scope)
        except TemplateError as error:
            return f"<error expanding template: error executing template __alert_{name}: {error}>"


@lru_cache(maxsize=4096)
def _template(text: str) -> Template:
    parsed = parse(text, FUNCTIONS.keys() | SPECIAL, _VARIABLES)
    return Template(text, "{{" not in text, parsed)


class _Leave(Exception):
    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class _Root:
    """`.` at the beginning."""

    scope: Scope


class _Run:
    """One execution. Variables are a stack of names and values; a branch drops those it has declared."""

    def __init__(self, parsed: Parsed, scope: Scope) -> None:
        self._parsed = parsed
        self._scope = scope
        self._out: list[str] = []
        self._size = 0
        self._steps = 0
        self._depth = 0
        self._variables: list[tuple[str, object]] = []

    def text(self) -> str:
        root = _Root(self._scope)
        values = (
            dict(self._scope.labels), dict(self._scope.external_labels), self._scope.external_url, self._scope.value,
        )  # fmt: skip
        self._variables = [("$", root), *zip(_VARIABLES, values, strict=True)]
        self._walk(self._parsed.body, root)
        return "".join(self._out)

    def _write(self, text: str) -> None:
        self._size += len(text)
        if self._size > _OUTPUT_LIMIT:
            raise TemplateError(f"the text is over {_OUTPUT_LIMIT} characters")
        self._out.append(text)

    def _walk(self, nodes: Sequence[Node], dot: object) -> None:
        for node in nodes:
            self._steps += 1
            if self._steps > _STEP_LIMIT:
                raise TemplateError("the template takes too many steps")
            match node:
                case Text():
                    self._write(node.text)
                case Action():
                    value = self._pipeline(node.pipeline, dot)
                    if not node.pipeline.declare:
                        self._write(show(value))
                case Branch():
                    self._branch(node, dot)
                case Leave():
                    raise _Leave(node.kind)
                case Call():
                    self._call_template(node, dot)

    def _branch(self, node: Branch, dot: object) -> None:
        mark = len(self._variables)
        value = self._pipeline(node.pipeline, dot, declare=node.kind != "range")
        if node.kind == "range":
            self._range(node, value, dot)
        elif is_true(value):
            self._walk(node.body, value if node.kind == "with" else dot)
        else:
            self._walk(node.otherwise, dot)
        del self._variables[mark:]

    def _range(self, node: Branch, value: object, dot: object) -> None:
        items: list[tuple[object, object]]
        match value:
            case dict():
                items = sorted(value.items())
            case list() | tuple():
                items = list(enumerate(value))
            case None:
                items = []
            case _:
                raise TemplateError(f"range can't iterate over {show(value)}")
        mark = len(self._variables)
        for key, item in items:
            names = node.pipeline.declare
            if len(names) == 2:
                self._variables += [(names[0], key), (names[1], item)]
            elif names:
                self._set(names[0], item, assign=node.pipeline.assign)
            try:
                self._walk(node.body, item)
            except _Leave as leave:
                if leave.kind == "break":
                    break
            finally:
                del self._variables[mark:]
        if not items:
            self._walk(node.otherwise, dot)

    def _call_template(self, node: Call, dot: object) -> None:
        body = self._parsed.defined.get(node.name)
        if body is None:
            raise TemplateError(f"template {node.name!r} not defined")
        self._depth += 1
        if self._depth > _DEPTH_LIMIT:
            raise TemplateError("templates call each other too deeply")
        value = None if node.pipeline is None else self._pipeline(node.pipeline, dot)
        outer, self._variables = self._variables, [("$", value)]
        self._walk(body, value)
        self._variables = outer
        self._depth -= 1

    def _set(self, name: str, value: object, *, assign: bool) -> None:
        if not assign:
            self._variables.append((name, value))
            return
        for place in range(len(self._variables) - 1, -1, -1):
            if self._variables[place][0] == name:
                self._variables[place] = (name, value)
                return

    def _pipeline(self, pipeline: Pipeline, dot: object, *, declare: bool = True) -> object:
        value: object = None
        for number, command in enumerate(pipeline.commands):
            value = self._command(command, dot, [value] if number else [])
        if declare:
            for name in pipeline.declare:
                self._set(name, value, assign=pipeline.assign)
        return value

    def _command(self, command: Command, dot: object, piped: list[object]) -> object:
        first, *rest = command.operands
        if isinstance(first, Function):
            return self._call(first.name, rest, dot, piped)
        if rest or piped:
            raise TemplateError(f"can't give argument to non-function {_name_of(first)}")
        return self._operand(first, dot)

    def _operand(self, operand: Operand, dot: object) -> object:
        match operand:
            case Literal():
                return operand.value
            case Dot():
                return dot
            case Variable():
                return next(value for name, value in reversed(self._variables) if name == operand.name)
            case Function():
                return self._call(operand.name, [], dot, [])
            case Pipeline():
                return self._pipeline(operand, dot)
            case Chain():
                value = self._operand(operand.of, dot)
                for name in operand.fields:
                    value = _field(value, name)
                return value

    def _call(self, name: str, operands: Sequence[Operand], dot: object, piped: list[object]) -> object:
        if name in ("and", "or"):
            return self._choose(name, operands, dot, piped)
        arguments = [*(self._operand(one, dot) for one in operands), *piped]
        try:
            match name:
                case "externalURL":
                    return self._scope.external_url
                case "pathPrefix":
                    return path_of(self._scope.external_url)
                case "now":
                    return self._scope.now / 1e6
                case "query":
                    if len(arguments) != 1 or not isinstance(arguments[0], str):
                        raise TemplateError("query takes one text")
                    return self._scope.query(arguments[0])
            check_arguments(name, arguments)
            return FUNCTIONS[name](*arguments)
        except TemplateError as error:
            raise TemplateError(f"error calling {name}: {error}") from None
        except TypeError:
            raise TemplateError(f"wrong number or type of arguments for {name}") from None

    def _choose(self, name: str, operands: Sequence[Operand], dot: object, piped: list[object]) -> object:
        """The first that decides; the others are not evaluated."""
        if not operands and not piped:
            raise TemplateError(f"wrong number of args for {name}: want at least 1 got 0")
        value: object = None
        for operand in operands:
            value = self._operand(operand, dot)
            if is_true(value) == (name == "or"):
                return value
        return piped[0] if piped else value


def _field(value: object, name: str) -> object:
    match value:
        case dict():
            return value.get(name, "")
        case _Root(scope):
            match name:
                case "Labels":
                    return dict(scope.labels)
                case "ExternalLabels":
                    return dict(scope.external_labels)
                case "ExternalURL":
                    return scope.external_url
                case "Value":
                    return scope.value
        case Sample():
            match name:
                case "Labels":
                    return dict(value.labels)
                case "Value":
                    return value.value
        case Instant():
            if name in ("Year", "Day", "Hour", "Minute", "Second"):
                found: int = getattr(value.at, name.lower())
                return found
            if name in ("Unix", "UnixMilli"):
                return value.millis // 1000 if name == "Unix" else value.millis
    raise TemplateError(
        f"can't evaluate field {name} in type {kind_of(value) if not isinstance(value, _Root) else 'data'}"
    )


def _name_of(operand: Operand) -> str:
    match operand:
        case Literal():
            return show(operand.value)
        case Variable():
            return operand.name
        case Chain():
            return operand.fields[-1]
        case _:
            return "."
