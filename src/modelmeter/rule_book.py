"""The rules in use: those of files, read again when they change, and those that came over HTTP.

What is wrong is refused whole, said in the log and by a metric, and the rules before it stay in use.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from modelmeter import telemetry
from modelmeter.errors import WrongSetting
from modelmeter.rule import Group, find_files, parse_group
from modelmeter.rule.file import join_groups, read_text

log = logging.getLogger(__name__)

Mark = tuple[tuple[str, int, int, int], ...]


class RuleBook:
    """One for each process that needs rules. `path` is the setting: a file, a directory, a pattern, or None."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._mark: Mark | None = None
        self._digest = b""
        self._files: list[Group] = []
        self._stored: dict[str, Group] = {}
        self._contents: dict[str, str] = {}
        self._wrong: dict[str, str] = {}
        self._asked = False
        self.version = 0
        """Higher after each change."""

    @property
    def groups(self) -> list[Group]:
        """Those of files in their order, then the others by name. A name that both have is the file's."""
        taken = {group.name for group in self._files}
        return self._files + [group for name, group in sorted(self._stored.items()) if name not in taken]

    @property
    def has_files(self) -> bool:
        return self._path is not None

    def ask(self) -> None:
        """Read the files again at the next look, though nothing seems to have changed (SIGHUP)."""
        self._asked = True

    def read(self) -> None:
        """The files for the first time. WrongSetting with file, line and reason."""
        if self._path is not None:
            self._mark = self._look()
            self._take()
        telemetry.RULES_OK.set(1)

    def look(self) -> bool:
        """Read the files again if they have changed; whether rules have."""
        before = self.version
        if self._path is None:
            return False
        try:
            mark = self._look()
            if mark == self._mark and not self._asked:
                return False
            self._mark, self._asked = mark, False
            self._take()
        except (WrongSetting, OSError) as error:
            self._refuse("files", getattr(error, "detail", str(error)))
            return False
        self._accept("files")
        if self.version != before:
            log.info("rules: read again; %d groups are in use", len(self.groups))
        return self.version != before

    def put_stored(self, contents: Sequence[tuple[str, str]]) -> bool:
        """Groups that came over HTTP, by name; whether rules have changed. They were checked when they came."""
        wanted = dict(contents)
        if wanted == self._contents:
            return False
        before = self.version
        for name in self._stored.keys() - wanted.keys():
            del self._stored[name]
            self.version += 1
        for name, content in wanted.items():
            if self._contents.get(name) == content:
                continue
            try:
                self._stored[name] = parse_group(content, f"group {name}")
            except WrongSetting as error:
                self._refuse(f"group {name}", error.detail)
                continue
            self._accept(f"group {name}")
            self.version += 1
        self._contents = wanted
        return self.version != before

    def _look(self) -> Mark:
        assert self._path is not None
        facts = [(str(file), file.stat()) for file in find_files(self._path)]
        return tuple((name, fact.st_mtime_ns, fact.st_ino, fact.st_size) for name, fact in facts)

    def _take(self) -> None:
        assert self._path is not None
        texts = [(str(file), read_text(file)) for file in find_files(self._path)]
        digest = hashlib.blake2b(repr(texts).encode()).digest()
        if digest == self._digest:
            return
        self._files, self._digest = join_groups(texts), digest
        self.version += 1

    def _refuse(self, what: str, reason: str) -> None:
        if self._wrong.get(what) != reason:
            log.error("rules: refused, and those before stay in use: %s", reason)
        self._wrong[what] = reason
        telemetry.RULES_OK.set(0)

    def _accept(self, what: str) -> None:
        self._wrong.pop(what, None)
        telemetry.RULES_OK.set(0 if self._wrong else 1)
