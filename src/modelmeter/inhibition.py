"""Inhibition: while a source alert fires, targets that share the `equal` labels with it are not told.

As in Alertmanager, an alert that is source and target of a rule is not inhibited by another one that is both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from modelmeter.matcher import Matcher

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class InhibitRule:
    """A label of `equal` that is absent on both sides is equal."""

    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...] = ()

    def is_source(self, labels: Labels) -> bool:
        return all(matcher.suits(labels) for matcher in self.source)

    def is_target(self, labels: Labels) -> bool:
        return all(matcher.suits(labels) for matcher in self.target)

    def equal_part(self, labels: Labels) -> tuple[str, ...]:
        return tuple(labels.get(name, "") for name in self.equal)


@dataclass(slots=True)
class Inhibitor:
    """What fires now, arranged so that asking for one alert does not look at all of them."""

    rules: Sequence[InhibitRule]
    firing: Iterable[Labels]
    _sources: list[tuple[set[tuple[str, ...]], set[tuple[str, ...]]]] = field(init=False)

    def __post_init__(self) -> None:
        alerts = list(self.firing) if self.rules else []
        self._sources = []
        for rule in self.rules:
            sources = [labels for labels in alerts if rule.is_source(labels)]
            one_sided = {rule.equal_part(labels) for labels in sources if not rule.is_target(labels)}
            self._sources.append(({rule.equal_part(labels) for labels in sources}, one_sided))

    def inhibits(self, labels: Labels) -> bool:
        """Whether one that fires inhibits an alert with these labels."""
        for rule, (sources, one_sided) in zip(self.rules, self._sources, strict=True):
            if rule.is_target(labels):
                counting = one_sided if rule.is_source(labels) else sources
                if rule.equal_part(labels) in counting:
                    return True
        return False
