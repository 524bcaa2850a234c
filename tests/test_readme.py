"""The examples in README.md and docs/quickstart.md, to the letter, against a real server."""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelmeter.rule import read_rules

ROOT = Path(__file__).parent.parent
SHOWN_URL = "http://127.0.0.1:8000"
_FENCE = re.compile(r"^```(\w+)( example)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PATIENCE_SECONDS = 15


def examples(page: Path) -> list[tuple[str, str]]:
    """(command, shown output) of each block marked as an example."""
    blocks = _FENCE.findall(page.read_text("utf-8"))
    return [
        (text, blocks[number + 1][2]) for number, (language, marked, text) in enumerate(blocks) if marked and language
    ]


def is_as_shown(output: str, shown: str) -> bool:
    """White space does not count; … is anything."""
    pattern = ".*?".join(re.escape(re.sub(r"\s", "", part)) for part in shown.split("…"))
    return re.fullmatch(pattern, re.sub(r"\s", "", output)) is not None


@contextmanager
def serving(rules: Path) -> Iterator[tuple[str, Path]]:
    """(url, standard output) of a ready `modelmeter serve` with an empty database."""
    home = Path(tempfile.mkdtemp(prefix="modelmeter-test-", dir="/tmp"))
    home.chmod(0o755)
    out = home / "out"
    command = [sys.executable, "-m", "modelmeter", "serve", "--port", "0", "--data-dir", str(home / "data")]
    with out.open("w") as stdout:
        server = subprocess.Popen([*command, "--rules", str(rules)], stdout=stdout)
    try:
        yield _ready(server, out), out
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        shutil.rmtree(home)


def _ready(server: subprocess.Popen[bytes], out: Path) -> str:
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        found = re.search(r"listens on (\S+)", out.read_text())
        if found:
            try:
                urllib.request.urlopen(f"{found[1]}/readyz", timeout=5).close()
                return found[1]
            except OSError:
                pass
        time.sleep(0.05)
    raise AssertionError("the server did not become ready")


def run(command: str) -> str:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not shutil.which("curl"), reason="the examples use curl")
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_examples_do_what_they_show(page: str) -> None:
    found = examples(ROOT / page)
    assert len(found) >= 4
    with serving(ROOT / "src/modelmeter/examples/rules.yml") as (url, out):
        for command, shown in found:
            assert SHOWN_URL in command
            deadline = time.monotonic() + _PATIENCE_SECONDS
            output = run(command.replace(SHOWN_URL, url))
            # What was acknowledged is in the stats a moment later.
            while "/events --json" not in command and not is_as_shown(output, shown) and time.monotonic() < deadline:
                output = run(command.replace(SHOWN_URL, url))
            assert is_as_shown(output, shown), f"{command}\ngives\n{output}\nand not\n{shown}"
        if page == "README.md":
            line = next(text for language, _, text in _FENCE.findall((ROOT / page).read_text()) if language == "text")
            assert line in out.read_text()


def test_the_rules_shown_can_be_used(tmp_path: Path) -> None:
    for page in ("README.md", "docs/alerting.md"):
        shown = [text for language, _, text in _FENCE.findall((ROOT / page).read_text()) if language == "yaml"]
        assert shown
        for number, text in enumerate(shown):
            path = tmp_path / f"{number}.yml"
            path.write_text(text)
            assert read_rules(path)


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]
)
def test_no_link_leads_nowhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), f"{page} links to {target}"
