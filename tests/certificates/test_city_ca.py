"""A real bus and a city's own CA, run by OpenSSL: its certificates open the doors, and its word closes them."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from connectors.partner.folder import PartnerFolder
from exchange.app import keys_in_force, opening, trusted
from exchange.registry import Bureau
from security import pki
from security.errors import ExchangeError, Refusal
from security.keys import SigningKey, der_of_pem
from security.message import Use, in_memory
from tests.certificates.servers import FileServer, OpensslAuthority, file_server
from tests.whole.real_bus import FEED, REGISTER, a_trial, csv, rows

WITHIN_S, ANSWER_S = 5.0, 2.0


class City:
    """A running bus, the CA of the city with its list, and the bureau `made-up` with certificates of that CA."""

    def __init__(self, folder: Path, server: FileServer) -> None:
        self.ca, self._server = OpensslAuthority(folder / "ca"), server
        self.trial = a_trial(folder, REGISTER)
        self._bring(["signing", "connection"])
        self.trial.grant("made-up", "push", FEED)
        self.trial.grant("made-up", "pull", "changes")
        settings = Path(self.trial.settings.source)
        authority = {"certificates": str(self.ca.folder / "ca.pem"), "crl": [server.url("/ca.crl")], "every_s": 0.2}
        lines = [f"{name} = {json.dumps(value)}" for name, value in authority.items()]
        settings.write_text(settings.read_text() + "\n".join(["[[authority]]", *lines, ""]), encoding="utf-8")

    def _bring(self, uses: list[Use]) -> None:
        """Keys made here, certificates from the city's CA, enrolled with the bus."""
        keys, enrolled = {}, []
        for use in uses:
            path = self.ca.issue(use)
            keys[use] = SigningKey.load(path.with_suffix(".key"), certificate_path=path)
            enrolled.append(pki.enrolled(der_of_pem(path.read_bytes()), "made-up", use))
        self.trial.enrol_with(Bureau("made-up", "Made-up bureau", "某单位", "supplier"), enrolled)
        PartnerFolder.make(
            self.trial.partners / "made-up",
            signing=keys["signing"],
            connection=keys["connection"],
            ca_pem=pki.pem_of(keys_in_force.authority(self.trial.settings).certificate_der),
            anchors_json=msgspec.json.encode(trusted.anchors_of(self.trial.settings)),
        )

    def list_(self, *more: str) -> None:
        """The CA publishes a new list."""
        self._server.files["/ca.crl"] = self.ca.crl(*more)

    def push(self, message_id: str, door: str = "soap") -> str:
        """What a push hears: empty when it has a receipt."""
        try:
            if door == "mqtt":
                with self.trial.mqtt_partner("made-up") as gateway:
                    gateway.push(FEED, in_memory(csv(rows(message_id))), "text/csv", message_id, wait_s=ANSWER_S)
            else:
                self.trial.partner("made-up").push(FEED, in_memory(csv(rows(message_id))), "text/csv", message_id)
        except Refusal as refusal:
            return refusal.code
        except ExchangeError as problem:
            return type(problem).__name__
        return ""


def stamp(moment: datetime) -> str:
    return f"{moment:%Y%m%d%H%M%SZ}"


def within(holds: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < WITHIN_S
        time.sleep(0.1)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    with file_server() as server:
        made = City(tmp_path_factory.mktemp("city"), server)
        now = datetime.now(UTC)
        made.list_(
            "-crl_lastupdate", stamp(now - timedelta(days=3)), "-crl_nextupdate", stamp(now - timedelta(hours=25))
        )
        with made.trial:
            yield made


def test_the_citys_word_opens_and_closes_the_doors(city: City) -> None:
    partner = city.trial.partner("made-up")
    # A list that is a day and an hour late: nothing is taken at either door, and reads go on.
    assert city.push("m-1") == "auth.revocation_unknown"
    assert city.push("m-1", "mqtt") == "auth.revocation_unknown"
    assert partner.changes(after=0, purpose="test").changes == ()
    # A fresh one: both doors open.
    city.list_()
    within(lambda: city.push("m-1") == "")
    assert city.push("m-2", "mqtt") == ""
    receipt = (city.trial.partners / "made-up/receipts" / "m-1.receipt.json").read_bytes()
    # The signing certificate is revoked: within five seconds of the list nothing signed by it is taken at either door.
    city.ca.revoke("signing")
    city.list_()
    within(lambda: city.push("m-3") == "auth.certificate_revoked")
    assert city.push("m-4", "mqtt") == "Unavailable", "a stranger there is not even answered"
    # So is the connection's: nothing is read any more, and the broker lets nobody in.
    city.ca.revoke("connection")
    city.list_()
    within(lambda: city.push("m-5") == "auth.refused")
    # What was signed before stands, and the log says of each entry what was trusted when.
    with closing(opening.open_journal(city.trial.settings)) as journal:
        row = journal.inbox("made-up", "m-1")
        assert row is not None
        assert row.receipt == receipt
        digests = {entry.leaf.trust_digest for entry in journal.search(type="refusal")}
    assert len(digests) > 1


def test_no_request_waits_for_an_authority_that_hangs(tmp_path: Path) -> None:
    """Asked in the background: while it holds the line both doors answer, and reads too."""
    asked, let_go = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        asked.set()
        let_go.wait(20)

    with file_server() as server:
        city = City(tmp_path, server)
        city.list_()
        with city.trial:
            within(lambda: city.push("h-1") == "")
            server.files["/ca.crl"] = hang
            assert asked.wait(WITHIN_S)
            began = time.monotonic()
            assert (city.push("h-2"), city.push("h-3", "mqtt")) == ("", "")
            assert city.trial.partner("made-up").receipt("h-2").document["message_id"] == "h-2"
            assert time.monotonic() - began < 8, "it is let go after 20 s, and given up after 10"
            assert not let_go.is_set()
            let_go.set()
