"""What is asked of the stored events, and how much may be asked at once."""

from dataclasses import dataclass

from modelmeter.condition import Condition
from modelmeter.config import Config
from modelmeter.matcher import Matcher
from modelmeter.window import MINUTE, Span


@dataclass(frozen=True, slots=True)
class Question:
    """Which events, cut how, and which of their stats.

    `name` None means all models, `version` None all versions; `metrics` None all metrics. `by` names the labels that
    make groups, `step` (microseconds) the width of the windows, aligned on it; the first and last are cut by the span.
    """

    name: str | None
    version: str | None
    span: Span
    labels: dict[str, str]
    matchers: tuple[Matcher, ...] = ()
    metrics: tuple[str, ...] | None = None
    quantiles: tuple[float, ...] = ()
    by: tuple[str, ...] = ()
    step: int | None = None
    where: Condition | None = None
    exact: bool = False

    @property
    def needs_raw(self) -> bool:
        """Whether only the raw events can tell."""
        return self.where is not None or self.exact or (self.step or 0) % MINUTE > 0


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one answer may hold or read."""

    groups: int = 10_000
    points: int = 100_000
    rollups: int = 2_000_000
    samples: int = 10_000_000

    @staticmethod
    def of(config: Config) -> "Limits":
        return Limits(
            config.stats_limit_groups, config.stats_limit_points, config.stats_limit_rollups, config.stats_limit_samples
        )
