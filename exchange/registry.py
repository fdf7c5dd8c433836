"""Bureaus, their certificates, and who may do what: tables of the journal's file, so that each change stands or falls
with the audit entry that tells of it.

A grant needs two named persons, one who proposes and one who approves, neither of the bureau that gains by it.
"""

import re
import secrets
import sqlite3
import threading
import unicodedata
from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from exchange.entry import Detail, instant
from exchange.journal import Entry, Journal
from exchange.journal_file import connect
from exchange.revocation import Revocations
from security.authenticate import TrustList
from security.errors import AuditBroken, Refusal
from security.message import EVERYWHERE, Action, Area, EnrolledCertificate, Grant
from security.pki import enrolled

GrantState = Literal["proposed", "approved", "revoked"]
_GRANT = (
    "id, bureau, action, target, classes, valid_from, valid_until, purpose, basis, proposed_by, approved_by, limits"
)
_CODE: Final = re.compile(r"[a-z0-9][a-z0-9\-]{0,63}")  # as the XSD has it: any other code could send nothing

Change = Callable[[sqlite3.Cursor, str], None]


class Bureau(msgspec.Struct, frozen=True):
    """A partner organisation. code: lower-case letters, digits, `-`; role: `supplier`, `case system`, `officer` …"""

    code: str
    title: str
    title_zh: str
    role: str


def check_code(code: str) -> None:
    """Return if a bureau may bear the code. Raises Refusal `registry.code_invalid`."""
    if not _CODE.fullmatch(code):
        raise Refusal("registry.code_invalid", code)


class Officer(msgspec.Struct, frozen=True):
    """A person who decides: by name, acting for a bureau (`operator` is the bus's own)."""

    name: str
    bureau: str


class GrantRow(msgspec.Struct, frozen=True):
    """A grant and how far it has come."""

    grant: Grant
    state: GrantState


class _Limits(msgspec.Struct, frozen=True):
    """What narrows a grant beside its classes, as its row keeps it."""

    area: Area = EVERYWHERE
    attributes: tuple[str, ...] = ()
    map_area_km2: int = 0


class _Snapshot(msgspec.Struct, frozen=True):
    version: int
    answers: int
    trust: TrustList
    grants: dict[str, tuple[Grant, ...]]


class Registry:
    """What is enrolled and granted, as of now in any process. folder: that of the journal, by which all changes go."""

    def __init__(
        self, folder: Path, journal: Journal, clock: Callable[[], datetime], revocations: Revocations | None = None
    ) -> None:
        self.journal, self._clock = journal, clock
        self._revocations = revocations or Revocations(folder / "revocation")
        self._connection, self._lock = connect(folder), threading.Lock()
        self._snapshot = _Snapshot(-1, -1, TrustList(()), {})

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    # Asked on every request: one small query, and the snapshot unless another process changed something.

    def trust(self) -> TrustList:
        """The enrolled certificates."""
        return self._current().trust

    def grants(self, bureau: str) -> tuple[Grant, ...]:
        """The approved grants of a bureau that are not revoked; their days are for `authorise` to judge."""
        return self._current().grants.get(bureau, ())

    def grant(self, id: str) -> Grant:
        """A grant as it was approved, revoked since or not: what it covered, an accepted delivery may still say.

        Raises AuditBroken when there is none: no grant is ever removed.
        """
        rows = self._read(f"SELECT {_GRANT} FROM grants WHERE id = ?", id)
        if not rows:
            raise AuditBroken(f"a delivery was accepted under grant {id}, which is not in the registry")
        return _grant(rows[0])

    def bureaus(self) -> list[Bureau]:
        """All bureaus, by code."""
        return [Bureau(*row) for row in self._read("SELECT code, title, title_zh, role FROM bureaus ORDER BY code")]

    def certificates(self) -> list[EnrolledCertificate]:
        """All certificates, by bureau, revoked ones too."""
        query = "SELECT der, bureau, use, revoked_at FROM certificates ORDER BY bureau, use, fingerprint"
        return [_certificate(*row) for row in self._read(query)]

    def all_grants(self) -> list[GrantRow]:
        """All grants, by bureau, proposed and revoked ones too. proposed_by, approved_by: names."""
        known: dict[str, str] = dict(self._read("SELECT pseudonym, name FROM persons"))
        rows = self._read(f"SELECT {_GRANT}, revoked_at FROM grants ORDER BY bureau, id")
        return [_grant_row(row, known) for row in rows]

    # Changes: each is one entry and one transaction.

    def enrol(self, bureau: Bureau, certificates: Sequence[EnrolledCertificate], by: Officer) -> None:
        """Enter a bureau, or new titles or certificates for it.

        Raises Refusal `registry.code_invalid`, `registry.certificate_known` (enrolled before, here or for another).
        """
        check_code(bureau.code)
        if any(certificate.bureau != bureau.code for certificate in certificates):
            raise Refusal("auth.sender_mismatch", bureau.code)

        def change(cursor: sqlite3.Cursor, _: str) -> None:
            cursor.execute(
                "INSERT INTO bureaus VALUES (?, ?, ?, ?) ON CONFLICT (code) DO UPDATE SET "
                "title = excluded.title, title_zh = excluded.title_zh, role = excluded.role",
                (bureau.code, bureau.title, bureau.title_zh, bureau.role),
            )
            for c in certificates:
                if cursor.execute("SELECT 1 FROM certificates WHERE fingerprint = ?", (c.fingerprint,)).fetchone():
                    raise Refusal("registry.certificate_known", c.fingerprint)
                values = (c.fingerprint, c.bureau, c.use, c.der)
                cursor.execute("INSERT INTO certificates VALUES (?, ?, ?, ?, NULL)", values)

        detail: Detail = {"bureau": bureau.code, "role": bureau.role}
        detail |= {f"certificate_{n}": f"{c.use} {c.fingerprint}" for n, c in enumerate(certificates)}
        self._change("bureau", "enrolled", "", detail, by, change)

    def revoke_certificate(self, fingerprint: str, by: Officer) -> None:
        """From now on the certificate proves nothing. Raises Refusal `registry.certificate_unknown`."""

        def change(cursor: sqlite3.Cursor, _: str) -> None:
            query = "UPDATE certificates SET revoked_at = ? WHERE fingerprint = ? AND revoked_at IS NULL"
            if not cursor.execute(query, (instant(self._clock()), fingerprint)).rowcount:
                raise Refusal("registry.certificate_unknown", fingerprint)

        self._change("certificate", "revoked", "", {"certificate": fingerprint}, by, change)

    def propose_grant(
        self,
        *,
        bureau: str,
        action: Action,
        target: str,
        classes: Sequence[str] = (),
        valid_from: str,
        valid_until: str,
        purpose: str,
        basis: str,
        area: Area = EVERYWHERE,
        attributes: Sequence[str] = (),
        map_area_km2: int = 0,
        by: Officer,
    ) -> str:
        """Put a grant before a second person; gives its id. It allows nothing yet.

        valid_from, valid_until: days, YYYY-MM-DD, `valid_until` included

        Raises Refusal `registry.bureau_unknown`, `grant.days_invalid`, `grant.own_bureau`.
        """
        if not _days_hold(valid_from, valid_until):
            raise Refusal("grant.days_invalid", f"{valid_from} – {valid_until}")
        id = f"g-{secrets.token_hex(6)}"
        listed = msgspec.json.encode(classes).decode()
        stated = (bureau, action, target, listed, valid_from, valid_until, purpose, basis)
        limits = msgspec.json.encode(_Limits(area, tuple(attributes), map_area_km2)).decode()

        def change(cursor: sqlite3.Cursor, actor: str) -> None:
            if not cursor.execute("SELECT 1 FROM bureaus WHERE code = ?", (bureau,)).fetchone():
                raise Refusal("registry.bureau_unknown", bureau)
            if by.bureau == bureau:
                raise Refusal("grant.own_bureau", bureau)
            marks = ", ".join("?" * 10)
            cursor.execute(f"INSERT INTO grants VALUES ({marks}, NULL, NULL, ?)", (id, *stated, actor, limits))

        names = ("bureau", "action", "target", "classes", "valid_from", "valid_until", "purpose", "basis")
        self._change("grant", "proposed", id, {**dict(zip(names, stated, strict=True)), "limits": limits}, by, change)
        return id

    def approve_grant(self, id: str, by: Officer) -> None:
        """Put a proposed grant in force.

        Raises Refusal `grant.not_proposed`, `grant.same_person`, `grant.own_bureau`.
        """

        def change(cursor: sqlite3.Cursor, actor: str) -> None:
            query = (
                "SELECT grants.bureau, name FROM grants JOIN persons ON pseudonym = proposed_by "
                "WHERE id = ? AND approved_by IS NULL AND revoked_at IS NULL"
            )
            found = cursor.execute(query, (id,)).fetchone()
            if found is None:
                raise Refusal("grant.not_proposed", id)
            bureau, proposer = found
            # By name and not by (name, bureau): one person acting for two bureaus is still one person.
            if _same_name(proposer, by.name):
                raise Refusal("grant.same_person", id)
            if by.bureau == bureau:
                raise Refusal("grant.own_bureau", bureau)
            cursor.execute("UPDATE grants SET approved_by = ? WHERE id = ?", (actor, id))

        self._change("grant", "approved", id, {}, by, change)

    def revoke_grant(self, id: str, by: Officer) -> None:
        """End a grant, or a proposal, now. One person suffices. Raises Refusal `grant.unknown`."""

        def change(cursor: sqlite3.Cursor, _: str) -> None:
            query = "UPDATE grants SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL"
            if not cursor.execute(query, (instant(self._clock()), id)).rowcount:
                raise Refusal("grant.unknown", id)

        self._change("grant", "revoked", id, {}, by, change)

    def decide_delivery(self, inbox_id: int, decision: Literal["release", "refuse"], by: Officer) -> None:
        """Let a held delivery through, or end it; act two carries it out.

        Raises Refusal `delivery.not_held`; `delivery.superseded` when a later snapshot of its feed is in the register,
        over which the older one would be laid.
        """

        def change(cursor: sqlite3.Cursor, _: str) -> None:
            query = "UPDATE inbox SET status = 'waiting', decision = ? WHERE id = ? AND status = 'held'"
            if not cursor.execute(query, (decision, inbox_id)).rowcount:
                raise Refusal("delivery.not_held", str(inbox_id))
            later = (
                "SELECT 1 FROM inbox held JOIN inbox ON inbox.feed = held.feed AND inbox.id > held.id "
                "WHERE held.id = ? AND inbox.status = 'processed' LIMIT 1"
            )
            if decision == "release" and cursor.execute(later, (inbox_id,)).fetchone():
                raise Refusal("delivery.superseded", str(inbox_id))

        self._change("decision", decision, "", {"inbox": inbox_id}, by, change)

    def _change(self, type: str, outcome: str, grant: str, detail: Detail, by: Officer, change: Change) -> None:
        """Make a change together with its entry; a change refused gets an entry of its own."""
        if not by.name.strip() or not by.bureau:
            raise Refusal("registry.person_unnamed")
        known = self._read("SELECT pseudonym FROM persons WHERE name = ? AND bureau = ?", by.name, by.bureau)
        actor = known[0][0] if known else f"person-{secrets.token_hex(6)}"

        def also(cursor: sqlite3.Cursor, _: int) -> None:
            if not known:
                cursor.execute("INSERT INTO persons VALUES (?, ?, ?)", (actor, by.name, by.bureau))
            change(cursor, actor)
            cursor.execute("UPDATE registry_version SET version = version + 1")

        digest = self.trust().digest
        entry = Entry(type=type, outcome=outcome, actor=actor, grant=grant, trust_digest=digest, detail=detail)
        try:
            self.journal.note(entry, also).result()
        except Refusal as refusal:
            refused = msgspec.structs.replace(entry, outcome=refusal.code, detail={**detail, "wanted": outcome})
            self.journal.note(refused).result()
            raise

    def _current(self) -> _Snapshot:
        with self._lock:
            (version,) = self._connection.execute("SELECT version FROM registry_version").fetchone()
            answers = self._revocations.version
            if (version, answers) != (self._snapshot.version, self._snapshot.answers):
                self._snapshot = self._load(answers)
            return self._snapshot

    def _load(self, answers: int) -> _Snapshot:
        """Version and rows as one moment saw them."""
        execute = self._connection.execute
        execute("BEGIN")
        try:
            (version,) = execute("SELECT version FROM registry_version").fetchone()
            certificates = execute("SELECT der, bureau, use, revoked_at FROM certificates").fetchall()
            query = f"SELECT {_GRANT} FROM grants WHERE approved_by NOT NULL AND revoked_at IS NULL ORDER BY id"
            grants = [_grant(row) for row in execute(query).fetchall()]
        finally:
            execute("COMMIT")
        bureaus = {grant.bureau for grant in grants}
        of_bureau = {bureau: tuple(grant for grant in grants if grant.bureau == bureau) for bureau in bureaus}
        standing = self._revocations.applied(_certificate(*row) for row in certificates)
        return _Snapshot(version, answers, TrustList(standing), of_bureau)

    def _read(self, query: str, *values: object) -> list[Any]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()


def _certificate(der: bytes, bureau: str, use: Literal["signing", "connection"], revoked: str) -> EnrolledCertificate:
    certificate = enrolled(der, bureau, use)
    return msgspec.structs.replace(certificate, revoked_at=datetime.fromisoformat(revoked) if revoked else None)


def _grant(row: tuple[str, ...]) -> Grant:
    id, bureau, action, target, classes, valid_from, valid_until, purpose, basis, proposed_by, approved_by, said = row
    limits = msgspec.json.decode(said, type=_Limits)
    return msgspec.convert(
        {
            "id": id,
            "bureau": bureau,
            "action": action,
            "target": target,
            "classes": msgspec.json.decode(classes),
            "valid_from": valid_from,
            "valid_until": valid_until,
            "purpose": purpose,
            "basis": basis,
            "proposed_by": proposed_by,
            "approved_by": approved_by or "",
            "area": limits.area,
            "attributes": limits.attributes,
            "map_area_km2": limits.map_area_km2,
        },
        type=Grant,
    )


def _grant_row(row: tuple[str, ...], names: dict[str, str]) -> GrantRow:
    grant, revoked_at = _grant(row[:-1]), row[-1]
    state: GrantState = "revoked" if revoked_at else "approved" if grant.approved_by else "proposed"
    proposed_by, approved_by = (names.get(person, person) for person in (grant.proposed_by, grant.approved_by))
    return GrantRow(msgspec.structs.replace(grant, proposed_by=proposed_by, approved_by=approved_by), state)


def _days_hold(valid_from: str, valid_until: str) -> bool:
    try:
        first, last = date.fromisoformat(valid_from), date.fromisoformat(valid_until)
    except ValueError:
        return False
    return (first.isoformat(), last.isoformat()) == (valid_from, valid_until) and first <= last


def _same_name(one: str, other: str) -> bool:
    """Whether two spellings are one name: width, case and blanks do not make a second person."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())
