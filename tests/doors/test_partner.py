"""The partner believes nothing that it has not checked, and remembers the log it has seen."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from lxml import etree
from starlette.types import ASGIApp

from connectors.partner.counter import Counter
from connectors.partner.folder import PartnerFolder
from connectors.partner.heads import Consistency, Heads
from connectors.partner.partner import Partner
from connectors.partner.rest import asked as asked_rest
from connectors.partner.rest import session_of
from connectors.transports.soap_client import Wsse
from exchange.entry import CITY_TIME
from exchange.http.app import make_app
from exchange.receipts import verify_receipt
from security import merkle
from security.checkpoint import sign_checkpoint
from security.errors import Misconfigured, Refusal, Unavailable
from security.fork import open_fork
from security.keys import SigningKey, generate
from security.message import in_memory
from security.wss import sign
from security.xml import read_own
from tests.doors.bus import ORIGIN, TestBus
from tests.doors.conftest import City, Running

CSV = b"id\n1\n"


class Log:
    """A log of made-up leaves, its heads and proofs."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.key = generate("EdDSA")
        self.hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
        self._nodes = {(level, index): value for level, index, value in merkle.grow(0, [], self.hashes)}

    def head(self, size: int) -> str:
        return sign_checkpoint(ORIGIN, size, merkle.root_of(self.hashes[:size]), self.key)

    def proof(self, first: int, second: int) -> Consistency:
        nodes = merkle.consistency_proof(lambda level, index: self._nodes[level, index], first, second)
        return Consistency(first, second, nodes)


@pytest.fixture
def test_bus(tmp_path: Path, city: City) -> Iterator[TestBus]:
    test = TestBus(tmp_path, city)
    yield test
    test.bus.close()


@pytest.fixture
def folder(test_bus: TestBus) -> PartnerFolder:
    return test_bus.bureau("water")


def watching(folder: PartnerFolder, log: Log) -> Heads:
    """Heads of a partner whose anchors name this log."""
    anchors = msgspec.structs.replace(folder.anchors, log_key=_hex(log.key))
    (folder.path / "anchors.json").write_bytes(msgspec.json.encode(anchors))
    return Heads(folder, lambda: datetime.now(UTC))


def _hex(key: SigningKey) -> str:
    from security.checkpoint import log_key_octets

    return log_key_octets(key.public_key).hex()


def test_the_first_head_is_taken_and_a_later_one_with_its_proof(folder: PartnerFolder) -> None:
    log = Log([b"%d" % i for i in range(9)])
    heads = watching(folder, log)
    assert heads.known_size() == 0
    heads.follow(log.head(4), None)
    heads.follow(log.head(9), log.proof(4, 9))
    assert heads.known_size() == 9
    assert Heads(folder, lambda: datetime.now(UTC)).known_size() == 9, "it is remembered on disk"


def test_an_older_head_is_taken_with_its_proof_and_the_newer_stays_remembered(folder: PartnerFolder) -> None:
    log = Log([b"%d" % i for i in range(9)])
    heads = watching(folder, log)
    heads.follow(log.head(9), None)
    heads.follow(log.head(4), log.proof(4, 9))
    assert heads.known_size() == 9


def test_a_shortened_log_offered_as_the_newest_is_found_out_even_with_its_proof(folder: PartnerFolder) -> None:
    """The operator cuts the log, and kept the proof between the two heads before."""
    log = Log([b"%d" % i for i in range(9)])
    heads = watching(folder, log)
    heads.follow_newest(log.head(9), None, 0)
    for size in (4, 8):
        with pytest.raises(Refusal, match=r"audit\.log_truncated"):
            heads.follow_newest(log.head(size), log.proof(size, 9), heads.known_size())
    assert heads.known_size() == 9
    kept = sorted((folder.path / "forks").iterdir())
    assert [(path / "remembered.checkpoint").read_text() for path in kept] == [log.head(9)] * 2
    # Somebody else of this bureau learned of a larger head after this was asked: no log was cut.
    heads.follow_newest(log.head(8), log.proof(8, 9), 8)


def test_a_bus_that_answers_with_an_earlier_head_and_its_proof_is_found_out(
    start: Callable[[ASGIApp], Running],
    folder: PartnerFolder,
    test_bus: TestBus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its own door, with a head that it signed before, and the proof that both are of one log."""
    test_bus.registry.grant("water", "push", "covers")
    running = start(make_app(test_bus.bus, tmp_path / "spool"))
    partner = Partner(folder, f"https://localhost:{running.port}", partial(verify_receipt, anchors=test_bus.anchors))
    partner.push("covers", in_memory(CSV), "text/csv", "m-1")
    earlier, text = partner.checkpoint(), folder.remembered()
    partner.push("covers", in_memory(CSV), "text/csv", "m-2")
    assert partner.checkpoint().size > earlier.size
    monkeypatch.setattr(test_bus.bus.journal, "checkpoint", lambda: text)
    with pytest.raises(Refusal, match=r"audit\.log_truncated"):
        partner.checkpoint()
    running.stop()


def test_a_head_over_no_entries_with_a_made_up_root_is_refused(folder: PartnerFolder) -> None:
    log = Log([b"a"])
    heads = watching(folder, log)
    made_up = sign_checkpoint(folder.anchors.origin, 0, b"\1" * 32, log.key)
    for known in (0, 1):
        with pytest.raises(Refusal, match=r"audit\.checkpoint_invalid"):
            heads.follow(made_up, None)
        assert heads.known_size() == known
        heads.follow(log.head(1), None)


def test_a_fork_is_refused_and_both_heads_are_kept(folder: PartnerFolder) -> None:
    log = Log([b"%d" % i for i in range(9)])
    forked = Log([b"%d" % i for i in range(3)] + [b"rewritten"] + [b"%d" % i for i in range(4, 9)])
    forked.key = log.key
    heads = watching(folder, log)
    heads.follow(log.head(4), None)
    with pytest.raises(Refusal, match=r"audit\.log_forked"):
        heads.follow(forked.head(9), forked.proof(4, 9))
    (kept,) = (folder.path / "forks").iterdir()
    assert (kept / "remembered.checkpoint").read_text() == log.head(4)
    assert (kept / "offered.checkpoint").read_text() == forked.head(9)
    assert heads.known_size() == 4


def test_what_a_partner_keeps_of_a_fork_proves_it_by_itself(folder: PartnerFolder) -> None:
    log = Log([b"%d" % i for i in range(9)])
    forked = Log([b"%d" % i for i in range(3)] + [b"rewritten"] + [b"%d" % i for i in range(4, 9)])
    forked.key = log.key
    heads = watching(folder, log)
    heads.follow(log.head(5), None)
    for offered, proof in ((forked.head(9), forked.proof(5, 9)), (forked.head(5), None)):
        with pytest.raises(Refusal, match=r"audit\.log_forked"):
            heads.follow(offered, proof)
    with pytest.raises(Refusal, match=r"audit\.log_forked"):
        heads.take_unproven(forked.head(5))
    kept = [(path / "fork.json").read_bytes() for path in sorted((folder.path / "forks").iterdir())]
    assert [open_fork(octets, folder.anchors).second.size for octets in kept] == [9, 5, 5]


@pytest.mark.parametrize("first, second", [(3, 9), (4, 8)])
def test_a_head_without_the_proof_between_the_two_is_refused(folder: PartnerFolder, first: int, second: int) -> None:
    log = Log([b"%d" % i for i in range(9)])
    heads = watching(folder, log)
    heads.follow(log.head(4), None)
    for proof in (None, log.proof(first, second)):
        with pytest.raises(Refusal, match=r"audit\.log_forked"):
            heads.follow(log.head(9), proof)


def test_two_heads_of_one_size_must_be_one_head(folder: PartnerFolder) -> None:
    log, other = Log([b"a", b"b"]), Log([b"a", b"c"])
    other.key = log.key
    heads = watching(folder, log)
    heads.follow(log.head(2), None)
    heads.follow(log.head(2), None)
    with pytest.raises(Refusal, match=r"audit\.log_forked"):
        heads.follow(other.head(2), None)


def test_a_head_signed_by_another_key_is_refused(folder: PartnerFolder) -> None:
    with pytest.raises(Refusal, match=r"audit\.checkpoint_invalid"):
        watching(folder, Log([b"a"])).follow(Log([b"a"]).head(1), None)


def test_private_keys_are_readable_by_their_owner_alone(folder: PartnerFolder) -> None:
    for name in ("signing.key", "connection.key"):
        assert (folder.path / name).stat().st_mode & 0o077 == 0


def test_a_missing_file_is_named(folder: PartnerFolder) -> None:
    (folder.path / "anchors.json").unlink()
    with pytest.raises(Misconfigured, match=r"anchors\.json"):
        _ = folder.anchors


def test_a_bus_that_does_not_answer_is_unavailable(folder: PartnerFolder, test_bus: TestBus) -> None:
    check = partial(verify_receipt, anchors=test_bus.anchors)
    with pytest.raises(Unavailable):
        Partner(folder, "https://127.0.0.1:1", check).push("covers", in_memory(CSV), "text/csv", "m-1")


def answer(key: SigningKey, digest: str) -> etree._Element:
    soap, yt = "http://schemas.xmlsoap.org/soap/envelope/", "urn:yongtong:v1"
    envelope = etree.Element(f"{{{soap}}}Envelope", nsmap={"s": soap})
    response = etree.SubElement(etree.SubElement(envelope, f"{{{soap}}}Body"), f"{{{yt}}}GetReportResponse")
    reply = etree.SubElement(response, f"{{{yt}}}InReplyTo")
    etree.SubElement(reply, f"{{{yt}}}RequestSignature").text = digest
    assert key.certificate_der is not None
    created = datetime.now(UTC)
    return read_own(sign(envelope, key, key.certificate_der, created=created, expires=created + timedelta(minutes=5)))


@pytest.fixture
def wsse(folder: PartnerFolder) -> Wsse:
    key = folder.signing
    assert key.certificate_der is not None
    plugin = Wsse(key, key.certificate_der, folder.answerers(), lambda: datetime.now(UTC))
    plugin.request_digest = "ab" * 32
    return plugin


def test_an_answer_of_the_bus_to_this_request_is_taken(wsse: Wsse, test_bus: TestBus) -> None:
    wsse.verify(answer(test_bus.bus.answer_key, "ab" * 32))


def test_an_answer_to_another_request_is_refused(wsse: Wsse, test_bus: TestBus) -> None:
    with pytest.raises(Refusal, match=r"answer\.not_signed"):
        wsse.verify(answer(test_bus.bus.answer_key, "cd" * 32))


def test_an_answer_signed_by_anybody_else_is_refused(wsse: Wsse, folder: PartnerFolder) -> None:
    with pytest.raises(Refusal, match=r"answer\.not_signed"):
        wsse.verify(answer(folder.signing, "ab" * 32))


def test_an_altered_answer_is_refused(wsse: Wsse, test_bus: TestBus) -> None:
    envelope = answer(test_bus.bus.answer_key, "ab" * 32)
    envelope[1][0].append(etree.Element("{urn:yongtong:v1}Status"))
    with pytest.raises(Refusal, match=r"signature\.invalid"):
        wsse.verify(envelope)


def test_an_answer_without_a_signature_is_refused(wsse: Wsse, test_bus: TestBus) -> None:
    envelope = answer(test_bus.bus.answer_key, "ab" * 32)
    envelope.remove(envelope[0])
    with pytest.raises(Refusal):
        wsse.verify(envelope)


def test_only_a_fault_in_the_body_may_come_unsigned(wsse: Wsse, test_bus: TestBus) -> None:
    soap = "{http://schemas.xmlsoap.org/soap/envelope/}"
    fault = etree.fromstring(f'<s:Envelope xmlns:s="{soap[1:-1]}"><s:Body><s:Fault/></s:Body></s:Envelope>')
    wsse.verify(fault)
    for place in (0, 1):
        envelope = answer(test_bus.bus.answer_key, "ab" * 32)
        envelope[0].clear()
        etree.SubElement(envelope[place], f"{soap}Fault")
        with pytest.raises(Refusal):
            wsse.verify(envelope)


@pytest.mark.parametrize("digest, taken", [("ab" * 32, True), ("", True), ("cd" * 32, False)])
def test_a_signed_fault_that_answers_another_request_is_refused(
    wsse: Wsse, test_bus: TestBus, digest: str, taken: bool
) -> None:
    """One that names none is heard: the bus may not have been able to read the request."""
    soap, yt = "http://schemas.xmlsoap.org/soap/envelope/", "urn:yongtong:v1"
    envelope = etree.Element(f"{{{soap}}}Envelope", nsmap={"s": soap})
    fault = etree.SubElement(etree.SubElement(envelope, f"{{{soap}}}Body"), f"{{{soap}}}Fault")
    if digest:
        etree.SubElement(fault, f"{{{yt}}}RequestSignature").text = digest
    key, created = test_bus.bus.answer_key, datetime.now(UTC)
    signed = sign(envelope, key, key.certificate_der or b"", created=created, expires=created + timedelta(minutes=5))
    if taken:
        wsse.verify(read_own(signed))
    else:
        with pytest.raises(Refusal, match=r"answer\.not_signed"):
            wsse.verify(read_own(signed))


def test_a_bus_whose_log_has_shrunk_is_found_out(
    start: Callable[[ASGIApp], Running], folder: PartnerFolder, test_bus: TestBus, tmp_path: Path
) -> None:
    """The operator restores an old copy: entries that the partner has seen are gone."""
    test_bus.registry.grant("water", "push", "covers")
    running = start(make_app(test_bus.bus, tmp_path / "spool"))
    check = partial(verify_receipt, anchors=test_bus.anchors)
    seen = Log([b"%d" % i for i in range(50)])
    seen.key = test_bus.log_key
    folder.remember(seen.head(50))
    with pytest.raises(Refusal, match=r"audit\.log_truncated"):
        Partner(folder, f"https://localhost:{running.port}", check).push("covers", in_memory(CSV), "text/csv", "m-1")
    assert not (folder.path / "receipts").exists()
    running.stop()


def pushing(test_bus: TestBus, folder: PartnerFolder, running: Running) -> Callable[..., int | None]:
    """Push a content; the number that its receipt says."""
    check = partial(verify_receipt, anchors=test_bus.anchors)
    partner = Partner(folder, f"https://localhost:{running.port}", check, upload_above_bytes=100_000)

    def push(message_id: str, octets: bytes = CSV) -> int | None:
        return partner.push("covers", in_memory(octets), "text/csv", message_id).document.get("sequence")

    return push


def test_a_partner_numbers_what_it_sends_and_a_retry_keeps_its_number(
    start: Callable[[ASGIApp], Running], folder: PartnerFolder, test_bus: TestBus, tmp_path: Path
) -> None:
    test_bus.registry.grant("water", "push", "covers")
    running = start(make_app(test_bus.bus, tmp_path / "spool"))
    push = pushing(test_bus, folder, running)
    assert [push(id) for id in ("m-1", "m-2", "m-1")] == [1, 2, 1]
    # Number 3 was written down, and the process died before it sent: it is sent under that number.
    assert Counter(folder).number("covers", "m-3") == 3
    assert [push("m-4"), push("m-3"), push("large", b"x" * 150_000)] == [4, 3, 5]
    with pytest.raises(Refusal, match=r"delivery\.id_reused"):
        push("m-4", b"other")
    assert test_bus.bus.journal.gaps().gaps == ()
    running.stop()


def test_a_counter_that_was_put_back_goes_on_above_all_that_are_used(
    start: Callable[[ASGIApp], Running], folder: PartnerFolder, test_bus: TestBus, tmp_path: Path
) -> None:
    test_bus.registry.grant("water", "push", "covers")
    running = start(make_app(test_bus.bus, tmp_path / "spool"))
    push = pushing(test_bus, folder, running)
    push("m-1")
    backup = (folder.path / "sequences.sqlite").read_bytes()
    assert [push(f"m-{n}") for n in range(2, 6)] == [2, 3, 4, 5]
    (folder.path / "sequences.sqlite").write_bytes(backup)
    assert [push("m-6"), push("m-7"), push("m-3")] == [6, 7, 3]
    refused = test_bus.bus.journal.search(type="refusal", outcome="sequence.used")
    assert len(refused) == 1, "once, and not for each"
    running.stop()


def test_a_number_under_which_the_bus_refused_is_the_next_one_s(
    start: Callable[[ASGIApp], Running], folder: PartnerFolder, test_bus: TestBus, tmp_path: Path
) -> None:
    running = start(make_app(test_bus.bus, tmp_path / "spool"))
    push = pushing(test_bus, folder, running)
    for _ in range(2):
        with pytest.raises(Refusal, match=r"auth\.no_grant"):
            push("too-early")
    test_bus.registry.grant("water", "push", "covers")
    assert [push("m-2"), push("too-early")] == [1, 2]
    assert test_bus.bus.journal.gaps().gaps == ()
    running.stop()


def test_a_bureau_asks_for_its_own_gaps_and_account_over_rest(
    start: Callable[[ASGIApp], Running], folder: PartnerFolder, test_bus: TestBus, tmp_path: Path
) -> None:
    test_bus.registry.grant("water", "push", "covers")
    running = start(make_app(test_bus.bus, tmp_path / "spool"))
    push = pushing(test_bus, folder, running)
    Counter(folder).number("covers", "lost on the way")
    assert push("m-2") == 2
    power = test_bus.bureau("power")
    day = datetime.now(CITY_TIME).date().isoformat()

    def asked(of: PartnerFolder, path: str, **query: str) -> dict[str, Any]:
        url = f"https://localhost:{running.port}/api/v1/{path}"
        return json.loads(asked_rest(session_of(of), "GET", url, params=query))  # type: ignore[no-any-return]

    said = asked(folder, "deliveries/gaps", feed="covers")
    assert [(gap["first"], gap["last"], gap["missing"]) for gap in said["gaps"]] == [(1, 1, 1)]
    assert said["counted"] == [{"feed": "covers", "highest": 2, "received": 1}]
    (row,) = asked(folder, "account", day=day)["rows"]
    assert (row["deliveries"]["received"], row["deliveries"]["waiting"], row["balanced"]) == (1, 1, True)
    assert asked(power, "deliveries/gaps")["gaps"] == asked(power, "account", day=day)["rows"] == []
    for wrong in ({}, {"day": "yesterday"}):
        with pytest.raises(Refusal, match=r"http\.parameter"):
            asked(folder, "account", **wrong)
    running.stop()
