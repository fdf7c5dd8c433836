"""What the log holds in a bureau's own name: nothing of it is missing, and nothing that only claimed to be that."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partner.folder import PartnerFolder
from connectors.partner.own_entries import OwnEntry as PartnersEntry
from connectors.partner.own_entries import checked, decided, enrolled, unknown
from exchange.cli.people import registry
from exchange.cli.trial import PROPOSER
from exchange.entry import OwnEntry
from exchange.http.own_entries import OwnEntries, own_entries
from exchange.intake import admit_carrier
from exchange.processing import process
from security.batch import unverified
from security.errors import Refusal
from security.jose import b64url
from security.jws import jcs
from security.keys import SigningKey
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers, signed_request

EVERY = 200


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.trial.enrol("water", "Water bureau", "水务局")
        yield acts


def own(acts: Acts, bureau: str = "made-up", after: int = 0, limit: int = EVERY) -> OwnEntries:
    """A page of what the bus would answer."""
    return own_entries(bureau, after, limit, acts.bus)


def leaf(entry: OwnEntry) -> dict[str, Any]:
    return dict(msgspec.json.decode(entry.leaf))


def detail(entry: OwnEntry) -> dict[str, Any]:
    return dict(msgspec.json.decode(entry.detail or b"{}"))


def held(entry: OwnEntry) -> PartnersEntry:
    """As the bureau's own side takes it."""
    return checked(entry.index, entry.leaf, (entry.salt or b"").hex(), entry.detail)


def kinds(page: OwnEntries) -> list[tuple[str, str]]:
    return [(leaf(entry)["type"], leaf(entry)["outcome"]) for entry in page.entries]


def test_a_bureau_sees_its_enrolment_its_grant_its_deliveries_and_what_became_of_them(acts: Acts) -> None:
    acts.push("m-1", covers("A"))
    process(FEED, acts.bus)
    page = own(acts)
    assert kinds(page) == [
        *(("decision", "proposed"), ("decision", "approved")),
        *(("decision", "proposed"), ("decision", "approved")),
        *(("delivery", "accepted"), ("processing", "processed")),
    ]
    assert [detail(entry).get("message_id") for entry in page.entries[-2:]] == ["m-1", "m-1"]
    assert (page.count, page.next) == (6, page.entries[-1].index)


def test_a_delivery_signed_with_a_stolen_or_second_certificate_is_among_the_bureaus_entries(acts: Acts) -> None:
    """Two persons were deceived, or a key was copied: the delivery is right in every respect, and it is found."""
    acts.push("m-1", covers("A"))
    before = own(acts)
    stolen = acts.more_key("ES256")
    acts.push("m-2", covers("B"), key=stolen)
    page = own(acts, after=before.next)
    assert kinds(page) == [("decision", "proposed"), ("decision", "approved"), ("delivery", "accepted")]
    assert leaf(page.entries[-1])["signer"] == stolen.fingerprint != acts.folder.signing.fingerprint
    assert detail(page.entries[-1])["message_id"] == "m-2"
    assert page.count == before.count + 3


def test_a_refusal_that_only_claims_the_name_is_not_among_them(acts: Acts) -> None:
    """Water's connection and key, the sender spelt as made-up: it is water's entry, and none of made-up's."""
    before, water = own(acts), own(acts, "water")
    folder = PartnerFolder(acts.trial.partners / "water")
    members = {"Sender": "made-up", "Recipient": acts.bus.origin, "MessageId": "m-1", "Feed": FEED,
               "ContentType": "text/csv", "ContentDigest": "00" * 32, "Content": ""}  # fmt: skip
    octets = signed_request("SubmitDelivery", members, folder.signing, acts.bus.clock())
    with pytest.raises(Refusal):
        acts.receive(acts._arrived(octets, folder))
    assert own(acts).count == before.count
    (refused,) = own(acts, "water", after=water.next).entries
    assert (leaf(refused)["type"], detail(refused)["claimed_sender"]) == ("refusal", "made-up")


def test_a_refusal_of_what_the_bureau_signed_is_among_them(acts: Acts) -> None:
    before = own(acts)
    with pytest.raises(Refusal):
        acts.push("m-1", covers("A"), "no-such-feed")
    (refused,) = own(acts, after=before.next).entries
    assert leaf(refused)["outcome"] == "feed.unknown"


def test_an_unsigned_read_over_ones_own_connection_is_among_them_and_of_nobody_elses(acts: Acts) -> None:
    before, water = own(acts), own(acts, "water")
    der = acts.delivery("x", b"").carrier_der
    asyncio.run(admit_carrier(der, "127.0.0.1", "deliveries", {"path": "/audit/checkpoint"}, acts.bus))
    acts.push("m-1", covers("A"))  # its group takes what was staged along
    page = own(acts, after=before.next)
    assert sorted(kinds(page)) == [("delivery", "accepted"), ("read", "answered")]
    (read,) = [entry for entry in page.entries if leaf(entry)["type"] == "read"]
    assert (leaf(read)["sender"], detail(read)["path"]) == ("", "/audit/checkpoint")
    assert own(acts, "water", after=water.next).entries == []


def test_a_bureau_hears_who_may_sign_in_its_name_and_what_was_revoked(acts: Acts) -> None:
    before = own(acts)
    grant = acts.trial.grant("water", "on_behalf_of", "made-up")
    stolen = acts.more_key("ES256")
    with registry(acts.trial.settings) as opened:
        opened.revoke_grant(grant, PROPOSER)
        opened.revoke_certificate(stolen.fingerprint, PROPOSER)
    page = own(acts, after=before.next)
    assert [outcome for _, outcome in kinds(page)] == ["proposed", "approved"] * 2 + ["revoked"] * 2
    bodies = [decided(held(entry)) for entry in page.entries]
    assert [body.get("action") for body in bodies[:2]] == ["on_behalf_of"] * 2
    assert enrolled(held(page.entries[2])) == [stolen.fingerprint]
    assert [body["of"] for body in bodies[4:]] == [grant, stolen.fingerprint]
    water = [decided(held(entry)).get("of") for entry in own(acts, "water").entries]
    assert grant in water
    assert stolen.fingerprint not in water


def test_each_detail_is_what_the_leaf_commits_to_and_pages_follow_one_another(acts: Acts) -> None:
    for number in range(5):
        acts.push(f"m-{number}", covers(f"A{number}"))
    whole, after, paged = own(acts), 0, []
    while (page := own(acts, after=after, limit=2)).entries:
        assert page.count == whole.count
        paged += page.entries
        after = page.next
    assert paged == whole.entries
    for entry in paged:
        assert held(entry).detail == detail(entry)
        with pytest.raises(Refusal, match=r"audit\.entries_invalid"):
            checked(entry.index, entry.leaf, (entry.salt or b"").hex(), (entry.detail or b"") + b" ")


def test_no_entry_beyond_the_signed_head_is_counted(acts: Acts) -> None:
    acts.push("m-1", covers("A"))
    page = own(acts)
    size = int(page.checkpoint.split("\n")[1])
    assert all(entry.index < size for entry in page.entries)


def test_of_another_bureau_nothing_is_given(acts: Acts) -> None:
    acts.push("m-1", covers("A"))
    page = own(acts, "water")
    assert {leaf(entry)["type"] for entry in page.entries} == {"decision"}
    assert not any(b"m-1" in (entry.detail or b"") for entry in page.entries)
    assert own(acts, "nobody").count == 0


# What was erased, and what one's own receipts say of it.


def erase_details(acts: Acts, *message_ids: str) -> list[int]:
    """Take the details of deliveries away; gives their entries."""
    rows = [acts.bus.journal.inbox("made-up", message_id) for message_id in message_ids]
    indexes = [row.entry_index for row in rows if row is not None]
    with closing(sqlite3.connect(acts.bus.folder / "journal.sqlite")) as connection, connection:
        for index in indexes:
            connection.execute("UPDATE details SET salt = NULL, detail = NULL WHERE idx = ?", (index,))
    return indexes


def marks(acts: Acts, *indexes: int) -> list[list[str]]:
    """What made-up's folder does not know of these entries."""
    entries = {entry.index: held(entry) for entry in own(acts).entries}
    folder = acts.folder
    return [list(unknown(entries[index], folder.certificates(), folder.receipts())) for index in indexes]


def test_a_forged_delivery_whose_detail_was_erased_is_still_marked(acts: Acts) -> None:
    """Else whoever forged it has it erased, and it is found no more."""
    for message_id in ("m-1", "m-forged"):
        receipt = acts.push(message_id, covers(message_id)).inbox.receipt
        if message_id == "m-1":
            acts.folder.keep("receipt", message_id, receipt or b"")
    forged = acts.bus.journal.inbox("made-up", "m-forged")
    assert forged is not None
    assert marks(acts, forged.entry_index) == [["delivery"]]
    assert marks(acts, *erase_details(acts, "m-1", "m-forged")) == [[], ["erased delivery"]]


def test_a_delivery_that_another_carried_by_right_is_not_marked_once_its_detail_was_erased(acts: Acts) -> None:
    acts.trial.grant("water", "carry", "made-up")
    connection = SigningKey.load(
        acts.trial.partners / "water" / "connection.key",
        certificate_path=acts.trial.partners / "water" / "connection.pem",
    )
    for message_id in ("m-1", "m-2"):
        delivery = acts.delivery(message_id, covers(message_id))
        received = acts.receive(msgspec.structs.replace(delivery, carrier_der=connection.certificate_der))
        assert received.inbox.carrier == connection.fingerprint not in acts.folder.certificates()
        if message_id == "m-1":
            acts.folder.keep("receipt", message_id, received.inbox.receipt or b"")
    assert marks(acts, *erase_details(acts, "m-1", "m-2")) == [[], ["erased delivery"]]


def test_a_receipt_of_another_entry_makes_no_erased_delivery_known(acts: Acts) -> None:
    receipt = acts.push("m-1", covers("A")).inbox.receipt or b""
    acts.push("m-forged", covers("B"))
    (index,) = erase_details(acts, "m-forged")
    moved = {**unverified(receipt), "index": index}
    acts.folder.keep("receipt", "m-forged", jcs({"payload": b64url(jcs(moved)), "protected": "", "signature": ""}))
    assert marks(acts, index) == [["erased delivery"]]
