"""Labels: a sorted tuple of (name, value) pairs, hashable and cheap to compare. An empty value is no label."""

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import TypeVar

from modelmeter.promql.format import quote

Labels = tuple[tuple[str, str], ...]
Key = TypeVar("Key", bound=Hashable)

METRIC_NAME = "__name__"
BUCKET = "le"
EMPTY: Labels = ()

# What functions and operators drop when the result is no longer that metric.
METADATA = frozenset({METRIC_NAME, "__type__", "__unit__"})


def make_labels(pairs: Mapping[str, str]) -> Labels:
    return tuple(sorted((name, value) for name, value in pairs.items() if value))


def value_of(labels: Labels, name: str) -> str:
    """The value of a label; empty when there is none."""
    for known, value in labels:
        if known == name:
            return value
    return ""


def metric_name(labels: Labels) -> str:
    return value_of(labels, METRIC_NAME)


def drop_metadata(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] not in METADATA)


def keep(labels: Labels, names: Collection[str]) -> Labels:
    return tuple(pair for pair in labels if pair[0] in names)


def drop(labels: Labels, names: Collection[str]) -> Labels:
    return tuple(pair for pair in labels if pair[0] not in names)


def replace(labels: Labels, changes: Mapping[str, str]) -> Labels:
    """The labels with some set; an empty value removes the label."""
    return make_labels({**dict(labels), **changes})


def grouping(labels: Labels, names: Collection[str], *, without: bool) -> Labels:
    """What is left of the labels after `by (names)` or `without (names)`."""
    if without:
        return tuple(pair for pair in labels if pair[0] not in names and pair[0] != METRIC_NAME)
    return keep(labels, names)


def is_label_name(name: str) -> bool:
    """Prometheus 3 takes any UTF-8; only the empty name is none."""
    return bool(name)


def render(labels: Labels) -> str:
    """`{a="b", c="d"}`, as Prometheus writes a label set into its messages."""
    return "{" + ", ".join(f"{name}={quote(value)}" for name, value in labels) + "}"


def distinct(keys: Iterable[Key]) -> tuple[dict[Key, int], list[int]]:
    """The distinct keys, numbered in the order they are met, and the number of each input."""
    numbers: dict[Key, int] = {}
    return numbers, [numbers.setdefault(key, len(numbers)) for key in keys]
