"""A group of rules as the API shows it, in Prometheus' form; what is only modelmeter's is there when it is set."""

from modelmeter.rule import AlertRule, EventRule, Group, RecordingRule
from modelmeter.window import SECOND, format_duration


def document_of(group: Group, position: int, interval: int) -> dict[str, object]:
    """A row of `loaded_group`."""
    return {
        "name": group.name,
        "position": position,
        "origin": group.origin if not group.content else "",
        "interval_seconds": interval / SECOND,
        "rule_limit": group.limit,
        "rules": [rule_document(rule) for rule in [*group.queries, *group.events]],
    }


def rule_document(rule: AlertRule | RecordingRule | EventRule) -> dict[str, object]:
    """`key` tells which alerts are the rule's."""
    match rule:
        case EventRule():
            return {
                "type": "event",
                "name": rule.name,
                "query": rule.text,
                "labels": dict(rule.labels),
                "annotations": dict(rule.annotations),
            }
        case RecordingRule():
            return {"type": "recording", "name": rule.name, "query": rule.query, "labels": dict(rule.labels)}
    found: dict[str, object] = {
        "type": "alerting",
        "name": rule.name,
        "key": rule.key,
        "query": rule.query,
        "duration": rule.hold / SECOND,
        "keepFiringFor": rule.keep_firing / SECOND,
        "labels": {name: text.text for name, text in rule.labels.items()},
        "annotations": {name: text.text for name, text in rule.annotations.items()},
    }
    if rule.min_samples:
        found["min_samples"] = rule.min_samples
    if rule.no_data:
        found["no_data"] = rule.no_data
    if rule.recover:
        found["recover"] = rule.recover
    if rule.compare:
        found["compare"] = rule.compare
    return found


def rule_fields(rule: AlertRule | RecordingRule | EventRule) -> dict[str, object]:
    """A rule as it would stand in a file, with `compare` written out."""
    match rule:
        case EventRule():
            found: dict[str, object] = {"alert": rule.name, "event": rule.text}
            texts = (("labels", rule.labels), ("annotations", rule.annotations))
            return found | {name: dict(some) for name, some in texts if some}
        case RecordingRule():
            return {"record": rule.name, "expr": rule.query} | ({"labels": dict(rule.labels)} if rule.labels else {})
    found = {"alert": rule.name, "expr": rule.query}
    if rule.compare and rule.compare != "previous_window":
        found["compare"] = rule.compare
    for name, duration in (("for", rule.hold), ("keep_firing_for", rule.keep_firing)):
        if duration:
            found[name] = format_duration(duration)
    if rule.min_samples:
        found["min_samples"] = rule.min_samples
    if rule.no_data:
        found["no_data"] = rule.no_data
    if rule.recover:
        found["recover"] = rule.recover
    for name, templates in (("labels", rule.labels), ("annotations", rule.annotations)):
        if templates:
            found[name] = {key: text.text for key, text in templates.items()}
    return found
