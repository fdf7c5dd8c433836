"""A bundle on paper: what stands there is what the verifier found, it can be copied, and nothing sticks out."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pypdf import PdfReader

from exchange import bundle_export
from exchange.bundle_check import verify_bundle
from exchange.bundle_parts import ROWS, day_of
from exchange.cli import main as command_line
from exchange.cli.trial import APPROVER, AUDITOR
from exchange.decision_documents import Officer
from exchange.entry import Entry
from exchange.ownership import ownership
from exchange.paper import QUESTIONS, STATES, city_time, paper
from exchange.processing import process
from exchange.typesetting import MARGIN, shown
from security.anchors import Anchors
from security.jose import b64url
from security.jws import jcs
from security.keys import der_of_pem
from security.message import in_memory
from tests.acts.bench_of_one import FEED
from tests.acts.evidence_of_one import Evidence, Parts, evidence_of_one, packed, write_anchors

WORDS = {
    "message": ("报送件证据核验书", "二、报送件", "三、在日志中的位置", "四、核验结果", "五、如何自行核验"),
    "ownership": (
        "部件权属证据核验书",
        "二、权属答复",
        "各单位的申报",
        "三、报送件",
        "五、核验结果",
        "六、如何自行核验",
    ),
    "day": ("全日记录证据核验书", "二、报送件", "三、当日全部记录", "四、在日志中的位置", "六、如何自行核验"),
}


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    with evidence_of_one(tmp_path_factory.mktemp("paper")) as made:
        yield made


@pytest.fixture(scope="module")
def bundles(evidence: Evidence) -> dict[str, Parts]:
    """One of each kind."""
    day = day_of(datetime.now(UTC))
    answer = ownership(evidence.acts.bus.store, "1", day)
    return {
        "message": evidence.message("m-1"),
        "ownership": evidence.exported(lambda sources: bundle_export.of_ownership(answer, day, sources)),
        "day": evidence.exported(lambda sources: bundle_export.of_day(day, sources)),
    }


def on_paper(parts: Parts, anchors: Anchors, now: datetime | None = None) -> bytes:
    content, now = in_memory(packed(parts)), now or datetime.now(UTC)
    return paper(content, verify_bundle(content, anchors, now), anchors, now)


def text_of(pdf: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(BytesIO(pdf)).pages)


@pytest.mark.parametrize("kind", WORDS)
def test_a_paper_says_in_chinese_what_is_proven_and_every_page_has_its_number(
    evidence: Evidence, bundles: dict[str, Parts], kind: str
) -> None:
    pdf = on_paper(bundles[kind], evidence.anchors)
    text, pages = text_of(pdf), PdfReader(BytesIO(pdf)).pages
    whole = "不完整" if kind == "day" else "成立"  # of today, which is not over
    for word in (*WORDS[kind], f"核验结果：{whole}", "一、证明什么", "某单位（made-up）", "本纸不是证据"):
        assert word in text, word
    for number, page in enumerate(pages, 1):
        assert f"第 {number} 页，共 {len(pages)} 页" in page.extract_text()
        assert (round(float(page.mediabox.width)), round(float(page.mediabox.height))) == (595, 842)  # A4
    for row in ROWS:
        assert QUESTIONS[row][0] in text, row
    assert ("证据包声称" in text) == (kind == "day"), "that it is the whole day is claimed, and not proven"


@pytest.mark.parametrize("kind", WORDS)
def test_every_long_value_can_be_copied_whole(evidence: Evidence, bundles: dict[str, Parts], kind: str) -> None:
    parts = bundles[kind]
    lines = text_of(on_paper(parts, evidence.anchors)).splitlines()
    entry = json.loads(parts["entries/5.json"])
    leaf, said = json.loads(entry["leaf"]), json.loads(entry["detail"])
    wanted = [said["content_digest"], said["evidence_digest"], leaf["signer"], leaf["feedDigest"], leaf["grant"]]
    wanted += [in_memory(packed(parts)).digest.hex, evidence.anchors.log_key, evidence.anchors.founding]
    wanted += [parts["checkpoint"].decode().split("\n")[2], said["message_id"]]
    wanted += ["yongtong verify BUNDLE --anchors anchors.json"]
    for value in wanted:
        assert value in lines, value  # a line of its own


def test_times_are_those_of_the_city(evidence: Evidence, bundles: dict[str, Parts]) -> None:
    assert city_time("2026-11-28T16:30:05.123456Z") == "2026年11月29日 00:30:05（+08:00）"
    said = json.loads(json.loads(bundles["message"]["entries/5.json"])["detail"])
    assert city_time(said["received_at"]) in text_of(on_paper(bundles["message"], evidence.anchors))


def test_witness_and_time_stamp_are_named_and_where_nobody_is_asked_the_title_says_so(
    evidence: Evidence, bundles: dict[str, Parts]
) -> None:
    text = text_of(on_paper(bundles["message"], evidence.anchors))
    assert "witness.example" in text
    assert "时间戳" in text
    bare = msgspec.structs.replace(evidence.anchors, witnesses=[], quorum=0, timestamp_certificates=[])
    text = text_of(on_paper(bundles["message"], bare))
    assert "核验结果：成立（无见证）（无时间戳）" in text
    assert "UNWITNESSED" in text
    assert "NO TIMESTAMP" in text


def test_a_bundle_that_does_not_hold_is_said_so_first_and_its_content_only_claimed(
    evidence: Evidence, bundles: dict[str, Parts]
) -> None:
    parts = bundles["message"]
    bad = {**parts, "messages/5/envelope": parts["messages/5/envelope"].replace(b"m-1", b"m-7")}
    text = text_of(on_paper(bad, evidence.anchors))
    assert text.index("核验结果：不成立") < text.index("证据包声称：") < text.index("二、报送件")
    assert "IT DOES NOT HOLD" in text
    assert STATES["broken"] in text


@pytest.mark.parametrize(
    "name", ["manifest.json", "checkpoint", "entries/5.json", "messages/5/receipt.json", "certificates"]
)
def test_a_part_that_cannot_be_read_stops_no_paper(evidence: Evidence, bundles: dict[str, Parts], name: str) -> None:
    parts = dict(bundles["message"])
    for part in [part for part in parts if part.startswith(name)]:
        parts[part] = b"\xff rubbish"
    assert "核验结果：不成立" in text_of(on_paper(parts, evidence.anchors))


@pytest.mark.parametrize(
    "octets",
    [
        b"[]",
        b'{"index":5}',
        b'{"detail":"[]","index":5,"leaf":"{}","salt":""}',
        b'{"detail":"{}","index":5,"leaf":"{\\"time\\":\\"soon\\",\\"type\\":7}"}',
        b'{"index":-1,"leaf":"{\\"signer\\":[],\\"carrier\\":{}}","proof":7}',
        b'{"claims":[{}],"roles":[{"role":"king","status":1,"units":[7]}],"verdict":[]}',
    ],
)
def test_whatever_stands_in_a_part_the_verdict_is_told(
    evidence: Evidence, bundles: dict[str, Parts], octets: bytes
) -> None:
    for kind, name in (("message", "entries/5.json"), ("ownership", "answer.json"), ("day", "entries/6.json")):
        bad = evidence.signed_anew({**bundles[kind], name: octets})
        text = text_of(on_paper(bad, evidence.anchors))
        assert "核验结果：不成立" in text
        assert all(QUESTIONS[row][0] in text for row in ROWS), (kind, octets)


@pytest.mark.parametrize(
    "octets",
    [
        b'{"detail":5,"index":2,"leaf":"{\\"outcome\\":\\"approved\\",\\"type\\":\\"decision\\"}"}',
        b'{"index":5,"leaf":"' + b"[" * 90_000 + b'"}',
        b"[" * 900_000,
    ],
    ids=["a detail that is a number", "a deep leaf", "a deep document"],
)
def test_no_entry_stops_the_paper(evidence: Evidence, bundles: dict[str, Parts], octets: bytes) -> None:
    for name in ("entries/2.json", "entries/5.json"):
        told_with_every_row({**bundles["message"], name: octets}, evidence)


def test_a_certificate_of_version_8_stops_no_paper(evidence: Evidence, bundles: dict[str, Parts]) -> None:
    parts = dict(bundles["message"])
    for name in [name for name in parts if name.startswith("certificates/")]:
        der = bytearray(der_of_pem(parts[name]))
        der[der.find(b"\xa0\x03\x02\x01\x02") + 4] = 7
        parts[name] = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
    told_with_every_row(parts, evidence)


@pytest.mark.parametrize(
    "member, value",
    [
        ("received_at", "9999-12-31T23:59:59Z"),
        ("signed_at", "0001-01-01T00:00:00+14:00"),
        ("message_id", "x" * 60_000),
        ("content_type", "y\n" * 5_000),
    ],
)
def test_a_time_out_of_all_years_and_an_endless_value_stop_no_paper(
    evidence: Evidence, bundles: dict[str, Parts], member: str, value: str
) -> None:
    parts = dict(bundles["message"])
    entry = json.loads(parts["entries/5.json"])
    entry["detail"] = json.dumps({**json.loads(entry["detail"]), member: value})
    parts["entries/5.json"] = json.dumps(entry).encode()
    pdf = told_with_every_row(parts, evidence)
    assert len(PdfReader(BytesIO(pdf)).pages) < 10


def test_a_verdict_of_a_hundred_broken_parts_and_an_endless_title_are_written(
    evidence: Evidence, bundles: dict[str, Parts]
) -> None:
    many = {f"entries/{number}.json": b"x" for number in range(200, 400)}
    told_with_every_row(evidence.signed_anew({**bundles["message"], **many}, subject="z\n" * 3_000), evidence)


def told_with_every_row(parts: Parts, evidence: Evidence) -> bytes:
    """The paper of what does not hold, once all of the verdict stands in it."""
    pdf = on_paper(parts, evidence.anchors)
    text = text_of(pdf)
    assert "核验结果：不成立" in text
    assert all(QUESTIONS[row][0] in text for row in ROWS)
    return pdf


def test_an_entry_that_decides_nothing_names_no_bureau_on_paper(tmp_path: Path) -> None:
    """The operator notes an entry `approved` that nobody signed: by it, the bureau would be another."""
    with evidence_of_one(tmp_path) as evidence:
        parts = evidence.message("m-1")
        ders = [
            base64.b64encode(der_of_pem(parts[name])).decode() for name in parts if name.startswith("certificates/")
        ]
        certificates = [{"use": "signing", "der": der} for der in ders]
        titles = {"title": "x", "title_zh": "某市公安局", "role": "r"}
        body = {"bureau": "made-up", **titles, "certificates": certificates}
        payload = b64url(jcs({"body": body, "kind": "enrolment"}))
        proposal = jcs({"payload": payload, "protected": "", "signature": ""}).decode()
        noted = Entry(type="decision", outcome="approved", detail={"proposal": proposal})
        evidence.acts.bus.journal.note(noted).result()
        evidence.attest()
        parts = evidence.message("m-1")
        assert any(b"signature" in parts[name] and b"approved" in parts[name] for name in parts), "it is in the bundle"
        text = text_of(on_paper(parts, evidence.anchors))
        assert "某市公安局" not in text
        assert "某单位（made-up）" in text
        # By other anchors nobody decided anything: then the code alone is said.
        other = msgspec.structs.replace(evidence.anchors, founding="0" * 64)
        text = text_of(on_paper(parts, other))
        assert "某单位" not in text
        assert "made-up报送了" in text.replace(" ", "").replace("\n", "")


def test_a_recalled_delivery_is_said_to_be_recalled_with_the_day(tmp_path: Path) -> None:
    with evidence_of_one(tmp_path) as evidence:
        acts = evidence.acts
        acts.recall(acts.recalling("m-1"))
        process(FEED, acts.bus)
        evidence.attest()
        text = text_of(on_paper(evidence.message("m-1"), evidence.anchors)).replace("\n", "")
        today = day_of(datetime.now(UTC))
        assert f"已由报送单位于 {today.year}年{today.month}月{today.day}日" in text
        assert f"took it back on {today}" in text
        assert f"已撤回（{today}）" in text
        day = evidence.exported(lambda sources: bundle_export.of_day(today, sources))
        lines = text_of(on_paper(day, evidence.anchors)).replace("\n", "")
        for word in ("撤回 recall", "已撤回 recalled", "报送 delivery", "已受理 accepted", "已处理"):
            assert word in lines, word


def test_a_day_that_ends_with_the_log_is_told_up_to_its_last_entry_and_not_as_whole(
    evidence: Evidence, bundles: dict[str, Parts]
) -> None:
    text = text_of(on_paper(bundles["day"], evidence.anchors)).replace("\n", "")
    last = int(bundles["day"]["checkpoint"].decode().split("\n")[1]) - 1
    assert f"截至第 {last} 条" in text
    assert "没有遗漏" not in text
    assert "none left out." not in text


def test_what_is_withheld_is_named(evidence: Evidence, bundles: dict[str, Parts]) -> None:
    name = "messages/5/envelope"
    left = {other: octets for other, octets in bundles["message"].items() if other != name}
    text = text_of(on_paper(evidence.signed_anew(left, withheld={name: "sealed"}), evidence.anchors))
    for word in ("核验结果：不完整", "已销毁或未附的部分", name, "不在证据包中"):
        assert word in text, word


def test_the_same_bundle_at_the_same_moment_is_the_same_paper(evidence: Evidence, bundles: dict[str, Parts]) -> None:
    now = datetime.now(UTC)
    first, second = (on_paper(bundles["message"], evidence.anchors, now) for _ in range(2))
    assert first == second
    assert on_paper(bundles["message"], evidence.anchors, now + timedelta(seconds=1)) != first


def test_a_sign_that_the_font_has_not_is_written_by_its_number_and_markup_is_not_obeyed() -> None:
    assert "[U+2CB5A]" in shown("𬭚江路")
    assert "[U+202E]" in shown("abc\u202edef")  # nothing turns the line round
    assert "<b>" not in shown("<b>甲</b>")


def test_nothing_sticks_out_of_the_page(evidence: Evidence, bundles: dict[str, Parts], tmp_path: Path) -> None:
    if shutil.which("pdftotext") is None:
        pytest.skip("poppler-utils is not installed")
    for kind, parts in bundles.items():
        (tmp_path / "paper.pdf").write_bytes(on_paper(parts, evidence.anchors))
        command = ["pdftotext", "-bbox", "paper.pdf", "words.xml"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        words = (tmp_path / "words.xml").read_text(encoding="utf-8")
        right = [float(found) for found in re.findall(r'xMax="([\d.]+)"', words)]
        assert len(right) > 200, kind
        assert max(right) <= 595.3 - MARGIN + 6, kind


# By command -------------------------------------------------------------------------------------------------------


def run(
    evidence: Evidence, capsys: pytest.CaptureFixture[str], *words: str, by: Officer | None = None
) -> tuple[int, Any]:
    more = ["--by", by.name] if by else []
    code = command_line.main([*words, *more, "--settings", evidence.acts.trial.settings.source, "--json"])
    out = capsys.readouterr().out
    return code, json.loads(out) if out else {}


def test_verify_and_export_write_the_paper_beside_the_bundle(
    evidence: Evidence, bundles: dict[str, Parts], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, pdf = tmp_path / "bundle.zip", tmp_path / "paper.pdf"
    bundle.write_bytes(packed(bundles["message"]))
    anchors = str(write_anchors(evidence.anchors, tmp_path / "anchors.json"))
    code, said = run(evidence, capsys, "verify", str(bundle), "--anchors", anchors, "--pdf", str(pdf))
    assert (code, said["pdf"], said["state"]) == (0, str(pdf), "holds")
    assert in_memory(bundle.read_bytes()).digest.hex in text_of(pdf.read_bytes())
    assert pdf.stat().st_mode & 0o077 == 0
    again = run(evidence, capsys, "verify", str(bundle), "--anchors", anchors, "--pdf", str(pdf))
    assert again[0] == 2  # never written over
    exported = [str(tmp_path / "m.zip"), "--pdf", str(tmp_path / "m.pdf")]
    code, said = run(evidence, capsys, "audit", "export", "message", "m-1", *exported, by=AUDITOR)
    assert (code, said["pdf"]) == (0, str(tmp_path / "m.pdf"))
    assert said["sha256"] in text_of((tmp_path / "m.pdf").read_bytes()).splitlines()


def test_a_paper_is_made_of_a_bundle_only(
    evidence: Evidence, bundles: dict[str, Parts], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receipt, pdf = tmp_path / "receipt.json", tmp_path / "paper.pdf"
    receipt.write_bytes(bundles["message"]["messages/5/receipt.json"])
    anchors = str(write_anchors(evidence.anchors, tmp_path / "anchors.json"))
    code, _ = run(evidence, capsys, "verify", str(receipt), "--anchors", anchors, "--pdf", str(pdf))
    assert (code, pdf.exists()) == (2, False)


def test_a_paper_of_erased_content_says_the_day(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with evidence_of_one(tmp_path) as evidence:
        code, said = run(evidence, capsys, "spill", "ask", "m-1", "--ground", "误报", by=AUDITOR)
        assert code == 0
        assert run(evidence, capsys, "decision", "approve", said["decision"], by=APPROVER)[0] == 0
        assert run(evidence, capsys, "spill", "purge", said["decision"], by=AUDITOR)[0] == 0
        text = text_of(on_paper(evidence.message("m-1"), evidence.anchors))
        assert "核验结果：不完整" in text
        assert f"content erased on {day_of(datetime.now(UTC))}" in text
