"""An evidence bundle on paper, for who reads no JSON: what is proven, by whom and when, the verdict, how to check it.

The paper is no evidence itself: it says what the verifier found in one file, which it names by its SHA-256.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

import msgspec
from cryptography import x509

from exchange.bundle_check import BundleVerdict
from exchange.bundle_parts import detail_of, nodes_of
from exchange.decisions import DECIDES, Decided, Standing
from exchange.decisions import ENTRY as DECISION
from exchange.entry import CITY_TIME, RECALL, Leaf
from exchange.typesetting import Cell, Fixed, Paper, clipped
from security import bundle, merkle
from security.anchors import Anchors
from security.cosignature import cosignatures, without_cosignatures
from security.errors import ExchangeError
from security.keys import der_of_pem
from security.message import Content
from security.timestamp import verify_timestamp

MOST_DELIVERIES: Final = 60  # told at length
MOST_ENTRIES: Final = 600  # of a day, a line each
MOST_CLAIMS: Final = 40
SCRIPTS: Final = "python3 verify_bundle.py BUNDLE anchors.json\npython3 verify_sender.py BUNDLE"
NOT_READ: Final = "（不可读 cannot be read）"

TITLES: Final = {
    "message": ("报送件证据核验书", "Paper on the evidence of a delivery"),
    "ownership": ("部件权属证据核验书", "Paper on the evidence of an ownership answer"),
    "day": ("全日记录证据核验书", "Paper on the evidence of a day"),
    "": ("证据核验书", "Paper on an evidence bundle"),
}
OUTCOMES: Final = {
    "holds": ("核验结果：成立", "Verified: it holds"),
    "incomplete": (
        "核验结果：不完整",
        "Verified: INCOMPLETE. Nothing was found altered, but something asked for is not there",
    ),
    "broken": ("核验结果：不成立", "Verified: IT DOES NOT HOLD. Something was altered, exchanged or made up"),
}
NOT_ASKED: Final = {
    "witnesses": ("无见证", "UNWITNESSED: nobody outside signed the log's head, and the anchors ask for nobody"),
    "timestamp": ("无时间戳", "NO TIMESTAMP: no authority stamped the log's head, and the anchors ask for none"),
    "mapping": ("映射文件未留存", "the mapping file is no longer kept"),
}
STATES: Final = {
    "holds": "成立\nholds",
    "missing": "缺失\nmissing",
    "broken": "不成立\nBROKEN",
    "erased": "已销毁\nerased",
}
# What each row of the verdict asks, in plain words.
QUESTIONS: Final = {
    "container": ("文件完整，没有夹带", "the file is whole, and nothing lies in it besides its parts"),
    "manifest": (
        "清单由平台签名，各部分与清单一致",
        "the bus signed the list of parts, and each part is what it lists",
    ),
    "subject": ("内容与标题所说的是同一件事", "what is in it is what its title says"),
    "signature": (
        "原件确由报送单位的密钥签名，一字未改",
        "the bureau's key signed the original, and not an octet was changed",
    ),
    "certificate": (
        "签名证书在当日有效，未被吊销",
        "the signing certificate was in force on that day, and not revoked",
    ),
    "enrolment": (
        "该证书当时登记在该单位名下，由两人决定",
        "it was enrolled for that bureau then, by two persons' decision",
    ),
    "grant": ("该单位当时有报送授权，由两人决定", "the bureau had the right to send it then, by two persons' decision"),
    "receipts": ("回执和处理结果由平台签发，内容相符", "receipt and report were issued by the bus and agree"),
    "inclusion": ("审计记录确在日志之中，没有另一本日志", "the entries lie in the log, and there is no second log"),
    "witnesses": ("平台以外的见证方签认过日志", "witnesses from outside signed the log's head"),
    "timestamp": ("时间戳机构证明当时日志已经如此", "a timestamp authority says that the log stood so at that time"),
    "evidence class": ("证据类别与登记一致", "the evidence class is what the enrolment says"),
    "mapping": ("所用映射版本经两人放行", "the mapping that was used was released by two persons"),
    "erased parts": ("被销毁的部分有两人决定为据", "what was erased was erased by two persons' decision"),
}
CLASSES: Final = {
    "signed": ("单位签名：由该单位自己的密钥签名", "signed: by the bureau's own key"),
    "fronted": (
        "前置机签名：由该单位前置机的密钥签名，不等于单位本人签名",
        "fronted: by the key of the bureau's own front node",
    ),
    "uploaded": ("个人上传：由具名人员的密钥签名", "uploaded: a named person signed"),
    "collected": ("平台采集：仅证明平台当时看到的内容，无单位签名", "collected: only what the bus saw; nobody signed"),
}
ROLES: Final = {
    "authority": ("主管部门", "authority"),
    "owner": ("权属单位", "owner"),
    "maintainer": ("养护单位", "maintainer"),
}
STATUSES: Final = {
    "stated": ("单位申报", "stated"),
    "defaulted": ("按约定缺省", "by default"),
    "disputed": ("有争议", "disputed"),
    "unknown": ("不详", "unknown"),
}
ANSWERS: Final = {
    "one owner": ("权属唯一", "one owner"),
    "two bureaus claim this": ("两个单位都主张权属", "two bureaus claim this"),
    "role unknown": ("权属缺项", "a role is unknown"),
    "nobody claims this": ("无单位主张", "nobody claims this"),
}
KINDS: Final = {
    "delivery": "报送",
    "read": "查询",
    "refusal": "拒绝",
    "decision": "决定",
    "processing": "处理",
    "held": "暂存核定",
    "recall": "撤回",
    "erasure": "销毁",
    "timestamp": "时间戳",
}
# How an entry, or a report, says that it came out; a refusal's code stands as it is.
ENDS: Final = {
    "accepted": "已受理",
    "processed": "已处理",
    "refused": "已拒绝",
    "held": "已暂存",
    "recalled": "已撤回",
    "release": "已放行",
    "refuse": "已拒绝",
    "answered": "已答复",
    "published": "已发布",
    "searched": "已检索",
    "strangers": "未经身份验证",
    "covered": "已覆盖",
    "fresh": "正常",
    "alarm": "延误告警",
    "pending": "待时间戳",
    "founded": "已设立",
    "proposed": "已提出",
    "approved": "已批准",
    "revoked": "已撤销",
    "carried_out": "已执行",
    "spill": "误传",
    "recall": "撤回",
    "personal": "个人信息",
    "retention": "到期",
}


def paper(content: Content, verdict: BundleVerdict, anchors: Anchors, now: datetime) -> bytes:
    """The PDF of a bundle and of what was found in it. now: aware; when it was verified.

    Raises Refusal `bundle.container` for a file that is no bundle.
    """
    return _Written(content, verdict, anchors, now).pdf()


def city_time(moment: str | datetime) -> str:
    """A moment as people here read it."""
    try:
        found = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        at = found.astimezone(CITY_TIME)
    except (ValueError, OverflowError):
        return NOT_READ
    return f"{at.year}年{at.month}月{at.day}日 {at:%H:%M:%S}（+08:00）"


def _city_time_of(moment: str) -> str:
    return city_time(moment) if moment else NOT_READ


class _Written:
    """One paper in the making."""

    def __init__(self, content: Content, verdict: BundleVerdict, anchors: Anchors, now: datetime) -> None:
        self._parts, self._verdict, self._anchors, self._now = bundle.read(content).parts, verdict, anchors, now
        self._digest, self._size = content.digest.hex, content.size
        self._paper = Paper(f"甬通 Yongtong　{anchors.origin}", f"证据包 SHA-256 {self._digest[:32]}…")
        self._entries = dict(self._read_entries())
        self._titles: dict[str, str] = {}  # in Chinese, by bureau's code
        self._stands = self._decided()

    def pdf(self) -> bytes:
        """The whole."""
        kind = self._verdict.kind
        self._paper.title(*TITLES.get(kind, TITLES[""]))
        self._outcome()
        more = {"ownership": [self._answer, self._deliveries], "day": [self._deliveries, self._day]}
        told = [self._summary, self._file, *more.get(kind, [self._deliveries]), self._log, self._rows, self._erased]
        for tell in (*told, self._check_yourself):
            try:
                tell()
            except Exception:
                # Whoever made the bundle may have written anything; the verdict's rows are told whatever it is.
                self._paper.text("此处证据包的内容不可读。", "What the bundle has here cannot be read.")
        return self._paper.pdf(f"{TITLES.get(kind, TITLES[''])[0]} {self._verdict.subject}")

    # What it comes to.

    def _outcome(self) -> None:
        zh, en = OUTCOMES[self._verdict.state]
        for name in self._verdict.not_asked:
            zh, en = f"{zh}（{NOT_ASKED[name][0]}）", f"{en}; {NOT_ASKED[name][1]}"
        self._paper.verdict(self._verdict.state, zh, en)

    def _summary(self) -> None:
        self._paper.heading("一、证明什么", "What is proven")
        said = self._verdict.state == "holds"
        for zh, en in self._proven():
            self._paper.text(zh if said else f"证据包声称：{zh}", en if said else f"The bundle claims: {en}")
        if not said:
            self._paper.text(
                "核验未全部成立，哪一项不成立或缺失，见“核验结果”一节；该项所涉内容不能据此认定。",
                "Not everything holds: which, see the rows of the verdict; what they concern is not proven by this.",
            )

    def _file(self) -> None:
        """Which file it is of."""
        self._paper.facts(
            [
                (("标的", "subject"), self._verdict.subject or NOT_READ),
                (("出具平台", "the bus"), self._anchors.origin),
                (("证据包制作时间", "bundle made at"), _city_time_of(self._verdict.made_at)),
                (("核验时间", "verified at"), city_time(self._now)),
                (("证据包 SHA-256", "of the bundle's file"), Fixed(self._digest)),
                (("证据包大小", "size"), f"{self._size} 字节 octets"),
            ]
        )

    def _proven(self) -> Iterator[tuple[str, str]]:
        numbers, subject = self._numbers(), self._verdict.subject
        if self._verdict.kind == "message" and numbers:
            said, leaf = self._said(numbers[0]), self._leaf(numbers[0])
            sender = leaf.get("sender", "")
            id, entry = clipped(str(said.get("message_id", "（明细已销毁）"))), f"第 {numbers[0]} 条"
            yield (
                f"{self._title(sender)}报送了编号为 {id} 的报文，平台于 "
                f"{self._time(said, leaf)} 受理，记入审计日志{entry}，该记录此后未被改动。",
                f"{sender} delivered it; the bus accepted it then, as entry {numbers[0]}, not changed since.",
            )
            recalled = self._recalled(numbers[0])
            if recalled:
                yield (
                    f"该报送件已由报送单位于 {city_time(recalled)} 撤回，自该时起不再作数。",
                    f"RECALLED: its sender took it back on {_day(recalled)}; since then it does not count.",
                )
        elif self._verdict.kind == "ownership":
            component, _, on = subject.partition(" ")
            yield (
                f"按平台所存各单位的报送件，部件 {component} 在 {on} 的权属如“权属答复”一节所列；"
                "每项申报出自哪一份报送件，逐一列明。",
                f"By what bureaus delivered, its roles on {on} are as listed; each claim names its delivery.",
            )
        elif self._verdict.kind == "day":
            of_day, head = self._of_day(), self._anchors.head(self._parts["checkpoint"].read().decode())
            last = of_day[-1] if of_day else -1
            told = f"共 {len(of_day)} 条，其中受理报送 {len(numbers)} 件"
            if last + 1 < head.size:
                yield (
                    f"{subject}（00:00 至 24:00，+08:00）平台审计日志的全部记录{told}，没有遗漏。",
                    f"All entries of that day, {len(of_day)}, with {len(numbers)} accepted deliveries; none left out.",
                )
            else:  # nothing shows that the day had ended
                yield (
                    f"{subject}（+08:00）平台审计日志截至第 {last} 条的当日记录{told}；"
                    "该条是证据包制作时日志的最后一条，当日其后是否另有记录，本证据包不能证明。",
                    f"Entries of that day up to entry {last}, the log's last when the bundle was made: {len(of_day)}, "
                    f"with {len(numbers)} accepted deliveries. What came later that day is not in it.",
                )

    # Parts, one after another.

    def _answer(self) -> None:
        self._paper.heading("二、权属答复", "The ownership answer")
        answer = self._json("answer.json")
        roles = answer.get("roles", [])
        zh, en = ANSWERS.get(answer.get("verdict", ""), (str(answer.get("verdict", NOT_READ)), ""))
        self._paper.text(f"结论：{zh}。", f"Verdict: {en}.")
        self._paper.table(
            [("角色", "role"), ("依据", "basis"), ("单位", "unit")],
            [0.2, 0.22, 0.58],
            [(ROLES[one["role"]], STATUSES.get(one["status"], one["status"]), _units(one["units"])) for one in roles],
        )
        component = answer.get("component", {})
        place = f"{component.get('longitude_deg')}, {component.get('latitude_deg')}"
        known = (
            ("部件标识码", "identifier", component.get("identifier")),
            ("部件小类", "class", component.get("class_code")),
            ("名称", "name", component.get("name")),
            ("单元网格", "grid", component.get("grid_code")),
            ("经度、纬度", "longitude, latitude (CGCS2000)", place),
        )
        self._paper.facts([((zh, en), str(value)) for zh, en, value in known if value is not None])
        claims = answer.get("claims", [])
        self._paper.heading("各单位的申报", f"Claims ({len(claims)})")
        self._paper.table(
            [
                ("单位", "bureau"),
                ("报送件", "delivery"),
                ("记录", "record"),
                ("申报的权属", "what it claims"),
                ("有效期", "valid"),
            ],
            [0.16, 0.24, 0.14, 0.26, 0.2],
            [self._claim(one) for one in claims[:MOST_CLAIMS]],
        )
        if len(claims) > MOST_CLAIMS:
            self._paper.text(
                f"其余 {len(claims) - MOST_CLAIMS} 项见证据包 answer.json。", "The others are in answer.json."
            )

    def _claim(self, one: Mapping[str, Any]) -> tuple[Cell, ...]:
        said = [f"{ROLES[role][0]}：{_unit(one[role])}" for role in ROLES if one.get(role)]
        until = city_time(one["valid_to"]) if one.get("valid_to") else "至今 it stands"
        place = f"{one['source_key']}\n第 {one['record']} 条"
        return (
            (self._title(one["bureau"]), one["bureau"]),
            f"{one['message_id']}\n审计第 {one['entry']} 条",
            place,
            "\n".join(said) or "未申报权属 none",
            f"{city_time(one['valid_from'])}\n{until}",
        )

    def _deliveries(self) -> None:
        numbers = self._numbers()
        self._paper.heading(
            "三、报送件" if self._verdict.kind == "ownership" else "二、报送件", f"Deliveries ({len(numbers)})"
        )
        for number in numbers[:MOST_DELIVERIES]:
            if len(numbers) > 1:
                self._paper.text(f"报送件，审计记录第 {number} 条", f"messages/{number}")
            self._paper.facts(self._delivery(number))
            for use, fingerprint in (("签名证书", "signer"), ("传输方证书", "carrier")):
                pem = f"certificates/{self._leaf(number).get(fingerprint)}.pem"
                if pem in self._parts and (
                    fingerprint == "signer" or self._leaf(number)["carrier"] != self._leaf(number)["signer"]
                ):
                    self._paper.facts(self._certificate(pem, use, fingerprint))
        if len(numbers) > MOST_DELIVERIES:
            self._paper.text(f"其余 {len(numbers) - MOST_DELIVERIES} 件见证据包。", "The others are in the bundle.")

    def _delivery(self, number: int) -> Iterator[tuple[tuple[str, str], Cell]]:
        said, leaf, place = self._said(number), self._leaf(number), f"messages/{number}"
        sender, kind = leaf.get("sender", ""), said.get("content_type", NOT_READ)
        yield ("报送单位", "sender"), (self._title(sender), f"code {sender}")
        if "asserted_by" in said:
            yield (
                ("代报单位", "asserted by"),
                (self._title(str(said["asserted_by"])), f"asserted by {said['asserted_by']} for {sender}"),
            )
        yield ("报文编号", "message id"), Fixed(said.get("message_id", NOT_READ))
        yield ("供数任务", "feed"), str(leaf.get("feed", NOT_READ))
        yield ("受理时间", "received"), self._time(said, leaf)
        if "signed_at" in said:
            yield ("签名时间（报送单位自述）", "signed, by the sender's clock"), city_time(str(said["signed_at"]))
        yield (
            ("内容", "content"),
            f"{kind}，{said.get('content_length', '?')} 字节，形式 {said.get('form', '?')}",
        )
        yield ("内容 SHA-256", "digest of the content"), Fixed(said.get("content_digest", NOT_READ))
        yield ("原件 SHA-256", "digest of the original"), Fixed(said.get("evidence_digest", NOT_READ))
        yield ("原件", "original"), self._where(f"{place}/envelope")
        yield ("证据类别", "evidence class"), CLASSES.get(str(said.get("evidence_class")), NOT_READ)
        yield ("授权编号", "grant"), Fixed(leaf.get("grant", NOT_READ))
        yield (
            ("审计记录", "entry"),
            (f"第 {number} 条，{city_time(leaf['time'])}" if leaf else NOT_READ, f"entry {number}"),
        )
        entry = self._entries.get(number)
        if entry:
            yield ("记录摘要", "leaf hash"), Fixed(merkle.leaf_hash(entry["leaf"].encode()).hex())
        yield ("映射版本 SHA-256", "feed file in force"), Fixed(leaf.get("feedDigest", NOT_READ))
        report = self._document(f"{place}/report.json")
        yield (
            ("处理结果", "report"),
            _report(report) if report else ("无：未处理，或不在证据包中", "none, or not in the bundle"),
        )

    def _certificate(self, name: str, use: str, en: str) -> Iterator[tuple[tuple[str, str], Cell]]:
        """Whose it is, by enrolment and by its own words."""
        der = der_of_pem(self._parts[name].read())
        certificate = x509.load_der_x509_certificate(der)
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        known = self._stands.certificates.get(sha256(der).hexdigest())
        holder = self._title(known.bureau) if known else "证据包中没有为其登记的有效决定 no decision that holds"
        yield (f"{use}：持有单位", f"{en}: enrolled for"), holder
        yield ("证书主体", "subject"), certificate.subject.rfc4514_string()
        yield ("签发者", "issuer"), certificate.issuer.rfc4514_string()
        yield ("序列号", "serial number (hex)"), Fixed(f"{certificate.serial_number:x}")
        yield ("有效期", "valid"), f"{city_time(first)} 至\n{city_time(last)}"
        yield ("证书 SHA-256", "fingerprint"), Fixed(sha256(der).hexdigest())

    def _day(self) -> None:
        of_day = self._of_day()
        self._paper.heading("三、当日全部记录", f"All entries of the day ({len(of_day)})")
        self._paper.table(
            [
                ("序号", "entry"),
                ("时间", "time"),
                ("类型", "type"),
                ("结果", "outcome"),
                ("单位", "bureau"),
                ("供数任务", "feed"),
            ],
            [0.09, 0.19, 0.18, 0.18, 0.16, 0.2],
            [self._line(number) for number in of_day[:MOST_ENTRIES]],
        )
        if len(of_day) > MOST_ENTRIES:
            self._paper.text(
                f"其余 {len(of_day) - MOST_ENTRIES} 条见证据包 entries/。", "The others are in the bundle."
            )

    def _line(self, number: int) -> tuple[Cell, ...]:
        leaf = self._leaf(number)
        at = datetime.fromisoformat(leaf["time"]).astimezone(CITY_TIME)
        kind = f"{KINDS.get(leaf['type'], '')} {leaf['type']}"
        return str(number), f"{at:%H:%M:%S.%f}", kind, _ended(leaf["outcome"]), leaf["sender"], leaf["feed"]

    def _log(self) -> None:
        number = {"ownership": "四", "day": "四"}.get(self._verdict.kind, "三")
        self._paper.heading(f"{number}、在日志中的位置", "Where it stands in the log")
        self._paper.text(
            "平台的审计日志是一棵只增不减的摘要树。日志签名的“存证点”固定了全部记录：改动、删除或插入任何一条，摘要就对不上。",
            "The log is a tree of digests that only grows. A signed head fixes every entry under it.",
        )
        with suppress(ExchangeError, KeyError, UnicodeDecodeError):
            head = self._anchors.head(self._parts["checkpoint"].read().decode())
            if head.origin != self._anchors.log_name:
                self._paper.text(
                    "该存证点属于已终止的旧纪元，其密钥可能已为他人所得；仅凭密钥不能排除事后伪造，须看见证与时间戳。",
                    "The head is of an epoch that is over, whose keys somebody else may have: "
                    "only witnesses and time stamps say that it is not made since.",
                )
            self._paper.facts(
                [
                    (("日志", "log"), head.origin),
                    (("存证点：记录总数", "head: entries under it"), str(head.size)),
                    (("存证点：根摘要", "head: root (base64)"), Fixed(base64.b64encode(head.root).decode())),
                    (("根摘要（十六进制）", "root (hex)"), Fixed(head.root.hex())),
                ]
            )
        self._paper.facts([*self._attested()] or [(("见证与时间戳", "witnesses, time stamps"), "无 none")])

    def _attested(self) -> Iterator[tuple[tuple[str, str], Cell]]:
        for name in sorted(name for name in self._parts if name == "checkpoint" or name.endswith(".checkpoint")):
            with suppress(ExchangeError, UnicodeDecodeError):
                note = self._parts[name].read().decode()
                size = self._anchors.head(note).size
                for one in cosignatures(note, self._anchors.witnesses):
                    yield ("见证方", "witness"), (f"{one.witness}，{city_time(one.at)}", f"over {size} entries")
                token = self._parts.get(name.replace(".checkpoint", ".tsr"))
                if token is not None and name != "checkpoint" and self._anchors.timestamp_certificates:
                    stamped = without_cosignatures(note).encode()
                    at = verify_timestamp(token.read(), stamped, self._anchors.timestamp_roots)
                    yield ("时间戳", "time stamp (RFC 3161)"), (city_time(at), f"over {size} entries")

    def _rows(self) -> None:
        number = {"ownership": "五", "day": "五"}.get(self._verdict.kind, "四")
        self._paper.heading(f"{number}、核验结果", "The verdict, row by row")
        rows = [(QUESTIONS[row.name], row.state, STATES[row.state], row.about) for row in self._verdict.rows]
        self._paper.judged(rows)

    def _erased(self) -> None:
        manifest = self._document(bundle.MANIFEST)
        gone = [
            (("已销毁", "erased"), (f"{name}", f"content erased on {day}" if day else "day unknown"))
            for name, day in sorted(manifest.get("erased", {}).items())
        ]
        gone += [
            (("未附", "withheld"), (f"{name}", f"{why}: two persons decide to open it"))
            for name, why in sorted(manifest.get("withheld", {}).items())
        ]
        if gone:
            self._paper.heading("已销毁或未附的部分", "What is erased or withheld")
            self._paper.text(
                "销毁的只是内容；审计记录、回执和证明仍在，并继续成立。",
                "Only content is gone; entries, receipts and proofs stay and hold.",
            )
            self._paper.facts(gone)

    def _check_yourself(self) -> None:
        number = {"ownership": "六", "day": "六"}.get(self._verdict.kind, "五")
        begin = self._paper.mark
        self._paper.heading(f"{number}、如何自行核验", "How to check it yourself")
        self._paper.text(
            "本纸不是证据，只说明对一个文件核验的结果；证据是证据包文件本身。请先核对文件的 SHA-256 与下列一致，"
            "再用另行取得的信任锚核验。"
            "不用本软件也能核验，步骤见 docs/verify-without-us.md。",
            "This paper is no evidence; the bundle's file is. Compare its SHA-256, then verify it with anchors "
            "that you had by another way. "
            "It can be checked without this program: docs/verify-without-us.md.",
        )
        watched = f"见证方 {len(self._anchors.witnesses)} 个，需 {self._anchors.quorum} 个签认"
        self._paper.facts(
            [
                (("证据包 SHA-256", "the bundle's file"), Fixed(self._digest)),
                (("日志公钥", "the log's public key"), Fixed(_lines(self._anchors.log_key))),
                *[(("平台签名证书 SHA-256", "the bus's certificate"), Fixed(one)) for one in self._certificates()],
                (("设立文件 SHA-256", "the founding"), Fixed(self._anchors.founding or "—")),
                (("见证要求", "witnesses asked for"), watched),
                (("核对文件", "is it that file"), Fixed("openssl dgst -sha256 BUNDLE")),
                (("用本软件", "with this program"), Fixed("yongtong verify BUNDLE --anchors anchors.json")),
                (("不用本软件", "without it"), Fixed(SCRIPTS)),
            ]
        )
        self._paper.kept(begin)

    # Reading. What cannot be read is left out here; the verdict's rows say that it does not hold.

    def _read_entries(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for name in self._parts:
            if name.startswith("entries/"):
                entry = self._json(name)
                if isinstance(entry.get("index"), int) and isinstance(entry.get("leaf"), str):
                    yield entry["index"], entry

    def _json(self, name: str) -> dict[str, Any]:
        return _decoded(self._parts[name].read()) if name in self._parts else {}

    def _document(self, name: str) -> dict[str, Any]:
        """What a signed document says; whether its signature holds, the verdict's rows say."""
        outer = self._json(name)
        return _payload(str(outer.get("document") or outer.get("payload") or ""))

    def _leaf(self, number: int) -> dict[str, Any]:
        return _decoded(self._entries.get(number, {}).get("leaf", ""))

    def _said(self, number: int) -> dict[str, Any]:
        """The detail of a delivery's entry, or, where that was erased, of its receipt."""
        detail = self._entries.get(number, {}).get("detail")
        return _decoded(detail or str(self._document(f"messages/{number}/receipt.json").get("detail", "")))

    def _numbers(self) -> list[int]:
        found = (re.match(r"messages/(\d{1,18})/", name) for name in self._parts)
        return sorted({int(match[1]) for match in found if match})

    def _of_day(self) -> list[int]:
        day = self._verdict.subject
        return [number for number in sorted(self._entries) if _day(self._leaf(number).get("time", "")) == day]

    def _decided(self) -> Standing:
        """What stands by the bundle's decisions, told as the verifier tells it: from the founding that the anchors
        name, each by its persons' signatures. A title that nobody decided on is not said."""
        stands = Standing(self._anchors.origin, self._anchors.founding)
        for number, entry in sorted(self._entries.items()):
            with suppress(Exception):  # what is not proven decides nothing
                leaf = msgspec.json.decode(entry["leaf"], type=Leaf)
                detail = detail_of(entry, leaf) if self._is_proven(number, entry) else None
                if leaf.type == DECISION and leaf.outcome in DECIDES and detail is not None:
                    stands.take(Decided(number, leaf.time, leaf.outcome, detail))
                    # A bureau enrolled anew for a certificate alone keeps the title that it had.
                    self._titles |= {one.code: one.title_zh for one in stands.bureaus.values() if one.title_zh}
        return stands

    def _is_proven(self, number: int, entry: Mapping[str, Any]) -> bool:
        """Whether an entry lies under the bundle's head. Raises what its reading does."""
        head = self._anchors.head(self._parts["checkpoint"].read().decode())
        leaf = merkle.leaf_hash(entry["leaf"].encode())
        return merkle.verify_inclusion(leaf, number, head.size, nodes_of(entry["proof"]), head.root)

    def _recalled(self, number: int) -> str:
        """When the sender took a delivery back, as its report or an entry says; empty where neither does."""
        report = self._document(f"messages/{number}/report.json")
        if report.get("outcome") == "recalled":
            return str(_decoded(str(report["leaf"]))["time"])
        sender, id = self._leaf(number).get("sender"), self._said(number).get("message_id")
        for other, entry in sorted(self._entries.items()):
            leaf, detail = self._leaf(other), _decoded(entry.get("detail"))
            said = (leaf.get("type"), leaf.get("sender"), detail.get("message_id"))
            if said == (RECALL, sender, id) and leaf.get("outcome") == "recalled":
                return str(leaf["time"])
        return ""

    def _title(self, code: str) -> str:
        return f"{self._titles[code]}（{code}）" if code in self._titles else code

    def _time(self, said: Mapping[str, Any], leaf: Mapping[str, Any]) -> str:
        moment = str(said.get("received_at") or leaf.get("time") or "")
        return city_time(moment) if moment else NOT_READ

    def _where(self, name: str) -> Cell:
        if name in self._parts:
            return f"证据包 {name}", f"in the bundle, {self._parts[name].size} octets"
        return "不在证据包中：已销毁或封存，见后", "not in the bundle: erased or withheld, see below"

    def _certificates(self) -> list[str]:
        """Of the bus, by their fingerprints."""
        return [sha256(der_of_pem(pem.encode())).hexdigest() for pem in self._anchors.all_certificates]


def _decoded(text: Any) -> dict[str, Any]:
    """The object that a text is; empty where it is none."""
    with suppress(ValueError, TypeError, RecursionError):
        found = msgspec.json.decode(text)
        return found if isinstance(found, dict) else {}
    return {}


def _payload(text: str) -> dict[str, Any]:
    with suppress(ValueError):
        return _decoded(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return {}


def _day(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(CITY_TIME).date().isoformat() if moment else ""


def _unit(unit: Mapping[str, Any]) -> str:
    return " ".join(str(unit[name]) for name in ("name", "code") if unit.get(name)) or "—"


def _units(units: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(_unit(unit) for unit in units) or "—"


def _ended(outcome: Any) -> str:
    """An outcome in Chinese, the raw word beside it."""
    return f"{ENDS.get(outcome, '')} {outcome}".strip()


def _report(document: Mapping[str, Any]) -> tuple[str, str]:
    report, outcome = document.get("report", {}), document.get("outcome", "")
    words = (
        ("records", "记录"),
        ("new", "新增"),
        ("changed", "变更"),
        ("unchanged", "未变"),
        ("ended", "终止"),
        ("rejected", "退回"),
        ("ignored", "略过"),
    )
    counts = [f"{word} {report[name]}" for name, word in words if isinstance(report.get(name), int)]
    day = f"（{_day(str(_decoded(str(document.get('leaf', '')))['time']))}）" if outcome == "recalled" else ""
    return "，".join([f"{ENDS.get(outcome, outcome)}{day}", *counts]), f"outcome: {outcome}"


def _lines(text: str) -> str:
    """In lines of 64, so that each can be copied."""
    return "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
