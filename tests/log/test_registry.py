"""What is enrolled and granted: decisions of two persons in office, told again from the log by every process."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from exchange.audit import verify
from exchange.database import Cursor
from exchange.decision_documents import (
    APPROVAL,
    PROPOSAL,
    Document,
    ErasureBody,
    Officer,
    Role,
    approval_of,
    proposal_of,
)
from exchange.journal import Entry, Journal
from exchange.registry import Bureau, Registry
from security import pki
from security.errors import AuditBroken, Refusal
from security.jws import sign_document
from security.keys import SigningKey, generate
from security.message import Area, EnrolledCertificate, Use
from tests.log.buses import NOON, JournalFolder

WATER = Bureau("water", "Water Bureau", "水务局", "supplier")
LI, HAN, WANG = (Officer(name, generate("ES256")) for name in ("李雷", "韩梅梅", "王水"))
SYS, AUD, NOBODY = (Officer(name, generate("ES256")) for name in ("系统", "审计", "路人"))
FOUNDERS: tuple[tuple[Officer, Role, str], ...] = (
    (LI, "security", "operator"),
    (HAN, "security", "city-management"),
    (WANG, "security", "water"),
    (SYS, "system", "operator"),
    (AUD, "audit", "operator"),
)
CA = pki.make_ca("city CA", NOON)
MAPPING = "ab" * 32


def a_certificate(bureau: str, use: Use = "signing") -> EnrolledCertificate:
    until = NOON + timedelta(days=365)
    return pki.enrolled(pki.issue(CA, bureau, generate("ES256").public_key, use, NOON, until), bureau, use)


class Office:
    """A registry that was founded, and what it takes to spoil it."""

    def __init__(self, bus: JournalFolder) -> None:
        self.bus = bus
        self.journal = bus.open()
        with closing(Registry(bus.folder, self.journal, "", lambda: datetime.now(UTC))) as first:
            self.founding = first.found(FOUNDERS, {"covers": MAPPING})
        self.registry = self.again()

    def again(self, journal: Journal | None = None) -> Registry:
        """The registry as another process would open it."""
        return Registry(self.bus.folder, journal or self.journal, self.founding, lambda: datetime.now(UTC))

    def enrolled(self, certificates: list[EnrolledCertificate] | None = None, bureau: Bureau = WATER) -> None:
        self.registry.approve(self.registry.propose_enrolment(bureau, certificates or [], LI), HAN)

    def proposed(self, by: Officer = LI, bureau: str = "water", **changed: Any) -> str:
        stated = {
            "bureau": bureau,
            "action": "push",
            "target": "covers",
            "classes": ["CJ/T 214-2007:0101"],
            "valid_from": "2026-01-01",
            "valid_until": "2026-12-31",
            "purpose": "register of covers",
            "basis": "甬政办发〔2026〕1号",
        }
        return self.registry.propose_grant(**{**stated, **changed}, by=by)

    def document(self, id: str) -> Document:
        return next(one.document for _, one in self.registry.proposals() if one.document.id == id)

    def entered(self, outcome: str, id: str, **detail: str) -> None:
        """An entry that the operator's own program was made to write, without asking the registry."""

        def also(cursor: Cursor, index: int) -> None:
            cursor.execute("INSERT INTO decisions VALUES (?, ?, ?)", (index, id, outcome))
            cursor.execute("UPDATE registry_version SET version = version + 1")

        self.journal.note(Entry(type="decision", outcome=outcome, detail=dict(detail)), also).result()

    def sql(self, statement: str, *values: object) -> None:
        """What somebody with the database's password does."""
        with closing(self.bus.database.connect()) as connection:
            connection.execute(statement, values)
            connection.execute("UPDATE registry_version SET version = version + 1")

    def codes(self) -> list[str]:
        return [trouble.code for trouble in self.registry.troubles()]

    def code(self) -> str:
        return self.journal.search(limit=1)[0].leaf.outcome


@pytest.fixture
def office(bus: JournalFolder) -> Iterator[Office]:
    made = Office(bus)
    yield made
    made.registry.close()
    made.journal.close()


@pytest.fixture
def sound(office: Office) -> Iterator[Office]:
    """An office at whose end nothing is wrong, neither in the log nor in what stands."""
    yield office
    assert office.registry.troubles() == []
    assert verify(office.bus.readable(), office.bus.anchors).problems == []


def refused(code: str, act: Callable[[], object]) -> None:
    with pytest.raises(Refusal) as refusal:
        act()
    assert refusal.value.code == code


def test_a_bureau_is_enrolled_with_its_certificates_by_two_persons(sound: Office) -> None:
    signing, connection = a_certificate("water"), a_certificate("water", "connection")
    id = sound.registry.propose_enrolment(WATER, [signing, connection], LI)
    assert (sound.registry.bureaus(), sound.registry.certificates()) == ([], [])
    sound.registry.approve(id, HAN)
    assert sound.registry.bureaus() == [WATER]
    assert sound.registry.trust().by_fingerprint(signing.fingerprint) == signing
    assert {c.use for c in sound.registry.certificates()} == {"signing", "connection"}
    entry = sound.journal.search(type="decision")[0]
    assert entry.leaf.outcome == "approved"
    assert LI.name not in repr(entry)


def test_a_certificate_is_enrolled_once(sound: Office) -> None:
    signing = a_certificate("water")
    sound.enrolled([signing])
    refused("registry.certificate_known", lambda: sound.registry.propose_enrolment(WATER, [signing], LI))
    assert sound.code() == "registry.certificate_known"
    power = Bureau("power", "Power", "电力局", "supplier")
    refused("auth.sender_mismatch", lambda: sound.registry.propose_enrolment(power, [signing], LI))
    sound.enrolled([a_certificate("water")])
    assert len(sound.registry.certificates()) == 2


@pytest.mark.parametrize("code", ["", "Water", "水务", "a b", "../x", ".x", "-x", "a_b", "a.b", "a\n", "x" * 65])
def test_a_code_that_cannot_name_a_folder_is_refused(sound: Office, code: str) -> None:
    refused("registry.code_invalid", lambda: sound.registry.propose_enrolment(Bureau(code, "", "", ""), [], LI))


def test_a_revoked_certificate_says_when(sound: Office) -> None:
    signing = a_certificate("water")
    sound.enrolled([signing])
    before = sound.registry.trust().digest
    sound.registry.revoke_certificate(signing.fingerprint, LI)
    known = sound.registry.trust().by_fingerprint(signing.fingerprint)
    assert known is not None
    assert known.revoked_at is not None
    assert sound.registry.trust().digest != before
    refused("registry.certificate_unknown", lambda: sound.registry.revoke_certificate(signing.fingerprint, LI))


def test_a_grant_is_in_force_when_a_second_person_approved_it(sound: Office) -> None:
    sound.enrolled()
    area = Area(("330203",), ("330203001",), ((121.5, 29.8), (121.6, 29.8), (121.55, 29.9)))
    id = sound.proposed(area=area, attributes=["owner_name"], map_area_km2=30)
    assert sound.registry.grants("water") == ()
    assert [row.state for row in sound.registry.all_grants()] == ["proposed"]
    sound.registry.approve(id, HAN)
    (grant,) = sound.registry.grants("water")
    assert (grant.id, grant.classes, grant.valid_until) == (id, ("CJ/T 214-2007:0101",), "2026-12-31")
    assert (grant.area, grant.attributes, grant.map_area_km2) == (area, ("owner_name",), 30)
    assert grant.proposed_by != grant.approved_by
    (row,) = sound.registry.all_grants()
    assert (row.state, row.grant.proposed_by, row.grant.approved_by) == ("approved", LI.name, HAN.name)
    sound.registry.revoke_grant(id, LI)
    assert sound.registry.grants("water") == ()
    assert sound.registry.all_grants()[0].state == "revoked"
    assert sound.registry.grant(id) == grant, "what an accepted delivery says, it may go on saying"
    (granted,) = sound.registry.granted()
    assert granted.approved_at < granted.revoked_at


@pytest.mark.parametrize(
    "approver, code",
    [
        (LI, "decision.same_person"),
        (WANG, "decision.own_bureau"),
        (SYS, "role.not_held"),
        (AUD, "role.not_held"),
        (NOBODY, "person.unknown"),
    ],
)
def test_who_may_not_approve_a_grant_is_refused_and_entered(sound: Office, approver: Officer, code: str) -> None:
    sound.enrolled()
    id = sound.proposed()
    refused(code, lambda: sound.registry.approve(id, approver))
    assert sound.registry.grants("water") == ()
    assert sound.code() == code
    sound.registry.approve(id, HAN)


@pytest.mark.parametrize(
    "proposer, code", [(WANG, "decision.own_bureau"), (SYS, "role.not_held"), (NOBODY, "person.unknown")]
)
def test_who_may_not_propose_a_grant_is_refused(sound: Office, proposer: Officer, code: str) -> None:
    sound.enrolled()
    refused(code, lambda: sound.proposed(proposer))


def test_a_grant_to_nobody_or_for_no_day_is_refused(sound: Office) -> None:
    sound.enrolled()
    refused("registry.bureau_unknown", lambda: sound.proposed(bureau="x"))
    for first, last in (("2026-02-01", "2026-01-01"), ("2026-02-30", "2026-03-01"), ("20260101", "20260201"), ("", "")):
        refused("grant.days_invalid", lambda f=first, u=last: sound.proposed(valid_from=f, valid_until=u))  # type: ignore[misc]


@pytest.mark.parametrize(
    "changed, code",
    [
        ({"attributes": ["owner_name", "password"]}, "grant.attribute_unknown"),
        ({"area": Area(polygon=((121.5, 29.8), (121.6, 29.9)))}, "grant.area_invalid"),
        ({"area": Area(polygon=((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)))}, "grant.area_invalid"),
        ({"action": "carry", "target": "power"}, "grant.limits_not_of_action"),
    ],
)
def test_a_grant_that_cannot_mean_what_it_says_is_refused(sound: Office, changed: dict[str, Any], code: str) -> None:
    sound.enrolled()
    refused(code, lambda: sound.proposed(**changed))


def test_a_proposal_is_approved_once_and_not_after_it_was_withdrawn(sound: Office) -> None:
    sound.enrolled()
    approved, withdrawn = sound.proposed(), sound.proposed()
    sound.registry.approve(approved, HAN)
    sound.registry.revoke_grant(withdrawn, LI)
    for id in (approved, withdrawn, "g-none"):
        refused("decision.not_proposed", lambda id=id: sound.registry.approve(id, HAN))  # type: ignore[misc]
    refused("grant.unknown", lambda: sound.registry.revoke_grant(withdrawn, LI))


def test_another_process_sees_a_change_at_once(sound: Office) -> None:
    other_journal = sound.bus.open()
    other = sound.again(other_journal)
    assert other.grants("water") == ()
    before = other.trust()
    assert other.trust() is before
    sound.enrolled([a_certificate("water")])
    sound.registry.approve(sound.proposed(), HAN)
    assert len(other.grants("water")) == 1
    assert other.trust() is not before
    assert other.trust().digest == sound.registry.trust().digest
    sound.registry.revoke_grant(other.grants("water")[0].id, LI)
    assert other.grants("water") == ()
    other.close()
    other_journal.close()


def test_an_office_is_given_by_two_and_ended_by_one(sound: Office) -> None:
    id = sound.registry.propose_person(NOBODY.name, NOBODY.key.public_pem().decode(), "security", "operator", LI)
    refused("person.unknown", lambda: sound.proposed(NOBODY))
    sound.registry.approve(id, HAN)
    assert sound.registry.person(NOBODY.key.public_key, "security").role == "security"
    sound.enrolled()
    sound.registry.approve(sound.proposed(NOBODY), HAN)
    pseudonym = sound.registry.person(NOBODY.key.public_key).pseudonym
    sound.registry.revoke("person", pseudonym, LI)
    refused("person.unknown", lambda: sound.proposed(NOBODY))
    assert len(sound.registry.grants("water")) == 1, "what they signed while in office stands"
    again = sound.registry.propose_person(NOBODY.name, NOBODY.key.public_pem().decode(), "audit", "operator", LI)
    sound.registry.approve(again, HAN)
    assert sound.registry.person(NOBODY.key.public_key).role == "audit"


@pytest.mark.parametrize("name", ["系统", "系 统", "系統"[:1] + "统 ", "Ｓ"])
def test_one_person_holds_one_office(sound: Office, name: str) -> None:
    public, held = generate("ES256").public_pem().decode(), SYS.key.public_pem().decode()
    if name == "Ｓ":  # another name over a key that is in office
        id = f"person of {name}"
        refused("role.held_already", lambda: sound.registry.propose_person(id, held, "audit", "operator", LI))
    else:
        refused("role.held_already", lambda: sound.registry.propose_person(name, public, "audit", "operator", LI))


def test_nobody_gives_themselves_an_office(sound: Office) -> None:
    sound.registry.revoke("person", sound.registry.person(HAN.key.public_key).pseudonym, LI)
    pem = WANG.key.public_pem().decode()
    sound.registry.revoke("person", sound.registry.person(WANG.key.public_key).pseudonym, LI)
    refused("person.unknown", lambda: sound.registry.propose_person(WANG.name, pem, "security", "water", WANG))
    mine = LI.key.public_pem().decode()
    refused("role.held_already", lambda: sound.registry.propose_person(LI.name, mine, "audit", "operator", LI))


def test_a_mapping_counts_once_the_system_proposed_and_security_approved_it(sound: Office) -> None:
    assert sound.registry.mapping("covers") == MAPPING, "released at the founding"
    assert sound.registry.mapping("lamps") == ""
    refused("role.not_held", lambda: sound.registry.propose_mapping("lamps", "water", "cd" * 32, LI))
    id = sound.registry.propose_mapping("lamps", "water", "cd" * 32, SYS)
    refused("role.not_held", lambda: sound.registry.approve(id, AUD))
    sound.registry.approve(id, HAN)
    assert sound.registry.mapping("lamps") == "cd" * 32


# What somebody with the database, or with the bus's own program, may try.


def test_a_grant_written_into_the_database_is_ignored_and_named(office: Office) -> None:
    office.enrolled()
    index = next(e.index for e in office.journal.search(type="decision"))
    office.sql("INSERT INTO decisions VALUES (?, ?, ?)", 10_000, "g-forged", "approved")
    assert office.codes() == ["decision.no_entry"]
    office.sql("DELETE FROM decisions WHERE entry_index = 10000")
    office.sql("INSERT INTO decisions VALUES (?, ?, ?)", index + 1, "g-forged", "approved")
    assert office.registry.grants("water") == ()
    problems = verify(office.bus.readable(), office.bus.anchors).problems
    assert any("no entry bears out" in problem.what for problem in problems)


def test_an_entry_written_into_the_database_with_its_leaf_and_detail_decides_nothing(office: Office) -> None:
    """A real approval, signed, copied under another number: leaf, detail and row are there, the signed head is not."""
    office.enrolled()
    office.registry.approve(office.proposed(), HAN)
    grant = office.registry.grants("water")[0].id
    office.registry.revoke_grant(grant, LI)
    size = office.journal.size()
    found = office.journal.search(type="decision", outcome="approved")[0].index
    office.sql(f"INSERT INTO entries SELECT {size}, leaf FROM entries WHERE idx = {found}")
    office.sql(f"INSERT INTO details SELECT {size}, salt, detail FROM details WHERE idx = {found}")
    office.sql("INSERT INTO decisions VALUES (?, ?, ?)", size, "g-copied", "approved")
    again = office.again()
    assert again.grants("water") == ()
    again.close()
    assert not verify(office.bus.readable(), office.bus.anchors).ok


def test_a_revocation_hidden_from_the_table_is_found_by_whoever_reads_the_log(office: Office) -> None:
    office.enrolled()
    office.registry.approve(office.proposed(), HAN)
    office.registry.revoke_grant(office.registry.grants("water")[0].id, LI)
    office.sql("DELETE FROM decisions WHERE outcome = 'revoked'")
    problems = verify(office.bus.readable(), office.bus.anchors).problems
    assert [problem.what for problem in problems] == ["the decision is missing from its table"]


def test_a_proposal_approved_by_its_proposer_decides_nothing(office: Office) -> None:
    office.enrolled()
    document = office.document(office.proposed())
    now = datetime.now(UTC)
    office.entered("approved", "g-1", proposal=proposal_of(document, LI, now), approval=approval_of(document, LI, now))
    assert office.registry.grants("water") == ()
    assert office.codes() == ["decision.same_person"]


def test_an_edited_proposal_with_an_old_approval_decides_nothing(office: Office) -> None:
    office.enrolled()
    document = office.document(office.proposed())
    now = datetime.now(UTC)
    wider = msgspec.structs.replace(document, body={**document.body, "classes": []})
    office.entered("approved", "g-1", proposal=proposal_of(wider, LI, now), approval=approval_of(document, HAN, now))
    assert office.registry.grants("water") == ()
    assert office.codes() == ["decision.other_document"]


@pytest.mark.parametrize(
    "spoil, code",
    [
        (lambda p, a, d: (p, ""), "decision.not_readable"),
        (lambda p, a, d: (p, p), "signature.document_of_other_kind"),
        (lambda p, a, d: (p, a.replace('"payload":"e', '"payload":"f')), "signature.invalid"),
        (lambda p, a, d: (p, sign_document(d, APPROVAL, NOBODY.key).decode()), "person.unknown"),
        (lambda p, a, d: (p, sign_document(d, APPROVAL, SYS.key).decode()), "role.not_held"),
        (lambda p, a, d: (p, sign_document(d, APPROVAL, WANG.key).decode()), "decision.own_bureau"),
        (lambda p, a, d: (sign_document(d, PROPOSAL, AUD.key).decode(), a), "role.not_held"),
    ],
)
def test_a_decision_without_two_signatures_of_those_whose_office_it_is_decides_nothing(
    office: Office, spoil: Callable[[str, str, dict[str, Any]], tuple[str, str]], code: str
) -> None:
    office.enrolled()
    document, now = office.document(office.proposed()), datetime.now(UTC)
    proposal, approval = proposal_of(document, LI, now), approval_of(document, HAN, now)
    spoilt = spoil(proposal, approval, msgspec.to_builtins(document))
    office.entered("approved", "g-1", proposal=spoilt[0], approval=spoilt[1])
    assert office.registry.grants("water") == ()
    assert office.codes() in ([code], ["signature.document_not_readable"] if not spoilt[1] else [code])
    office.entered("approved", "g-2", proposal=proposal, approval=approval)
    assert len(office.registry.grants("water")) == 1, "the good one, by the same way, is in force"


def test_an_approval_is_not_used_a_second_time(office: Office) -> None:
    office.enrolled()
    office.registry.approve(office.proposed(), HAN)
    grant = office.registry.grants("water")[0].id
    detail = office.journal.search(type="decision", outcome="approved")[0].detail
    assert detail is not None
    office.registry.revoke_grant(grant, LI)
    office.entered("approved", "g-again", **{name: str(value) for name, value in detail.items()})
    assert office.registry.grants("water") == ()
    assert office.codes() == ["decision.not_proposed"]


def test_a_decision_for_another_bus_decides_nothing_here(office: Office) -> None:
    office.enrolled()
    document, now = office.document(office.proposed()), datetime.now(UTC)
    other = msgspec.structs.replace(document, origin="other.example")
    office.entered("approved", "g-1", proposal=proposal_of(other, LI, now), approval=approval_of(other, HAN, now))
    assert office.codes() == ["decision.other_origin"]


def test_another_founding_than_the_trusted_one_founds_nothing(office: Office) -> None:
    with closing(Registry(office.bus.folder, office.journal, "", lambda: datetime.now(UTC))) as second:
        second.found([(NOBODY, "security", "x"), (WANG, "security", "x")], {})
    again = office.again()
    assert [trouble.code for trouble in again.troubles()] == ["decision.founding_other"]
    assert {name for name, _ in again.persons()} == {officer.name for officer, _, _ in FOUNDERS}
    again.close()


def test_a_name_altered_in_the_database_is_named_and_not_believed(office: Office) -> None:
    pseudonym = office.registry.person(AUD.key.public_key).pseudonym
    office.sql("UPDATE persons SET name = ? WHERE pseudonym = ?", " 系 统", pseudonym)
    assert office.codes() == ["person.name_altered"]
    assert pseudonym in {name for name, _ in office.registry.persons()}, "the altered name is not believed"


def test_a_second_office_in_a_signed_entry_decides_nothing(office: Office) -> None:
    body = {
        "person": "person-x",
        "name": "00" * 32,
        "bureau": "operator",
        "role": "audit",
        "public_key": SYS.key.public_pem().decode(),
    }
    document = Document(1, office.journal.origin, "person", "d-x", "2026-11-22T04:00:00Z", body)
    now = datetime.now(UTC)
    proposal, approval = proposal_of(document, LI, now), approval_of(document, HAN, now)
    office.entered("approved", "d-x", proposal=proposal, approval=approval)
    assert office.codes() == ["role.held_already"]
    assert office.registry.person(SYS.key.public_key).role == "system"


@pytest.mark.parametrize(
    "founders, code",
    [
        ([(LI, "security", "a"), (SYS, "system", "a")], "founding.too_few"),
        ([(LI, "security", "a"), (HAN, "security", "a"), (Officer("丙", LI.key), "audit", "a")], "role.held_already"),
        (
            [(LI, "security", "a"), (HAN, "security", "a"), (Officer("李 雷", SYS.key), "audit", "a")],
            "role.held_already",
        ),
        ([(LI, "security", "a"), (Officer(" ", HAN.key), "security", "a")], "registry.person_unnamed"),
    ],
)
def test_a_bus_that_one_person_could_rule_is_not_founded(
    bus: JournalFolder, founders: list[tuple[Officer, Role, str]], code: str
) -> None:
    journal = bus.open()
    with closing(Registry(bus.folder, journal, "", lambda: NOON)) as registry:
        refused(code, lambda: registry.found(founders, {}))
    assert journal.size() == 0
    journal.close()


# What a critic found.


def test_a_certificate_that_its_reader_trips_over_is_refused_before_it_can_stop_anybody(sound: Office) -> None:
    """Its issuer is no text: signed by nobody, it would have been enrolled, and ended every process at its start."""
    ca = pki.make_ca("ABCDEFGHIJ", NOON)
    der = pki.issue(ca, "water", generate("ES256").public_key, "signing", NOON, NOON + timedelta(days=9))
    refused(
        "auth.certificate_not_readable",
        lambda: pki.enrolled(der.replace(b"ABCDEFGHIJ", b"ABCDE\xffGHIJ"), "w", "signing"),
    )


def test_a_key_that_its_owner_gave_up_opens_nothing(sound: Office) -> None:
    old, new = generate("ES256"), generate("ES256")

    def appoint(key: SigningKey) -> str:
        pem = key.public_pem().decode()
        sound.registry.approve(sound.registry.propose_person("新人", pem, "system", "operator", LI), HAN)
        return sound.registry.person(key.public_key, "system").pseudonym

    sound.registry.revoke("person", appoint(old), LI)
    appoint(new)
    refused("person.unknown", lambda: sound.registry.person(old.public_key, "system"))
    refused("person.unknown", lambda: sound.registry.propose_mapping("lamps", "water", "cd" * 32, Officer("新人", old)))


def test_a_waiting_proposal_is_not_exchanged_under_its_id(office: Office) -> None:
    office.enrolled()
    id = office.proposed()
    document, now = office.document(id), datetime.now(UTC)
    wider = msgspec.structs.replace(document, body={**document.body, "classes": []})
    office.entered("proposed", "g-x", proposal=proposal_of(wider, HAN, now))
    assert office.document(id) == document
    assert office.codes() == ["decision.not_proposed"]


def test_who_loses_a_race_hears_it(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.enrolled()
    id, other, note = office.proposed(), office.again(), office.registry._note

    def first(*said: Any) -> int:
        monkeypatch.setattr(office.registry, "_note", note)
        other.revoke("proposal", id, LI)
        return note(*said)

    monkeypatch.setattr(office.registry, "_note", first)
    with pytest.raises(Refusal):
        office.registry.approve(id, HAN)
    assert office.registry.grants("water") == ()
    other.close()


@pytest.mark.parametrize("kind", ["grant", "carrying", "enrolment"])
def test_an_entry_that_trips_its_reader_is_named_and_stops_nobody(office: Office, kind: str) -> None:
    document = Document(1, office.journal.origin, kind, "r-1", "2026-11-22T04:00:00Z", {"of": "g-1"})
    signed = sign_document(msgspec.to_builtins(document), "yt-revocation+jws", LI.key).decode()
    office.entered("revoked", "r-1", revocation=signed)
    again = office.again()
    assert again.grants("water") == ()
    assert [trouble.code for trouble in again.troubles()] == ["decision.not_readable"]
    again.close()


def test_nobody_decides_over_what_their_own_bureau_sent_or_lets_sign(sound: Office) -> None:
    sound.enrolled()
    sound.enrolled(bureau=Bureau("power", "Power", "电力局", "supplier"))
    purge = sound.registry.propose_erasure(ErasureBody("water", "m-1", "g"), AUD)
    refused("decision.own_bureau", lambda: sound.registry.approve(purge, WANG))
    speak = sound.proposed(bureau="power", action="on_behalf_of", target="water", classes=[])
    refused("decision.own_bureau", lambda: sound.registry.approve(speak, WANG))
    mapping = sound.registry.propose_mapping("covers", "water", "cd" * 32, SYS)
    refused("decision.own_bureau", lambda: sound.registry.approve(mapping, WANG))


def test_a_dismissal_is_not_played_again(office: Office) -> None:
    pseudonym = office.registry.person(AUD.key.public_key).pseudonym
    office.registry.revoke("person", pseudonym, LI)
    old = office.journal.search(type="decision", outcome="revoked")[0].detail
    assert old is not None
    pem = AUD.key.public_pem().decode()
    office.registry.approve(office.registry.propose_person(AUD.name, pem, "audit", "operator", LI), HAN)
    office.entered("revoked", "r-again", revocation=str(old["revocation"]))
    assert office.registry.person(AUD.key.public_key, "audit").role == "audit"
    assert office.codes() == ["decision.not_readable"]


def test_what_a_dismissed_officer_proposed_waits_no_longer(sound: Office) -> None:
    sound.enrolled()
    id = sound.proposed()
    sound.registry.revoke("person", sound.registry.person(LI.key.public_key).pseudonym, HAN)
    refused("decision.not_proposed", lambda: sound.registry.approve(id, HAN))


def test_the_last_security_officer_stays(sound: Office) -> None:
    for officer in (HAN, WANG):
        sound.registry.revoke("person", sound.registry.person(officer.key.public_key).pseudonym, LI)
    mine = sound.registry.person(LI.key.public_key).pseudonym
    refused("role.last_security", lambda: sound.registry.revoke("person", mine, LI))


@pytest.mark.of_a_file
def test_a_version_that_somebody_froze_hides_no_revocation(office: Office) -> None:
    office.enrolled()
    office.registry.approve(office.proposed(), HAN)
    running = office.again()
    (grant,) = running.grants("water")
    office.sql("CREATE TRIGGER z BEFORE UPDATE ON registry_version BEGIN SELECT RAISE(IGNORE); END")
    office.registry.revoke_grant(grant.id, LI)
    assert running.grants("water") == ()
    running.close()
    assert [p.what for p in verify(office.bus.readable(), office.bus.anchors).problems if "changes itself" in p.what]


@pytest.mark.of_a_file
def test_a_head_that_somebody_keeps_unsigned_holds_up_no_revocation(office: Office) -> None:
    office.enrolled()
    office.registry.approve(office.proposed(), HAN)
    (grant,) = office.registry.grants("water")
    size = office.journal.size()
    keep = f"WHEN new.size > {size} BEGIN UPDATE heads SET note = NULL WHERE size = new.size; END"
    office.sql(f"CREATE TRIGGER z AFTER UPDATE OF note ON heads {keep}")
    office.registry.revoke_grant(grant.id, LI)
    again = office.again()
    assert (office.registry.grants("water"), again.grants("water")) == ((), ())
    again.close()


def test_a_decision_counts_as_soon_as_its_head_is_signed_whoever_looked_just_before(office: Office) -> None:
    office.enrolled()
    office.registry.approve(office.proposed(), HAN)
    with closing(office.bus.database.connect()) as connection:
        size, note = connection.execute("SELECT size, note FROM heads ORDER BY size DESC LIMIT 1").fetchone()
        connection.execute("UPDATE heads SET note = NULL WHERE size = ?", (size,))
    looked_before = office.again()
    assert looked_before.grants("water") == ()
    with closing(office.bus.database.connect()) as connection:
        connection.execute("UPDATE heads SET note = ? WHERE size = ?", (note, size))
    assert len(looked_before.grants("water")) == 1
    looked_before.close()


def test_a_revocation_hidden_from_the_table_acts_after_a_restart(office: Office) -> None:
    office.enrolled()
    office.registry.approve(office.proposed(), HAN)
    office.registry.revoke_grant(office.registry.grants("water")[0].id, LI)
    office.sql("DELETE FROM decisions WHERE outcome = 'revoked'")
    again = office.again()
    assert again.grants("water") == ()
    assert again.hidden() != []
    again.close()


@pytest.mark.parametrize(
    "taken_away",
    [
        "UPDATE details SET salt = NULL, detail = NULL WHERE idx = {0}",
        "UPDATE details SET detail = ? WHERE idx = {0}",
        "DELETE FROM details WHERE idx = {0}",
    ],
    ids=["erased", "altered", "its row deleted"],
)
@pytest.mark.parametrize("found", [True, False], ids=["its row finds it", "its row deleted too"])
def test_a_revocation_whose_detail_somebody_took_away_leaves_nothing_in_force(
    office: Office, taken_away: str, found: bool
) -> None:
    """Nobody can say what it ended: a process that begins now stops instead of going on with what was revoked."""
    office.enrolled()
    office.registry.approve(office.proposed(), HAN)
    office.registry.revoke_grant(office.registry.grants("water")[0].id, LI)
    (revoked,) = office.journal.search(type="decision", outcome="revoked")
    office.sql(taken_away.format(revoked.index), *[b"{}"] * taken_away.count("?"))
    if not found:
        office.sql(f"DELETE FROM decisions WHERE entry_index = {revoked.index}")
    again = office.again()
    for _ in range(2):
        with pytest.raises(AuditBroken, match=f"entry {revoked.index}, by which somebody decided"):
            again.grants("water")
    again.close()
    assert not verify(office.bus.readable(), office.bus.anchors).ok


def test_a_revocation_said_to_be_something_else_in_the_table_acts_all_the_same(office: Office) -> None:
    office.enrolled()
    office.registry.approve(office.proposed(), HAN)
    office.registry.revoke_grant(office.registry.grants("water")[0].id, LI)
    office.sql("UPDATE decisions SET outcome = 'proposed', id = 'x' WHERE outcome = 'revoked'")
    again = office.again()
    assert again.grants("water") == ()
    again.close()


def test_a_row_before_all_entries_is_named(office: Office) -> None:
    office.sql("INSERT INTO decisions VALUES (-5, 'g-forged', 'approved')")
    again = office.again()
    assert [trouble.code for trouble in again.troubles()] == ["decision.no_entry"]
    again.close()


def test_a_revoked_key_is_not_enrolled_under_a_new_certificate(sound: Office) -> None:
    key, until = generate("ES256"), NOON + timedelta(days=365)
    one, other = (
        pki.enrolled(
            pki.issue(CA, "water", key.public_key, "signing", NOON, until + timedelta(days=n)), "water", "signing"
        )
        for n in range(2)
    )
    sound.enrolled([one])
    refused("registry.certificate_known", lambda: sound.registry.propose_enrolment(WATER, [other, other], LI))
    sound.registry.revoke_certificate(one.fingerprint, LI)
    refused("registry.key_revoked", lambda: sound.registry.propose_enrolment(WATER, [other], LI))


def test_a_withdrawn_appointment_leaves_the_name_free(sound: Office) -> None:
    pem = NOBODY.key.public_pem().decode()
    id = sound.registry.propose_person(NOBODY.name, pem, "audit", "operator", LI)
    sound.registry.revoke("proposal", id, LI)
    sound.registry.approve(sound.registry.propose_person(NOBODY.name, pem, "system", "operator", LI), HAN)
    assert sound.registry.person(NOBODY.key.public_key).role == "system"


def test_of_two_offices_proposed_under_one_name_one_is_given(sound: Office) -> None:
    keys = [generate("ES256").public_pem().decode() for _ in range(2)]
    first = sound.registry.propose_person("赵六", keys[0], "audit", "operator", LI)
    second = sound.registry.propose_person("赵 六", keys[1], "system", "city-management", LI)
    sound.registry.approve(first, HAN)
    refused("role.held_already", lambda: sound.registry.approve(second, HAN))
