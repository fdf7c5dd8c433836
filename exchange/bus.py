"""What the stories work with: the bus's collaborators, put together once by `exchange.app`."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
from lxml import etree

from exchange.attestations import Attestations
from exchange.boundaries import Boundaries
from exchange.districts import Districts
from exchange.evidence import Evidence
from exchange.fairness import Slices, Turns
from exchange.gate import Gate
from exchange.journal import Journal
from exchange.placing import City
from exchange.reference import Reference
from exchange.registry import Registry
from exchange.replays import Replays
from exchange.stopped import Stopped
from exchange.store.store import Store
from exchange.store.territory import WHOLE, Territory
from exchange.timestamping import Coverage
from exchange.uploads import Uploads
from exchange.validation import Lists
from exchange.waits import Waits
from mappings.feed import Feed
from security.anchors import Anchors
from security.keys import SigningKey
from security.suites import XmlSuites
from security.xmldsig import STANDARD


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an outsider may send, octets and seconds; and how large a map, square kilometres in one piece, may leave
    without a grant naming it (map_area), and be held of what large-scale maps bring (held_map).

    feed_*: of one feed, unless its file says less; 0 is no limit. A minute's deliveries may come all at once
    """

    max_envelope_bytes: int = 8_388_608
    max_inline_bytes: int = 5_242_880
    max_mtom_bytes: int = 268_435_456
    body_s: float = 60.0
    map_area_km2: float = 25.0
    held_map_km2: float = 25.0
    max_upload_bytes: int = 4_294_967_296
    upload_chunk_bytes: int = 67_108_864
    upload_s: float = 86_400.0
    feed_deliveries_a_minute: int = 120_000
    feed_bytes_a_day: int = 0
    feed_most_waiting: int = 100_000


class Bus(msgspec.Struct, frozen=True):
    """One running bus, as its stories see it.

    origin:       its name in receipts and as `Recipient` of every request
    folder:       its state
    feed_digests: SHA-256 of each feed's file, hex: which mapping was in force
    schema:       the published XSD, compiled
    answer_key:   signs receipts, reports and SOAP answers; answer_certificate_der goes with it
    outcome_secret: keys the salts of outcome trees, 32 octets
    wake:         tells the scheduler that a delivery was accepted
    clock:        now, aware, UTC
    anchors:      what partners trust of this bus: the log's key, and who watches it
    attestations: what witnesses and timestamp authorities said of heads
    xml_suites:   the names that SM2 and SM3 go by in XML signatures
    coverage:     how far the log lies under timestamps; None where none are demanded
    stopped:      feeds that an operator stopped; waits: feeds that are tried again later
    gate:         what each feed may send now; turns: whose message is looked at next; slices: how long a feed's turn is
    territory:    in which divisions identifiers are issued here, and who names components in the others
    boundaries:   by which districts and unit grid everything is placed
    districts:    the nodes to which divisions are delegated, by their centre's bureau
    reference:    gives what district nodes fetch here; None where no door is open
    laid_out:     folder of answers for couriers, a folder a bureau; None where there is no one-way door
    """

    origin: str
    folder: Path
    limits: Limits
    feeds: Mapping[str, Feed]
    feed_digests: Mapping[str, str]
    registry: Registry
    journal: Journal
    evidence: Evidence
    store: Store
    boundaries: Boundaries
    schema: etree.XMLSchema
    answer_key: SigningKey
    answer_certificate_der: bytes
    outcome_secret: bytes
    replays: Replays
    uploads: Uploads
    wake: Callable[[], None]
    clock: Callable[[], datetime]
    anchors: Anchors
    attestations: Attestations
    stopped: Stopped
    waits: Waits
    batch_deliveries: int = 500
    transformation_m: float = 1.0
    on_classified: Literal["refuse", "hold"] = "refuse"
    xml_suites: XmlSuites = STANDARD
    coverage: Coverage | None = None
    gate: Gate = msgspec.field(default_factory=Gate)
    turns: Turns = msgspec.field(default_factory=Turns)
    slices: Slices = msgspec.field(default_factory=Slices)
    territory: Territory = WHOLE
    districts: Districts = {}
    reference: Callable[[], Reference] | None = None
    laid_out: Path | None = None

    @property
    def city(self) -> City:
        """The districts and the unit grid in force; within a turn at the store always the same."""
        return self.boundaries.now().city

    @property
    def lists(self) -> Lists:
        """The code lists in force, with the codes of these."""
        return self.boundaries.now().lists

    def timestamp_pending(self) -> datetime | None:
        """When the oldest entry was made that waits for a timestamp, once answers have to say so."""
        return self.coverage.pending_since(self.clock()) if self.coverage is not None else None

    def close(self) -> None:
        """Write what is staged and give the files back."""
        self.journal.close()
        if self.coverage is not None:
            self.coverage.close()
        self.evidence.close()
        self.store.close()
        self.attestations.close()
