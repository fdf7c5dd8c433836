"""What a partner does with a bus: push and keep the receipt, fetch the report, ask whose it is. All signed."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, Final, Literal, Protocol

import msgspec
import requests

from connectors.partner import listing
from connectors.partner.answers import Changes, Component, Near, Ownership, typed
from connectors.partner.counter import Counter
from connectors.partner.folder import Kind, PartnerFolder
from connectors.partner.heads import Consistency, Heads
from connectors.partner.log import Log
from connectors.partner.own_entries import AT_ONCE, OwnEntries, OwnEntry, checked, pages
from connectors.partner.rest import session_of
from connectors.transports.soap_client import SoapClient, Version, Wsse
from security.checkpoint import Checkpoint
from security.errors import Refusal
from security.jws import Document
from security.keys import SigningKey
from security.message import Content, Digest
from security.suites import hash_of

INLINE_UP_TO_BYTES: Final = 65_536  # larger content travels by MTOM: a third smaller, and never held as text
UPLOAD_ABOVE_BYTES: Final = 268_435_456  # what a bus takes by MTOM unless it is set otherwise
POLL_SECONDS: Final = 0.5
Status = Literal["waiting", "processed", "held", "refused", "recalled"]


class HoldingDocument(Protocol):
    """A receipt or report whose signature, leaf and inclusion proof hold."""

    @property
    def kind(self) -> Kind:
        """Which of the two it is."""

    @property
    def document(self) -> Document:
        """Its members."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The head that its proof leads to."""


Check = Callable[[bytes], HoldingDocument]  # raises Refusal when anything of the document does not hold


class Received(msgspec.Struct, frozen=True):
    """A receipt or report that was checked and kept. octets: as the bus signed it.

    erased_on: the day on which the bus erased the delivery's content by decision, if it did
    """

    octets: bytes
    document: Document
    erased_on: date | None = None


class Reported(msgspec.Struct, frozen=True):
    """What became of a delivery; received is None while it waits, and once the bus erased it on a day by decision."""

    status: Status
    received: Received | None
    erased_on: date | None = None


class Partner:
    """One bureau's side of the exchange.

    url:   of the bus, `https://host:port`
    check: verifies a receipt or report offline against the anchors
    upload_above_bytes: larger content is sent in pieces
    pending: hears it when an answer says since when the bus's log waits for a timestamp
    """

    def __init__(
        self,
        folder: PartnerFolder,
        url: str,
        check: Check,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        version: Version = "1.1",
        upload_above_bytes: int = UPLOAD_ABOVE_BYTES,
        pending: Callable[[datetime], None] = lambda since: None,
    ) -> None:
        self._pending = pending
        self._folder, self._url, self._check, self._clock, self._version = folder, url, check, clock, version
        self._origin, self._upload_above_bytes = folder.anchors.origin, upload_above_bytes
        self._heads, self._counter = Heads(folder, clock, Log(folder, url)), Counter(folder)
        self._clients: dict[str, SoapClient] = {}

    def push(
        self, feed: str, content: Content, content_type: str, message_id: str, *, on_behalf_of: str = ""
    ) -> Received:
        """Sign and send one delivery; its receipt, once all of it holds. The same again gives the same receipt.

        on_behalf_of: the bureau in whose name it is sent, where that is another; the report is then that bureau's. It
        is not numbered: how far the other has counted is not known here

        Raises Refusal with the bus's code, `audit.*` where the receipt or the log does not hold; Unavailable.
        """

        def send(sequence: int | None) -> Received:
            return self._push(feed, content, content_type, message_id, on_behalf_of, sequence)

        return send(None) if on_behalf_of else self._counter.sent(feed, message_id, send)

    def _push(
        self, feed: str, content: Content, content_type: str, message_id: str, on_behalf_of: str, sequence: int | None
    ) -> Received:
        names = {**self._names(message_id, on_behalf_of), "Feed": feed}
        number = {} if sequence is None else {"Sequence": sequence}
        stated = {"ContentType": content_type, **number, **self._known_size()}
        if content.size > self._upload_above_bytes:
            answer = self._uploaded(names, {**stated, "ContentDigest": _digest(content.digest)}, content)
        else:
            by_mtom = content.size > INLINE_UP_TO_BYTES
            stated["ContentDigest"] = _digest(content.digest_by(hash_of(self._signing.algorithm)))
            answer = self._feeds.call(
                "SubmitDelivery",
                {**names, **stated, "Content": b"" if by_mtom else content.read()},
                attachment=content if by_mtom else None,
            )
        said = {
            **named(self._folder.bureau, on_behalf_of),
            "feed": feed,
            "message_id": message_id,
            "content_digest": content.digest.hex,
            "content_length": content.size,
        }
        return self._kept("receipt", message_id, answer.Receipt, answer.ConsistencyProof, said)

    def _uploaded(self, names: dict[str, str], stated: dict[str, Any], content: Content) -> Any:
        """The answer with the receipt of content sent in pieces, each signed; what has come is not sent again."""
        begun = self._feeds.call("BeginUpload", {**names, **stated, "ContentLength": content.size})
        if begun.Receipt is not None:
            return begun
        received, upload = begun.ReceivedBytes, {"UploadId": begun.UploadId}
        while received < content.size:
            piece = content.part(received, begun.ChunkBytes)
            members = {**names, **upload, "Offset": received, "ContentDigest": _digest(piece.digest), "Content": b""}
            received = self._feeds.call("UploadChunk", members, attachment=piece).ReceivedBytes
        return self._feeds.call("CompleteUpload", {**names, **stated, **upload})

    def receipt(self, message_id: str) -> Received:
        """The receipt of an earlier delivery of one's own."""
        answer = self._feeds.call("GetReceipt", {**self._asked("receipt"), **self._delivery(message_id)})
        said = {"sender": self._folder.bureau, "message_id": message_id}
        kept = self._kept("receipt", message_id, answer.Receipt, answer.ConsistencyProof, said)
        return msgspec.structs.replace(kept, erased_on=answer.ContentErasedOn)

    def report(
        self, message_id: str, *, wait_s: float = 0.0, progress: Callable[[Status], None] = lambda status: None
    ) -> Reported:
        """What became of a delivery of one's own. Asks again for wait_s seconds while it waits for act two."""
        until = time.monotonic() + wait_s
        while True:
            answer = self._feeds.call("GetReport", {**self._asked("report"), **self._delivery(message_id)})
            progress(answer.Status)
            if answer.Report is not None:
                said = {"sender": self._folder.bureau, "message_id": message_id}
                received = self._kept("report", message_id, answer.Report, answer.ConsistencyProof, said)
                return Reported(answer.Status, received, answer.ContentErasedOn)
            if answer.ContentErasedOn is not None:
                return Reported(answer.Status, None, answer.ContentErasedOn)
            if time.monotonic() >= until:
                return Reported(answer.Status, None)
            time.sleep(POLL_SECONDS)

    def outcomes(self, message_id: str) -> bytes:
        """What became of each record of a delivery of one's own: an Arrow file, for the report's root to check."""
        return listing.outcomes(self._session(), self._url, message_id, {"purpose": "report"})

    def picture(self, message_id: str) -> bytes:
        """A picture, SVG, of what a delivery of sheets of one's own changed."""
        return listing.picture(self._session(), self._url, message_id, {"purpose": "report"})

    def recall(self, message_id: str, ground: str, on_behalf_of: str = "") -> Received:
        """Take back a delivery of one's own, or of a bureau in whose name one may sign; the report that says so."""
        names = self._names(f"recall-{secrets.token_hex(12)}", on_behalf_of)
        answer = self._feeds.call("RecallDelivery", {**names, **self._delivery(message_id), "Ground": ground})
        said = {"sender": names["Sender"], "message_id": message_id, "outcome": "recalled"}
        return self._kept("report", message_id, answer.Report, answer.ConsistencyProof, said)

    def checkpoint(self) -> Checkpoint:
        """The log's newest head, once it continues the one remembered."""
        known = self._known_size()
        answer = self._feeds.call("GetCheckpoint", {**self._asked("checkpoint"), **known})
        return self._newest(answer, known)

    def entries(self, after: int = 0) -> OwnEntries:
        """What the log holds in one's own name after an entry, once each detail and the head hold."""
        found: list[OwnEntry] = []

        def ask(after: int) -> Any:
            known = self._known_size()
            asked = {**self._asked("own entries"), **known, "After": after, "Limit": AT_ONCE}
            page = self._feeds.call("GetMyEntries", asked)
            self._newest(page, known)
            return page

        for page in pages(ask, after):
            found += [checked(one.number, one.Leaf, one.Salt, one.Detail) for one in page.Entry]
        return OwnEntries(tuple(found), page.Count, page.Next)

    def changes_of_keys(self) -> bytes:
        """What the bus says of its keys' changes, for `anchors update`; nothing of it is believed yet."""
        return listing.changes_of_keys(self._session(), self._url, self._heads.known_size())

    def ownership(
        self, component: str, on: date | None = None, *, purpose: str, case_number: str | None = None
    ) -> Ownership:
        """Whose a component is, now or at the end of a day. component: identifier, or internal number in digits."""
        asked = self._asked(purpose, case_number)
        answer = self._components.call("GetOwnership", {**asked, "ComponentId": component, **_on(on)})
        return typed(answer.Ownership, Ownership)

    def component(self, component: str, *, purpose: str, case_number: str | None = None) -> Component:
        """One component."""
        asked = self._asked(purpose, case_number)
        answer = self._components.call("GetComponent", {**asked, "ComponentId": component})
        return typed(answer.Component, Component)

    def nearest(
        self,
        longitude_deg: float,
        latitude_deg: float,
        radius_m: float,
        class_code: str | None = None,
        on: date | None = None,
        *,
        purpose: str,
        case_number: str | None = None,
    ) -> tuple[Near, ...]:
        """Components around a place, nearest first, and whose they are."""
        answer = self._components.call(
            "FindNearest",
            {
                **self._asked(purpose, case_number),
                "LongitudeDeg": longitude_deg,
                "LatitudeDeg": latitude_deg,
                "RadiusM": radius_m,
                **({"ClassCode": class_code} if class_code else {}),
                **_on(on),
            },
        )
        return tuple(typed(near, Near) for near in answer.Near)

    def components(
        self, class_code: str | None = None, *, purpose: str, case_number: str | None = None
    ) -> Iterator[tuple[Component, ...]]:
        """All components that the grant covers, a page at a time, without their readings. Over REST, so not signed.

        Between two pages others may change: each component is given as it stood when its page was.
        """
        asked = {"class": class_code, "purpose": purpose, "case_number": case_number}
        return listing.components(self._session(), self._url, {name: text for name, text in asked.items() if text})

    def changes(
        self, after: int = 0, *, limit: int | None = None, purpose: str, case_number: str | None = None
    ) -> Changes:
        """What happened to components after a change number, each with its latest change. Go on from `next`."""
        asked = {**self._asked(purpose, case_number), "After": after, **({"Limit": limit} if limit else {})}
        return typed(self._components.call("GetChanges", asked), Changes)

    @cached_property
    def _signing(self) -> SigningKey:
        return self._folder.signing

    @property
    def _feeds(self) -> SoapClient:
        return self._client("feeds")

    @property
    def _components(self) -> SoapClient:
        return self._client("components")

    def _client(self, service: Literal["feeds", "components"]) -> SoapClient:
        if service not in self._clients:
            key = self._signing
            assert key.certificate_der is not None  # the folder loads it with its certificate
            suites = self._folder.anchors.xml_suites
            wsse = Wsse(key, key.certificate_der, self._folder.answerers(), self._clock, suites)
            self._clients[service] = SoapClient(self._url, service, self._session(), wsse, self._version, self._pending)
        return self._clients[service]

    def _session(self) -> requests.Session:
        return session_of(self._folder)

    def _names(self, message_id: str, on_behalf_of: str = "") -> dict[str, str]:
        return {"Sender": on_behalf_of or self._folder.bureau, "Recipient": self._origin, "MessageId": message_id}

    def _asked(self, purpose: str, case_number: str | None = None) -> dict[str, str]:
        names = self._names(f"read-{secrets.token_hex(12)}")
        return {**names, "Purpose": purpose, **({"CaseNumber": case_number} if case_number else {})}

    def _delivery(self, message_id: str) -> dict[str, str | int]:
        return {"DeliveryMessageId": message_id, **self._known_size()}

    def _newest(self, answer: Any, known: dict[str, int]) -> Checkpoint:
        """The head of an answer that offers the newest. known: as it was asked with."""
        proof = _consistency(answer.ConsistencyProof)
        return self._heads.follow_newest(answer.Checkpoint, proof, known["KnownTreeSize"])

    def _known_size(self) -> dict[str, int]:
        return {"KnownTreeSize": self._heads.known_size()}

    def _kept(self, kind: Kind, message_id: str, text: str, proof: Any, said: Mapping[str, object]) -> Received:
        """A document once it holds, says what we sent, and stands in the log that we know; only then it is kept."""
        octets = text.encode("ascii")
        holding = self._check(octets)
        if holding.kind != kind:
            raise Refusal("audit.receipt_invalid", f"a {kind} was asked for, a {holding.kind} came")
        if other := differing(holding.document, said):
            raise Refusal("audit.receipt_invalid", f"it says another {', '.join(other)} than was sent")
        self._heads.follow(str(holding.document["checkpoint"]), _consistency(proof))
        # What a recall says does not take the place of what was said before.
        recalled = holding.document.get("outcome") == "recalled"
        self._folder.keep(kind, f"{message_id}.recalled" if recalled else message_id, octets)
        return Received(octets, holding.document)


def _digest(digest: Digest) -> dict[str, str]:
    """`ContentDigest` as zeep writes it."""
    return {"_value_1": digest.hex, "algorithm": digest.algorithm}


def differing(document: Document, said: Mapping[str, object]) -> list[str]:
    """Members that say something else than was sent."""
    return [name for name, value in said.items() if document.get(name) != value]


def named(bureau: str, on_behalf_of: str) -> dict[str, str]:
    """What a receipt must say of who speaks, and in whose name."""
    return {"sender": on_behalf_of, "asserted_by": bureau} if on_behalf_of else {"sender": bureau}


def _consistency(proof: Any) -> Consistency | None:
    """A `ConsistencyProof` element as zeep read it."""
    if proof is None:
        return None
    return Consistency(int(proof.first), int(proof.second), tuple(bytes.fromhex(node) for node in proof.Node))


def _on(on: date | None) -> dict[str, date]:
    return {"On": on} if on else {}
