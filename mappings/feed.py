"""What one bureau declares it sends: the keys of a feed's file, parsed once into a frozen type."""

import datetime
from typing import Literal

import msgspec

DAYS_7 = datetime.timedelta(days=7)


class FieldRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """How one field of the shared schema is filled: columns, then a lookup if any, then a parse function.

    from_:  the source column, or several whose texts are put together with `join` between them (empty ones left out)
    lookup: name of a `[lookups.NAME]` table or of a code list (`cass`); a text that it lacks is a finding, never passed
            on. Or one for each member of `from`, a column or a list of columns put together: then the first decides
            whose table has its text, the surest first
    parse:  name of a function of `mappings.functions`
    """

    from_: str | list[str | list[str]]
    lookup: str | list[str] | None = None
    parse: str = "text"
    join: str = " "

    @property
    def columns(self) -> list[str]:
        """The source columns, once each, in order of mention."""
        return list(dict.fromkeys(column for group in self.groups for column in group))

    @property
    def groups(self) -> list[list[str]]:
        """The members of `from`, each as the columns whose texts are put together."""
        members = [self.from_] if isinstance(self.from_, str) else self.from_
        return [[member] if isinstance(member, str) else member for member in members]

    @property
    def tables(self) -> list[str]:
        """The names of its lookups, always as a list."""
        return [self.lookup] if isinstance(self.lookup, str) else self.lookup or []


class IgnoreRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Records that are left out, by name and with a reason; the first rule that fits decides.

    Either `carried = true` (records whose key column repeats the record above) or `from` with `values`, the texts that
    are left out (the empty text among them stands for an empty cell), or with `endings`, how such texts end. `unless`:
    lookups of the class; a record whose class one of them tells is not left out.
    """

    rule: str
    title: str
    title_zh: str
    from_: str | None = None
    values: list[str] = []
    endings: list[str] = []
    unless: list[str] = []
    carried: bool = False


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """图上注记: the number written beside a symbol, given to the symbol as its `label`.

    from_:    the column of the text; among, values: the records that are such texts, by a column and its texts
    pattern:  regular expression that a number fulfils as a whole
    within_m: no farther than this from the symbol, in one network
    symbols:  the records that bear numbers, by the same column's texts: also those that are no component, for their
              numbers are not their neighbours'. Without it all candidates
    repeated: without it, text and symbol are the nearest of one another; with it, they stand at an offset that at least
              so many pairs of the drawing share (see `mappings.labels`)
    """

    from_: str
    among: str
    values: list[str]
    pattern: str
    within_m: float
    symbols: list[str] = []
    repeated: int = 0


class SheetRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """图幅: of a feed whose every delivery is one or more sheets of the 1:500 map, which sheets they are.

    size:     centimetres of paper, east by north: 250 m by 250 m, or 250 m by 200 m on the ground
    from_:    the column of the texts; among, values: only records that have one of these values in that column
    pattern:  regular expression that such a text fulfils as a whole; its one group is the number
    margin_m: how far what is drawn may run over the sheet's edge
    moved_m:  what stands no farther than this from where a thing of its class stood is that thing, moved
    """

    size: Literal["50x50", "50x40"]
    from_: str = "text"
    among: str = ""
    values: list[str] = []
    pattern: str = "(?:图号[:：]? *)?([0-9]{1,5}[.][0-9]{2}-[0-9]{1,5}[.][0-9]{2})"
    margin_m: float = 5.0
    moved_m: float = 5.0


class Tally(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A count over all records of a delivery, shown in its report.

    of: one column: its distinct values. Two columns: distinct undirected pairs; a pair whose lesser end (in text
        order) is no value of the first column here belongs to another feed's delivery and is counted there.
    """

    name: str
    title: str
    title_zh: str
    of: list[str]


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One source record and what must come of it; see `mappings.examples.check_examples`.

    expect: fields of the feed's file (`easting_m`, `class_code` …), `longitude_deg` and `latitude_deg` computed from
            the feed's CRS, or `ignored` with a rule's name, or `finding` with a code
    """

    source: dict[str, str]
    expect: dict[str, object]


class FeedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of `mappings/feeds/{id}.toml`.

    content:            `snapshot` (all there is now), `changes`, `readings` of the things in another feed, or
                        `reference`: a whole new version of a layer of reference data
    layer:              of reference data: which (`unit-grid`, `district`, `imagery`, `roads` …)
    of:                 of readings: the bureau's feed, usually a register, whose keys they name
    extent:             what a snapshot is whole for; `feed`: all that this feed has said; `sheet`: the sheets of the
                        map that it is drawn on, see `SheetRule`
    gone_limit_percent: a snapshot that would end more than this share of the feed's claims waits for a person
    as_of:              the day on which the content was true; without it the day of signing
    crs:                `EPSG:n` of the positions; accuracy (`accuracy_m` here): their standard error in metres
    classes:            `edition:code`; empty means all that the grant allows
    scale:              of a map, what stands after `1:`; what such a feed says counts as held map (`exchange.map_held`)
    level, sensitive:   data classification, and the fields to be withheld from ordinary readers; a feed that has any
                        is sensitive as a whole, and what it sent is sealed in the evidence
    classified:         by source column, the values of what must not come over this network at all (涉密): one such
                        record stops the delivery (`[feeds] on_classified`), and what it sent is sealed
    rhythm:             how often a delivery is expected, ISO 8601 duration
    max_age:            how old a signature may be on arrival
    max_bytes:          of one delivery's content; narrows the limits of the bus, as the next three do. 0: as they say
    most_a_minute, most_bytes_a_day, most_waiting: deliveries, octets of content, deliveries that act two has not done
    retry_most:         the longest wait between two tries of act two while something that it needs is away
    """

    id: str
    title: str
    title_zh: str
    bureau: str
    format: str
    content: Literal["snapshot", "changes", "readings", "reference"]
    fields: dict[str, FieldRule]
    of: str = ""
    layer: str = ""
    crs: str = ""
    accuracy_m: float = msgspec.field(name="accuracy", default=1.0)
    extent: Literal["feed", "sheet"] = "feed"
    gone_limit_percent: float = 10.0
    as_of: datetime.date | None = None
    classes: list[str] = []
    scale: int = 0
    level: str = ""
    sensitive: list[str] = []
    classified: dict[str, list[str]] = {}
    rhythm: datetime.timedelta | None = None
    max_age: datetime.timedelta = DAYS_7
    max_bytes: int = 0
    most_a_minute: int = 0
    most_bytes_a_day: int = 0
    most_waiting: int = 0
    retry_most: datetime.timedelta | None = None
    options: dict[str, str | int | bool | list[str]] = {}
    defaults: dict[str, str] = {}
    lookups: dict[str, dict[str, str]] = {}
    ignore: list[IgnoreRule] = []
    label: Label | None = None
    sheet: SheetRule | None = None
    tally: list[Tally] = []
    example: list[Example] = []

    @property
    def class_codes(self) -> tuple[str, ...]:
        """Codes of `classes` without their edition; empty means no narrowing."""
        return tuple(name.rpartition(":")[2] for name in self.classes)

    @property
    def sealed(self) -> bool:
        """Whether its deliveries are encrypted at rest: the bytes as they came hold every sensitive field, and more."""
        return bool(self.sensitive)

    @property
    def columns(self) -> list[str]:
        """Every source column that the feed names, once, in order of mention."""
        named = [column for rule in self.fields.values() for column in rule.columns]
        named += [rule.from_ for rule in self.ignore if rule.from_ is not None]
        named += [self.label.from_, self.label.among] if self.label else []
        named += [column for column in (self.sheet.from_, self.sheet.among) if column] if self.sheet else []
        named += [column for tally in self.tally for column in tally.of]
        named += self.classified
        return list(dict.fromkeys(named))


class Feed(FeedFile, frozen=True, kw_only=True):
    """A feed's file that passed every check of `mappings.load`, with the SHA-256 (hex) of its bytes."""

    digest: str
