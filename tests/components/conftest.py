"""A new store for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from exchange.store.sqlite import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()
