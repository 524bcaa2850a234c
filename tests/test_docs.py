"""The pages in docs/ say what is there: every setting, metric, endpoint and code of refusal."""

import asyncio
import inspect
import os
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.metrics import MetricWrapperBase
from pydantic_core import PydanticUndefined
from typer.testing import CliRunner

from modelmeter import batch, comparer, comparison, config, telemetry
from modelmeter.app import make_api
from modelmeter.cli import app
from modelmeter.config import Config
from modelmeter.decoder import decoded, strict, table
from modelmeter.web import compare, events, ingest, stats

DOCS = Path(__file__).parent.parent / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def settings_table() -> str:
    """What docs/configuration.md must hold between its two comments."""
    lines = ["| setting | default | what it is |", "|---|---|---|"]
    for name, field in Config.model_fields.items():
        default = field.default
        if default is PydanticUndefined:
            shown = "`~/.local/share/modelmeter`; root: `/var/lib/modelmeter`"
        elif default is None or default == "":
            shown = "none"
        else:
            shown = f"`{default}`"
        lines.append(f"| `MODELMETER_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines)


def test_every_setting_stands_in_the_page_with_its_default() -> None:
    shown = re.search(r"<!-- settings: [^>]*-->\n\n(.*?)\n\n<!-- /settings -->", page("configuration.md"), re.DOTALL)
    assert shown
    assert shown[1] == settings_table(), f"docs/configuration.md should hold:\n{settings_table()}"


def test_the_default_directory_is_the_one_in_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert config.default_data_dir() == tmp_path / ".local/share/modelmeter"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert config.default_data_dir() == Path("/var/lib/modelmeter")


def metrics() -> dict[str, MetricWrapperBase]:
    """By the name under which /metrics shows them."""
    found = [value for value in vars(telemetry).values() if isinstance(value, MetricWrapperBase)]
    return {metric._name + ("_total" if metric._type == "counter" else ""): metric for metric in found}


def test_every_metric_is_documented_and_no_other() -> None:
    shown = set(re.findall(r"^\| `(modelmeter_\w+)", page("operations.md"), re.MULTILINE))
    assert shown == set(metrics())
    for name, metric in metrics().items():
        if metric._labelnames:
            assert f"`{name}{{{','.join(metric._labelnames)}}}`" in page("operations.md")


async def described_paths() -> dict[str, dict[str, object]]:
    """What the API says of itself. Nothing connects to a database for that."""
    transport = httpx.ASGITransport(make_api(Config(database_url="host=/nowhere")))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        paths: dict[str, dict[str, object]] = (await client.get("/openapi.json")).json()["paths"]
        return paths


def test_every_endpoint_is_documented() -> None:
    paths = asyncio.run(described_paths())
    found = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert {"POST /events", "GET /stats/{name}/{version}"} <= found
    shown = set(re.findall(r"^#+ `(\w+ /[^`]*)`", page("http-api.md"), re.MULTILINE))
    assert shown == found


def test_every_code_of_refusal_is_documented_and_no_other() -> None:
    source = "".join(inspect.getsource(module) for module in (batch, decoded, strict, table, ingest))
    codes = set(re.findall(r'Refused\(\s*[\w\[\]:.]+,\s*"(\w+)"', source))
    assert len(codes) > 15
    section = page("http-api.md").split("## Why an event is refused", 1)[1].split("\n## ", 1)[0]
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == codes


def test_every_content_type_is_documented() -> None:
    for content_type in filter(None, ingest._CONTENT_TYPES):
        assert f"`{content_type.decode()}`" in page("http-api.md")


def test_every_parameter_of_two_sides_is_documented() -> None:
    section = page("http-api.md").split("## Two sides", 1)[1].split("\n## ", 1)[0]
    for name, _ in [*compare.COMPARE_QUERY, *compare.DRIFT_QUERY]:
        assert re.search(rf"^\| [^|]*`{name}`[^|]* \|", section, re.MULTILINE), name
    assert f"Default: {comparison.MIN_SAMPLES}." in section
    assert f"Default: {comparison.MIN_EFFECT}." in section
    assert f"at most {compare.HISTOGRAM_BINS} bins" in section
    assert f"At most {comparer.WINDOW_LIMIT:,} windows" in section


def test_every_parameter_is_documented() -> None:
    for name, _ in stats._QUERY:
        assert f"| `{name}` |" in page("http-api.md")
    assert f"`limit` | At most so many; from 1 to {events._MOST:,}. Default: {events._LIMIT}." in page("http-api.md")


def test_the_fixed_limits_are_those_in_the_page() -> None:
    for text in (
        f"| `name`, `version` | {batch.NAME_LIMIT_BYTES} bytes each |",
        f"| the name of a label or metric | {batch.KEY_LIMIT_BYTES} bytes |",
        f"| the value of a label | {batch.LABEL_VALUE_LIMIT_BYTES:,} bytes |",
        f"| labels of an event, with `name` and `version` | {batch.LABEL_LIMIT} |",
        f"| metrics of an event | {batch.METRIC_LIMIT:,} |",
        f"| an `Idempotency-Key` | {ingest._KEY_LIMIT_BYTES} bytes |",
        f"| raw events in one answer | {events._MOST:,} |",
    ):
        assert text in page("configuration.md")


@pytest.mark.parametrize("path", sorted((DOCS / "decisions").glob("*.md")), ids=lambda path: path.stem)
def test_a_decision_says_why_and_what_was_measured(path: Path) -> None:
    headings = re.findall(r"^## (.*)$", path.read_text("utf-8"), re.MULTILINE)
    assert headings == ["Context", "Decision", "Measured", "Consequences"]


def test_the_tests_that_guard_an_invariant_exist() -> None:
    guards = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page("invariants.md"))
    assert guards
    for path, name in guards:
        assert f"def {name}(" in (DOCS.parent / path).read_text("utf-8"), f"{path} has no {name}"


COMMANDS = (
    "", "serve", "api", "worker", "keeper", "migrate", "version", "stats", "export", "forget", "backup", "restore",
    "compare", "drift",
    "dead-letters", "dead-letters list",
    "dead-letters retry", "dead-letters drop", "rules", "rules example", "rules check", "rules show", "rules test",
    "rules backtest",
    "notify", "notify example", "notify check", "notify routes", "notify test", "etl", "etl demo", "etl load",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert "Usage: " in shown.output


@pytest.mark.parametrize(
    "name", ["configuration.md", "operations.md", "alerting.md", "notifications.md", "quickstart.md", "comparing.md"]
)
def test_commands_shown_exist(name: str) -> None:
    shown = set(
        re.findall(r"modelmeter ((?:dead-letters |rules |etl |notify )?[a-z]+)\b", "\n".join(_code(page(name))))
    )
    assert shown <= set(COMMANDS), f"{name} shows {shown - set(COMMANDS)}"


def _code(text: str) -> list[str]:
    fenced = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return fenced + re.findall(r"`(modelmeter [^`]*)`", text)
