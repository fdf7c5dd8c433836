"""A delivery in a CMS that a broker hands over: the same story as a JWS, but that the key is SM2."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from exchange.app import keys_in_force, trusted
from exchange.processing import process
from exchange.receipts import verify_receipt
from security.batch import unverified
from security.errors import AuditBroken, Refusal
from security.keys import SigningKey, generate
from security.message import Principal, in_memory
from security.pki import issue
from security.signatures import open_signed, reopen_signed
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers


@pytest.fixture
def acts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acts]:
    with both_acts(tmp_path_factory.mktemp("cms")) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


@pytest.fixture
def key(acts: Acts) -> SigningKey:
    return acts.more_key("SM2")


def document(octets: bytes | None) -> dict[str, Any]:
    assert octets is not None
    said: dict[str, Any] = unverified(octets)
    return said


def test_a_receipt_says_that_a_cms_came_and_holds_and_act_two_takes_it_out_again(acts: Acts, key: SigningKey) -> None:
    received = acts.receive(acts.by_broker("m-1", covers("A", 4), key=key))
    said = document(received.inbox.receipt)
    assert (said["carrier"], said["form"], said["signer"]) == ("broker:test", "cms", key.fingerprint)
    assert verify_receipt(received.inbox.receipt or b"", trusted.anchors_of(acts.trial.settings)).kind == "receipt"
    assert process(FEED, acts.bus) == 1
    assert document(acts.bus.journal.report("made-up", "m-1"))["report"]["new"] == 4


def test_the_same_by_soap_and_by_a_cms_gets_the_same_receipt(acts: Acts, key: SigningKey) -> None:
    receipt = acts.receive(acts.by_broker("m-1", covers("A"), key=key)).inbox.receipt
    for again in (acts.by_broker("m-1", covers("A"), key=key), acts.by_broker("m-1", covers("A")),
                  acts.delivery("m-1", covers("A"))):  # fmt: skip
        received = acts.receive(again)
        assert (received.repeated, received.inbox.receipt) == (True, receipt)


def test_another_cms_of_the_same_content_is_not_the_one_that_was_accepted(acts: Acts, key: SigningKey) -> None:
    first, second = (acts.by_broker("m-1", covers("A"), key=key).envelope for _ in range(2))
    accepted = open_signed(first)
    said: Any = {"expected": in_memory(covers("A")).digest, "request_digest": accepted.signature_digest}
    said["signer"] = Principal("made-up", key.fingerprint)
    assert reopen_signed(first, **said).content.read() == covers("A")
    for octets in (second, first[:-1], b"0"):
        with pytest.raises(AuditBroken):
            reopen_signed(octets, **said)


@pytest.mark.parametrize(
    "code, spoilt",
    [
        ("mqtt.qos_zero", {"qos": 0}),
        ("mqtt.retained", {"retained": True}),
        ("mqtt.feed_of_topic", {"topic_feed": "another-feed"}),
        ("auth.wrong_recipient", {"recipient": "another.bus.example"}),
        ("feed.unknown", {"feed": "no-such-feed"}),
        ("auth.sender_mismatch", {"sender": "water"}),
        ("signature.stale", {"ago": timedelta(days=7, minutes=1)}),
        ("signature.future", {"ago": -timedelta(minutes=6)}),
    ],
)
def test_a_signer_is_refused_by_name(acts: Acts, key: SigningKey, code: str, spoilt: Any) -> None:
    said = {**spoilt, "signed_at": acts.bus.clock() - spoilt["ago"]} if "ago" in spoilt else spoilt
    with pytest.raises(Refusal) as refused:
        acts.receive(acts.by_broker("m-1", covers("A"), key=key, **{k: v for k, v in said.items() if k != "ago"}))
    (entry,) = acts.bus.journal.search(type="refusal")
    assert (refused.value.code, entry.leaf.outcome, entry.leaf.signer) == (code, code, key.fingerprint)


def test_a_stranger_hears_nothing(acts: Acts, key: SigningKey) -> None:
    """Not enrolled, altered, no CMS at all: for each the same words."""
    now = acts.bus.clock()
    stranger = generate("SM2")
    year = timedelta(days=365)
    der = issue(
        keys_in_force.authority(acts.trial.settings), "x", stranger.public_key, "signing", now - year, now + year
    )
    right = acts.by_broker("m-1", covers("A"), key=key).envelope
    unknown = acts.by_broker("m-1", covers("A"), key=stranger.with_certificate(der)).envelope
    for octets in (unknown, right[:-1] + bytes([right[-1] ^ 1]), right[:-1], b"0", b"0\x80" + right):
        with pytest.raises(Refusal, match=r"auth\.refused"):
            acts.receive(acts.handed_over(octets))
    assert acts.bus.journal.inbox("made-up", "m-1") is None
