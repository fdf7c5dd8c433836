"""What the city's authorities said last of their certificates: dated answers in a folder, and what follows from them.

One process fetches (`exchange.certificate_watch`) and puts answers in; all read. The answers lie there as they came and
are verified again when they are read, so whoever writes into the folder cannot bring a revoked certificate back: he can
only take answers away, and then nothing is taken from certificates of that authority.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from exchange.small_file import write_whole
from security.chain import authorities_over, issuer_of
from security.errors import Refusal
from security.message import EnrolledCertificate
from security.revocation import Answer, Standing, read_answer, read_list, standing

INDEX: Final = "index.json"

log = logging.getLogger("yongtong.certificates")


class CityAuthority(msgspec.Struct, frozen=True):
    """A certificate authority of the city's whose certificates bureaus bring.

    certificates: DER, its own and those over it; all of them are anchors
    crl:   addresses of its revocation lists; each is asked, and all must be fresh
    ocsp:  address of its responder; empty where it has none
    every_s: seconds between two questions
    """

    certificates: tuple[bytes, ...]
    crl: tuple[str, ...] = ()
    ocsp: str = ""
    every_s: float = 3600.0

    @property
    def is_asked(self) -> bool:
        """Whether the status of its certificates is asked for at all."""
        return bool(self.crl or self.ocsp)


class Kept(msgspec.Struct, frozen=True):
    """The newest answer of one address, and how the last question went.

    certificate: SHA-256 of the certificate that was asked about; empty for a list
    digest:      SHA-256 of the answer, the name of its file; empty where there never was one
    this_update, next_update: as the answer states them
    problem:     code of what was wrong the last time, empty when nothing was; detail says more
    """

    url: str
    certificate: str
    tried_at: datetime
    digest: str = ""
    fetched_at: datetime | None = None
    this_update: datetime | None = None
    next_update: datetime | None = None
    problem: str = ""
    detail: str = ""


Place = tuple[str, str]  # address, and the SHA-256 of the certificate that it is asked about; empty for a list


class Revocations:
    """The answers as they lie in a folder, and what they say of enrolled certificates. Safe for threads."""

    def __init__(self, folder: Path, authorities: tuple[CityAuthority, ...] = ()) -> None:
        self.authorities, self._folder = authorities, folder
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._version = 0
        self._kept: dict[Place, Kept] = {}
        self._verified: dict[tuple[Place, str], Answer | None] = {}  # by place and digest

    @property
    def version(self) -> int:
        """Another number once an answer has changed. Asked on every request; costs one `stat`, or nothing where no
        authority is set."""
        # Somebody else is reading them this moment: the ones before will do until he has.
        if self.authorities and self._stamp != self._stamp_now() and self._lock.acquire(blocking=False):
            try:
                self._load()
            finally:
                self._lock.release()
        return self._version

    def kept(self) -> Mapping[Place, Kept]:
        """Every address asked, with what came of it."""
        _ = self.version  # looks at the folder
        return self._kept

    def applied(self, certificates: Iterable[EnrolledCertificate]) -> tuple[EnrolledCertificate, ...]:
        """The certificates as their authorities let them stand: `revoked_at` the earlier of the registry's and the
        authority's, `status_until` set where an authority is asked."""
        return tuple(self._applied(certificate) for certificate in certificates)

    def standing(self, certificate: EnrolledCertificate) -> Standing | None:
        """What its authority says of a certificate; None where none of ours issued it, or that one is not asked."""
        authority, over = self.authority_of(certificate)
        if authority is None or not authority.is_asked:
            return None
        _ = self.version  # looks at the folder
        lists = [self._answer((url, ""), certificate, authority) for url in authority.crl]
        answer = self._answer((authority.ocsp, certificate.fingerprint), certificate, authority)
        return standing((certificate.der, *over), lists, answer)

    def authority_of(self, certificate: EnrolledCertificate) -> tuple[CityAuthority | None, tuple[bytes, ...]]:
        """The authority that issued a certificate, and the certificates over it, its issuer first."""
        for authority in self.authorities:
            if over := authorities_over(certificate.der, authority.certificates):
                return authority, over
        return None, ()

    def keep(self, place: Place, octets: bytes, read: Callable[[bytes], Answer], now: datetime) -> Answer:
        """Verify an answer just fetched and put it in the place of the one before, on disk before this returns.

        read: `read_list` or `read_answer`, told whose it should be

        Raises Refusal as these do, and `revocation.rolled_back` for one that is older than the one held: plain HTTP
        lets anybody on the way send yesterday's.
        """
        answer, before = read(octets), self.kept().get(place)
        if before is not None and before.this_update is not None and answer.this_update < before.this_update:
            raise Refusal("revocation.rolled_back", f"{place[0]}: {answer.this_update.isoformat()}")
        digest = sha256(octets).hexdigest()
        self._folder.mkdir(exist_ok=True)
        write_whole(self._folder / digest, octets)
        self._verified[place, digest] = answer
        stale = "revocation.stale" if answer.next_update < now else ""
        self._note(Kept(*place, now, digest, now, answer.this_update, answer.next_update, stale))
        return answer

    def answers(self) -> list[tuple[str, bytes]]:
        """The newest answers as they came, each with its kind: `crl` or `ocsp`. One that is lost is left out."""
        found = []
        for row in self.kept().values():
            try:
                if row.digest:
                    found.append(("ocsp" if row.certificate else "crl", (self._folder / row.digest).read_bytes()))
            except OSError as problem:
                log.error("revocation.kept_answer_lost url=%s reason=%s", row.url, problem)
        return found

    def failed(self, place: Place, problem: Refusal, now: datetime) -> None:
        """Note that an address gave nothing that could be used. What was held is held on."""
        before = self.kept().get(place) or Kept(*place, now)
        self._folder.mkdir(exist_ok=True)
        self._note(msgspec.structs.replace(before, tried_at=now, problem=problem.code, detail=problem.detail))

    def _applied(self, certificate: EnrolledCertificate) -> EnrolledCertificate:
        found = self.standing(certificate)
        if found is None:
            return certificate
        revoked = [moment for moment in (certificate.revoked_at, found.revoked_at) if moment is not None]
        return msgspec.structs.replace(
            certificate, revoked_at=min(revoked, default=None), status_until=found.known_until
        )

    def _answer(self, place: Place, certificate: EnrolledCertificate, authority: CityAuthority) -> Answer | None:
        """The answer kept for a place, verified; None where there is none that holds."""
        kept = self._kept.get(place)
        if kept is None or not kept.digest:
            return None
        if (place, kept.digest) not in self._verified:
            self._verified[place, kept.digest] = self._read(kept, certificate, authority)
        return self._verified[place, kept.digest]

    def _read(self, kept: Kept, certificate: EnrolledCertificate, authority: CityAuthority) -> Answer | None:
        try:
            octets = (self._folder / kept.digest).read_bytes()
            at = kept.fetched_at or kept.tried_at
            if not kept.certificate:
                return read_list(octets, authority.certificates, at)
            issuer = issuer_of(certificate.der, authority.certificates)
            return read_answer(octets, certificate.der, issuer or b"", at)
        except (OSError, Refusal) as problem:
            log.error("revocation.kept_answer_lost url=%s reason=%s", kept.url, problem)
            return None

    def _load(self) -> None:
        self._stamp = self._stamp_now()
        try:
            rows = msgspec.json.decode((self._folder / INDEX).read_bytes(), type=list[Kept])
        except FileNotFoundError:
            rows = []
        except (OSError, msgspec.MsgspecError) as problem:  # as if nothing had ever been answered: nothing is taken
            log.error("revocation.index_lost reason=%s", type(problem).__name__)
            rows = []
        kept = {(row.url, row.certificate): row for row in rows}
        changed = _digests(kept) != _digests(self._kept)
        self._kept = kept
        self._verified = {key: answer for key, answer in self._verified.items() if _digests(kept).get(key[0]) == key[1]}
        self._version += changed

    def _stamp_now(self) -> tuple[int, int] | None:
        try:
            found = (self._folder / INDEX).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def _note(self, row: Kept) -> None:
        """One row of the index anew. Called by the one process that fetches."""
        place = (row.url, row.certificate)
        before = self.kept()
        rows = {**before, place: row}
        write_whole(self._folder / INDEX, msgspec.json.encode(list(rows.values())))
        # The file just replaced stays until the next time: another process may be about to read it.
        used = {*_digests(rows).values(), *_digests(before).values(), INDEX}
        for path in self._folder.iterdir():
            if path.name not in used:
                path.unlink(missing_ok=True)


def _digests(kept: Mapping[Place, Kept]) -> dict[Place, str]:
    return {place: row.digest for place, row in kept.items() if row.digest}
