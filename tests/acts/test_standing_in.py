"""One bureau stands in for another: carries what it signed, signs in its name, or is its front node. Each by its own
right, never by the sum of two, and what came so says so for ever."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from connectors.partner.folder import PartnerFolder
from exchange import audit
from exchange.app import keys_in_force, opening, places, trusted
from exchange.cli.components import print_ownership
from exchange.cli.people import registry
from exchange.cli.trial import PROPOSER
from exchange.entry import LoggedEntry
from exchange.http.operations import get_receipt, submit_delivery
from exchange.ownership import Claim, nearest, ownership
from exchange.processing import process
from exchange.receipts import verify_receipt
from exchange.registry import Bureau
from security import pki
from security.batch import unverified
from security.delegation import may_sign_for
from security.errors import Refusal
from security.keys import SigningKey, generate
from security.message import Action, Delivery, Grant, Principal, Use
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers

YT = "{urn:yongtong:v1}"


@pytest.fixture
def acts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acts]:
    """`made-up` may push its feed; `agency` is enrolled and may do nothing."""
    with both_acts(tmp_path_factory.mktemp("standing-in")) as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.trial.enrol("agency", "Agency", "代办机构")
        yield acts


def key_of(acts: Acts, bureau: str, use: str) -> SigningKey:
    path = PartnerFolder(acts.trial.partners / bureau).path
    return SigningKey.load(path / f"{use}.key", certificate_path=path / f"{use}.pem")


def carried_by(delivery: Delivery, acts: Acts, bureau: str) -> Delivery:
    return msgspec.structs.replace(delivery, carrier_der=key_of(acts, bureau, "connection").certificate_der)


def by_agency(acts: Acts, message_id: str, **spoiled: str) -> Delivery:
    """Signed and carried by the agency, in the name of `made-up`."""
    delivery = acts.delivery(message_id, covers("A"), key=key_of(acts, "agency", "signing"), **spoiled)
    return carried_by(delivery, acts, "agency")


def enrol_key(acts: Acts, use: Use, bureau: str = "made-up") -> SigningKey:
    """One more key of a bureau."""
    key, ca, now = generate("ES256"), keys_in_force.authority(acts.trial.settings), places.utc_now()
    der = pki.issue(ca, f"{bureau} {use}", key.public_key, use, now - timedelta(days=1), now + timedelta(days=1))
    acts.trial.enrol_with(Bureau(bureau, "", "", ""), [pki.enrolled(der, bureau, use)])
    return key.with_certificate(der)


def end_grant(acts: Acts, grant: str) -> None:
    with registry(acts.trial.settings) as opened:
        opened.revoke_grant(grant, PROPOSER)


def said(octets: bytes | None) -> dict[str, Any]:
    assert octets is not None
    document: dict[str, Any] = unverified(octets)
    return document


def last(acts: Acts, kind: str) -> LoggedEntry:
    return acts.bus.journal.search(type=kind, limit=1)[0]


def claims_of(acts: Acts) -> tuple[Claim, ...]:
    return nearest(acts.bus.store, 121.547, 29.868, 1.0)[0].answer.claims


# --- carry -----------------------------------------------------------------------------------------------------------


def test_a_carrier_with_a_grant_hands_over_what_another_signed_and_the_receipt_names_the_grant(acts: Acts) -> None:
    grant = acts.trial.grant("agency", "carry", "made-up")
    received = acts.receive(carried_by(acts.delivery("m-1", covers("A")), acts, "agency"))
    receipt = said(received.inbox.receipt)
    connection = key_of(acts, "agency", "connection").fingerprint
    assert (receipt["carrier"], receipt["sender"], receipt["carry_grant"]) == (connection, "made-up", grant)
    assert receipt["signer"] == acts.folder.signing.fingerprint
    assert "asserted_by" not in receipt
    entry = last(acts, "delivery")
    assert (entry.leaf.carrier, entry.leaf.sender) == (connection, "made-up")
    assert entry.detail is not None
    assert entry.detail["carry_grant"] == grant
    verify_receipt(received.inbox.receipt or b"", trusted.anchors_of(acts.trial.settings))
    assert process(FEED, acts.bus) == 1
    assert claims_of(acts)[0].asserted_by is None, "carried is not said: the bureau signed it itself"


def test_rights_are_never_the_union_of_carrier_and_signer(acts: Acts) -> None:
    """What the agency may push is nothing to made-up's message, and what made-up may push nothing to the agency's."""
    (own,) = acts.bus.registry.grants("made-up")
    acts.trial.grant("agency", "carry", "made-up")
    acts.trial.grant("agency", "push", FEED)
    end_grant(acts, own.id)
    with pytest.raises(Refusal, match=r"auth\.no_grant"):
        acts.receive(carried_by(acts.delivery("m-1", covers("A")), acts, "agency"))
    assert last(acts, "refusal").leaf.sender == "made-up", "its signature held, and it is its officer who must know"


@pytest.mark.parametrize("grant", [("made-up", "carry", "agency"), ("agency", "carry", "agency"), None])
def test_a_grant_to_carry_is_the_carriers_and_for_that_signer(acts: Acts, grant: Any) -> None:
    if grant is not None:
        acts.trial.grant(*grant)
    with pytest.raises(Refusal, match=r"auth\.carrier_mismatch"):
        acts.receive(carried_by(acts.delivery("m-1", covers("A")), acts, "agency"))


def test_a_carriers_grant_ends_at_once(acts: Acts) -> None:
    grant = acts.trial.grant("agency", "carry", "made-up")
    acts.receive(carried_by(acts.delivery("m-1", covers("A")), acts, "agency"))
    end_grant(acts, grant)
    with pytest.raises(Refusal, match=r"auth\.carrier_mismatch"):
        acts.receive(carried_by(acts.delivery("m-2", covers("A")), acts, "agency"))


def test_a_carrier_learns_nothing_of_the_signers_grants_before_the_signature_holds(acts: Acts) -> None:
    """A message that only names made-up's certificate: whether made-up holds a grant, its carrier does not hear."""
    acts.trial.grant("agency", "carry", "made-up")
    (own,) = acts.bus.registry.grants("made-up")
    told = []
    for _ in range(2):
        delivery = carried_by(acts.delivery("m-1", covers("A")), acts, "agency")
        forged = delivery.envelope.replace(b"text/csv", b"text/xml")
        with pytest.raises(Refusal) as refused:
            acts.receive(msgspec.structs.replace(delivery, envelope=forged))
        told.append(refused.value.code)
        end_grant(acts, own.id) if len(told) == 1 else None
    assert told == ["signature.invalid", "signature.invalid"]
    entry = last(acts, "refusal")
    assert (entry.leaf.sender, entry.leaf.signer) == ("", "")
    assert (entry.detail or {})["claimed_sender"] == "made-up"


def test_a_signed_read_may_be_carried_too_and_is_answered_to_its_signer(acts: Acts) -> None:
    acts.push("m-1", covers("A"))
    asked = carried_by(acts.asking("GetReceipt", "r-1", DeliveryMessageId="m-1"), acts, "agency")
    with pytest.raises(Refusal, match=r"auth\.carrier_mismatch"):
        asyncio.run(get_receipt(asked, "1.1", acts.bus))
    grant = acts.trial.grant("agency", "carry", "made-up")
    answer = asyncio.run(get_receipt(asked, "1.1", acts.bus))
    assert answer.findtext(f"{YT}Recipient") == "made-up"
    with pytest.raises(Refusal, match=r"signature\.replayed"):
        asyncio.run(get_receipt(asked, "1.1", acts.bus))
    acts.bus.close()
    with closing(opening.open_journal(acts.trial.settings)) as journal:
        (read,) = journal.search(type="read")
    assert (read.detail or {})["carry_grant"] == grant


# --- on behalf of ----------------------------------------------------------------------------------------------------


def let_agency_speak(acts: Acts) -> tuple[str, str]:
    return acts.trial.grant("agency", "on_behalf_of", "made-up"), acts.trial.grant("agency", "push", FEED)


def test_what_is_signed_for_another_says_asserted_by_a_for_b_everywhere(
    acts: Acts, capsys: pytest.CaptureFixture[str]
) -> None:
    behalf, push = let_agency_speak(acts)
    received = acts.receive(by_agency(acts, "m-1"))
    signer = key_of(acts, "agency", "signing").fingerprint
    receipt = said(received.inbox.receipt)
    assert (receipt["sender"], receipt["signer"], receipt["asserted_by"]) == ("made-up", signer, "agency")
    assert (receipt["grant"], receipt["on_behalf_of_grant"]) == (push, behalf), "the signer's own grant to push"
    entry = last(acts, "delivery")
    assert (entry.leaf.sender, entry.leaf.signer, entry.leaf.actor) == ("made-up", signer, signer[:16])
    assert process(FEED, acts.bus) == 1
    (claim,) = claims_of(acts)
    assert (claim.bureau, claim.sender, claim.asserted_by) == ("made-up", "made-up", "agency")
    assert msgspec.json.decode(msgspec.json.encode(claim))["asserted_by"] == "agency"
    print_ownership(ownership(acts.bus.store, "1"))
    assert "asserted by agency for made-up" in capsys.readouterr().out
    anchors = trusted.anchors_of(acts.trial.settings)
    verify_receipt(received.inbox.receipt or b"", anchors)
    verdict = audit.verify(acts.bus.folder, anchors)
    assert verdict.ok, verdict.problems


@pytest.mark.parametrize("missing, code", [("on_behalf_of", "auth.sender_mismatch"), ("push", "auth.no_grant")])
def test_signing_for_another_needs_both_grants_of_ones_own(acts: Acts, missing: str, code: str) -> None:
    behalf, push = let_agency_speak(acts)
    end_grant(acts, {"on_behalf_of": behalf, "push": push}[missing])
    with pytest.raises(Refusal) as refused:
        acts.receive(by_agency(acts, "m-1"))
    assert refused.value.code == code


def test_for_another_one_pushes_only_to_that_bureaus_feeds(acts: Acts) -> None:
    """Neither to a third bureau's feed, nor in another's name to one's own."""
    let_agency_speak(acts)
    theirs = {name: msgspec.structs.replace(acts.bus.feeds[FEED], id=name, bureau=name) for name in ("third", "agency")}
    for feed in theirs:
        acts.trial.release(feed, theirs[feed].digest)
    feeds = {**acts.bus.feeds, **theirs}
    wider = acts.with_(feeds=feeds, feed_digests={id: feed.digest for id, feed in feeds.items()})
    for feed in theirs:
        acts.trial.grant("agency", "push", feed)
        with pytest.raises(Refusal, match=r"auth\.feed_of_other"):
            wider.receive(by_agency(acts, "m-1", Feed=feed))
    with pytest.raises(Refusal, match=r"auth\.feed_of_other"):
        acts.receive(by_agency(acts, "m-1", Sender="agency"))


def test_a_grant_to_stand_in_that_names_limits_covers_nothing(acts: Acts) -> None:
    """What is covered stands in the grant to push; a limit that nobody holds must not be believed, nor be granted."""
    with pytest.raises(Refusal, match=r"grant\.limits_not_of_action"):
        acts.trial.grant("agency", "on_behalf_of", "made-up", classes=["0101"])
    (whole,) = granted(acts, "agency", "on_behalf_of", "made-up")
    limited = msgspec.structs.replace(whole, classes=("0101",))
    agency = Principal("agency", "")
    assert may_sign_for(agency, "made-up", [whole], whole.valid_from) == whole
    with pytest.raises(Refusal, match=r"auth\.sender_mismatch"):
        may_sign_for(agency, "made-up", [limited], whole.valid_from)


def granted(acts: Acts, bureau: str, action: Action, target: str) -> tuple[Grant, ...]:
    """A grant as it stands once made."""
    acts.trial.grant(bureau, action, target)
    return acts.bus.registry.grants(bureau)


def test_nobody_reads_in_anothers_name(acts: Acts) -> None:
    let_agency_speak(acts)
    acts.receive(by_agency(acts, "m-1"))
    asked = acts.asking("GetReceipt", "r-1", "agency", Sender="made-up", DeliveryMessageId="m-1")
    with pytest.raises(Refusal, match=r"auth\.sender_mismatch"):
        asyncio.run(get_receipt(asked, "1.1", acts.bus))
    own = acts.asking("GetReceipt", "r-2", "agency", DeliveryMessageId="m-1")
    with pytest.raises(Refusal, match=r"delivery\.unknown"):
        asyncio.run(get_receipt(own, "1.1", acts.bus))
    asyncio.run(get_receipt(acts.asking("GetReceipt", "r-3", DeliveryMessageId="m-1"), "1.1", acts.bus))


def test_the_answer_to_who_signs_for_another_is_made_out_to_the_signer(acts: Acts) -> None:
    let_agency_speak(acts)
    answer = asyncio.run(submit_delivery(by_agency(acts, "m-1"), "1.1", acts.bus))
    assert answer.findtext(f"{YT}Recipient") == "agency"


def test_the_same_by_the_bureau_itself_gets_the_first_receipt_which_still_says_who_asserted_it(acts: Acts) -> None:
    let_agency_speak(acts)
    first = acts.receive(by_agency(acts, "m-1"))
    again = acts.push("m-1", covers("A"))
    assert (again.repeated, again.inbox.receipt) == (True, first.inbox.receipt)
    assert said(again.inbox.receipt)["asserted_by"] == "agency"


def test_signed_for_another_and_carried_by_a_third(acts: Acts) -> None:
    behalf, _ = let_agency_speak(acts)
    acts.trial.enrol("relay", "Relay", "中转单位")
    delivery = carried_by(by_agency(acts, "m-1"), acts, "relay")
    with pytest.raises(Refusal, match=r"auth\.carrier_mismatch"):
        acts.receive(delivery)
    for_sender = acts.trial.grant("relay", "carry", "made-up")
    with pytest.raises(Refusal, match=r"auth\.carrier_mismatch"):
        acts.receive(delivery)
    end_grant(acts, for_sender)
    carry = acts.trial.grant("relay", "carry", "agency")
    receipt = said(acts.receive(delivery).inbox.receipt)
    assert (receipt["carry_grant"], receipt["on_behalf_of_grant"]) == (carry, behalf)


def test_over_a_broker_one_signs_for_another_just_so(acts: Acts) -> None:
    _, push = let_agency_speak(acts)
    key = key_of(acts, "agency", "signing")
    receipt = said(acts.receive(acts.by_broker("m-1", covers("A"), key=key)).inbox.receipt)
    assert (receipt["sender"], receipt["asserted_by"], receipt["carrier"]) == ("made-up", "agency", "broker:test")
    assert receipt["grant"] == push
    assert "carry_grant" not in receipt, "a broker needs none"


def test_a_receipt_whose_stand_in_was_taken_away_no_longer_holds(acts: Acts) -> None:
    """By the bus's own key even: the entry commits to who asserted it."""
    from security.jws import sign_document

    let_agency_speak(acts)
    document = said(acts.receive(by_agency(acts, "m-1")).inbox.receipt)
    del document["asserted_by"]
    forged = sign_document(document, "yt-receipt+jws", acts.bus.answer_key)
    with pytest.raises(Refusal, match=r"asserted_by"):
        verify_receipt(forged, trusted.anchors_of(acts.trial.settings))


# --- evidence class --------------------------------------------------------------------------------------------------


def test_what_a_front_nodes_key_signed_is_fronted_in_entry_receipt_claim_and_for_ever(acts: Acts) -> None:
    front = enrol_key(acts, "front")
    received = acts.push("m-1", covers("A"), key=front)
    assert said(received.inbox.receipt)["evidence_class"] == "fronted"
    assert (last(acts, "delivery").detail or {})["evidence_class"] == "fronted"
    again = acts.push("m-1", covers("A"))
    assert (again.repeated, again.inbox.receipt) == (True, received.inbox.receipt), "signed later: still the first"
    process(FEED, acts.bus)
    assert claims_of(acts)[0].evidence_class == "fronted"
    assert said(acts.push("m-2", covers("B")).inbox.receipt)["evidence_class"] == "signed"


def test_no_key_but_the_bureaus_own_makes_a_delivery_signed(acts: Acts) -> None:
    """Over the broker too; and a key for connections makes none at all."""
    front, connection = enrol_key(acts, "front"), enrol_key(acts, "connection")
    received = acts.receive(acts.by_broker("m-1", covers("A"), key=front))
    assert received.inbox.evidence_class == "fronted"
    with pytest.raises(Refusal, match=r"auth\.certificate_not_for_signing"):
        acts.push("m-2", covers("A"), key=connection)


def test_a_front_node_of_the_agency_fronts_for_the_agency(acts: Acts) -> None:
    let_agency_speak(acts)
    key = enrol_key(acts, "front", "agency")
    delivery = carried_by(acts.delivery("m-1", covers("A"), key=key), acts, "agency")
    receipt = said(acts.receive(delivery).inbox.receipt)
    assert (receipt["evidence_class"], receipt["asserted_by"], receipt["sender"]) == ("fronted", "agency", "made-up")
