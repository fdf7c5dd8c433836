"""Enrolment and grants: two persons, an entry for each change, and every process sees it at once."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from exchange.audit import verify
from exchange.journal import Journal
from exchange.registry import Bureau, Officer, Registry
from security import pki
from security.errors import Refusal
from security.keys import generate
from security.message import EnrolledCertificate, Use
from tests.log.buses import NOON, JournalFolder

WATER = Bureau("water", "Water Bureau", "水务局", "supplier")
LI = Officer("李雷", "operator")
HAN = Officer("韩梅梅", "city-management")
CA = pki.make_ca("city CA", NOON)


def a_certificate(bureau: str, use: Use = "signing") -> EnrolledCertificate:
    until = NOON + timedelta(days=365)
    return pki.enrolled(pki.issue(CA, bureau, generate("ES256").public_key, use, NOON, until), bureau, use)


@pytest.fixture
def opened(bus: JournalFolder) -> Iterator[tuple[Journal, Registry]]:
    journal = bus.open()
    registry = Registry(bus.folder, journal, lambda: datetime.now(UTC))
    yield journal, registry
    registry.close()
    journal.close()
    assert verify(bus.folder, bus.anchors).problems == []


def proposed(registry: Registry, by: Officer = LI, bureau: str = "water") -> str:
    return registry.propose_grant(
        bureau=bureau,
        action="push",
        target="covers",
        classes=["CJ/T 214-2007:0101"],
        valid_from="2026-01-01",
        valid_until="2026-12-31",
        purpose="register of covers",
        basis="甬政办发〔2026〕1号",
        by=by,
    )


def code_of(journal: Journal) -> str:
    return journal.search(limit=1)[0].leaf.outcome


def test_a_bureau_is_enrolled_with_its_certificates(opened: tuple[Journal, Registry]) -> None:
    journal, registry = opened
    signing, connection = a_certificate("water"), a_certificate("water", "connection")
    registry.enrol(WATER, [signing, connection], LI)
    assert registry.bureaus() == [WATER]
    assert registry.trust().by_fingerprint(signing.fingerprint) == signing
    assert {c.use for c in registry.certificates()} == {"signing", "connection"}
    entry = journal.search(type="bureau")[0]
    assert entry.leaf.outcome == "enrolled"
    assert LI.name not in repr(entry)


def test_a_certificate_is_enrolled_once(opened: tuple[Journal, Registry]) -> None:
    journal, registry = opened
    signing = a_certificate("water")
    registry.enrol(WATER, [signing], LI)
    with pytest.raises(Refusal) as refusal:
        registry.enrol(WATER, [signing], LI)
    assert refusal.value.code == "registry.certificate_known" == code_of(journal)
    with pytest.raises(Refusal) as refusal:
        registry.enrol(Bureau("power", "Power", "电力局", "supplier"), [signing], LI)
    assert refusal.value.code == "auth.sender_mismatch"
    registry.enrol(WATER, [a_certificate("water")], LI)
    assert len(registry.certificates()) == 2


@pytest.mark.parametrize("code", ["", "Water", "水务", "a b", "../x", ".x", "-x", "a_b", "a.b", "a\n", "x" * 65])
def test_a_code_that_cannot_name_a_folder_is_refused(opened: tuple[Journal, Registry], code: str) -> None:
    with pytest.raises(Refusal) as refusal:
        opened[1].enrol(Bureau(code, "", "", ""), [], LI)
    assert refusal.value.code == "registry.code_invalid"


def test_a_revoked_certificate_says_when(opened: tuple[Journal, Registry]) -> None:
    _, registry = opened
    signing = a_certificate("water")
    registry.enrol(WATER, [signing], LI)
    before = registry.trust().digest
    registry.revoke_certificate(signing.fingerprint, LI)
    known = registry.trust().by_fingerprint(signing.fingerprint)
    assert known is not None
    assert known.revoked_at is not None
    assert registry.trust().digest != before
    with pytest.raises(Refusal):
        registry.revoke_certificate(signing.fingerprint, LI)


def test_a_grant_is_in_force_when_a_second_person_approved_it(opened: tuple[Journal, Registry]) -> None:
    _, registry = opened
    registry.enrol(WATER, [], LI)
    id = proposed(registry)
    assert registry.grants("water") == ()
    registry.approve_grant(id, HAN)
    (grant,) = registry.grants("water")
    assert (grant.id, grant.classes, grant.valid_until) == (id, ("CJ/T 214-2007:0101",), "2026-12-31")
    assert grant.proposed_by != grant.approved_by
    (row,) = registry.all_grants()
    assert (row.state, row.grant.proposed_by, row.grant.approved_by) == ("approved", LI.name, HAN.name)
    registry.revoke_grant(id, LI)
    assert registry.grants("water") == ()
    assert registry.all_grants()[0].state == "revoked"


@pytest.mark.parametrize(
    "approver, code",
    [
        (LI, "grant.same_person"),
        (Officer("李雷", "city-management"), "grant.same_person"),
        (Officer("李 雷 ", "city-management"), "grant.same_person"),
        (Officer("韩梅梅", "water"), "grant.own_bureau"),
        (Officer(" ", "operator"), "registry.person_unnamed"),
        (Officer("韩梅梅", ""), "registry.person_unnamed"),
    ],
)
def test_one_person_or_the_bureau_itself_cannot_approve(
    opened: tuple[Journal, Registry], approver: Officer, code: str
) -> None:
    journal, registry = opened
    registry.enrol(WATER, [], LI)
    id = proposed(registry)
    with pytest.raises(Refusal) as refusal:
        registry.approve_grant(id, approver)
    assert refusal.value.code == code
    assert registry.grants("water") == ()
    if code.startswith("grant"):
        assert code_of(journal) == code
    registry.approve_grant(id, HAN)


def test_proposals_that_cannot_be_are_refused(opened: tuple[Journal, Registry]) -> None:
    _, registry = opened
    registry.enrol(WATER, [], LI)
    theirs = Officer("王", "water")
    for by, bureau, code in ((theirs, "water", "grant.own_bureau"), (LI, "x", "registry.bureau_unknown")):
        with pytest.raises(Refusal) as refusal:
            proposed(registry, by, bureau)
        assert refusal.value.code == code
    for first, last in (("2026-02-01", "2026-01-01"), ("2026-02-30", "2026-03-01"), ("20260101", "20260201"), ("", "")):
        with pytest.raises(Refusal) as refusal:
            registry.propose_grant(
                bureau="water",
                action="pull",
                target="ownership",
                valid_from=first,
                valid_until=last,
                purpose="p",
                basis="b",
                by=LI,
            )
        assert refusal.value.code == "grant.days_invalid"


def test_a_grant_is_approved_once_and_not_after_it_was_revoked(opened: tuple[Journal, Registry]) -> None:
    _, registry = opened
    registry.enrol(WATER, [], LI)
    approved, revoked = proposed(registry), proposed(registry)
    registry.approve_grant(approved, HAN)
    registry.revoke_grant(revoked, LI)
    for id in (approved, revoked, "g-none"):
        with pytest.raises(Refusal) as refusal:
            registry.approve_grant(id, HAN)
        assert refusal.value.code == "grant.not_proposed"
    with pytest.raises(Refusal):
        registry.revoke_grant(revoked, LI)


def test_another_process_sees_a_change_at_once(bus: JournalFolder, opened: tuple[Journal, Registry]) -> None:
    _, registry = opened
    other_journal = bus.open()
    other = Registry(bus.folder, other_journal, lambda: NOON)
    assert other.grants("water") == ()
    before = other.trust()
    assert other.trust() is before
    registry.enrol(WATER, [a_certificate("water")], LI)
    registry.approve_grant(proposed(registry), HAN)
    assert len(other.grants("water")) == 1
    assert other.trust() is not before
    assert other.trust().digest == registry.trust().digest
    other.close()
    other_journal.close()
