"""Catalogues of three editions give the same columns; what nobody may see is in none of them; attacks are refused."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats import gb28181_catalog
from connectors.formats.catalogue import formats
from connectors.formats.gb28181_catalog import COLUMNS, INFO, ITEM, MAX_CHARACTERS, MAX_ITEMS
from connectors.formats.records import CARRIED, CONTENT, RECORD, RECORDS_PER_BATCH, SHEET
from security.errors import Refusal
from security.message import in_memory

DROPPED = ("Password", "UserId", "IPAddress", "Port", "MAC", "ContactInfo")  # of the standard, and never read
Data = Callable[[str], Path]
GB = '<?xml version="1.0" encoding="GB2312"?>'
UTF = '<?xml version="1.0" encoding="UTF-8"?>'
CAMERA = "<DeviceID>33020300081320000001</DeviceID>"

# The 2022 edition's structure, as the standard's clause on catalogue answers has it; names and places are made up.
EDITION_2022 = """<?xml version="1.0" encoding="GB18030"?>
<Response>
  <CmdType>Catalog</CmdType>
  <SN>17</SN>
  <DeviceID>33020000082000000001</DeviceID>
  <SumNum>2</SumNum>
  <DeviceList Num="2">
    <Item>
      <DeviceID>330203</DeviceID>
      <Name>海曙区</Name>
    </Item>
    <Item>
      <DeviceID>33020300081320000001</DeviceID>
      <Name>䶮溪路示例路口东</Name>
      <Status>on</Status>
      <SecurityLevelCode>A</SecurityLevelCode>
      <Longitude>121.549000</Longitude>
      <Latitude>29.874000</Latitude>
      <Info>
        <PTZType>3</PTZType>
        <PointType>1</PointType>
        <MAC>00-11-22-33-44-55</MAC>
        <ContactInfo>13800000000</ContactInfo>
        <ManagementUnit>某公安分局</ManagementUnit>
      </Info>
    </Item>
  </DeviceList>
</Response>"""


def batches(octets: bytes) -> list[tuple[pl.DataFrame, bool]]:
    return [(batch.frame, batch.complete) for batch in gb28181_catalog.decode([in_memory(octets)], {})]


def decode(octets: bytes) -> pl.DataFrame:
    return pl.concat([frame for frame, _ in batches(octets)])


def complete(octets: bytes) -> bool:
    return all(whole for _, whole in batches(octets))


def said(octets: bytes, record: int = 0) -> dict[str, str]:
    """What one record says, without what it leaves empty."""
    row = decode(octets).select(COLUMNS).row(record, named=True)
    return {name: value for name, value in row.items() if value is not None}


def refusal(octets: bytes) -> str:
    with pytest.raises(Refusal) as refused:
        batches(octets)
    assert not refused.value.detail or "secret" not in refused.value.detail
    return refused.value.code


def outcome(octets: bytes) -> str:
    """`decode.done` or the refusal's code."""
    try:
        batches(octets)
    except Refusal as refused:
        return refused.code
    return "decode.done"


def catalogue(*items: str, sum_num: str | None = None, head: str = UTF, root: str = "Response") -> str:
    inside = "".join(f"<Item>{item}</Item>" for item in items)
    number = str(len(items)) if sum_num is None else sum_num
    return (
        f"{head}<{root}><CmdType>Catalog</CmdType><SN>1</SN><DeviceID>33020000082000000001</DeviceID>"
        f'<SumNum>{number}</SumNum><DeviceList Num="{len(items)}">{inside}</DeviceList></{root}>'
    )


# Three editions, real files


def test_the_format_is_found_by_its_name() -> None:
    assert formats()["gb28181_catalog"] is gb28181_catalog  # type: ignore[comparison-overlap]  # a module is the format


def test_the_recorder_s_page_says_that_it_is_two_of_eight(shared_data: Data) -> None:
    octets = (shared_data("gb28181") / "nvr_catalog_page_2_of_8.xml").read_bytes()
    frame = decode(octets)
    assert frame["DeviceID"].to_list() == ["34020000001320000001", "34020000001320000002"]
    assert frame["Status"].to_list() == ["ON", "OFF"]
    assert frame["type_code"].to_list() == ["132", "132"]
    assert frame["Address"].to_list() == [None, None], "an IP address in the place of an address"
    assert frame[RECORD].to_list() == [0, 1]
    assert not complete(octets)


def test_the_same_catalogue_in_two_encodings_gives_the_same_records(shared_data: Data) -> None:
    one, two = (
        (shared_data("gb28181") / name).read_bytes() for name in ("lunasaw_catalog.xml", "lunasaw_catalog_gb2312.xml")
    )
    assert decode(one).equals(decode(two))
    told = said(one)
    assert (told["Address"], told["type_code"], told["PTZType"]) == ("上海市五角场合生汇", "118", "1")
    assert (told["Owner"], told["EndTime"], told["Certifiable"]) == ("Owner", "2010-11-11T19:46:17", "0"), "2016 only"
    assert not {"Password1", "172.19.128.50", "5060"} & set(told.values())
    assert complete(one)


def test_the_2022_edition_is_read_in_gb18030_with_its_longer_info() -> None:
    octets = EDITION_2022.encode("gb18030")
    assert said(octets) == {
        **{"CmdType": "Catalog", "SN": "17", "SumNum": "2"},
        **{"DeviceID": "330203", "Name": "海曙区", "id_digits": "6"},
    }
    told = said(octets, 1)
    assert (told["Name"], told["Status"], told["SecurityLevelCode"]) == ("䶮溪路示例路口东", "on", "A")
    assert (told["PTZType"], told["PointType"], told["ManagementUnit"]) == ("3", "1", "某公安分局")
    assert (told["type_code"], told["id_digits"]) == ("132", "20")
    assert complete(octets)


@pytest.mark.parametrize(
    "name, command",
    [
        ("ipcamera_keepalive.xml", "Keepalive"),
        ("nvr_recordinfo.xml", "RecordInfo"),
        ("lunasaw_deviceInfo.xml", "DeviceInfo"),
        ("lunasaw_deviceStatus.xml", "DeviceStatus"),
        ("simulator_alarm_notify.xml", "Alarm"),
    ],
)
def test_a_message_that_is_no_catalogue_is_one_record_and_never_all_there_is(
    shared_data: Data, name: str, command: str
) -> None:
    octets = (shared_data("gb28181") / name).read_bytes()
    told = said(octets)
    assert decode(octets).height == 1
    assert (told["CmdType"], len(told["DeviceID"])) == (command, 20)
    assert set(told) == {"CmdType", "SN", "DeviceID"}
    assert not complete(octets)


# Columns


def test_every_record_has_every_column_as_text_after_the_format_s_own() -> None:
    frame = decode(catalogue(CAMERA).encode())
    assert frame.columns == [CONTENT, RECORD, SHEET, CARRIED, *COLUMNS]
    assert set(frame.select(COLUMNS).dtypes) == {pl.String}
    assert not set(DROPPED) & set(COLUMNS)


@pytest.mark.parametrize(
    "device, digits, kind",
    [
        ("33020300081320000001", "20", "132"),
        ("330203", "6", None),
        ("3302030008132000000", "19", None),
        ("3302030008132000000X", None, None),
        ("３３０２０３", None, None),
        ("APE-001", None, None),
    ],
)
def test_what_the_identifier_says_of_itself(device: str, digits: str | None, kind: str | None) -> None:
    told = said(catalogue(f"<DeviceID>{device}</DeviceID>").encode())
    assert (told.get("id_digits"), told.get("type_code")) == (digits, kind)


def test_a_field_is_the_same_column_in_item_and_info_and_the_item_s_own_goes_first() -> None:
    told = said(
        catalogue(f"{CAMERA}<PTZType>1</PTZType><Info><PTZType>3</PTZType><UseType>2</UseType></Info>").encode()
    )
    assert (told["PTZType"], told["UseType"]) == ("1", "2")


def test_unknown_elements_namespaces_comments_and_nesting_are_no_matter() -> None:
    odd = (
        f"{CAMERA}<Name>东<!-- not text -->门</Name><Extra><Password>secret</Password></Extra><Latitude/>"
        "<Info><Info><PTZType>3</PTZType></Info></Info><Item><DeviceID>33020300081310000002</DeviceID></Item>"
    )
    octets = catalogue(odd).replace("<Response>", '<Response xmlns="urn:odd">').encode()
    frame = decode(octets)
    assert frame["DeviceID"].to_list() == ["33020300081320000001", "33020300081310000002"]
    assert (said(octets)["Name"], "Latitude" in said(octets)) == ("东门", False)


@pytest.mark.parametrize(
    "address, kept",
    [
        ("192.168.254.18", False),
        ("127.0.0.1:15060", False),
        ("fe80::1", False),
        ("[2001:db8::1]:5060", False),
        ("示例路18号", True),
        ("12.5公里处", True),
        ("北门: 3号", True),
    ],
)
def test_an_address_that_is_an_ip_address_is_dropped_like_one(address: str, kept: bool) -> None:
    assert ("Address" in said(catalogue(f"{CAMERA}<Address>{address}</Address>").encode())) is kept


names = st.sampled_from([*DROPPED, *ITEM, *INFO, "password", "PassWord", "Info", "Extra", "Token"])
trees = st.recursive(
    st.just("s3cret"),
    lambda inner: st.lists(st.tuples(names, inner), max_size=5).map(
        lambda parts: "".join(f"<{name}>{inside}</{name}>" for name, inside in parts)
    ),
    max_leaves=12,
)


@given(st.lists(st.tuples(st.sampled_from(DROPPED), trees), min_size=1, max_size=4), st.booleans())
@settings(max_examples=150)
def test_what_is_dropped_is_in_no_column_wherever_and_however_it_is_nested(
    parts: list[tuple[str, str]], in_info: bool
) -> None:
    inside = "".join(f"<{name}>{text}</{name}>" for name, text in parts)
    item = f"{CAMERA}<Name>东门</Name>" + (f"<Info>{inside}</Info>" if in_info else inside)
    frame = decode(catalogue(item).encode())
    assert frame.height == 1
    assert "s3cret" not in frame.write_csv()
    assert frame.columns == [CONTENT, RECORD, SHEET, CARRIED, *COLUMNS]


# Whether it is all there


@pytest.mark.parametrize(
    "text, whole",
    [
        (catalogue(CAMERA), True),
        (catalogue(CAMERA, sum_num="2"), False),
        (catalogue(CAMERA, sum_num="0"), True),
        (catalogue(sum_num="0"), True),
        (catalogue(CAMERA, sum_num=""), False),
        (catalogue(CAMERA, sum_num="${SumNum}"), False),
        (catalogue(CAMERA, sum_num="-1"), False),
        (catalogue(CAMERA, sum_num="9" * 400), False),
        (catalogue(CAMERA).replace('Num="1"', 'Num="2"'), False),
        (catalogue(CAMERA).replace(' Num="1"', ""), True),
        (catalogue(CAMERA + "<Event>ADD</Event>"), False),
        (catalogue(CAMERA + "<Event>DEL</Event>", root="Notify"), False),
        (catalogue(CAMERA, root="Notify"), False),
        (catalogue(root="Query"), False),
    ],
)
def test_only_an_answer_with_all_its_items_says_that_it_is_whole(text: str, whole: bool) -> None:
    assert complete(text.encode()) is whole


def test_an_empty_catalogue_is_a_batch_without_records() -> None:
    assert decode(catalogue().encode()).height == 0


def test_a_notification_carries_its_event() -> None:
    octets = catalogue(CAMERA + "<Event>DEL</Event>", CAMERA + "<Event>VLOST</Event>", root="Notify").encode()
    assert decode(octets)["Event"].to_list() == ["DEL", "VLOST"]


def test_many_items_come_in_batches_and_are_numbered_through() -> None:
    count = RECORDS_PER_BATCH + 3
    octets = catalogue(*[f"<DeviceID>{number:020}</DeviceID>" for number in range(count)]).encode()
    found = batches(octets)
    assert [(frame.height, whole) for frame, whole in found] == [(RECORDS_PER_BATCH, True), (3, True)]
    assert pl.concat([frame for frame, _ in found])[RECORD].to_list() == list(range(count))


def test_a_mebibyte_of_items_is_read() -> None:
    items = [f"<DeviceID>{number:020}</DeviceID><Name>示例路口</Name><Status>ON</Status>" for number in range(12_000)]
    octets = catalogue(*items).encode()
    assert len(octets) > 1 << 20
    assert decode(octets).height == 12_000


def test_several_contents_are_told_apart() -> None:
    contents = [in_memory(catalogue(CAMERA).encode()), in_memory(catalogue(CAMERA, CAMERA).encode())]
    frame = pl.concat([batch.frame for batch in gb28181_catalog.decode(contents, {})])
    assert frame.select(CONTENT, RECORD).rows() == [(0, 0), (1, 0), (1, 1)]


# Bytes and their declarations

NAME = "<Name>学前街口</Name>"


@pytest.mark.parametrize("declared", ["GB2312", "gbk", "GB18030", "UTF-8", "utf-8", None])
@pytest.mark.parametrize("written", ["gb18030", "utf-8", "utf-8-sig"])
def test_the_bytes_are_believed_whatever_is_declared(declared: str | None, written: str) -> None:
    head = "" if declared is None else f'<?xml version="1.0" encoding="{declared}"?>'
    octets = catalogue(CAMERA + NAME, head=head).encode(written)
    assert said(octets)["Name"] == "学前街口"


def test_where_bytes_can_be_both_the_declaration_decides() -> None:
    # 联 in GB2312 is C1 AA, no UTF-8; 瞳 is CD AB, which UTF-8 reads as one Cyrillic-looking letter.
    both = "瞳".encode("gb2312")
    assert both.decode("utf-8") == "\u036b"
    for head, name in ((GB, "瞳"), (UTF, "\u036b")):
        octets = catalogue(CAMERA + "<Name>NAME</Name>", head=head).encode().replace(b"NAME", both)
        assert said(octets)["Name"] == name


@pytest.mark.parametrize("head", [GB, UTF, ""])
def test_utf_8_with_a_broken_byte_is_not_taken_for_gb(head: str) -> None:
    octets = catalogue(CAMERA + "<Name>学前街口示例路口</Name>", head=head).encode()
    broken = octets.replace("街口".encode(), "街".encode()[:2] + "口街".encode()[1:])
    assert refusal(broken) == "decode.encoding_wrong"


def test_mojibake_that_decodes_is_refused_too() -> None:
    # One byte lost of twelve: what is left is an even number of bytes, and all of it is good GB 18030.
    text = "你好你好你好你好".encode()
    spoilt = text[:9] + text[10:12] + text[13:]
    assert spoilt.decode("gb18030")
    octets = catalogue(CAMERA + "<Name>NAME</Name>", head=GB).encode().replace(b"NAME", spoilt)
    assert refusal(octets) == "decode.encoding_wrong"


@pytest.mark.parametrize(
    "octets, code",
    [
        (catalogue(CAMERA + NAME, head=GB).encode("gb18030").replace(b"</Name>", b"\xff</Name>"), "encoding_wrong"),
        (catalogue(CAMERA + NAME, head=GB).encode("gb18030").replace(b"</Name>", b"\x81</Name>"), "encoding_wrong"),
        (b"\xef\xbb\xbf" + catalogue(CAMERA + NAME, head=GB).encode("gb18030"), "encoding_wrong"),
        (catalogue(CAMERA).encode("utf-16"), "encoding_unknown"),
        (catalogue(CAMERA, head='<?xml version="1.0" encoding="BIG5"?>').encode(), "encoding_unknown"),
        (catalogue(CAMERA, head='<?xml version="1.0" encoding="UTF-7"?>').encode(), "encoding_unknown"),
        (b"", "not_readable"),
        (b"\xff\xd8\xff\xe0 JFIF", "encoding_wrong"),
        (catalogue(CAMERA).encode()[:-20], "not_readable"),
        (catalogue(CAMERA).encode() + b"<Response/>", "not_readable"),
        (b"<Response/>", "not_readable"),
        (b"<Response><CmdType/></Response>", "not_readable"),
        (catalogue(CAMERA + "<Name>\x01</Name>").encode(), "not_readable"),
        (catalogue(CAMERA + "<Name>&secret;</Name>").encode(), "not_readable"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd">' + catalogue(CAMERA, head="").encode(), "doctype"),
        (catalogue(CAMERA + "<Name>a</Name><Name>b</Name>").encode(), "field_doubled"),
        (catalogue(CAMERA + "<DeviceID>33020300081320000002</DeviceID>").encode(), "field_doubled"),
        (catalogue(CAMERA + f"<Name>{'x' * (MAX_CHARACTERS + 1)}</Name>").encode(), "too_large"),
        (catalogue("<Info>" * 30 + "</Info>" * 30).encode(), "too_large"),
        (catalogue(*["<A/>"] * (MAX_ITEMS + 1)).encode(), "too_large"),
        (catalogue(CAMERA + "<A " + " ".join(f"a{n}=''" for n in range(70)) + "/>").encode(), "too_large"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_catalogue_are_refused_by_code(octets: bytes, code: str) -> None:
    assert refusal(octets) == f"decode.{code}"


def test_a_billion_laughs_are_not_even_parsed() -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE l [<!ENTITY l0 "secret">{laughs}]>'
    for encoding in ("utf-8", "gb18030"):
        octets = (GB + bomb + catalogue(CAMERA + "<Name>&l9;</Name>", head="")).encode(encoding)
        assert refusal(octets) == "decode.doctype"


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_no_bytes_end_in_anything_but_records_or_a_refusal(octets: bytes) -> None:
    for one in (octets, catalogue(CAMERA + NAME, head=GB).encode("gb18030") + octets, GB.encode() + octets):
        assert outcome(one).startswith("decode.")
