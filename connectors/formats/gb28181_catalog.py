"""Camera catalogues of GB/T 28181, editions 2011, 2016 and 2022: one MANSCDP document in XML, one record an item.

Which characters the bytes are. Three editions declare GB2312, GBK or GB 18030, and devices declare one thing and send
another, so the bytes are believed and the declaration only breaks a tie:

1. a byte order mark of UTF-8, or no byte above 127: UTF-8;
2. well-formed UTF-8 that is Chinese in that reading: UTF-8, whatever is declared;
3. well-formed UTF-8 without anything Chinese (a pair of GB bytes can look like one Latin or Greek letter): what is
   declared, and UTF-8 where nothing is;
4. no UTF-8: GB 18030, of which GB2312 and GBK are parts. But UTF-8 with a broken byte is no GB 18030, though it often
   decodes as that (浣犲ソ for 你好): where more Chinese characters than broken places are read as UTF-8, it is refused.

Decoding is strict: a wrong byte refuses the delivery, it is never replaced. A declaration that no edition knows is
refused too.

What never becomes a column: `Password` and `UserId` (secrets), `IPAddress`, `Port` and `MAC` (where to attack),
`ContactInfo` (a person's name and telephone). Only the fields in COLUMNS are taken, so whatever else a device invents
is left out by not being known. An `Address` that is an IP address, as recorders fill it in, is left out likewise.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

import polars as pl
from lxml import etree

from connectors.formats.records import CARRIED, CONTENT, RECORD, RECORDS_PER_BATCH, SHEET, Options, RecordBatch
from security.errors import Refusal
from security.message import Content
from security.xml import parse_document

NAME: Final = "gb28181_catalog"
OPTIONS: Final[Mapping[str, tuple[type, ...]]] = {}

# Fields move between Item and Info from edition to edition (PTZType, BusinessGroupID): one name, wherever it stands.
ITEM: Final = (
    *("DeviceID", "Name", "Manufacturer", "Model", "Owner", "CivilCode", "Block", "Address", "Parental", "ParentID"),
    *("SafetyWay", "RegisterWay", "CertNum", "Certifiable", "ErrCode", "EndTime", "SecurityLevelCode", "Secrecy"),
    *("Status", "Longitude", "Latitude", "BusinessGroupID", "Event"),
)
INFO: Final = (
    *("PTZType", "PhotoelectricImagingType", "CapturePositionType", "PositionType", "RoomType", "UseType"),
    *("SupplyLightType", "DirectionType", "Resolution", "StreamNumberList", "DownloadSpeed", "SVCSpaceSupportMode"),
    *("SVCTimeSupportMode", "SSVCRatioSupportList", "MobileDeviceType", "HorizontalFieldAngle", "VerticalFieldAngle"),
    *("MaxViewDistance", "GrassrootsCode", "PointType", "PointCommonName", "FunctionType", "EncodeType"),
    *("InstallTime", "ManagementUnit", "RecordSaveDays", "IndustrialClassification"),
)
# Of the message, the same in each record: CmdType, SN, SumNum. Of the DeviceID: `type_code`, digits 11 to 13 of twenty;
# `network_code`, the fourteenth (网络标识: 5 is the police information network);
# `id_digits`, how many digits it has (2, 4, 6, 8: a division), null where it is not digits alone.
COLUMNS: Final = ("CmdType", "SN", "SumNum", *ITEM, *INFO, "type_code", "network_code", "id_digits")

MAX_BYTES: Final = 64 << 20  # in UTF-8
MAX_ELEMENTS: Final = 3_000_000
MAX_ITEMS: Final = 200_000
MAX_DEPTH: Final = 16
MAX_CHARACTERS: Final = 4_096  # of one field

_BOM: Final = b"\xef\xbb\xbf"
_DECLARED: Final = re.compile(rb"""<\?xml\s[^>]*?encoding\s*=\s*["']([A-Za-z0-9._\-]+)["']""")
_GB: Final = ("GB2312", "GBK", "GB18030", "GB-18030", "CP936")
_UTF_8: Final = ("UTF-8", "UTF8", "US-ASCII")
_CHINESE: Final = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
_DIGITS: Final = re.compile("[0-9]+")
_IP_ADDRESS: Final = re.compile(
    r"(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?|\[?[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]?(?::\d+)?"
)
_IPV4: Final = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")  # wherever it stands: `rtsp://10.1.2.3/`
# What a refusal of the XML itself means for a file that somebody exported.
_AS_CONTENT: Final = {
    "xml.dtd": "decode.doctype",
    "xml.too_large": "decode.too_large",
    "xml.too_complex": "decode.too_large",
    "xml.not_well_formed": "decode.not_readable",
}

Record = dict[str, str]


def decode(contents: Iterable[Content], options: Options) -> Iterator[RecordBatch]:
    """Yield the items of each content in order, at least one batch a content.

    A batch is complete when its content is the answer to a catalogue query and has as many items as it says that there
    are in all. A page of several, a notification and a message that is no catalogue never are. Such a message
    (Keepalive, DeviceInfo, RecordInfo, Alarm …) is one record: its CmdType, SN and DeviceID.

    Raises Refusal decode.encoding_unknown, decode.encoding_wrong, decode.not_readable, decode.doctype,
    decode.field_doubled, decode.too_large.
    """
    for index, content in enumerate(contents):
        root = _root(_characters(content.read()))
        records, complete = _records(root)
        for first in range(0, max(1, len(records)), RECORDS_PER_BATCH):
            yield RecordBatch(_frame(index, first, records[first : first + RECORDS_PER_BATCH]), complete)


# Bytes to characters


def _characters(octets: bytes) -> str:
    """The text, by the rules at the head of this module."""
    if len(octets) > MAX_BYTES:
        raise Refusal("decode.too_large", f"{len(octets)} > {MAX_BYTES}")
    found = _DECLARED.match(octets.removeprefix(_BOM)[:256])
    declared = found[1].decode("ascii").upper() if found else None
    if b"\0" in octets or declared not in (None, *_UTF_8, *_GB):
        raise Refusal("decode.encoding_unknown", declared or "UTF-16 or UTF-32")
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        return _no_utf_8(octets, declared, problem.start)
    if octets.startswith(_BOM) or octets.isascii() or declared not in _GB or _CHINESE.search(text):
        return text
    return _gb18030(octets, declared)


def _no_utf_8(octets: bytes, declared: str | None, place: int) -> str:
    """Bytes that are not UTF-8 are GB 18030, unless they are nearly UTF-8."""
    nearly = octets.decode("utf-8", "replace")
    if octets.startswith(_BOM) or len(_CHINESE.findall(nearly)) > nearly.count("\ufffd"):
        raise Refusal("decode.encoding_wrong", f"UTF-8, byte {place}")
    return _gb18030(octets, declared)


def _gb18030(octets: bytes, declared: str | None) -> str:
    try:
        return octets.decode("gb18030")
    except UnicodeDecodeError as problem:
        raise Refusal("decode.encoding_wrong", f"{declared or 'GB18030'}, byte {problem.start}") from problem


# Characters to records


def _root(text: str) -> etree._Element:
    try:
        return parse_document(text, max_bytes=2 * MAX_BYTES, max_depth=MAX_DEPTH, max_elements=MAX_ELEMENTS)
    except Refusal as problem:
        raise Refusal(_AS_CONTENT[problem.code], problem.detail) from problem


def _records(root: etree._Element) -> tuple[list[Record], bool]:
    """The records of a message, and whether it says that they are all there are."""
    message = _fields(root, ("CmdType", "SN", "SumNum", "DeviceID"))
    if "CmdType" not in message:
        raise Refusal("decode.not_readable", "no CmdType")
    kind = etree.QName(root).localname
    if message["CmdType"] != "Catalog" or kind not in ("Response", "Notify"):
        return [{name: message[name] for name in ("CmdType", "SN", "DeviceID") if name in message}], False
    common = {name: message[name] for name in ("CmdType", "SN", "SumNum") if name in message}
    records = [{**common, **_record(item)} for item in root.iterfind(".//{*}Item")]
    if len(records) > MAX_ITEMS:
        raise Refusal("decode.too_large", f"more than {MAX_ITEMS} items")
    return records, kind == "Response" and _all_there(root, message, records)


def _all_there(root: etree._Element, message: Record, records: list[Record]) -> bool:
    """Whether an answer has as many items as it says: of all its messages together, and of this one."""
    lists = [node.get("Num", "0").strip() for node in root.iterfind("{*}DeviceList")]
    stated = [_number(text) for text in (message.get("SumNum", ""), *lists)]
    changes = any("Event" in record for record in records)
    return not changes and all(number is not None and number <= len(records) for number in stated)


def _number(text: str) -> int | None:
    return int(text) if _DIGITS.fullmatch(text) and len(text) < 10 else None


def _record(item: etree._Element) -> Record:
    """One item's fields, its own before those of its Info. An item inside an item is a record of its own."""
    inside = chain.from_iterable(item.iterchildren("{*}Info"))
    record = _fields(inside, (*ITEM, *INFO)) | _fields(item, (*ITEM, *INFO))
    if _IP_ADDRESS.fullmatch(record.get("Address", "")) or _IPV4.search(record.get("Address", "")):
        del record["Address"]
    device = record.get("DeviceID", "")
    if _DIGITS.fullmatch(device):
        record["id_digits"] = str(len(device))
    if len(device) == 20 and "id_digits" in record:
        record["type_code"], record["network_code"] = device[10:13], device[13]
    return record


def _fields(elements: Iterable[etree._Element], wanted: tuple[str, ...]) -> Record:
    """The texts of the wanted elements, where there is text. Raises Refusal decode.field_doubled, decode.too_large."""
    said: Record = {}
    for element in elements:
        name, text = etree.QName(element).localname, (element.text or "").strip()
        if not text or name not in wanted:
            continue
        if len(text) > MAX_CHARACTERS:
            raise Refusal("decode.too_large", f"{name} of more than {MAX_CHARACTERS} characters")
        if said.setdefault(name, text) != text:
            raise Refusal("decode.field_doubled", name)
    return said


def _frame(content: int, first: int, records: list[Record]) -> pl.DataFrame:
    """Records as columns of text, null where a field is absent or empty."""
    count = len(records)
    own = {
        CONTENT: pl.Series([content] * count, dtype=pl.UInt32),
        RECORD: pl.Series(range(first, first + count), dtype=pl.UInt32),
        SHEET: pl.Series([None] * count, dtype=pl.String),
        CARRIED: pl.Series([False] * count, dtype=pl.Boolean),
    }
    said = {name: pl.Series([record.get(name) for record in records], dtype=pl.String) for name in COLUMNS}
    return pl.DataFrame({**own, **said})
