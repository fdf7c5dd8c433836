"""What every test may use: other people's real files, read in place, and a count of what was skipped."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.postgres import PostgresServer
from tests.s3 import CREDENTIALS, S3Server
from tests.softhsm import SoftHsm, a_token

ROOT = Path(__file__).parent.parent
settings.register_profile("ours", deadline=None)  # a busy machine is no failed property
settings.load_profile("ours")
SHARED = Path(os.environ.get("YONGTONG_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Folder of a name under YONGTONG_DATA; skips the test, by that name, where it is absent."""

    def folder(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"data:{name} (set YONGTONG_DATA)")
        return SHARED / name

    return folder


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Says a line at the end of the run, whichever process the test ran in: counts and figures that somebody reads."""
    return lambda line: request.node.user_properties.append(("told", line))


@pytest.fixture(scope="session")
def s3_credentials() -> Iterator[None]:
    """In the environment, as for a bus; to no server of anybody's."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory, s3_credentials: None) -> Iterator[S3Server]:
    """One server for the session, for tests that do not kill it and keep to a prefix of their own."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    """One token for the session; its library reads its configuration once a process. Skips where there is none."""
    token = a_token(tmp_path_factory.mktemp("softhsm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(token.configuration))
        yield token


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the session, for tests that do not kill it. Skips where none is installed."""
    server = PostgresServer()
    yield server
    server.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests told, and each group that was skipped, named and counted, at the end, where it is read."""
    passed = terminalreporter.stats.get("passed", [])
    for line in (said for report in passed for name, said in report.user_properties if name == "told"):
        terminalreporter.write_line(line)
    groups: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "unnamed"
        groups[reason] = groups.get(reason, 0) + 1
    for reason, count in sorted(groups.items()):
        terminalreporter.write_line(f"SKIPPED GROUP {reason}: {count}")
