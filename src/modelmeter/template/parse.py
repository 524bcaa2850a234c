"""The text of a template to its tree, by the grammar of Go's text/template."""

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

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

_ACTION = re.compile(
    r"\{\{(-(?=\s))?(/\*.*?\*/|(?:\"(?:[^\"\\\n]|\\.)*\"|`[^`]*`|'(?:[^'\\\n]|\\.)*'|[^\"`'}]|\}(?!\}))*?)(\s-)?\}\}",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    |(?P<char>'(?:[^'\\\n]|\\.)+')
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))
    |(?P<variable>\$\w*)
    |(?P<field>\.\w+)
    |(?P<word>\w+)
    |(?P<mark>:=|[.|(),=])""",
    re.VERBOSE,
)  # fmt: skip
_KEYWORDS = frozenset({"if", "else", "end", "range", "with", "define", "block", "template", "break", "continue"})
_DEPTH_LIMIT = 100


@dataclass(slots=True)
class _Token:
    kind: str
    text: str
    spaced: bool
    """Whether there is space before it: `$x .y` are two operands, `$x.y` is one."""


@dataclass(slots=True)
class _Piece:
    """A run of text, or the tokens of one action."""

    line: int
    text: str | None = None
    tokens: list[_Token] = field(default_factory=list)


@dataclass(slots=True)
class Parsed:
    """The body, and the templates that are defined in it by name."""

    body: Sequence[Node]
    defined: dict[str, Sequence[Node]]


def parse(text: str, functions: Collection[str], variables: Collection[str]) -> Parsed:
    """TemplateError with the line when it is no template."""
    return _Parser(_pieces(text), functions, list(variables)).run()


def _pieces(text: str) -> list[_Piece]:
    pieces: list[_Piece] = []
    at, trim = 0, False
    for found in _ACTION.finditer(text):
        before = text[at : found.start()]
        if "{{" in before:
            raise TemplateError(
                f"line {text.count(chr(10), 0, at + before.index('{{')) + 1}: an action is not closed by }}}}"
            )
        if trim:
            before = before.lstrip()
        if found[1]:
            before = before.rstrip()
        line = text.count("\n", 0, found.start()) + 1
        pieces.append(_Piece(line, before))
        if not found[2].strip().startswith("/*"):
            pieces.append(_Piece(line, tokens=_tokens(found[2], line)))
        at, trim = found.end(), found[3] is not None
    rest = text[at:]
    if "{{" in rest:
        raise TemplateError(
            f"line {text.count(chr(10), 0, at + rest.index('{{')) + 1}: an action is not closed by }}}}"
        )
    pieces.append(_Piece(text.count("\n") + 1, rest.lstrip() if trim else rest))
    return pieces


def _tokens(text: str, line: int) -> list[_Token]:
    tokens: list[_Token] = []
    at, spaced = 0, True
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or found.end() == at:
            raise TemplateError(f"line {line}: unexpected {text[at]!r} in an action")
        kind = str(found.lastgroup)
        if kind == "space":
            spaced = True
        else:
            tokens.append(_Token(kind, found[0], spaced))
            spaced = False
        at = found.end()
    return tokens


class _Parser:
    """By recursive descent; `pieces` for the structure, `tokens` within one action."""

    def __init__(self, pieces: list[_Piece], functions: Collection[str], variables: list[str]) -> None:
        self._pieces = pieces
        self._at = 0
        self._functions = functions
        self._variables = ["$", *variables]
        self._defined: dict[str, Sequence[Node]] = {}
        self._tokens: list[_Token] = []
        self._loops = 0
        self._depth = 0

    def run(self) -> Parsed:
        body, end = self._list()
        if end is not None:
            raise self._wrong(f"unexpected {{{{{end}}}}}")
        return Parsed(body, self._defined)

    def _wrong(self, what: str) -> TemplateError:
        piece = self._pieces[min(self._at, len(self._pieces)) - 1]
        return TemplateError(f"line {piece.line}: {what}")

    def _list(self) -> tuple[list[Node], str | None]:
        """Nodes up to `else` or `end`, which comes with them; the rest of that action is in `_tokens`."""
        self._depth += 1
        if self._depth > _DEPTH_LIMIT:
            raise self._wrong("nested too deeply")
        nodes: list[Node] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            if piece.text is not None:
                if piece.text:
                    nodes.append(Text(piece.text))
                continue
            self._tokens = piece.tokens
            word = self._peek_word()
            if word in ("else", "end"):
                self._tokens = self._tokens[1:]
                self._depth -= 1
                return nodes, word
            node = self._action(word)
            if node is not None:
                nodes.append(node)
        self._depth -= 1
        return nodes, None

    def _peek_word(self) -> str | None:
        first = self._tokens[0] if self._tokens else None
        return first.text if first is not None and first.kind == "word" and first.text in _KEYWORDS else None

    def _action(self, word: str | None) -> Node | None:
        if word is None:
            pipeline = self._pipeline("")
            self._nothing_left()
            return Action(pipeline)
        self._tokens = self._tokens[1:]
        match word:
            case "if" | "with" | "range":
                return self._branch(word)
            case "break" | "continue":
                if not self._loops:
                    raise self._wrong(f"{{{{{word}}}}} outside {{{{range}}}}")
                self._nothing_left()
                return Leave(word)
            case "template":
                name = self._name()
                argument = self._pipeline("") if self._tokens else None
                self._nothing_left()
                return Call(name, argument)
            case "define" | "block":
                return self._define(word)
        raise self._wrong(f"unexpected {word}")

    def _name(self) -> str:
        if not self._tokens or self._tokens[0].kind != "string":
            raise self._wrong("a template's name is a string in quotes")
        return _unquote(self._tokens.pop(0).text)

    def _define(self, word: str) -> Node | None:
        name = self._name()
        argument = self._pipeline("") if word == "block" else None
        self._nothing_left()
        outer, self._variables = self._variables, ["$"]
        body, end = self._list()
        self._variables = outer
        if end != "end":
            raise self._wrong(f"{{{{{word}}}}} has no {{{{end}}}}")
        self._nothing_left()
        self._defined[name] = body
        return Call(name, argument) if word == "block" else None

    def _branch(self, kind: str) -> Branch:
        scope = len(self._variables)
        pipeline = self._pipeline(kind)
        self._nothing_left()
        self._loops += kind == "range"
        body, end = self._list()
        self._loops -= kind == "range"
        otherwise: Sequence[Node] = ()
        if end == "else":
            word = self._peek_word()
            if word in ("if", "with") and word == kind:
                self._tokens = self._tokens[1:]
                otherwise = [self._branch(kind)]
                del self._variables[scope:]
                return Branch(kind, pipeline, body, otherwise)
            self._nothing_left()
            otherwise, end = self._list()
        if end != "end":
            raise self._wrong(f"{{{{{kind}}}}} has no {{{{end}}}}")
        self._nothing_left()
        del self._variables[scope:]
        return Branch(kind, pipeline, body, otherwise)

    def _nothing_left(self) -> None:
        if self._tokens:
            raise self._wrong(f"unexpected {self._tokens[0].text!r}")

    def _pipeline(self, kind: str) -> Pipeline:
        declare, assign = self._declaration(kind)
        commands: list[Command] = []
        while True:
            operands = self._operands()
            if not operands:
                raise self._wrong("a value is missing")
            commands.append(Command(operands))
            if not self._tokens or self._tokens[0].text != "|" or self._tokens[0].kind != "mark":
                break
            self._tokens.pop(0)
        for command in commands[1:]:
            if not isinstance(command.operands[0], Function | Chain | Variable):
                raise self._wrong("only a function can take what is piped to it")
        if not assign:
            self._variables += declare
        return Pipeline(tuple(commands), declare, assign)

    def _declaration(self, kind: str) -> tuple[tuple[str, ...], bool]:
        """`$x :=`, `$x =` or, in a range, `$i, $x :=`."""
        texts = [token.text for token in self._tokens[:4]]
        if not texts or self._tokens[0].kind != "variable":
            return (), False
        if len(texts) > 1 and texts[1] in (":=", "="):
            assign = texts[1] == "="
            if assign and texts[0] not in self._variables:
                raise self._wrong(f"undefined variable {texts[0]!r}")
            self._tokens = self._tokens[2:]
            return (texts[0],), assign
        if kind == "range" and len(texts) > 3 and texts[1] == "," and texts[3] == ":=":
            self._tokens = self._tokens[4:]
            return (texts[0], texts[2]), False
        return (), False

    def _operands(self) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        while self._tokens:
            token = self._tokens[0]
            if token.kind == "mark" and token.text in ("|", ")"):
                break
            if operands and not token.spaced and token.text != "(":
                raise self._wrong(f"unexpected {token.text!r}")
            operands.append(self._operand())
        return tuple(operands)

    def _operand(self) -> Operand:
        token = self._tokens.pop(0)
        found: Operand
        match token.kind:
            case "string":
                found = Literal(_unquote(token.text))
            case "char":
                found = Literal(ord(_unquote('"' + token.text[1:-1].replace('"', '\\"').replace("\\'", "'") + '"')))
            case "number":
                found = Literal(_number(token.text, self._wrong))
            case "variable":
                if token.text not in self._variables:
                    raise self._wrong(f"undefined variable {token.text!r}")
                found = Variable(token.text)
            case "field":
                found = Chain(Dot(), (token.text[1:],))
            case "word":
                found = self._word(token.text)
            case _ if token.text == ".":
                found = Dot()
            case _ if token.text == "(":
                found = self._pipeline("")
                if not self._tokens or self._tokens[0].text != ")":
                    raise self._wrong("a bracket is not closed")
                self._tokens.pop(0)
            case _:
                raise self._wrong(f"unexpected {token.text!r}")
        return self._fields(found)

    def _word(self, text: str) -> Operand:
        if text in ("true", "false", "nil"):
            return Literal({"true": True, "false": False, "nil": None}[text])
        if text not in self._functions:
            raise self._wrong(f"function {text!r} not defined")
        return Function(text)

    def _fields(self, found: Operand) -> Operand:
        fields: list[str] = []
        while self._tokens and self._tokens[0].kind == "field" and not self._tokens[0].spaced:
            fields.append(self._tokens.pop(0).text[1:])
        if not fields:
            return found
        if isinstance(found, Literal):
            raise self._wrong("a literal has no fields")
        if isinstance(found, Chain):
            return Chain(found.of, (*found.fields, *fields))
        return Chain(found, tuple(fields))


def _number(text: str, wrong: Callable[[str], TemplateError]) -> float:
    try:
        return int(text, 0) if not re.fullmatch(r"[+-]?0\d+", text) else int(text, 8)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise wrong(f"bad number {text!r}") from None


_ESCAPE = re.compile(r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_PLAIN = dict(zip("abfnrtv\\'\"", "\a\b\f\n\r\t\v\\'\"", strict=True))


def _unquote(text: str) -> str:
    """A string as Go writes it, in quotes or backquotes."""
    if text[0] == "`":
        return text[1:-1]
    if "\\" not in text:
        return text[1:-1]

    def plain(found: re.Match[str]) -> str:
        short, byte, octal, small, large = found.groups()
        if short:
            return _PLAIN[short]
        return chr(int(octal, 8) if octal else int(byte or small or large, 16))

    inner = text[1:-1]
    if "\\" in _ESCAPE.sub("", inner):
        raise TemplateError(f"bad escape in {json.dumps(inner)}")
    return _ESCAPE.sub(plain, inner)
