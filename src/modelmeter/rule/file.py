"""The rule file: Prometheus' YAML and modelmeter's fields. A wrong one is refused whole, with file, line and reason."""

import difflib
import glob
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, TypeVar

import yaml

from modelmeter.alert import NO_DATA, NoData
from modelmeter.errors import WrongSetting
from modelmeter.promql import QueryError, parse
from modelmeter.promql.expression import Expression, kind_of
from modelmeter.rule.compare import Compare, expand_statically
from modelmeter.rule.event import EventRule, parse_event
from modelmeter.rule.group import AlertRule, Group, RecordingRule, Rule, keys_of
from modelmeter.template import Template, TemplateError
from modelmeter.window import SECOND, parse_duration

T = TypeVar("T")

GROUP_FIELDS = {"name", "interval", "query_offset", "limit", "labels", "rules"}
ALERT_FIELDS = {
    "alert", "expr", "for", "keep_firing_for", "labels", "annotations", "min_samples", "no_data", "recover", "compare",
}  # fmt: skip
RECORD_FIELDS = {"record", "expr", "labels"}
EVENT_FIELDS = {"alert", "event", "labels", "annotations"}
_RULE_FIELDS = ALERT_FIELDS | RECORD_FIELDS | EVENT_FIELDS
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ENDINGS = (".yml", ".yaml")
SIZE_LIMIT_BYTES = 16 * 1024 * 1024
RULE_LIMIT = 10_000


class WrongRules(WrongSetting):
    """Rules that cannot be used. `line` counts from 1."""

    def __init__(self, origin: str, line: int, reason: str) -> None:
        super().__init__(f"{origin}:{line}: {reason}", line=line)
        self.reason = reason


def find_files(path: Path) -> list[Path]:
    """The rule files that a setting names: one file, those of a directory, or those that match a pattern."""
    if path.is_dir():
        return sorted(one for one in path.iterdir() if one.suffix in _ENDINGS and one.is_file())
    if path.is_file() or not glob.has_magic(str(path)):
        return [path]
    return sorted(Path(one) for one in glob.glob(str(path), recursive=True) if Path(one).is_file())  # noqa: PTH207  the pattern may be absolute


def read_groups(path: Path) -> list[Group]:
    """The groups of a file, a directory or a pattern. WrongSetting with file, line and reason."""
    return join_groups([(str(file), read_text(file)) for file in find_files(path)])


def join_groups(texts: Sequence[tuple[str, str]]) -> list[Group]:
    """The groups of some files' texts; a name stands in one of them only."""
    groups: dict[str, Group] = {}
    for origin, text in texts:
        for group in parse_groups(text, origin):
            if group.name in groups:
                raise WrongSetting(
                    f"{origin}: the group {group.name!r} stands in {groups[group.name].origin} too; rename one"
                )
            groups[group.name] = group
    return list(groups.values())


def read_text(file: Path) -> str:
    try:
        if file.stat().st_size > SIZE_LIMIT_BYTES:
            raise WrongSetting(f"{file}: over {SIZE_LIMIT_BYTES} bytes; split it")
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongSetting(f"{file}: {error}") from None


def parse_groups(content: str, origin: str) -> list[Group]:
    """The groups of a rule file's text."""
    root = _compose(content, origin)
    if root is None:
        return []
    document = _Document(origin, content)
    found = document.fields(root, {"groups"}, "a rule file")
    nodes = [] if document.is_null(found.get("groups")) else document.items(found.get("groups"), root, "groups")
    groups: dict[str, Group] = {}
    for node in nodes:
        group = document.group(node)
        if group.name in groups:
            document.refuse(node, f"groupname: {group.name!r} is repeated in the same file")
        groups[group.name] = group
    if sum(len(group.rules) for group in groups.values()) > RULE_LIMIT:
        document.refuse(root, f"over {RULE_LIMIT} rules; split the file")
    return list(groups.values())


def parse_group(content: str, origin: str) -> Group:
    """One group, as it comes over HTTP: a mapping with name and rules, in YAML or JSON."""
    root = _compose(content, origin)
    document = _Document(origin, content)
    if root is None:
        raise WrongRules(origin, 1, "nothing there; send a group: a mapping with name and rules")
    return replace(document.group(root), content=content)


def parse_any(content: str, origin: str) -> list[Group]:
    """A file of rules, one group, or one rule by itself."""
    root = _compose(content, origin)
    names = {str(key.value) for key, _ in root.value} if isinstance(root, yaml.MappingNode) else set()
    if "groups" in names or root is None:
        return parse_groups(content, origin)
    document = _Document(origin, content)
    if "rules" in names:
        return [document.group(root)]
    if not names & {"alert", "record"}:
        document.refuse(root, "send groups, one group with name and rules, or one rule with alert or record")
    rule = document.rule(root, {})
    return [Group("rule", [replace(rule, key=rule.name) if isinstance(rule, AlertRule) else rule], origin=origin)]


def _compose(content: str, origin: str) -> yaml.Node | None:
    try:
        return yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise WrongRules(origin, line, f"not YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = content.count("\n", 0, error.position) + 1
        raise WrongRules(origin, line, f"not YAML: {error.reason}") from None
    except RecursionError:
        raise WrongRules(origin, 1, "not YAML: nested too deeply") from None


@dataclass(frozen=True, slots=True)
class _Document:
    """Reads nodes, and says at which line something is wrong."""

    origin: str
    content: str

    def refuse(self, node: yaml.Node, reason: str) -> NoReturn:
        raise WrongRules(self.origin, node.start_mark.line + 1, reason)

    @staticmethod
    def is_null(node: yaml.Node | None) -> bool:
        return isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")

    def fields(self, node: yaml.Node, allowed: set[str], what: str) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self.refuse(node, f"{what} must be a mapping with {', '.join(sorted(allowed))}")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.refuse(key, f"a field of {what} is a word")
            if key.value not in allowed:
                near = difflib.get_close_matches(str(key.value), allowed, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(allowed))}"
                self.refuse(key, f"{what} has no field {key.value!r}; {hint}")
            if key.value in found:
                self.refuse(key, f"{key.value} stands twice")
            found[key.value] = value
        return found

    def items(self, node: yaml.Node | None, owner: yaml.Node, what: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode):
            self.refuse(node or owner, f"{what} must be a list")
        return list(node.value)

    def text(self, found: Mapping[str, yaml.Node], key: str, owner: yaml.Node, what: str = "a rule") -> str:
        node = found.get(key)
        if not isinstance(node, yaml.ScalarNode) or not node.value or self.is_null(node):
            self.refuse(node or owner, f"{what} needs {key}, a text")
        return str(node.value)

    def read(self, found: Mapping[str, yaml.Node], key: str, convert: Callable[[str], T], default: T) -> T:
        """A field that may be absent; `convert` raises ValueError with the reason."""
        node = found.get(key)
        if node is None or self.is_null(node):
            return default
        if not isinstance(node, yaml.ScalarNode):
            self.refuse(node, f"{key} must be a text or a number")
        try:
            return convert(str(node.value))
        except (ValueError, QueryError) as error:
            self.refuse(node, f"{key}: {getattr(error, 'detail', error)}")

    def labels(self, found: Mapping[str, yaml.Node], key: str) -> dict[str, tuple[str, yaml.Node]]:
        node = found.get(key)
        if node is None or self.is_null(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            self.refuse(node, f"{key} must be a mapping of texts")
        pairs: dict[str, tuple[str, yaml.Node]] = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
                self.refuse(name, f"{key} must be a mapping of texts")
            if name.value in pairs:
                self.refuse(name, f"{name.value} stands twice in {key}")
            if not _LABEL.fullmatch(name.value) or name.value == "__name__":
                self.refuse(name, f"{key}: {name.value!r} is no label name; use letters, digits and _")
            pairs[name.value] = ("" if self.is_null(value) else str(value.value), value)
        return pairs

    def templates(self, found: Mapping[str, yaml.Node], key: str, more: Mapping[str, str]) -> dict[str, Template]:
        texts = {name: Template.of(text) for name, text in more.items()}
        for name, (text, node) in self.labels(found, key).items():
            try:
                texts[name] = Template.of(text)
            except TemplateError as error:
                self.refuse(node, f"{key}: {name}: could not parse template: {error}")
        return texts

    def group(self, node: yaml.Node) -> Group:
        found = self.fields(node, GROUP_FIELDS, "a group")
        name = self.text(found, "name", node, "a group")
        labels = {label: text for label, (text, _) in self.labels(found, "labels").items()}
        listed = [] if self.is_null(found.get("rules")) else self.items(found.get("rules"), node, "rules")
        rules = [self.rule(one, labels) for one in listed]
        alerts = [rule for rule in rules if isinstance(rule, AlertRule)]
        texts = [(rule.name, {label: text.text for label, text in rule.labels.items()}) for rule in alerts]
        keys = dict(zip(map(id, alerts), keys_of(texts), strict=True))
        interval = self.read(found, "interval", _duration, 0)
        if 0 < interval < SECOND:
            self.refuse(found["interval"], "interval: at least 1s")
        return Group(
            name,
            [replace(rule, key=keys[id(rule)]) if isinstance(rule, AlertRule) else rule for rule in rules],
            interval,
            self.read(found, "query_offset", _duration, 0),
            self.read(found, "limit", _whole, 0),
            labels,
            self.origin,
        )

    def rule(self, node: yaml.Node, labels: Mapping[str, str]) -> Rule | EventRule:
        found = self.fields(node, _RULE_FIELDS, "a rule")
        if "record" in found and "alert" in found:
            self.refuse(node, "only one of 'record' and 'alert' must be set")
        if "record" not in found and "alert" not in found:
            self.refuse(node, "a rule needs alert or record")
        if "record" in found:
            self.fields(node, RECORD_FIELDS, "a recording rule")
            return self.recording(found, node, labels)
        if "event" in found:
            self.fields(node, EVENT_FIELDS, "an event rule")
            return self.event(found, node, labels)
        return self.alert(found, node, labels)

    def event(self, found: Mapping[str, yaml.Node], node: yaml.Node, labels: Mapping[str, str]) -> EventRule:
        name, event = self.text(found, "alert", node), self.text(found, "event", node)
        try:
            parsed = parse_event(event)
        except ValueError as error:
            self.refuse(found["event"], str(error))
        own = {label: text for label, (text, _) in self.labels(found, "labels").items()}
        notes = {label: text for label, (text, _) in self.labels(found, "annotations").items()}
        self.templates(found, "labels", labels)
        self.templates(found, "annotations", {})
        return EventRule(name, *parsed, {**labels, **own}, notes)

    def expression(self, found: Mapping[str, yaml.Node], key: str, node: yaml.Node) -> tuple[str, Expression]:
        text = self.text(found, key, node).strip()
        return text, self.read(found, key, _expression, parse("0"))

    def recording(self, found: Mapping[str, yaml.Node], node: yaml.Node, labels: Mapping[str, str]) -> RecordingRule:
        name = self.text(found, "record", node)
        if not _METRIC.fullmatch(name):
            self.refuse(found["record"], f"record: {name!r} is no metric name; use letters, digits, _ and :")
        query, expression = self.expression(found, "expr", node)
        own = {label: text for label, (text, _) in self.labels(found, "labels").items()}
        return RecordingRule(name, query, expression, {**labels, **own}, node.start_mark.line + 1)

    def alert(self, found: Mapping[str, yaml.Node], node: yaml.Node, labels: Mapping[str, str]) -> AlertRule:
        name = self.text(found, "alert", node)
        if "expr" not in found:
            self.refuse(node, "a rule needs expr or event")
        compare = self.read(found, "compare", Compare.of, None)
        query, expression = self.expression(found, "expr", node)
        if compare is not None:
            try:
                query, expression = expand_statically(compare, expression, query)
            except ValueError as error:
                self.refuse(found["expr"], f"compare: {error}")
        recover, recovery = "", None
        if "recover" in found:
            recover, recovery = self.expression(found, "recover", node)
        return AlertRule(
            name,
            query,
            expression,
            self.read(found, "for", _duration, 0),
            self.read(found, "keep_firing_for", _duration, 0),
            self.templates(found, "labels", labels),
            self.templates(found, "annotations", {}),
            self.read(found, "min_samples", _whole, 0),
            self.read(found, "no_data", _no_data, None),
            recover,
            recovery,
            "" if compare is None else str(compare),
            node.start_mark.line + 1,
        )


def _duration(text: str) -> int:
    return 0 if text == "0" else parse_duration(text)


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise ValueError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _no_data(text: str) -> NoData:
    for known in NO_DATA:
        if text == known:
            return known
    raise ValueError(f"{text!r} is none of {', '.join(NO_DATA)}")


def _expression(text: str) -> Expression:
    expression = parse(text)
    if kind_of(expression) not in ("vector", "scalar"):
        raise ValueError("gives a range or a text; a rule needs an instant vector or a number")
    return expression
