"""A real bus with an authority of `openssl ts`, and the rule's hours as seconds: what each process and command says."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from exchange.app import opening
from exchange.attestations import Attestations
from exchange.cli.main import main
from exchange.database import SqliteFile
from exchange.settings import load_settings
from exchange.timestamping import stamped_octets
from security.anchors import Anchors
from security.errors import Refusal
from security.message import in_memory
from security.timestamp import verify_timestamp
from tests.certificates.servers import FileServer, file_server
from tests.timestamps.authority import OpensslTsa
from tests.whole.real_bus import FEED, REGISTER, a_trial, csv, rows

ALARM_S, PENDING_S, REFUSED_S = 1.0, 3.0, 6.0
WITHIN_S = 30.0


class Served:
    """A running bus that is stamped every half second, and the bureau `made-up`."""

    def __init__(self, folder: Path, server: FileServer, tsa: OpensslTsa) -> None:
        self.server, self.tsa = server, tsa
        self.trial = a_trial(folder, REGISTER)
        self.trial.enrol("made-up", "Made-up bureau", "某单位")
        self.trial.grant("made-up", "push", FEED)
        self.trial.grant("made-up", "pull", "changes")
        said = {"urls": [server.url("/")], "certificates": str(tsa.folder / "ca.pem"), "every_s": 0.5}
        said |= {"alarm_s": ALARM_S, "pending_s": PENDING_S, "refused_s": REFUSED_S}
        path = Path(self.trial.settings.source)
        lines = [f"{name} = {json.dumps(value)}" for name, value in said.items()]
        path.write_text(path.read_text() + "\n".join(["[timestamps]", *lines, ""]), encoding="utf-8")
        self.settings = load_settings(path)

    def push(self, message_id: str, door: str = "soap") -> str:
        """What a push hears: empty when it has a receipt."""
        content = in_memory(csv(rows(message_id)))
        try:
            if door == "mqtt":
                with self.trial.mqtt_partner("made-up") as gateway:
                    gateway.push(FEED, content, "text/csv", message_id, wait_s=10)
            else:
                self.trial.partner("made-up").push(FEED, content, "text/csv", message_id)
        except Refusal as refusal:
            return refusal.code
        return ""

    def told(self) -> list[str]:
        with closing(opening.open_journal(self.settings)) as journal:
            return [entry.leaf.outcome for entry in journal.search(type="timestamp")][::-1]

    def log(self) -> str:
        return (self.trial.folder / "serve.log").read_text()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with file_server() as server:
        made = Served(tmp_path / "bus", server, OpensslTsa(tmp_path / "tsa"))
        server.files["/"] = made.tsa.answering()
        with made.trial:
            yield made


def within(holds: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < WITHIN_S
        time.sleep(0.1)


def test_serve_is_stamped_says_so_when_it_is_not_and_goes_on_when_it_is_again(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert served.push("m-1") == ""
    with closing(Attestations(SqliteFile(served.trial.state, "journal"))) as kept:
        within(lambda: kept.stamped(0) is not None)
        head = kept.last_stamped()
    assert head is not None
    anchors = msgspec.json.decode((served.trial.state / "anchors.json").read_bytes(), type=Anchors)
    octets = stamped_octets(head.checkpoint)
    assert verify_timestamp(head.response, octets, anchors.timestamp_roots) == datetime.fromisoformat(head.stamped_at)
    # Away: one door, the other, the command, the doctor.
    served.server.files.clear()
    within(lambda: served.push(f"m-{time.monotonic_ns()}") == "timestamp.overdue")
    assert served.push("m-2", "mqtt") == "timestamp.overdue"
    where = ["--settings", served.settings.source, "--partners", str(served.trial.partners), "--url", served.trial.url]
    capsys.readouterr()
    assert main(["changes", "--as", "made-up", "--json", *where]) == 0, "reads go on"
    said = capsys.readouterr()
    assert "时间戳待补" in said.err
    assert json.loads(said.out)["changes"] is not None
    push = Path(served.trial.folder / "m.csv")
    push.write_bytes(csv(rows("m-3")))
    assert main(["push", FEED, str(push), "--as", "made-up", *where]) == 1
    assert "timestamp.overdue" in capsys.readouterr().err
    main(["doctor", "--json", "--settings", served.settings.source])
    checks = {one["name"]: one for one in json.loads(capsys.readouterr().out)["checks"]}
    assert not checks["timestamps.covered"]["ok"]
    assert "timestamp.not_had" in served.log()
    within(lambda: "refused" in served.told())  # the watch says so at its next look
    # Back.
    served.server.files["/"] = served.tsa.answering()
    within(lambda: served.push("m-4") == "")
    assert served.push("m-2", "mqtt") == "", "the very message that was refused"
    within(lambda: "covered" in served.told())
    assert "alarm pending refused covered" in " ".join(served.told()), "each change once"
