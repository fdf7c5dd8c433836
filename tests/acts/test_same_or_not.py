"""A delivery is (sender, message id): the same again gets the same receipt, whoever asks when and with which key."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from exchange.app import keys_in_force, opening
from exchange.cli.people import registry
from exchange.cli.trial import PROPOSER
from exchange.processing import process
from exchange.registry import Bureau
from security import pki
from security.errors import Refusal
from security.keys import SigningKey, generate
from tests.acts.bench_of_one import FEED, Acts, at, both_acts, covers


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


def rolled(acts: Acts) -> SigningKey:
    """A new signing key of the bureau; the old certificate is revoked."""
    key, now = generate("ES256"), acts.bus.clock()
    ca = keys_in_force.authority(acts.trial.settings)
    der = pki.issue(ca, "made-up", key.public_key, "signing", now - timedelta(days=1), now + timedelta(days=1))
    with registry(acts.trial.settings) as opened:
        acts.trial.enrol_with(Bureau("made-up", "", "", ""), [pki.enrolled(der, "made-up", "signing")])
        opened.revoke_certificate(acts.folder.signing.fingerprint, PROPOSER)
    return key.with_certificate(der)


def test_retries_that_arrive_together_are_one_delivery(acts: Acts) -> None:
    """Small and large: the large ones are checked in threads, at once."""
    for message_id, count in (("m-1", 3), ("m-2", 6000)):
        arrived = [acts.delivery(message_id, covers("A", count)) for _ in range(8)]
        received = acts.receive_all(*arrived)
        assert len({one.inbox.receipt for one in received}) == 1
        assert sum(not one.repeated for one in received) == 1
    assert len(acts.bus.journal.search(type="delivery")) == 2


def test_of_two_contents_that_arrive_together_under_one_id_one_is_taken(acts: Acts) -> None:
    with pytest.raises(Refusal, match=r"delivery\.id_reused"):
        acts.receive_all(acts.delivery("m-1", covers("A")), acts.delivery("m-1", covers("B")))
    assert len(acts.bus.journal.search(type="delivery")) == 1


@pytest.mark.parametrize("spoiled", [{"ContentType": "text/plain"}, {"Feed": "other"}], ids=["content type", "feed"])
def test_the_same_content_as_something_else_is_not_the_same(acts: Acts, spoiled: dict[str, str]) -> None:
    acts.trial.release("other", acts.bus.feeds[FEED].digest)
    feeds = {**acts.bus.feeds, "other": msgspec.structs.replace(acts.bus.feeds[FEED], id="other")}
    acts.trial.grant("made-up", "push", "other")
    acts = acts.with_(feeds=feeds, feed_digests={id: feed.digest for id, feed in feeds.items()})
    acts.push("m-1", covers("A"))
    with pytest.raises(Refusal, match=r"delivery\.id_reused"):
        acts.receive(acts.delivery("m-1", covers("A"), **spoiled))


def test_a_retry_under_a_rolled_certificate_gets_the_first_receipt(acts: Acts) -> None:
    first = acts.push("m-1", covers("A"))
    key = rolled(acts)
    again = acts.push("m-1", covers("A"), key=key)
    assert (again.repeated, again.inbox.receipt) == (True, first.inbox.receipt)
    assert again.inbox.signer != key.fingerprint, "the receipt names who signed it first"
    with pytest.raises(Refusal, match=r"auth\.certificate_revoked"):
        acts.push("m-1", covers("A"))
    assert process(FEED, acts.bus) == 1, "what was signed before the roll is processed after it"


def test_a_retry_keeps_no_further_evidence(acts: Acts) -> None:
    received = acts.push("m-1", covers("A", 2000))
    files = list(acts.evidence(received).parent.iterdir())
    for _ in range(3):
        acts.push("m-1", covers("A", 2000))
    assert list(acts.evidence(received).parent.iterdir()) == files


def test_ids_are_kept_as_long_as_receipts(acts: Acts) -> None:
    """After act two, a restart, a month: the one receipt for the same, and a refusal for anything else."""
    first = acts.push("m-1", covers("A")).inbox.receipt
    assert process(FEED, acts.bus) == 1
    acts.bus.close()
    with closing(opening.open_bus(acts.trial.settings)) as bus:
        again = Acts(acts.trial, bus)
        assert again.push("m-1", covers("A")).inbox.receipt == first
        with pytest.raises(Refusal, match=r"delivery\.id_reused"):
            again.push("m-1", covers("B"))
        last_day = datetime.fromisoformat(f"{bus.registry.grants('made-up')[0].valid_until}T12:00:00+08:00")
        then = again.with_(clock=at(last_day))
        assert then.push("m-1", covers("A")).inbox.receipt == first
        with pytest.raises(Refusal, match=r"delivery\.id_reused"):
            then.push("m-1", covers("B"))


def test_a_stale_envelope_is_refused_even_if_its_id_is_known(acts: Acts) -> None:
    delivery = acts.delivery("m-1", covers("A"))
    acts.receive(delivery)
    later = acts.with_(clock=at(datetime.now(UTC) + timedelta(minutes=10, seconds=5)))
    with pytest.raises(Refusal, match=r"signature\.stale"):
        later.receive(delivery)


def test_without_a_grant_no_more_is_told_not_even_to_a_retry(acts: Acts) -> None:
    """The receipt is to be had for ever by GetReceipt, which needs no grant; a push needs one each time."""
    acts.push("m-1", covers("A"))
    (grant,) = acts.bus.registry.grants("made-up")
    with registry(acts.trial.settings) as opened:
        opened.revoke_grant(grant.id, PROPOSER)
    with pytest.raises(Refusal, match=r"auth\.no_grant"):
        acts.push("m-1", covers("A"))
    assert acts.bus.journal.receipt("made-up", "m-1") is not None


def test_a_grant_ends_at_midnight_of_plus_eight(acts: Acts) -> None:
    (grant,) = acts.bus.registry.grants("made-up")
    midnight = datetime.fromisoformat(f"{grant.valid_until}T16:00:00+00:00")
    acts.with_(clock=at(midnight - timedelta(microseconds=1))).push("m-1", covers("A"))
    with pytest.raises(Refusal, match=r"auth\.grant_not_in_force"):
        acts.with_(clock=at(midnight)).push("m-2", covers("B"))
