r"""Label matchers, Prometheus' four operators. A regex must match the whole value; a missing label is "".

Regexes run in Polars (the Rust regex crate): the dialect of RE2 and, like it, linear in the text, so that
no pattern can hang the server. It differs from Go's RE2 in that \d, \w, \s and \b know all of Unicode and that
\Q...\E and \C do not exist.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import polars as pl

Operator = Literal["=", "!=", "=~", "!~"]


@dataclass(frozen=True, slots=True)
class Matcher:
    name: str
    operator: Operator
    value: str

    def matches(self, values: Sequence[str]) -> npt.NDArray[np.bool_]:
        """For each label value, whether it matches. ValueError when the regex does not compile."""
        if self.operator in ("=", "!="):
            found = np.fromiter((value == self.value for value in values), bool, len(values))
        else:
            found = match_regex(self.value, values)
        return ~found if self.operator in ("!=", "!~") else found

    def matches_missing(self) -> bool:
        """Whether a series without the label matches too."""
        return bool(self.matches([""])[0])

    def suits(self, labels: Mapping[str, str]) -> bool:
        """Whether one set of labels matches. ValueError as above."""
        value = labels.get(self.name, "")
        found = value == self.value if self.operator in ("=", "!=") else _match_one(self.value, value)
        return found != (self.operator in ("!=", "!~"))

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{self.value!r}"


_NAME = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_:.-]*)")
_OPERATOR = re.compile(r"\s*(=~|!~|!=|=)\s*")
_QUOTED = re.compile(r'\s*"((?:[^"\\]|\\.)*)"\s*', re.DOTALL)
_PLAIN = re.compile(r"""[^,"'{}]*""")
_ESCAPES = {"n": "\n", '"': '"', "\\": "\\"}
_FORM = """write it like severity="critical", env=~"prod|eu.*\""""


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """Alertmanager's form: `severity="critical", env=~"prod|eu"`, in braces or not, quoted or not. ValueError."""
    text = text.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1].strip()
    found: list[Matcher] = []
    at = 0
    while at < len(text):
        name = _QUOTED.match(text, at) or _NAME.match(text, at)
        if name is None:
            raise ValueError(f"{text[at:]!r} begins with no label's name; {_FORM}")
        operator = _OPERATOR.match(text, name.end())
        if operator is None:
            raise ValueError(f"{text[name.end() :]!r} after {_unquoted(name)!r} is no =, !=, =~ or !~; {_FORM}")
        value = _QUOTED.match(text, operator.end()) or _PLAIN.match(text, operator.end())
        assert value is not None, "nothing is a plain value too"
        at = value.end()
        if at < len(text):
            if text[at] != ",":
                raise ValueError(f"{text[operator.end() :]!r} is no value; {_FORM}")
            at += 1
        wanted = _unquoted(value).rstrip() if value.re is _PLAIN else _unquoted(value)
        matcher = Matcher(_unquoted(name), cast("Operator", operator[1]), wanted)
        matcher.matches_missing()
        found.append(matcher)
    return tuple(found)


def _unquoted(found: re.Match[str]) -> str:
    if found.re is not _QUOTED:
        return found[found.re.groups]
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[0]), found[1], flags=re.DOTALL)


def format_matcher(matcher: Matcher) -> str:
    """`name="value"`, as parse_matchers reads it."""
    value = matcher.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    name = matcher.name if _NAME.fullmatch(matcher.name) else '"' + matcher.name.replace('"', '\\"') + '"'
    return f'{name}{matcher.operator}"{value}"'


def anchored(pattern: str) -> str:
    return f"^(?s:{pattern})$"


def match_regex(pattern: str, values: Sequence[str]) -> npt.NDArray[np.bool_]:
    """For each value, whether the pattern matches all of it."""
    try:
        found = pl.Series(values, dtype=pl.String).str.contains(anchored(pattern), literal=False, strict=True)
    except pl.exceptions.ComputeError as error:
        raise ValueError(f"invalid regular expression {pattern!r}") from error
    return found.to_numpy()


def expand_regex(pattern: str, replacement: str, values: Sequence[str]) -> list[str]:
    """`replacement` with `$1` and `${name}` filled from the match of the whole value; ValueError as above."""
    try:
        return pl.Series(values, dtype=pl.String).str.replace(anchored(pattern), replacement, literal=False).to_list()
    except pl.exceptions.ComputeError as error:
        raise ValueError(f"invalid regular expression {pattern!r}") from error


@lru_cache(65_536)
def _match_one(pattern: str, value: str) -> bool:
    return bool(match_regex(pattern, [value])[0])
