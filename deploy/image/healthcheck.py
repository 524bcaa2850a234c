"""Exit 0 when the process in this container says that it is healthy: the API on its port, the others on theirs."""

import os
import sys
import urllib.request

for setting in ("MODELMETER_PORT", "MODELMETER_METRICS_PORT"):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{os.environ[setting]}/healthz", timeout=4).close()
    except (OSError, KeyError):
        continue
    sys.exit(0)
sys.exit(1)
