"""Retention: how long raw events and each resolution are kept, and which streams are of a class with spans of its own.

A coarser resolution is kept at least as long as the finer ones, so that what is left always reaches farther back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import yaml

from modelmeter.batch import Labels
from modelmeter.config import Config
from modelmeter.errors import WrongSetting
from modelmeter.matcher import Matcher
from modelmeter.promql.errors import BadQuery
from modelmeter.promql.parse import parse_selector
from modelmeter.window import DAY, parse_duration

RAW = "raw"
KINDS = (RAW, "1m", "1h", "1d")
"""What is kept, the finest first: raw events, then each resolution."""

FOREVER = "forever"
DEFAULT = "default"
CLASS_LIMIT = 32

Keep: TypeAlias = Mapping[str, int | None]
"""For each of KINDS, how long it is kept: microseconds, or None for ever."""


@dataclass(frozen=True, slots=True)
class RetentionClass:
    """Streams whose labels match are kept for spans of their own."""

    name: str
    matchers: tuple[Matcher, ...]
    keep: Keep


@dataclass(frozen=True, slots=True)
class Retention:
    """What the settings say. `history` is for alert_history."""

    keep: Keep
    history: int | None
    classes: tuple[RetentionClass, ...] = ()

    def classify(self, streams: Sequence[Labels]) -> list[str | None]:
        """The name of the first class that each stream matches; None: of none."""
        names: list[str | None] = [None] * len(streams)
        for one in reversed(self.classes):
            found = np.ones(len(streams), np.bool_)
            for matcher in one.matchers:
                found &= matcher.matches([dict(labels).get(matcher.name, "") for labels in streams])
            for place in np.flatnonzero(found).tolist():
                names[place] = one.name
        return names


def parse_keep(field: str, text: object) -> int | None:
    """`90d` to microseconds, `forever` to None. WrongSetting names the field."""
    if text == FOREVER:
        return None
    try:
        duration = parse_duration(text) if isinstance(text, str) else 0
    except ValueError as error:
        raise WrongSetting(f"{field}: {error}, or {FOREVER}") from None
    if duration < DAY:
        raise WrongSetting(f"{field}: {text!r} is less than a day; write it like 90d or 2y, or {FOREVER}")
    return duration


def _widened(keep: Mapping[str, int | None]) -> Keep:
    """Each resolution kept at least as long as the finer ones."""
    wide: dict[str, int | None] = {}
    longest: int | None = 0
    for kind in KINDS:
        its = keep[kind]
        longest = None if its is None or longest is None else max(longest, its)
        wide[kind] = longest
    return wide


def _class_of(number: int, item: object, default: Keep) -> RetentionClass:
    where = f"retention_classes[{number}]"
    if not isinstance(item, dict):
        raise WrongSetting(f"{where}: is {item!r:.60}; write {{name: gold, match: '{{name=\"Mistral\"}}', raw: 90d}}")
    entry: dict[Any, Any] = item
    unknown = [key for key in entry if key not in ("name", "match", *KINDS)]
    if unknown:
        raise WrongSetting(f"{where}.{unknown[0]}: unknown; there are name, match, {', '.join(KINDS)}")
    name, match = entry.get("name"), entry.get("match")
    if not isinstance(name, str) or not name or name == DEFAULT or "\0" in name:
        raise WrongSetting(f"{where}.name: is {name!r:.60}; give the class a name other than {DEFAULT!r}")
    if not isinstance(match, str):
        raise WrongSetting(f"{where}.match: is {match!r:.60}; write a selector like '{{name=\"Mistral\"}}'")
    try:
        matchers = parse_selector(match)
        for matcher in matchers:
            matcher.matches([""])
    except (BadQuery, ValueError) as error:
        raise WrongSetting(f"{where}.match: {error}") from None
    if any(matcher.name == "__name__" for matcher in matchers):
        raise WrongSetting(f"{where}.match: {match!r} names a metric; a class is of streams: match their labels")
    own = {kind: parse_keep(f"{where}.{kind}", entry[kind]) for kind in KINDS if kind in entry}
    return RetentionClass(name, matchers, _widened({**default, **own}))


def read_retention(config: Config) -> Retention:
    """The retention that the settings say. WrongSetting names the field."""
    keep = {
        kind: parse_keep(f"retention_{kind}", text)
        for kind, text in zip(
            KINDS,
            (config.retention_raw, config.retention_1m, config.retention_1h, config.retention_1d),
            strict=True,
        )
    }
    try:
        listed = yaml.safe_load(config.retention_classes) if config.retention_classes.strip() else []
    except yaml.YAMLError as error:
        raise WrongSetting(f"retention_classes: no YAML or JSON: {error}".replace("\n", " ")) from None
    if not isinstance(listed, list):
        raise WrongSetting("retention_classes: no list; write [{name: gold, match: '{name=\"Mistral\"}', raw: 90d}]")
    if len(listed) > CLASS_LIMIT:
        raise WrongSetting(f"retention_classes: {len(listed)} of them; at most {CLASS_LIMIT}")
    classes = tuple(_class_of(number, item, keep) for number, item in enumerate(listed))
    names = [one.name for one in classes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise WrongSetting(f"retention_classes: {twice[0]!r} stands twice")
    return Retention(_widened(keep), parse_keep("retention_history", config.retention_history), classes)
