"""A selection: the streams of a model by version or by matchers, or the name of a baseline, as requests write it."""

import json
import re
from dataclasses import dataclass

from modelmeter.batch import NAME, VERSION
from modelmeter.errors import Malformed
from modelmeter.matcher import Matcher
from modelmeter.promql import parse_selector
from modelmeter.promql.errors import BadQuery
from modelmeter.promql.labels import METRIC_NAME

BASELINE = "baseline:"


@dataclass(frozen=True, slots=True)
class Selection:
    """Streams of the model `name`, of `version` if there is one, with labels for which all matchers hold."""

    name: str
    version: str | None
    matchers: tuple[Matcher, ...] = ()

    @property
    def equal_labels(self) -> dict[str, str]:
        """The labels that must have a value: what an index can narrow down."""
        return {one.name: one.value for one in self.matchers if one.operator == "=" and one.value}

    @property
    def texts(self) -> list[str]:
        """All that is written in it."""
        return [self.name, self.version or "", *(part for one in self.matchers for part in (one.name, one.value))]

    def __str__(self) -> str:
        """As a selector, the same for the same selection."""
        known = [Matcher(NAME, "=", self.name)] + ([Matcher(VERSION, "=", self.version)] if self.version else [])
        rest = sorted(self.matchers, key=lambda one: (one.name, one.operator, one.value))
        return "{" + ",".join(f"{_name(one.name)}{one.operator}{_quoted(one.value)}" for one in [*known, *rest]) + "}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _name(text: str) -> str:
    return text if re.fullmatch(r"[a-zA-Z_]\w*", text, re.ASCII) else _quoted(text)


def parse_selection(text: str, model: str | None, field: str) -> Selection:
    """`v1`, a version of `model`, or `{version="v1",env=~"eu-.*"}`; a `name` in it goes before `model`.

    Malformed names `field`.
    """
    if not text.startswith("{"):
        if not text:
            raise Malformed(
                f'{field}: empty; write a version (v1) or labels ({{version="v1",env="prod"}})', field=field
            )
        if model is None:
            raise Malformed(
                f'{field}: {text!r:.60} is no selector; write it like {{name="Mistral",version="v1"}}', field=field
            )
        return Selection(model, text)
    whole = f"metric{text}"  # then it may be as wide as {} or {env!="test"}: it is one of a single model
    try:
        matchers = tuple(one for one in parse_selector(whole) if one.name != METRIC_NAME)
        for one in matchers:
            one.matches([""])
    except (BadQuery, ValueError) as error:
        raise Malformed(f"{field}: {str(error).replace(whole, text)}", field=field) from None
    names = [one.value for one in matchers if one.name == NAME and one.operator == "="]
    versions = [one.value for one in matchers if one.name == VERSION and one.operator == "="]
    if not names and model is None:
        raise Malformed(f'{field}: says no model; write it like {{name="Mistral",version="v1"}}', field=field)
    name = names[0] if names else str(model)
    version = versions[0] if versions and versions[0] else None
    known = (Matcher(NAME, "=", name), *([Matcher(VERSION, "=", version)] if version else []))
    return Selection(name, version, tuple(one for one in dict.fromkeys(matchers) if one not in known))
