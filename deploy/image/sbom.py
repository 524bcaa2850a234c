"""Print a CycloneDX list of what is in the image: Python, the packages of this environment, and Debian's.

sbom.py /rootfs
"""

import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

DPKG = Path("/var/lib/dpkg/status")
LISTS = Path("/var/lib/dpkg/info")


def python_packages() -> list[dict[str, Any]]:
    found = []
    for package in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
        purl = f"pkg:pypi/{name}@{package.version}"
        component: dict[str, Any] = {
            "type": "library",
            "name": name,
            "version": package.version,
            "purl": purl,
            "bom-ref": purl,
        }
        if "License-Expression" in package.metadata:
            component["licenses"] = [{"expression": package.metadata["License-Expression"]}]
        found.append(component)
    return found


def debian_packages(status: str, rootfs: Path, lists: Path = LISTS) -> list[dict[str, Any]]:
    """Those of which a file is in the image."""
    there = {
        one.name.removesuffix(".list").partition(":")[0]
        for one in lists.glob("*.list")
        if any((rootfs / line[1:]).is_file() for line in one.read_text("utf-8").splitlines() if not _is_note(line))
    }
    found = []
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status") == "install ok installed" and fields["Package"] in there:
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}"
            found.append({"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl})
    return found


def _is_note(line: str) -> bool:
    return line.startswith("/usr/share/doc/") or line == "/."


def document(rootfs: Path) -> dict[str, Any]:
    """Without a time or a serial number: the same image twice has the same list."""
    components = python_packages()
    purl = f"pkg:generic/python@{platform.python_version()}"
    components.append(
        {"type": "platform", "name": "python", "version": platform.python_version(), "purl": purl, "bom-ref": purl}
    )
    if DPKG.is_file():
        components += debian_packages(DPKG.read_text("utf-8"), rootfs)
    own = next((one for one in components if one["name"] == "modelmeter"), None)
    about = {"component": {**own, "type": "application"}} if own else {}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": about,
        "components": sorted((one for one in components if one is not own), key=lambda one: one["purl"]),
    }


if __name__ == "__main__":
    json.dump(document(Path(sys.argv[1])), sys.stdout, indent=1)
