"""A partner before a one-way gateway (单向摆渡): it sends packages, and checks what a courier brings back.

What was packed is noted in the folder, `packed/`, so that an answer weeks later is held against what was sent.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from connectors.partner.counter import Counter
from connectors.partner.envelope import names_of, sealed_apart
from connectors.partner.folder import Kind, PartnerFolder
from connectors.partner.heads import Heads
from connectors.partner.partner import Check, named
from connectors.partner.unasked import kept, opened, refusal_of
from connectors.transports.package import SUFFIX, write_package
from security.errors import Misconfigured, Refusal
from security.jws import Document
from security.message import Content
from security.signatures import open_signed

MOST_ANSWER_BYTES: Final = 64 << 20
REQUEST: Final = "request_digest"  # of the envelope that was packed last: by it a refusal names what it refuses


class Packed(msgspec.Struct, frozen=True):
    """A package that was written. sequence: which of the bureau's deliveries to the feed it is, if it has a number."""

    path: Path
    message_id: str
    sequence: int | None


class Brought(msgspec.Struct, frozen=True):
    """One file that a courier brought.

    kind:    `receipt`, `report`, `refusal`; `unknown` where it does not hold, and `problem` says why
    outcome: as it says; `superseded` of the refusal of an earlier package, of which nothing follows any more
    problem: what the bus refused, at its door or, in a report, of the whole delivery
    """

    file: str
    kind: Literal["receipt", "report", "refusal", "unknown"]
    message_id: str = ""
    outcome: str = ""
    problem: Refusal | None = None


class PackagePartner:
    """One bureau's side of a one-way exchange. check: verifies a receipt or report offline against the anchors."""

    def __init__(
        self, folder: PartnerFolder, check: Check, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._folder, self._check, self._clock = folder, check, clock
        self._heads, self._counter = Heads(folder, clock), Counter(folder)

    def pack(
        self, feed: str, content: Content, content_type: str, message_id: str, path: Path, *, on_behalf_of: str = ""
    ) -> Packed:
        """Write a delivery into a new package. The same message id again has the same number.

        on_behalf_of: as `Partner.push` has it. Raises Refusal for names of another form, and `delivery.id_reused` where
        something else was packed under that id; Misconfigured naming the file.
        """
        if path.suffix != SUFFIX or path.exists():  # before a number is taken
            raise Misconfigured("config.file", f"{path}: {'there already' if path.exists() else f'write *{SUFFIX}'}")
        before = self._folder.packed(message_id)
        if before and (before["feed"], before["content_digest"]) != (feed, content.digest.hex):
            raise Refusal("delivery.id_reused", message_id)
        sequence = None if on_behalf_of else self._counter.number(feed, message_id)
        names = names_of(self._folder, feed, content_type, message_id, self._clock(), on_behalf_of, sequence)
        envelope = sealed_apart(self._folder, content, names)
        said = {
            **named(self._folder.bureau, on_behalf_of),
            "feed": feed,
            "message_id": message_id,
            "content_digest": content.digest.hex,
            "content_length": content.size,
        }
        try:
            write_package(path, envelope, content)
        except OSError as problem:
            raise Misconfigured("config.file", f"{path}: {problem.strerror}") from problem
        said[REQUEST] = open_signed(envelope).signature_digest
        self._folder.note_packed(message_id, msgspec.json.encode(said))
        return Packed(path, message_id, sequence)

    def take_home(self, answers: Path) -> Iterator[Brought]:
        """Check and keep what a courier brought, file by file; what does not hold is said and not kept.

        answers: the bureau's own folder in the door's `out/`, or a copy. Raises Misconfigured where it cannot be read.
        """
        answerers = self._folder.answerers()
        try:
            files = sorted(path for path in answers.iterdir() if path.suffix == ".json" and path.is_file())
        except OSError as problem:
            raise Misconfigured("config.file", f"{answers}: {problem.strerror}") from problem
        for file in files:
            try:
                if file.stat().st_size > MOST_ANSWER_BYTES:
                    raise Refusal("answer.not_signed", f"{file.stat().st_size} octets")
                octets = file.read_bytes()
                yield self._taken(file.name, octets, opened(octets, self._check, answerers))
            except Refusal as refusal:
                yield Brought(file.name, "unknown", problem=refusal)
            except OSError as problem:
                raise Misconfigured("config.file", f"{file}: {problem.strerror}") from problem

    def _taken(self, name: str, octets: bytes, document: Document) -> Brought:
        message_id = str(document.get("message_id", ""))
        said = self._folder.packed(message_id)
        if said is None:
            raise Refusal("audit.receipt_invalid", f"{message_id[:80]}: nothing of that id was packed here")
        if "code" in document:
            return self._refused(name, message_id, said, document)
        kind: Kind = "report" if "report" in document else "receipt"
        sent = {name: value for name, value in said.items() if name != REQUEST}
        expected: dict[str, Any] = sent if kind == "receipt" else {"sender": said["sender"]}
        kept(self._folder, self._heads, self._check, kind, message_id, octets, expected)
        told = document.get("report", {})
        problem = refusal_of(told) if "code" in told and document["outcome"] != "recalled" else None
        return Brought(name, kind, message_id, str(document["outcome"]), problem)

    def _refused(self, name: str, message_id: str, said: Document, document: Document) -> Brought:
        """Its number is free again for the next package, as over any other door; but not by the refusal of an earlier
        package of that id, nor once a receipt is held."""
        names = (said["sender"], said["feed"], said[REQUEST])
        if (document.get("sender"), document.get("feed"), document.get(REQUEST)) != names:
            return Brought(name, "refusal", message_id, "superseded")
        if self._folder.receipt(message_id) is not None:
            return Brought(name, "refusal", message_id, "superseded")
        refusal = refusal_of(document)
        if "asserted_by" not in said:
            self._counter.refused(refusal, said["feed"], message_id)
        return Brought(name, "refusal", message_id, "refused", refusal)
