"""One real bus for a session: it starts once, and no test depends on what another left in it."""

from collections.abc import Iterator

import pytest

from tests.whole.real_bus import RealBus, real_bus


@pytest.fixture(scope="session")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBus]:
    """A running bus; made-up bureaus' message ids must be each test's own."""
    with real_bus(tmp_path_factory.mktemp("whole")) as running:
        yield running
