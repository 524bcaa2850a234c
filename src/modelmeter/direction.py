"""Which way a metric is better: by its name, from the settings `higher_is_better` and `lower_is_better`."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Direction = Literal["higher", "lower"]


def split_patterns(text: str) -> tuple[str, ...]:
    """`a,*_b` to patterns. ValueError when one is empty."""
    if not text.strip():
        return ()
    patterns = tuple(part.strip() for part in text.split(","))
    if not all(patterns):
        raise ValueError("a name is empty; write names or patterns with commas between: accuracy,*_score")
    return patterns


def _is_pattern(name: str) -> bool:
    return any(one in name for one in "*?[")


@dataclass(frozen=True, slots=True)
class Directions:
    """Patterns have `*`, `?` and `[abc]`; capitals are as small letters."""

    higher: Sequence[str]
    lower: Sequence[str]

    def of(self, metric: str) -> Direction | None:
        """A name beats a pattern; where both sides say the same, `lower` counts: accuracy_drift is a drift."""
        metric = metric.lower()
        for by_pattern in (False, True):
            for direction, patterns in (("lower", self.lower), ("higher", self.higher)):
                if any(
                    fnmatchcase(metric, one.lower()) if by_pattern else metric == one.lower()
                    for one in patterns
                    if _is_pattern(one) == by_pattern
                ):
                    return direction  # type: ignore[return-value]
        return None
