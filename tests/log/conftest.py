"""The journal folder that most tests here start from."""

from pathlib import Path

import pytest

from tests.log.buses import JournalFolder


@pytest.fixture
def bus(tmp_path: Path) -> JournalFolder:
    """A folder with keys and no journal yet."""
    return JournalFolder(tmp_path)
