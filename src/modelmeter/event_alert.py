"""What event rules find: in which events of stored batches, and the alert that each of these comes to. Pure.

An event is no state: its alert is told once, and has no history and no end.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelmeter.batch import Batch
from modelmeter.promql.labels import Labels, make_labels
from modelmeter.rule import EventRule, event_fields
from modelmeter.template import Scope, Template
from modelmeter.window import to_rfc3339

REASON = "event"
"""The reason of every such alert, by which it is known from those that have states."""
ANNOTATION = "event"
"""The annotation that holds the event, as JSON."""


@dataclass(frozen=True, slots=True)
class Found:
    """The rows of a batch for which the rule of this number fires, in order; at least one."""

    number: int
    batch: Batch
    rows: Sequence[int]


@dataclass(frozen=True, slots=True)
class EventAlert:
    """One event as an alert. `starts_at` is the event's own time, in microseconds."""

    labels: Labels
    annotations: Mapping[str, str]
    value: float
    starts_at: int


def find(rules: Sequence[EventRule], batches: Sequence[Batch]) -> list[Found]:
    """Every event judged by every rule once; by rule, then in the order of the batches."""
    return [
        Found(number, batch, rows.tolist())
        for number, rule in enumerate(rules)
        for batch in batches
        if (rows := rule.judge(batch)).size
    ]


def event_alert(rule: EventRule, batch: Batch, row: int) -> EventAlert:
    """The event's labels, the rule's and `alertname`; the rule's annotations and the event itself as `event`.

    Templates see the event's labels and the value of the rule's metric; `query` is not for them.
    """
    labels = dict(batch.streams[int(batch.stream[row])])
    value, at = float(batch.metrics[rule.metric][row]), int(batch.timestamp[row])
    scope = Scope(labels, value, at)
    added = {name: Template.of(text).render(rule.name, scope) for name, text in rule.labels.items()}
    notes = {name: Template.of(text).render(rule.name, scope) for name, text in rule.annotations.items()}
    event = json.dumps(event_fields(batch, row) | {"timestamp": to_rfc3339(at)}, ensure_ascii=False)
    return EventAlert(make_labels({**labels, **added, "alertname": rule.name}), {**notes, ANNOTATION: event}, value, at)
