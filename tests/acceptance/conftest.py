"""A yard for each test; when a test fails, its seed and its logs are shown."""

from collections.abc import Generator, Iterator

import pytest

from tests.acceptance.yard import Yard


@pytest.fixture
def yard() -> Iterator[Yard]:
    place = Yard()
    yield place
    place.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    place = getattr(item, "funcargs", {}).get("yard")
    if report.failed and call.when == "call" and isinstance(place, Yard):
        report.sections.append(("seed and logs", place.tails()))
    return report
