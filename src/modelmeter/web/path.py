"""Paths as they were sent: a name in a path may hold a slash (%2F), which the server's decoded path no longer tells."""

from urllib.parse import unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import Scope


class _Segment(Convertor[str]):
    """`{name:segment}`: one segment of a path, percent-decoded."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return unquote(value)

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("segment", _Segment())

NAME, VERSION = "{name:segment}", "{version:segment}"
"""For the paths of routes."""


_WITH_NAMES = ("/stats/", "/histogram/", "/events/", "/compare/", "/drift/", "/baselines/", "/ui/models/")


def as_sent(scope: Scope) -> Scope:
    """The scope of a request with its path still percent-encoded, if it is one with names in it."""
    raw = scope.get("raw_path")
    if raw and scope["path"].startswith(_WITH_NAMES):
        return {**scope, "path": raw.decode("latin-1")}
    return scope
