"""A right that is revoked ends within five seconds, whatever is under way: sessions, queues, exports, cursors."""

import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from connectors.partner import listing
from connectors.partner.folder import PartnerFolder
from connectors.transports.mqtt import client_tls
from exchange.cli import export
from exchange.cli.main import main
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER
from security.errors import Refusal
from security.message import in_memory
from tests.whole.real_bus import FEED, RealBus, csv, rows

WITHIN_S = 5.0
QUIET_S = 1.5  # in which nothing comes
REPORT_S = 60.0  # act two is not what is measured here


class Listener:
    """A bureau's own client, whose session the broker keeps while it is away."""

    def __init__(self, bus: RealBus, bureau: str) -> None:
        ours = PartnerFolder(bus.trial.partners / bureau)
        self.bureau, self.port = bureau, int(bus.trial.mqtt_url.rpartition(":")[2])
        self.tls = client_tls(ours.file("connection.pem"), ours.file("connection.key"), ours.file("ca.pem"))
        self.heard: list[tuple[str, bytes]] = []
        self.came: list[bool] = []
        self.lost_at: list[float] = []
        self.subscribed: list[int] = []
        self.client: Client | None = None

    def come(self) -> bool:
        """Connect; whether the broker lets it in."""
        self.came.clear()
        self.lost_at.clear()
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            f"{self.bureau}:desk",
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        self.client.tls_set_context(self.tls)
        self.client.on_connect = lambda _, __, ___, reason, ____: self.came.append(not reason.is_failure)
        self.client.on_disconnect = lambda *_: self.lost_at.append(time.monotonic())
        self.client.on_subscribe = lambda *_: self.subscribed.append(1)
        self.client.on_message = lambda _, __, message: self.heard.append((message.topic, message.payload))
        self.client.connect("127.0.0.1", self.port, 30)
        self.client.loop_start()
        until(lambda: self.came or self.lost_at)
        return self.came == [True]

    def subscribe(self) -> None:
        assert self.client is not None
        self.client.subscribe(f"yt/v1/to/{self.bureau}/#", 1)
        until(lambda: self.subscribed)

    def go(self) -> None:
        """Leave, and be back."""
        if self.client is not None:
            self.client.disconnect()
            self.client.loop_stop()
            self.client = None


class Bureau:
    """A bureau of the test's own, its grants, and what it listens with."""

    def __init__(self, bus: RealBus, code: str) -> None:
        self.bus, self.code = bus, code
        bus.trial.enrol(code, "A bureau", "某局")
        self.listener = Listener(bus, code)

    def grant(self, action: Any, target: str) -> str:
        return self.bus.trial.grant(self.code, action, target)

    def revoke(self, grant: str) -> float:
        """End a grant; gives when."""
        with registry(self.bus.trial.settings) as opened:
            opened.revoke_grant(grant, APPROVER)
        return time.monotonic()

    def revoke_certificate(self) -> float:
        """End its connection certificate; gives when."""
        with registry(self.bus.trial.settings) as opened:
            (ours,) = (c for c in opened.certificates() if c.bureau == self.code and c.use == "connection")
            opened.revoke_certificate(ours.fingerprint, APPROVER)
        return time.monotonic()

    def told(self) -> int:
        """How many change documents the broker has taken for it."""
        entries = self.bus.journal.search(type="read", outcome="published")
        return sum(entry.leaf.sender == self.code for entry in entries)

    def something_happens(self, id: str) -> None:
        """Components change, and the broker has the document for it."""
        before = self.told()
        made_up = self.bus.partner()
        made_up.push(FEED, in_memory(csv(rows(id))), "text/csv", id)
        assert made_up.report(id, wait_s=REPORT_S).status == "processed"
        until(lambda: self.told() > before)


@pytest.fixture
def id(request: pytest.FixtureRequest) -> str:
    return f"rv-{sha256(request.node.nodeid.encode()).hexdigest()[:10]}"


@pytest.fixture
def bureau(bus: RealBus, id: str) -> Iterator[Bureau]:
    made = Bureau(bus, id)
    yield made
    made.listener.go()


def until(holds: Callable[[], Any], seconds: float = 20.0) -> Any:
    ends_s = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < ends_s, "it did not come to hold"
        time.sleep(0.02)
    return found


def report(tell: Callable[[str], None], what: str, seconds: float) -> None:
    """Tell how long it took, also where nothing failed, and hold it to the limit."""
    tell(f"REVOKED {what}: {seconds:.2f} s")
    assert seconds < WITHIN_S


def test_a_revoked_certificate_ends_its_session(bureau: Bureau, tell: Callable[[str], None]) -> None:
    assert bureau.listener.come()
    revoked_s = bureau.revoke_certificate()
    lost_s = until(lambda: bureau.listener.lost_at)[0]
    report(tell, "certificate, MQTT session", lost_s - revoked_s)
    bureau.listener.go()
    assert not bureau.listener.come()


def test_the_last_grant_takes_the_session_with_it_and_not_the_one_before(
    bureau: Bureau, tell: Callable[[str], None]
) -> None:
    first, last = bureau.grant("pull", "ownership"), bureau.grant("pull", "components")
    assert bureau.listener.come()
    bureau.revoke(first)
    time.sleep(QUIET_S)
    assert bureau.listener.lost_at == []
    revoked_s = bureau.revoke(last)
    report(tell, "last grant, MQTT session", until(lambda: bureau.listener.lost_at)[0] - revoked_s)


def test_a_subscription_that_is_revoked_is_cut_off(bureau: Bureau, id: str, tell: Callable[[str], None]) -> None:
    bureau.grant("pull", "ownership")
    subscription = bureau.grant("subscribe", "changes")
    assert bureau.listener.come()
    bureau.listener.subscribe()
    bureau.something_happens(id)
    until(lambda: bureau.listener.heard)
    revoked_s = bureau.revoke(subscription)
    report(tell, "subscription, MQTT session", until(lambda: bureau.listener.lost_at)[0] - revoked_s)
    bureau.listener.go()
    assert bureau.listener.come(), "what is left to it, it may"


@pytest.mark.parametrize("what", ["nothing", "subscription", "certificate"])
def test_what_waits_for_one_who_is_away_does_not_arrive_afterwards(
    bureau: Bureau, id: str, what: str, tell: Callable[[str], None]
) -> None:
    bureau.grant("pull", "ownership")
    subscription = bureau.grant("subscribe", "changes")
    assert bureau.listener.come()
    bureau.listener.subscribe()
    bureau.something_happens(f"{id}-a")
    until(lambda: bureau.listener.heard)
    bureau.listener.go()
    bureau.listener.heard.clear()
    bureau.something_happens(f"{id}-b")
    if what == "nothing":
        assert bureau.listener.come()
        assert until(lambda: bureau.listener.heard)[0][0] == f"yt/v1/to/{bureau.code}/changes"
        return
    revoked_s = bureau.revoke(subscription) if what == "subscription" else bureau.revoke_certificate()
    came = bureau.listener.come()
    assert came == (what == "subscription")
    time.sleep(QUIET_S)
    assert bureau.listener.heard == []
    report(tell, f"{what}, queue empty from", time.monotonic() - revoked_s - QUIET_S)


def test_what_was_queued_under_one_grant_is_not_told_under_the_next(bureau: Bureau, id: str) -> None:
    subscription = bureau.grant("subscribe", "changes")
    assert bureau.listener.come()
    bureau.listener.subscribe()
    until(lambda: bureau.listener.heard)
    bureau.listener.go()
    bureau.something_happens(id)
    bureau.revoke(subscription)
    bureau.bus.trial.grant(bureau.code, "subscribe", "changes", classes=["CJ/T 214-2007:0601"])
    bureau.listener.heard.clear()
    assert bureau.listener.come()
    time.sleep(QUIET_S)
    assert bureau.listener.heard == []


def test_a_running_export_ends_with_its_grant_and_leaves_no_file(
    bureau: Bureau,
    id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tell: Callable[[str], None],
) -> None:
    bureau.bus.partner().push(FEED, in_memory(csv(rows(id))), "text/csv", id)
    assert bureau.bus.partner().report(id, wait_s=REPORT_S).status == "processed"
    grant, revoked = bureau.grant("pull", "components"), list[float]()
    monkeypatch.setattr(listing, "AT_ONCE", 1)
    monkeypatch.setattr(export, "say", lambda _: revoked.append(bureau.revoke(grant)))
    file = tmp_path / "all.csv"
    partners = str(bureau.bus.trial.partners)
    arguments = ["export", str(file), "--as", bureau.code, "--partners", partners, "--url", bureau.bus.url]
    assert main(arguments) == 1
    assert len(revoked) == 1
    assert list(tmp_path.iterdir()) == []
    assert "auth.no_grant" in capsys.readouterr().err
    report(tell, "pull grant, running export", time.monotonic() - revoked[0])


def test_a_cursor_ends_with_its_grant(bureau: Bureau, id: str, tell: Callable[[str], None]) -> None:
    bureau.bus.partner().push(FEED, in_memory(csv(rows(id))), "text/csv", id)
    assert bureau.bus.partner().report(id, wait_s=REPORT_S).status == "processed"
    grant, partner = bureau.grant("pull", "changes"), bureau.bus.trial.partner(bureau.code)
    page = partner.changes(0, limit=1, purpose="p")
    assert len(page.changes) == 1
    revoked_s = bureau.revoke(grant)
    with pytest.raises(Refusal, match=r"auth\.no_grant"):
        partner.changes(page.next, limit=1, purpose="p")
    report(tell, "pull grant, cursor", time.monotonic() - revoked_s)
