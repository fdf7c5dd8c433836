"""One private RabbitMQ for all tests of queues: it takes ten seconds to start."""

from collections.abc import Iterator

import pytest

from bench import rabbit as private
from bench.rabbit import Rabbit


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    """Running. Whoever kills it starts it again."""
    if not private.AVAILABLE:
        pytest.skip("rabbitmq (make servers)")
    with private.running(tmp_path_factory.mktemp("rabbit") / "node") as running:
        yield running
