"""Who was enrolled and what was granted when an entry was made, told again from a bundle's decisions (ADR 29, 30)."""

from collections import deque
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from exchange.bundle_parts import Findings, Proven
from exchange.bundle_status import Statuses
from exchange.decisions import DECIDES, ENTRY, Carried, Decided, Granted, Standing
from security.anchors import Anchors
from security.authenticate import trust_digest
from security.errors import Refusal
from security.message import EnrolledCertificate

# A right that ended so shortly before an entry may have stood when it was looked at: an entry waits for its group.
AT_ONCE: Final = timedelta(seconds=60)


class _Earlier(msgspec.Struct, frozen=True):
    """What stood before a decision, as far as it may still count. digest: of the certificates, as leaves state it."""

    mappings: Mapping[str, str]
    digest: str


class _Moment(msgspec.Struct, frozen=True):
    """What stands after some decisions."""

    certificates: Mapping[str, EnrolledCertificate]
    grants: Mapping[str, Granted]
    mappings: Mapping[str, str]
    digest: str


class Stood(msgspec.Struct, frozen=True):
    """What stood when an entry was made: by then, and before decisions that came at the same time as it.

    at:    time of the entry, RFC 3339
    ended: the digest with what authorities had said by then
    """

    at: str
    now: _Moment
    before: tuple[_Earlier, ...]
    ended: str

    @property
    def digests(self) -> set[str]:
        """Digests of what was trusted that the entry may state."""
        return {self.ended, self.now.digest, *(one.digest for one in self.before)}

    def certificate(self, fingerprint: str) -> EnrolledCertificate:
        """One that was enrolled and stood. Raises Refusal `auth.certificate_unknown`, `auth.certificate_revoked`."""
        found = self.now.certificates.get(fingerprint)
        if found is None:
            raise Refusal("auth.certificate_unknown", fingerprint[:16])
        if found.revoked_at is not None and _well_before(found.revoked_at.astimezone(UTC).isoformat(), self.at):
            raise Refusal("auth.certificate_revoked", f"{fingerprint[:16]} at {found.revoked_at.isoformat()}")
        return found

    def grant(self, id: str, days: Collection[str]) -> Granted:
        """One that was approved and in force on one of the days. Raises Refusal `grant.unknown`,
        `auth.grant_not_in_force`."""
        found = self.now.grants.get(id)
        if found is None:
            raise Refusal("grant.unknown", id or "none")
        if not any(found.grant.valid_from <= day <= found.grant.valid_until for day in days):
            raise Refusal("auth.grant_not_in_force", f"{id}: {found.grant.valid_from} – {found.grant.valid_until}")
        if found.revoked_at and _well_before(found.revoked_at, self.at):
            raise Refusal("auth.grant_not_in_force", f"{id} was revoked at {found.revoked_at}")
        return found

    def releases(self, feed: str, digest: str) -> bool:
        """Whether this file of the feed counted."""
        return digest in (self.now.mappings.get(feed), *(one.mappings.get(feed) for one in self.before))


def told_again(
    entries: Mapping[int, Proven], wanted: Collection[int], anchors: Anchors, statuses: Statuses, findings: Findings
) -> tuple[dict[int, Stood], Mapping[str, Carried]]:
    """What stood at each of the wanted entries, from the founding that the anchors name; and what was carried out.

    What is missing of decisions is said under `enrolment`.
    """
    stands, stood = Standing(anchors.origin, anchors.founding), {}
    deciding = {i for i, one in entries.items() if one.leaf.type == ENTRY and one.leaf.outcome in DECIDES}
    moment: _Moment | None = None  # made once for all that stands between two decisions
    certificates: dict[str, EnrolledCertificate] = {}
    last = _Earlier({}, trust_digest(()))
    recent: deque[tuple[str, _Earlier]] = deque()  # what stood before each of the last decisions
    for index in sorted(deciding.union(wanted)):
        time = entries[index].leaf.time
        while recent and _well_before(recent[0][0], time):
            recent.popleft()
        if index in wanted:
            if moment is None:
                moment = _Moment(dict(certificates), dict(stands.grants), last.mappings, last.digest)
            ended = trust_digest(statuses.applied(certificates.values(), time))
            stood[index] = Stood(time, moment, tuple(before for _, before in recent), ended)
            continue
        _take(entries[index], stands, findings)
        recent.append((time, last))
        moment, digest, mappings = None, last.digest, last.mappings
        if certificates != stands.certificates:  # of what did not change nothing is kept twice
            certificates = dict(stands.certificates)
            digest = trust_digest(certificates.values())
        if mappings != stands.mappings:
            mappings = dict(stands.mappings)
        last = _Earlier(mappings, digest)
    for trouble in stands.troubles:  # what does not hold decides nothing: so it is for the bus, and so it is here
        findings.say("enrolment", "holds", f"entries/{trouble.entry}.json decides nothing: {trouble.code}")
    if not stands.persons:
        findings.say("enrolment", "missing", "no entry founds this bus as the anchors name it")
    return stood, stands.carried


def _take(entry: Proven, stands: Standing, findings: Findings) -> None:
    """The next decision; whether it was proposed in an entry that is here is looked at, for nobody else asks."""
    if entry.detail is None:
        findings.say("enrolment", "missing", f"entries/{entry.index}.json: a decision whose detail is gone")
        return
    waiting, troubles = set(stands.proposals), len(stands.troubles)
    stands.take(Decided(entry.index, entry.leaf.time, entry.leaf.outcome, entry.detail))
    held = len(stands.troubles) == troubles
    if entry.leaf.outcome == "approved" and held and stands.proposals.keys() == waiting:
        about = f"entries/{entry.index}.json: the entry that proposed what it approves is not here"
        findings.say("enrolment", "missing", about)


def _well_before(earlier: str, later: str) -> bool:
    """Whether a time lies so long before another that nobody can have been between the two."""
    return datetime.fromisoformat(earlier) + AT_ONCE < datetime.fromisoformat(later)
