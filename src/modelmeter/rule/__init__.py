"""Rules: what a rule file says. Pure but for reading the files.

file -> group            YAML to groups of rules; what is wrong, at which line
event                    judged on every event by the worker
compare                  sugar that expands to a plain expression
coverage                 how many events stand behind a result
"""

from pathlib import Path

from modelmeter.rule.event import DEFAULT_RULES, EventRule, event_fields, parse_event
from modelmeter.rule.file import WrongRules, find_files, parse_any, parse_group, parse_groups, read_groups
from modelmeter.rule.group import AlertRule, Group, RecordingRule, Rule

__all__ = [
    "DEFAULT_RULES",
    "AlertRule",
    "EventRule",
    "Group",
    "RecordingRule",
    "Rule",
    "WrongRules",
    "event_fields",
    "find_files",
    "parse_any",
    "parse_event",
    "parse_group",
    "parse_groups",
    "read_groups",
    "read_rules",
]


def read_rules(path: Path) -> list[EventRule]:
    """The event rules of the files. WrongSetting with file, line and reason when anything in them is wrong."""
    return [rule for group in read_groups(path) for rule in group.events]
