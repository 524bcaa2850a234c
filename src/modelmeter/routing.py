"""Where an alert goes: Alertmanager's tree of routes.

From the root down, an alert goes into the first child that matches, and into the next ones too as long as those say
`continue`; the deepest routes that it reaches are the ones that take it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from modelmeter.matcher import Matcher, format_matcher
from modelmeter.time_interval import TimeInterval
from modelmeter.window import HOUR, MINUTE, SECOND

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations in microseconds, all positive but the first."""

    group_wait: int = 30 * SECOND
    group_interval: int = 5 * MINUTE
    repeat_interval: int = 4 * HOUR


@dataclass(frozen=True, slots=True)
class Route:
    """A node, with what it inherits filled in. `group_by` None: by all labels. `key` tells it from all others."""

    key: str
    receiver: str
    matchers: tuple[Matcher, ...] = ()
    goes_on: bool = False
    group_by: tuple[str, ...] | None = ()
    timing: Timing = Timing()
    mute: tuple[str, ...] = ()
    active: tuple[str, ...] = ()
    routes: tuple["Route", ...] = ()

    def match(self, labels: Labels) -> list["Route"]:
        """The routes that take an alert with these labels; none when not even this one matches."""
        if not all(matcher.suits(labels) for matcher in self.matchers):
            return []
        found: list[Route] = []
        for child in self.routes:
            taken = child.match(labels)
            found += taken
            if taken and not child.goes_on:
                break
        return found or [self]

    def walk(self) -> Iterator["Route"]:
        """This route and all below, the parents first."""
        yield self
        for child in self.routes:
            yield from child.walk()

    def group_labels(self, labels: Labels) -> dict[str, str]:
        """The part of an alert's labels by which this route groups; a label that is absent is left out."""
        names = labels if self.group_by is None else self.group_by
        return {name: labels[name] for name in sorted(names) if name in labels}

    def is_muted(self, intervals: Mapping[str, Sequence[TimeInterval]], instant: datetime) -> bool:
        """Whether its mute times hold this instant, or its active times do not."""

        def holds(name: str) -> bool:
            return any(interval.holds(instant) for interval in intervals[name])

        return any(map(holds, self.mute)) or (bool(self.active) and not any(map(holds, self.active)))


def format_labels(labels: Labels) -> str:
    """`{a="1",b="2"}`"""
    return "{" + ",".join(format_matcher(Matcher(name, "=", value)) for name, value in sorted(labels.items())) + "}"


def route_key(parent: str, matchers: Sequence[Matcher], number: int) -> str:
    """`{}/{severity="critical"}/0`: the matchers on the way to it, and its number among siblings with the same ones."""
    own = "{" + ",".join(format_matcher(matcher) for matcher in matchers) + "}"
    return f"{parent}/{own}" + (f"/{number}" if number else "") if parent else own
