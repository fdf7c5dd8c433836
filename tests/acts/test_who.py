"""Whose connection, whose signature, for whom: and under whose name a refusal stands in the audit."""

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from connectors.partner.folder import PartnerFolder
from exchange.entry import LoggedEntry
from exchange.http.operations import get_receipt, get_report
from security.errors import Refusal
from security.keys import SigningKey
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acts]:
    with both_acts(tmp_path_factory.mktemp("who")) as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.trial.enrol("water", "Water bureau", "水务局")
        acts.push("m-1", covers("A"))
        yield acts


def refused(acts: Acts) -> LoggedEntry:
    return acts.bus.journal.search(type="refusal", limit=1)[0]


def certificate(acts: Acts, bureau: str, use: str) -> SigningKey:
    path = PartnerFolder(acts.trial.partners / bureau).path
    return SigningKey.load(path / f"{use}.key", certificate_path=path / f"{use}.pem")


@pytest.mark.parametrize("recipient", ["another.bus.example", "yongtong.demo.invali", "YONGTONG.demo.invalid"])
def test_what_was_signed_for_another_bus_is_refused(acts: Acts, recipient: str) -> None:
    with pytest.raises(Refusal, match=r"auth\.wrong_recipient"):
        acts.receive(acts.delivery("m-2", covers("A"), Recipient=recipient))
    leaf = refused(acts).leaf
    assert (leaf.outcome, leaf.sender) == ("auth.wrong_recipient", "made-up"), "its signature held"


def test_another_bureaus_connection_carries_nothing(acts: Acts) -> None:
    """Without a grant to carry the answer is no, to either bureau; with one: `test_standing_in`."""
    water = certificate(acts, "water", "connection")
    carried = msgspec.structs.replace(acts.delivery("m-2", covers("A")), carrier_der=water.certificate_der)
    with pytest.raises(Refusal, match=r"auth\.carrier_mismatch"):
        acts.receive(carried)
    entry = refused(acts)
    assert (entry.leaf.carrier, entry.leaf.sender, entry.leaf.signer) == (water.fingerprint, "", "")
    assert entry.detail is not None
    assert entry.detail["claimed_sender"] == "made-up", "claimed only: it is not among that bureau's entries"


def test_a_bureaus_signing_certificate_on_the_connection_is_the_same_principal(acts: Acts) -> None:
    signing = certificate(acts, "made-up", "signing")
    carried = msgspec.structs.replace(acts.delivery("m-3", covers("A")), carrier_der=signing.certificate_der)
    assert acts.receive(carried).inbox.carrier == signing.fingerprint


def test_a_connection_key_signs_nothing(acts: Acts) -> None:
    with pytest.raises(Refusal, match=r"auth\.certificate_not_for_signing"):
        acts.push("m-4", covers("A"), key=certificate(acts, "made-up", "connection"))


def test_rights_are_the_signers_alone(acts: Acts) -> None:
    """Signed by water in its own name for the feed of made-up: that made-up holds a grant is nothing to it."""
    key = certificate(acts, "water", "signing")
    delivery = acts.delivery("m-5", covers("A"), key=key, Sender="water")
    carrier = certificate(acts, "water", "connection").certificate_der
    with pytest.raises(Refusal, match=r"auth\.feed_of_other"):
        acts.receive(msgspec.structs.replace(delivery, carrier_der=carrier))
    with pytest.raises(Refusal, match=r"auth\.carrier_mismatch"):
        acts.push("m-5", covers("A"), key=key)
    with pytest.raises(Refusal, match=r"auth\.sender_mismatch"):
        acts.receive(msgspec.structs.replace(acts.delivery("m-5", covers("A"), key=key), carrier_der=carrier))


@pytest.mark.parametrize("operation", [get_receipt, get_report])
def test_nobody_is_told_of_anothers_delivery(acts: Acts, operation: object) -> None:
    name = "GetReceipt" if operation is get_receipt else "GetReport"
    call = get_receipt if operation is get_receipt else get_report
    ours = acts.asking(name, f"r-{name}", DeliveryMessageId="m-1")
    asyncio.run(call(ours, "1.1", acts.bus))
    with pytest.raises(Refusal, match=r"delivery\.unknown"):
        asyncio.run(call(acts.asking(name, f"r-{name}", "water", DeliveryMessageId="m-1"), "1.1", acts.bus))
    with pytest.raises(Refusal, match=r"delivery\.unknown"):
        asyncio.run(call(acts.asking(name, f"n-{name}", DeliveryMessageId="m-none"), "1.1", acts.bus))
