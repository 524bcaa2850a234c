"""The coordinator that the tests here need. Importing this skips the file that does, when there is none."""

import os

import pytest

URL = os.environ.get("MODELMETER_TEST_CITUS_URL", "")
if not URL:
    pytest.skip("MODELMETER_TEST_CITUS_URL is not set: nothing is tried on Citus", allow_module_level=True)
