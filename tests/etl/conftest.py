from collections.abc import Iterator

import pytest

from tests.etl.stub import Stub, serving


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as server:
        yield server
