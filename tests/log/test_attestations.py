"""What witnesses and timestamp authorities say of a head: bytes as C2SP has them, and kept beside the log."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from exchange.attestations import Attestations, take_cosignatures
from exchange.entry import Entry
from security.anchors import Anchors
from security.cosignature import Witness, cosign, cosignatures, note_text, without_cosignatures
from security.errors import Refusal
from security.keys import SigningKey, generate
from security.timestamp import verify_timestamp
from tests.log.buses import JournalFolder

NOW = datetime(2026, 11, 28, 8, tzinfo=UTC)


def witness(name: str, key: SigningKey) -> Witness:
    assert isinstance(key.public_key, Ed25519PublicKey)
    return Witness(name, key.public_key.public_bytes_raw().hex())


def test_a_cosignature_is_over_the_text_and_the_time_and_names_its_witness(bus: JournalFolder) -> None:
    journal = bus.open()
    journal.note(Entry(type="read", outcome="answered")).result()
    checkpoint, key = journal.checkpoint(), generate("EdDSA")
    known = witness("witness.example", key)
    line = cosign(checkpoint, known.name, key, NOW)
    signed = checkpoint + line + "\n"
    assert [(one.witness, one.at) for one in cosignatures(signed, [known])] == [("witness.example", NOW)]
    assert bus.anchors.head(signed).size == 1, "other signatures leave the log's own alone"
    assert without_cosignatures(signed) == checkpoint
    altered = signed.replace(note_text(checkpoint), note_text(checkpoint).replace("\n1\n", "\n2\n"))
    with pytest.raises(Refusal, match=r"audit\.cosignature_invalid"):
        cosignatures(altered, [known])
    stranger = witness("witness.example", generate("EdDSA"))
    assert cosignatures(signed, [stranger]) == []


def test_heads_are_found_by_who_signed_them_and_when_they_were_stamped(bus: JournalFolder) -> None:
    journal = bus.open()
    for _ in range(3):
        journal.note(Entry(type="read", outcome="answered")).result()
    kept, key = Attestations(bus.database), generate("EdDSA")
    known = witness("w", key)
    second = kept.head(2)
    assert second is not None
    kept.keep_cosignatures(
        2, cosignatures(second.checkpoint + cosign(second.checkpoint, "w", key, NOW) + "\n", [known])
    )
    kept.keep_timestamp(3, b"token", NOW)
    found = (
        kept.cosigned(0, ["w"], 1),
        kept.cosigned(2, ["w"], 1),
        kept.cosigned(0, ["w"], 2),
        kept.stamped(1),
        kept.last_stamped(),
    )
    assert [head and head.size for head in found] == [2, None, None, 3, 3]
    assert found[0] is not None
    assert [one.witness for one in cosignatures(found[0].checkpoint, [known])] == ["w"]
    kept.close()


def test_a_head_waits_for_further_witnesses_an_hour_and_by_no_clock_that_is_wrong(bus: JournalFolder) -> None:
    journal = bus.open()
    for _ in range(3):
        journal.note(Entry(type="read", outcome="answered")).result()
    kept, hour = Attestations(bus.database), timedelta(hours=1)
    keys = {name: generate("EdDSA") for name in ("a", "b", "c")}
    known = [witness(name, key) for name, key in keys.items()]

    def signs(name: str, size: int, at: datetime) -> None:
        head = kept.head(size)
        assert head is not None
        take_cosignatures(head.checkpoint + cosign(head.checkpoint, name, keys[name], at) + "\n", anchors, kept, at)

    def waiting(now: datetime, quorum: int = 2) -> int | None:
        head = kept.waiting(["a", "b", "c"], quorum, now - hour, now + hour)
        return head.size if head else None

    anchors = msgspec.structs.replace(bus.anchors, witnesses=known, quorum=2)
    assert waiting(NOW) is None
    signs("a", 1, NOW)
    assert [waiting(NOW), waiting(NOW + hour), waiting(NOW + 2 * hour), waiting(NOW, quorum=1)] == [1, 1, None, None]
    signs("b", 1, NOW)
    assert waiting(NOW) is None, "it has enough"
    signs("c", 2, NOW + timedelta(days=1))
    assert waiting(NOW) is None, "a witness whose clock is a day ahead holds nobody up"
    newest = kept.newest_cosigned(["a", "b", "c"], 2)
    assert newest is not None
    assert (newest.size, newest.witnesses) == (1, ("a", "b"))
    assert kept.newest_cosigned(["a", "c"], 2) is None, "who is no witness any more does not count"
    kept.close()


def test_published_timestamp_responses_hold_for_their_octets_and_no_others(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("timestamps")
    pems = (folder / "ts_chain.pem").read_text().split("-----END CERTIFICATE-----")
    anchors = Anchors(
        "o", "00" * 32, [], timestamp_certificates=[f"{pem}-----END CERTIFICATE-----" for pem in pems[:-1]]
    )
    roots = anchors.timestamp_roots
    for name in ("sha256", "sha384", "sha512"):
        response = (folder / f"response-{name}.tsr").read_bytes()
        assert verify_timestamp(response, b"hello", roots).year >= 2025
        with pytest.raises(Refusal, match=r"timestamp\.invalid"):
            verify_timestamp(response, b"hellp", roots)
        with pytest.raises(Refusal, match=r"timestamp\.invalid"):
            verify_timestamp(response, b"hello", [])
    for name in ("invalid-signature", "no-embedded-cert"):
        with pytest.raises(Refusal, match=r"timestamp\.invalid"):
            verify_timestamp((folder / f"response-{name}.tsr").read_bytes(), b"hello", roots)
