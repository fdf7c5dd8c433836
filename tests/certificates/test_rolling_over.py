"""A bureau changes its certificate: both hold in the overlap, the old one ends, and what it signed stands."""

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange import audit
from exchange.app import keys_in_force, opening, places, trusted
from exchange.cli.people import registry
from exchange.cli.trial import PROPOSER
from exchange.intake import Received
from exchange.processing import process
from exchange.receipts import verify_receipt
from exchange.registry import Bureau
from exchange.revocation import CityAuthority, Revocations
from security import pki
from security.authenticate import signer_of
from security.errors import Refusal
from security.expiry import Ending, endings, expiring
from security.keys import SigningKey, generate
from security.pki import enrolled
from tests.acts.bench_of_one import FEED, Acts, at, both_acts, covers
from tests.security.authorities import Holder

TODAY = places.utc_now()
DAY = timedelta(days=1)


def signing_key(acts: Acts, ends: datetime, begins: datetime = TODAY - DAY) -> SigningKey:
    """A further signing key of `made-up`, enrolled."""
    key = generate("ES256")
    authority = keys_in_force.authority(acts.trial.settings)
    der = pki.issue(authority, "made-up signing", key.public_key, "signing", begins, ends)
    acts.trial.enrol_with(Bureau("made-up", "M", "某单位", "supplier"), [pki.enrolled(der, "made-up", "signing")])
    return key.with_certificate(der)


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acts]:
    with both_acts(tmp_path_factory.mktemp("rolling")) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


@pytest.fixture(scope="module")
def old(acts: Acts) -> SigningKey:
    return signing_key(acts, ends=TODAY + 5 * DAY)


@pytest.fixture(scope="module")
def new(acts: Acts) -> SigningKey:
    return signing_key(acts, ends=TODAY + 90 * DAY)


def later(acts: Acts) -> Acts:
    """Six days on: the old certificate has ended."""
    return acts.with_(clock=at(TODAY + 6 * DAY))


def holds(acts: Acts, received: Received) -> None:
    assert received.inbox.receipt is not None
    verify_receipt(received.inbox.receipt, trusted.anchors_of(acts.trial.settings))
    assert audit.verify(acts.bus.folder, trusted.anchors_of(acts.trial.settings)).problems == []


def test_in_the_overlap_both_count_and_are_one_bureau(acts: Acts, old: SigningKey, new: SigningKey) -> None:
    one, other = acts.push("by-old", covers("A"), key=old), acts.push("by-new", covers("B"), key=new)
    assert [row.inbox.signer for row in (one, other)] == [old.fingerprint, new.fingerprint]
    assert {row.inbox.sender for row in (one, other)} == {"made-up"}
    again = acts.push("by-old", covers("A"), key=new)
    assert again.repeated, "the same delivery, whichever of its keys a bureau signs a retry with"
    assert again.inbox.receipt == one.inbox.receipt


def test_when_the_old_one_has_ended_only_the_new_one_pushes(acts: Acts, old: SigningKey, new: SigningKey) -> None:
    with pytest.raises(Refusal, match=r"auth\.certificate_expired"):
        later(acts).push("too-late", covers("A"), key=old)
    assert not later(acts).push("in-time", covers("C"), key=new).repeated


def test_a_certificate_to_come_is_enrolled_today_and_counts_from_its_day(acts: Acts) -> None:
    coming = signing_key(acts, begins=TODAY + 2 * DAY, ends=TODAY + 90 * DAY)
    with pytest.raises(Refusal, match=r"auth\.certificate_expired"):
        acts.push("too-early", covers("D"), key=coming)
    assert acts.with_(clock=at(TODAY + 3 * DAY)).push("on-its-day", covers("D"), key=coming).inbox.receipt


def test_what_a_retired_key_signed_still_verifies_for_its_day(acts: Acts, old: SigningKey) -> None:
    received = acts.push("of-its-day", covers("E"), key=old)
    months_on = TODAY + 20 * DAY
    certificate = acts.bus.registry.trust().by_fingerprint(received.inbox.signer)
    assert (
        signer_of(certificate, "made-up", datetime.fromisoformat(received.inbox.signed_at)).der == old.certificate_der
    )
    with pytest.raises(Refusal, match=r"auth\.certificate_expired"):
        signer_of(certificate, "made-up", months_on)
    holds(acts.with_(clock=at(months_on)), received)


@pytest.mark.parametrize("end", ["expired", "revoked"])
def test_a_delivery_that_waited_while_its_certificate_ended_is_processed(acts: Acts, end: str) -> None:
    key = signing_key(acts, ends=TODAY + 5 * DAY)
    received = acts.push(f"waited-{end}", covers(end), key=key)
    if end == "revoked":
        with registry(acts.trial.settings) as opened:
            opened.revoke_certificate(key.fingerprint, PROPOSER)
        with pytest.raises(Refusal, match=r"auth\.certificate_revoked"):
            acts.push(f"after-{end}", covers(end), key=key)
    process(FEED, later(acts).bus)
    row = acts.bus.journal.inbox("made-up", f"waited-{end}")
    assert row is not None
    assert row.status == "processed"
    holds(acts, received)


# Another's authority ----------------------------------------------------------------------------------------------


def test_a_carrier_whose_authority_is_silent_carries_nothing_in(acts: Acts, tmp_path: Path) -> None:
    """Signed by a certificate of the bus's own CA, and carried over a connection of the city's, which nobody asked."""
    window: dict[str, Any] = {"begins": TODAY - DAY, "ends": TODAY + 30 * DAY}
    city = Holder("City CA", **window)
    connection = enrolled(city.leaf("made-up", **window).der, "made-up", "connection")
    acts.trial.enrol_with(Bureau("made-up", "M", "某单位", "supplier"), [connection])
    silent = Revocations(tmp_path, (CityAuthority((city.der,), ("http://ca.example/ca.crl",)),))
    with closing(opening.open_registry(acts.trial.settings, acts.bus.journal, silent)) as with_authority:
        asking = acts.with_(registry=with_authority)
        carried = msgspec.structs.replace(asking.delivery("by-city", covers("F")), carrier_der=connection.der)
        with pytest.raises(Refusal, match=r"auth\.revocation_unknown"):
            asking.receive(carried)
        assert not asking.push("by-city", covers("F")).repeated, "over a connection of the bus's own CA it is taken"


# The clock -----------------------------------------------------------------------------------------------------------


def ending(days: float, holder: str = "water", use: str = "signing", began: datetime = TODAY - DAY) -> Ending:
    return Ending(holder, use, f"{holder} {use} {days}", began, TODAY + timedelta(days=days))


def test_the_clock_names_what_ends_soonest_first() -> None:
    certificates = [
        ending(31),
        ending(29, "power"),
        ending(0.5, "gas"),
        ending(-3, "police"),
        ending(8, use="connection"),
    ]
    found = expiring(certificates, TODAY, 30)
    assert [(one.holder, one.days_left(TODAY)) for one in found] == [
        ("police", -3), ("gas", 0), ("water", 8), ("power", 29)
    ]  # fmt: skip
    assert [one.holder for one in expiring(certificates, TODAY, 7)] == ["police", "gas"]


def test_a_certificate_with_a_successor_may_end_in_peace() -> None:
    assert expiring([ending(3), ending(300)], TODAY, 30) == []
    assert len(expiring([ending(3), ending(300, "power")], TODAY, 30)) == 1, "another bureau's is no successor"
    assert len(expiring([ending(3), ending(300, use="connection")], TODAY, 30)) == 1, "nor one of another use"
    assert len(expiring([ending(3), ending(300, began=TODAY + DAY)], TODAY, 30)) == 1, "nor one that has not begun"


def test_what_is_revoked_is_not_waited_for(acts: Acts) -> None:
    key = signing_key(acts, ends=TODAY + DAY)
    assert key.fingerprint in {one.fingerprint for one in endings(acts.bus.registry.certificates(), TODAY)}
    with registry(acts.trial.settings) as opened:
        opened.revoke_certificate(key.fingerprint, PROPOSER)
    assert key.fingerprint not in {
        one.fingerprint for one in endings(acts.bus.registry.certificates(), places.utc_now())
    }
