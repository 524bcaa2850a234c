"""`/ui/compare`: two versions, or one in two windows, side by side; the numbers come from the API's /compare."""

from collections.abc import Sequence
from urllib.parse import quote

from modelmeter.reader import Model
from modelmeter.web.dashboard.overview import previous_versions
from modelmeter.web.dashboard.page import Range, link, matcher_text, only, range_choices

STATE = ("name", "a", "b", "start", "end", "match", "a_start", "a_end", "b_start", "b_end")
_WINDOWS = ("a_start", "a_end", "b_start", "b_end")
_PATH = "/ui/compare"
_API_START = "-24h"


def values_of(
    models: Sequence[Model], parameters: dict[str, str], chosen: Range, match_error: str
) -> dict[str, object]:
    """What the template shows; `url` is what the page asks the API, empty while nothing is chosen."""
    by_name: dict[str, list[tuple[str, int]]] = {}
    for model in models:
        by_name.setdefault(model.name, []).append((model.version, model.first_at))
    name = parameters.get("name", "")
    versions = by_name.get(name, [])
    before = previous_versions(versions)
    newest = next((one for one, _ in versions if one not in before.values()), "") if versions else ""
    b = parameters.get("b") or newest
    a = parameters.get("a") or before.get(b, b)
    windows = only(parameters, _WINDOWS)
    known = bool(versions) and not match_error
    return {
        "page": "compare",
        "carried": link("", only(parameters, ("start", "end", "match"))),
        "ranges": range_choices(_PATH, {**parameters, **({"a": a, "b": b} if name else {})}, chosen),
        "name": name,
        "names": sorted(by_name),
        "versions": [version for version, _ in versions],
        "a": a,
        "b": b,
        "windows": {key: parameters.get(key, "") for key in _WINDOWS},
        "has_windows": bool(windows),
        "start_text": chosen.start_text,
        "end_text": chosen.end_text,
        "match": parameters.get("match", ""),
        "match_error": match_error,
        "url": api_url(name, a, b, parameters, chosen) if known else "",
        "unknown": bool(name) and not versions,
        "shortcuts": _shortcuts(name, b, before, parameters) if versions else [],
        "choices": [
            {"name": one, "versions": len(its), "url": link(_PATH, {"name": one, **only(parameters, ("start", "end"))})}
            for one, its in sorted(by_name.items())
        ],
        "model_url": f"/ui/models/{quote(name, safe='')}",
    }


def api_url(name: str, a: str, b: str, parameters: dict[str, str], chosen: Range) -> str:
    """The question to the API; the label filter goes into both sides."""
    filters = parameters.get("match", "").strip().strip("{}").strip(" ,")

    def side(version: str) -> str:
        return "{" + matcher_text("version", version) + ("," + filters if filters else "") + "}"

    query = {
        "a": side(a),
        "b": side(b),
        "start": chosen.start_text or _API_START,
        "end": chosen.end_text,
        **only(parameters, _WINDOWS),
        "histograms": "true",
    }
    return link(f"/compare/{quote(name, safe='')}", query)


def _shortcuts(name: str, b: str, before: dict[str, str], parameters: dict[str, str]) -> list[dict[str, str]]:
    kept = {"name": name, "b": b, **only(parameters, ("match",))}
    found = []
    if b in before:
        found.append({"words": f"the version before ({before[b]})", "url": link(_PATH, {**kept, "a": before[b]})})
    yesterday = {"a": b, "start": "-24h", "a_start": "-48h", "a_end": "-24h"}
    week = {"a": b, "start": "-24h", "a_start": "-192h", "a_end": "-168h"}
    found.append({"words": "itself, the day before", "url": link(_PATH, {**kept, **yesterday})})
    found.append({"words": "itself, a week ago", "url": link(_PATH, {**kept, **week})})
    return found
