"""Groups of rules, as a rule file has them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modelmeter.alert import NoData, Policy
from modelmeter.promql.expression import Expression
from modelmeter.promql.labels import render
from modelmeter.rule.coverage import Coverage, Read, coverage_of, reads_of
from modelmeter.rule.event import EventRule
from modelmeter.template import Template


@dataclass(frozen=True, slots=True)
class AlertRule:
    """Alerts for each series that `expression` gives. Durations in microseconds; `line` is where it stands.

    `key` names it within its group: its name, with its labels where several rules have that name.
    """

    name: str
    query: str
    expression: Expression
    hold: int = 0
    keep_firing: int = 0
    labels: Mapping[str, Template] = field(default_factory=dict)
    annotations: Mapping[str, Template] = field(default_factory=dict)
    min_samples: int = 0
    no_data: NoData | None = None
    recover: str = ""
    recovery: Expression | None = None
    compare: str = ""
    line: int = 0
    key: str = ""

    @property
    def coverage(self) -> Coverage:
        return coverage_of(self.expression)

    @property
    def reads(self) -> Sequence[Read]:
        return reads_of(self.coverage)

    def policy(self, no_data: NoData = "keep") -> Policy:
        """`no_data` is for a rule that does not say."""
        return Policy(self.hold, self.keep_firing, self.no_data or no_data, recovers=self.recovery is not None)


@dataclass(frozen=True, slots=True)
class RecordingRule:
    """Keeps what `expression` gives as a metric."""

    name: str
    query: str
    expression: Expression
    labels: Mapping[str, str] = field(default_factory=dict)
    line: int = 0

    @property
    def reads(self) -> Sequence[Read]:
        return reads_of(coverage_of(self.expression))


Rule = AlertRule | RecordingRule


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated together, in order. `interval` 0: the setting. `origin` is the file, or empty.

    `limit` bounds how many alerts or series one rule may give; 0: none.
    """

    name: str
    rules: Sequence[Rule | EventRule]
    interval: int = 0
    query_offset: int = 0
    limit: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    content: str = ""

    @property
    def queries(self) -> list[Rule]:
        """Those that are evaluated; event rules are the workers'."""
        return [rule for rule in self.rules if not isinstance(rule, EventRule)]

    @property
    def alerts(self) -> list[AlertRule]:
        return [rule for rule in self.rules if isinstance(rule, AlertRule)]

    @property
    def events(self) -> list[EventRule]:
        return [rule for rule in self.rules if isinstance(rule, EventRule)]


def keys_of(names: Sequence[tuple[str, Mapping[str, str]]]) -> list[str]:
    """A key for each rule of a group that does not change when rules change places: its name, if need be its labels."""
    times = Counter(name for name, _ in names)
    seen: Counter[str] = Counter()
    keys = []
    for name, labels in names:
        key = name if times[name] == 1 else name + render(tuple(sorted(labels.items())))
        seen[key] += 1
        keys.append(key if seen[key] == 1 else f"{key} ({seen[key]})")
    return keys
