r"""Label matchers, Prometheus' four operators. A regex must match the whole value; a missing label is "".

Regexes run in Polars (the Rust regex crate): the dialect of RE2 and, like it, linear in the text, so that
no pattern can hang the server. It differs from Go's RE2 in that \d, \w, \s and \b know all of Unicode and that
\Q...\E and \C do not exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{self.value!r}"


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
