"""Certificates of a test city, for servers that the bus speaks to."""

import ssl
from collections.abc import Callable

import pytest

from tests.doors.conftest import City, city

__all__ = ["city", "server_tls"]


@pytest.fixture(scope="session")
def server_tls(city: City) -> Callable[[], ssl.SSLContext]:
    """A context for a server named localhost."""

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(city.folder / "bus.pem", city.folder / "bus.key")
        return context

    return make
