"""An expression back to text that parses to the same expression."""

from modelmeter.promql.expression import (
    Aggregate,
    Binary,
    Call,
    Expression,
    Matching,
    MatrixSelector,
    Negation,
    NumberLiteral,
    StringLiteral,
    Subquery,
    VectorSelector,
)
from modelmeter.promql.format import format_fixed, format_instant, quote
from modelmeter.window import format_duration


def to_text(expression: Expression) -> str:
    """In brackets wherever they could matter."""
    match expression:
        case NumberLiteral(value):
            return format_fixed(value)
        case StringLiteral(value):
            return quote(value)
        case VectorSelector():
            return _selector(expression) + _moved(expression.offset, expression.at)
        case MatrixSelector(vector, range_):
            return f"{_selector(vector)}[{format_duration(range_)}]{_moved(vector.offset, vector.at)}"
        case Subquery():
            step = format_duration(expression.step) if expression.step else ""
            moved = _moved(expression.offset, expression.at)
            return f"{_within(expression.inner)}[{format_duration(expression.range)}:{step}]{moved}"
        case Call():
            return f"{expression.function}({', '.join(map(to_text, expression.arguments))})"
        case Aggregate():
            kept = ""
            if expression.labels or expression.without:
                kept = f" {'without' if expression.without else 'by'} ({', '.join(expression.labels)})"
            parameter = "" if expression.parameter is None else f"{to_text(expression.parameter)}, "
            return f"{expression.operator}{kept} ({parameter}{to_text(expression.inner)})"
        case Negation(inner):
            return f"-{_within(inner)}"
        case Binary():
            boolean = " bool" if expression.return_bool else ""
            matching = _matching(expression.matching, is_set=expression.operator in ("and", "or", "unless"))
            left, right = _within(expression.left), _within(expression.right)
            return f"{left} {expression.operator}{boolean}{matching} {right}"


def _within(expression: Expression) -> str:
    text = to_text(expression)
    return f"({text})" if isinstance(expression, Binary | Negation) else text


def _selector(selector: VectorSelector) -> str:
    name, inner = "", []
    for matcher in selector.matchers:
        if matcher.name == "__name__" and matcher.operator == "=" and not name and _is_plain(matcher.value):
            name = matcher.value
        else:
            inner.append(f"{matcher.name}{matcher.operator}{quote(matcher.value)}")
    return name + (f"{{{', '.join(inner)}}}" if inner or not name else "")


def _is_plain(name: str) -> bool:
    return name.replace(":", "_").isidentifier() and name.isascii()


def _moved(offset: int, at: int | str | None) -> str:
    pinned = "" if at is None else f" @ {at}()" if isinstance(at, str) else f" @ {format_instant(at)}"
    if not offset:
        return pinned
    return f"{pinned} offset {'-' if offset < 0 else ''}{format_duration(abs(offset))}"


def _matching(matching: Matching, *, is_set: bool) -> str:
    text = ""
    if matching.on or matching.labels:
        text = f" {'on' if matching.on else 'ignoring'} ({', '.join(matching.labels)})"
    if not is_set and matching.cardinality in ("many-to-one", "one-to-many"):
        side = "group_left" if matching.cardinality == "many-to-one" else "group_right"
        text += f" {side} ({', '.join(matching.include)})"
    if matching.fill_left is not None and matching.fill_left == matching.fill_right:
        return f"{text} fill ({format_fixed(matching.fill_left)})"
    if matching.fill_left is not None:
        text += f" fill_left ({format_fixed(matching.fill_left)})"
    if matching.fill_right is not None:
        text += f" fill_right ({format_fixed(matching.fill_right)})"
    return text
