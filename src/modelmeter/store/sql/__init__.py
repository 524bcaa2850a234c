"""Named queries from the files beside this one: `-- name: this_query` begins each."""

import re
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


def load(file: str) -> dict[str, bytes]:
    """The queries of one file by name. Comments stay: they show in pg_stat_activity which query it is."""
    text = resources.files(__package__).joinpath(file).read_text("utf-8")
    parts = _NAME.split(text)
    return {name: f"/* {name} */ {body.strip()}".encode() for name, body in zip(parts[1::2], parts[2::2], strict=True)}
