"""Bad input at a real bus: a stable code, two languages, a next step, an entry in the audit, nothing kept half."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from lxml import etree

from exchange.app import opening
from security.keys import generate
from security.message import in_memory
from tests.doors.conftest import read_all
from tests.doors.test_multipart import PART_HEAD, TYPE, message
from tests.security.vectors import CONTENT, STRANGER, b64, include, reference, seal, template, token
from tests.whole.real_bus import COLUMNS, FEED, LIMITS, RealBus, Row, csv, more_key, real_bus, rows

YT = "{urn:yongtong:v1}"
ACTION = '"urn:yongtong:v1/SubmitDelivery"'
Said = dict[str, str]


@pytest.fixture
def id(request: pytest.FixtureRequest) -> str:
    """A message id of the test's own."""
    return f"bad-{sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


# A good delivery, in pieces ------------------------------------------------------------------------------------------


def submission(bus: RealBus, id: str, *, content: bytes = b"", aged: timedelta = timedelta(), **pieces: Any) -> str:
    """A SubmitDelivery of `made-up` to be sealed, right in every respect but what `pieces` replace.

    content: when not a right file; aged: how long ago it says that it was made
    """
    created = datetime.now(UTC) - aged
    content = content or csv(rows(id))
    right: dict[str, Any] = {
        "sender": "made-up",
        "feed": FEED,
        "content": b64(content),
        "token_xml": token(bus.folder().signing),
        "created": f"{created:%Y-%m-%dT%H:%M:%SZ}",
        "expires": f"{created + timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}",
    }
    xml = template(**{**right, **pieces}).replace(">bus<", f">{bus.origin}<").replace(">m-1<", f">{id}<")
    return xml.replace(sha256(CONTENT).hexdigest(), sha256(content).hexdigest())


def sealed(bus: RealBus, id: str, **pieces: Any) -> bytes:
    """The same, signed with the key of `made-up`."""
    return seal(submission(bus, id, **pieces), bus.folder().signing)


def post(bus: RealBus, octets: bytes | Iterator[bytes], *, known: bool = True, **headers: str) -> bytes:
    """What the feeds' door answers to a caller with the certificate of `made-up`, or without any."""
    said = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": ACTION}
    said |= {name.replace("_", "-"): value for name, value in headers.items()}
    with bus.session(bus.folder() if known else None) as session:
        return session.post(f"{bus.url}/soap/feeds", data=octets, headers=said, timeout=30).content


def related(bus: RealBus, id: str, content: bytes = b"", href: str = "cid:part@x", **parts: Any) -> bytes:
    """A delivery by MTOM, signed as sent; `parts` spoil the multipart message around it."""
    content = content or csv(rows(id))
    envelope = seal(submission(bus, id, content=content).replace(b64(content), include(href)), bus.folder().signing)
    return message(**{"content": content, **parts}).replace(b"<envelope/>", envelope)


def padded(octets: bytes, size: int) -> bytes:
    """The octets, made up with spaces after the root element, which change nothing."""
    return octets + b" " * (size - len(octets))


# Act one -------------------------------------------------------------------------------------------------------------


def typed(bus: RealBus, head: bytes, body: bytes, end: Callable[[Any], None] = lambda connection: None) -> bytes:
    """What comes back for octets written as they are: head without the lines that every request has."""
    with bus.connect() as connection:
        first = f"POST /soap/feeds HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nSOAPAction: {ACTION}\r\n"
        connection.sendall(first.encode() + head + b"\r\n\r\n" + body)
        end(connection)
        return read_all(connection).partition(b"\r\n\r\n")[2]


def without_end(connection: Any) -> None:
    """Chunks until the door has had enough, at most a hundred times what it takes."""
    piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    try:
        for _ in range(100 * LIMITS.max_envelope_bytes // 65_536):
            connection.sendall(piece)
    except OSError:
        return
    raise AssertionError("the door takes chunks without end")


BASE64_PART = PART_HEAD.replace(b"binary", b"base64")
BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
TWENTY_MINUTES = timedelta(minutes=20)
OVER_INLINE = LIMITS.max_inline_bytes + 1
OVER_MTOM = LIMITS.max_mtom_bytes + 1
OVER_ENVELOPE = LIMITS.max_envelope_bytes + 1

Attempt = Callable[[RealBus, str], bytes]
AT_THE_DOOR: dict[str, tuple[str, Attempt]] = {
    "wrong key": ("signature.invalid", lambda bus, id: post(bus, seal(submission(bus, id), generate("ES256")))),
    "certificate unknown": (
        "auth.certificate_unknown",
        lambda bus, id: post(bus, seal(submission(bus, id, token_xml=token(STRANGER)), STRANGER)),
    ),
    "signing certificate expired": ("auth.certificate_expired", lambda bus, id: post(bus, expired(bus, id))),
    "body altered": (
        "signature.invalid", lambda bus, id: post(bus, sealed(bus, id).replace(b"text/csv", b"text/tsv"))
    ),
    "content altered": (
        "signature.invalid", lambda bus, id: post(bus, re.sub(rb"(?<=<Content>)....", b"QUJD", sealed(bus, id)))
    ),
    "body not signed": (
        "signature.not_covered",
        lambda bus, id: post(bus, sealed(bus, id, references=reference("#ts") + reference("#bst"))),
    ),
    "nothing signed": (
        "signature.missing",
        lambda bus, id: post(bus, re.sub(rb"(?s)<ds:Signature .*</ds:Signature>", b"", sealed(bus, id))),
    ),
    "ids doubled": (
        "signature.ids_doubled", lambda bus, id: post(bus, sealed(bus, id, header='<x xmlns="urn:x" Id="body"/>'))
    ),
    "stale": ("signature.stale", lambda bus, id: post(bus, sealed(bus, id, aged=TWENTY_MINUTES))),
    "of the future": ("signature.future", lambda bus, id: post(bus, sealed(bus, id, aged=-TWENTY_MINUTES))),
    "somebody else's feed": (
        "auth.feed_of_other", lambda bus, id: post(bus, sealed(bus, id, feed="water-register"))
    ),
    "no such feed": ("feed.unknown", lambda bus, id: post(bus, sealed(bus, id, feed="nobody-knows"))),
    "DTD": ("xml.dtd", lambda bus, id: post(bus, b"<!DOCTYPE x>" + sealed(bus, id))),
    "entity": ("xml.dtd", lambda bus, id: post(bus, BOMB + sealed(bus, id).replace(b"text/csv", b"&b;"))),
    "envelope one byte over": (
        "size.too_large", lambda bus, id: post(bus, padded(sealed(bus, id), OVER_ENVELOPE))
    ),
    "envelope one byte over, its length not said": (
        "size.too_large", lambda bus, id: post(bus, iter([padded(sealed(bus, id), OVER_ENVELOPE)]))
    ),
    "inline content one byte over": (
        "size.inline_too_large", lambda bus, id: post(bus, sealed(bus, id, content=b"x" * OVER_INLINE))
    ),
    "MTOM part one byte over": (
        "size.too_large", lambda bus, id: post(bus, related(bus, id, b"x" * OVER_MTOM), Content_Type=TYPE)
    ),
    "Content-Length more than comes": (
        "http.body_slow", lambda bus, id: typed(bus, b"Content-Length: 100000", sealed(bus, id))
    ),
    "Content-Length less than comes": (
        "xml.not_well_formed", lambda bus, id: typed(bus, b"Content-Length: 1000\r\nConnection: close", sealed(bus, id))
    ),
    "chunks without end": (
        "size.too_large", lambda bus, id: typed(bus, b"Transfer-Encoding: chunked", b"", without_end)
    ),
    "MTOM part missing": (
        "mtom.parts",
        lambda bus, id: post(bus, related(bus, id, between=b"", part_head=b"", content=b""), Content_Type=TYPE),
    ),
    "MTOM part cut short": ("mtom.boundary", lambda bus, id: post(bus, related(bus, id)[:-40], Content_Type=TYPE)),
    "MTOM part with an octet more": (
        "signature.content_digest", lambda bus, id: post(bus, related(bus, id, more=b"x"), Content_Type=TYPE)
    ),
    "MTOM part by another id": (
        "signature.attachment_mismatch",
        lambda bus, id: post(bus, related(bus, id, href="cid:other@x"), Content_Type=TYPE),
    ),
    "MTOM part encoded": (
        "mtom.encoding",
        lambda bus, id: post(bus, related(bus, id, part_head=BASE64_PART), Content_Type=TYPE),
    ),
}  # fmt: skip


def expired(bus: RealBus, id: str) -> bytes:
    """Signed with an enrolled certificate that ended yesterday."""
    key = more_key(bus.trial, "signing", days=-1)
    return seal(submission(bus, id, token_xml=token(key)), key)


@pytest.mark.parametrize("name", AT_THE_DOOR)
def test_what_is_wrong_at_the_door_is_refused_and_leaves_nothing_but_its_entry(
    bus: RealBus, id: str, name: str
) -> None:
    code, attempt = AT_THE_DOOR[name]
    before = bus.kept()
    said = refusal_in(attempt(bus, id))
    assert_worded(said, code)
    assert_entered(bus, said, id)
    assert bus.kept() == before


def test_the_same_id_with_other_bytes_is_refused_and_the_first_stands(bus: RealBus, id: str) -> None:
    assert pushed(bus, id, csv(rows(id)))["new"] == 3
    before, receipt = bus.kept(), bus.partner().receipt(id).octets
    said = refusal_in(post(bus, sealed(bus, id, content=csv(rows(f"{id}-other")))))
    assert_worded(said, "delivery.id_reused")
    assert_entered(bus, said, id)
    assert bus.kept() == before
    assert bus.partner().receipt(id).octets == receipt
    assert bus.claimed(id) == [row["编号"] for row in rows(id)]


def test_the_same_bytes_again_get_the_same_receipt_and_nothing_is_kept_twice(bus: RealBus, id: str) -> None:
    pushed(bus, id, csv(rows(id)))
    before, receipt = bus.kept(), bus.partner().receipt(id).octets
    assert receipt in post(bus, sealed(bus, id)).replace(b"&quot;", b'"')
    assert bus.kept() == before


def test_what_is_spoilt_above_was_good(bus: RealBus, id: str) -> None:
    """Inline, of exactly the size that is taken, of unknown length, and by MTOM."""
    inline, whole = csv(rows(id)), padded(sealed(bus, f"{id}-2"), LIMITS.max_envelope_bytes)
    for number, octets, headers in (
        (1, sealed(bus, f"{id}-1", content=inline), {}),
        (2, whole, {}),
        (3, iter([sealed(bus, f"{id}-3")]), {}),
        (4, related(bus, f"{id}-4"), {"Content_Type": TYPE}),
        (5, sealed(bus, f"{id}-5", content=b"x" * LIMITS.max_inline_bytes), {}),
        (6, related(bus, f"{id}-6", b"x" * LIMITS.max_mtom_bytes), {"Content_Type": TYPE}),
    ):
        assert b"SubmitDeliveryResponse" in post(bus, octets, **headers), number  # type: ignore[arg-type]
        bus.partner().report(f"{id}-{number}", wait_s=30)


def test_a_stranger_hears_no_reason_and_is_counted_in_the_audit(tmp_path: Path) -> None:
    """Strangers' refusals are written when their minute is over, or when the bus stops: so this bus is its own."""
    with real_bus(tmp_path) as bus:
        before = bus.kept()
        for _ in range(3):
            said = refusal_in(post(bus, sealed(bus, "stranger"), known=False))
            assert_worded(said, "auth.refused")
        assert bus.kept() == before
        bus.trial.stop()
        with closing(opening.open_journal(bus.trial.settings)) as journal:
            entries = journal.search(type="refusal", limit=10)
        assert sum(int((entry.detail or {})["auth.no_certificate"]) for entry in entries) == 3
        assert {(entry.leaf.sender, entry.leaf.carrier, entry.leaf.signer) for entry in entries} == {("", "", "")}


# Act two -------------------------------------------------------------------------------------------------------------


def changed(**cells: str) -> Callable[[list[Row]], list[Row]]:
    """One more record after the good ones, which differs from a good one in these cells."""
    return lambda good: [*good[:-1], {**good[-1], **cells}]


def swapped(good: list[Row]) -> list[Row]:
    return changed(经度=good[-1]["纬度"], 纬度=good[-1]["经度"])(good)


SPOILT_RECORD: dict[str, tuple[str, Callable[[list[Row]], list[Row]]]] = {
    "axes swapped": ("position.axes_swapped", swapped),
    "outside the city": ("position.outside_city", changed(经度="116.40", 纬度="39.90", 网格="")),
    "no position": ("position.missing", changed(经度="")),
    "position is no number": ("value.not_readable", changed(经度="东经一百二十一度")),
    "unknown class": ("class.unknown", changed(类别="9999")),
    "class of another feed": ("class.not_in_feed", changed(类别="0118")),
    "no class": ("class.missing", changed(类别="")),
    "no key": ("key.missing", changed(编号="")),
    "duplicate key": ("key.duplicate", lambda good: changed(编号=good[0]["编号"])(good)),
    "14-digit grid": ("grid.code_length", lambda good: changed(网格=good[-1]["网格"][:14])(good)),
    "grid that there is not": ("grid.unknown", changed(网格="330203999999999")),
}


@pytest.mark.parametrize("name", SPOILT_RECORD)
def test_a_record_that_is_wrong_is_rejected_by_name_and_the_others_go_on(bus: RealBus, id: str, name: str) -> None:
    code, spoil = SPOILT_RECORD[name]
    good = rows(id, 4)
    scrapped = {**rows(f"{id}-s", 1)[0], "状态": "报废"}
    report = pushed(bus, id, csv([*spoil(good), scrapped]))
    assert balance(report) == {"records": 5, "accepted": 3, "rejected": 1, "ignored": 1}
    errors = [finding for finding in report["findings"] if finding["severity"] == "error"]
    assert [(finding["code"], finding["count"], finding["first_records"]) for finding in errors] == [(code, 1, [3])]
    assert_two_languages(errors[0]["sentence"], ("zh", "en", "next_zh", "next_en"))
    assert [f["code"] for f in report["findings"] if f["severity"] == "ignored"] == ["ignored.scrapped"]
    assert bus.claimed(id) == [row["编号"] for row in good[:3]]


def test_a_record_without_its_mandatory_authority_is_kept_and_said(bus: RealBus, id: str) -> None:
    report = pushed(bus, id, csv(changed(主管部门="")(rows(id))))
    assert balance(report) == {"records": 3, "accepted": 3, "rejected": 0, "ignored": 0}
    (finding,) = [one for one in report["findings"] if one["code"] == "authority.missing"]  # a place may be on a border
    assert (finding["severity"], finding["first_records"]) == ("warning", [2])
    assert_two_languages(finding["sentence"], ("zh", "en", "next_zh", "next_en"))


def workbook(records: list[Row]) -> bytes:
    """The records as XLSX."""
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in [dict(zip(COLUMNS, COLUMNS, strict=True)), *records]:
        book.active.append([row[name] for name in COLUMNS])
    octets = io.BytesIO()
    book.save(octets)
    return octets.getvalue()


SPOILT_FILE: dict[str, tuple[str, Callable[[list[Row]], bytes]]] = {
    "XLSX cut in the middle": ("decode.not_readable", lambda good: workbook(good)[: len(workbook(good)) // 2]),
    "XLSX without its last octet": ("decode.not_readable", lambda good: workbook(good)[:-1]),
    "UTF-16": ("decode.encoding_unknown", lambda good: csv(good).decode().encode("utf-16")),
    "no text at all": ("decode.encoding_unknown", lambda good: csv(good) + b"\xff\xff\xff"),
    "column missing": (
        "mapping.column_missing",
        lambda good: csv(good, tuple(name for name in COLUMNS if name != "类别")),
    ),
}


@pytest.mark.parametrize("name", SPOILT_FILE)
def test_a_file_that_is_wrong_is_receipted_then_refused_whole(bus: RealBus, id: str, name: str) -> None:
    code, spoil = SPOILT_FILE[name]
    before, receipt = bus.kept(), pushed_only(bus, id, spoil(rows(id)))
    assert receipt["outcome"] == "accepted"
    reported = bus.partner().report(id, wait_s=30)
    assert reported.status == "refused"
    assert reported.received is not None
    document = reported.received.document
    assert (document["outcome"], document["report"]["code"]) == ("refused", code)
    sentence = document["report"]["sentence"]
    assert_two_languages(sentence, ("zh", "en", "next_zh", "next_en"))
    after = bus.kept()
    assert (after.claims, after.components, after.changes) == (before.claims, before.components, before.changes)
    assert after.inbox == before.inbox + 1, "the evidence stays, with its receipt"
    entry = bus.journal.search(type="processing", outcome="refused")[0]
    assert entry.detail is not None
    assert (entry.index, entry.detail["message_id"], entry.detail["code"]) == (document["index"], id, code)
    assert_no_payload(bus.leaf(entry.index), id)


def test_the_workbook_that_is_cut_above_was_good(bus: RealBus, id: str) -> None:
    assert balance(pushed(bus, id, workbook(rows(id)))) == {"records": 3, "accepted": 3, "rejected": 0, "ignored": 0}


# What every refusal owes ---------------------------------------------------------------------------------------------


def pushed_only(bus: RealBus, id: str, content: bytes) -> dict[str, Any]:
    return dict(bus.partner().push(FEED, in_memory(content), "text/csv", id).document)


def pushed(bus: RealBus, id: str, content: bytes) -> dict[str, Any]:
    """Push a file of `made-up-register`; its report once processed, with the sentences."""
    pushed_only(bus, id, content)
    reported = bus.partner().report(id, wait_s=30)
    assert reported.status == "processed"
    assert reported.received is not None
    document = reported.received.document
    entry = bus.journal.search(type="processing", outcome="processed")[0]
    assert_no_payload(bus.leaf(entry.index), id)
    report: dict[str, Any] = document["report"]
    return report


def balance(report: dict[str, Any]) -> dict[str, int]:
    """in = out + rejected + ignored; what was not in cannot be out."""
    accepted = sum(report[name] for name in ("new", "changed", "unchanged", "ended"))
    assert report["records"] == accepted + report["rejected"] + report["ignored"]
    return {"records": report["records"], "accepted": accepted} | {n: report[n] for n in ("rejected", "ignored")}


def refusal_in(answer: bytes) -> Said:
    """The refusal in a fault's detail, member by member."""
    found = next(etree.fromstring(answer).iter(f"{YT}Refusal"), None)
    assert found is not None, answer.decode(errors="replace")[:2000]
    return {etree.QName(child).localname: child.text or "" for child in found}


def assert_worded(said: Said, code: str) -> None:
    assert said["Code"] == code, said
    assert_two_languages(said, ("SentenceZh", "SentenceEn", "NextZh", "NextEn"))


def assert_two_languages(words: dict[str, Any], names: tuple[str, ...]) -> None:
    """Chinese, English, and each language's next step, in this order of names."""
    zh, en, next_zh, next_en = (str(words[name]) for name in names)
    for chinese in (zh, next_zh):
        assert re.search(r"[\u4e00-\u9fff]{2}", chinese), chinese
    for english in (en, next_en):
        quoted = re.sub('"[^"]*"', '""', english)  # a feed's own columns
        assert re.fullmatch(r"[\x20-\x7e]{8,}", quoted), english


def assert_entered(bus: RealBus, said: Said, id: str) -> None:
    """The refusal's number is that of its entry, which says the same code and nothing of the content."""
    entry = bus.journal.search(type="refusal", outcome=said["Code"])[0]
    assert entry.index == int(said["Reference"])
    assert entry.detail is not None
    assert entry.detail["code"] == said["Code"]
    assert_no_payload(bus.leaf(entry.index), id)


def assert_no_payload(leaf: str, id: str) -> None:
    """No name of a person, no payload value, no bare digest of one, stands in a leaf."""
    content = csv(rows(id))
    values = {id, "made-up signing", "某权属单位", "某主管部门", sha256(content).hexdigest(), *rows(id)[0].values()}
    # Four digits stand in any long digest now and then, by chance.
    assert [value for value in sorted(values) if len(value) > 4 and value in leaf] == []
