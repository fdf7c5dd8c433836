"""Keys and certificates: there, private, fitting, in force, leading to an anchor, not revoked."""

import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from exchange.app import keys_in_force, places, trusted
from exchange.doctor.check import Check, Examined, bad, good, refused
from exchange.revocation import Kept, Revocations
from security.authenticate import TrustList
from security.chain import check_chain
from security.checkpoint import log_key_octets
from security.errors import Misconfigured, Refusal
from security.expiry import endings, expiring
from security.keys import der_of_pem
from security.message import EnrolledCertificate
from security.pki import check_window
from security.revocation import GRACE
from security.sealing import SealingKey

CERTIFICATES: Final = ("ca.pem", "tls.pem", "answer.pem")
SOON_DAYS, URGENT_DAYS = 30, 7
QUIET: Final = ("chain.expired", "auth.certificate_expired", "auth.certificate_revoked")  # of one with a successor


def keys_are_there(bus: Examined) -> Iterator[Check]:
    """Every file that `init` made."""
    missing = [path for path in (*_secrets(bus), *(bus.keys / name for name in CERTIFICATES)) if not path.is_file()]
    if not missing:
        yield good("keys.present", "密钥和证书文件齐全。", "All key and certificate files are there.")
    for path in missing:
        yield bad(
            "keys.present",
            f"缺少密钥文件 {path}。",
            f"The key file {path} is missing.",
            "请从备份恢复；密钥遗失后不能重建。",
            "Restore it from a backup; a lost key cannot be made again.",
            path.name,
        )


def _secrets(bus: Examined) -> list[Path]:
    """Every file that must be kept: secrets, and the keys that lie in no token."""
    keyring = keys_in_force.keyring_of(bus.settings, attended=False)
    return [
        *(keyring.path(name) for name in keys_in_force.KEYS if not keyring.in_token(name)),
        *(bus.keys / n for n in keys_in_force.SECRETS),
    ]


def keys_are_private(bus: Examined) -> Iterator[Check]:
    """Folder 0700, files 0600, and none of them in the state folder, which gets copied."""
    open_to_others = [(bus.keys, 0o700)] if _mode(bus.keys) & 0o077 else []
    open_to_others += [(path, 0o600) for path in _secrets(bus) if path.is_file() and _mode(path) & 0o077]
    for path, mode in open_to_others:
        yield bad(
            "keys.private",
            f"{path} 的权限是 {_mode(path):04o}，其他账户可以访问。",
            f"{path} has mode {_mode(path):04o}: other accounts can get at it.",
            f"请执行 chmod {mode:o} {path}；若可能已被读取，请更换密钥。",
            f"Run chmod {mode:o} {path}; if it may have been read, replace the key.",
            path.name,
        )
    if bus.keys.resolve().is_relative_to(bus.state.resolve()):
        yield bad(
            "keys.private",
            f"密钥目录 {bus.keys} 在状态目录之内，备份状态会带走密钥。",
            f"The key folder {bus.keys} lies in the state folder: every copy of the state takes the keys along.",
            "请把密钥移到别处，并修改 [keys] folder。",
            "Move the keys elsewhere and change [keys] folder.",
        )
    elif not open_to_others:
        yield good("keys.private", "密钥文件仅本账户可读。", "Key files are readable by this account alone.")


def keys_fit(bus: Examined) -> Iterator[Check]:
    """Each private key is that of the certificate beside it."""
    keyring = keys_in_force.keyring_of(bus.settings, attended=False)
    for name in keys_in_force.OWN:
        try:
            keyring.load(name)
        except Misconfigured as problem:
            yield bad(
                f"keys.{name}",
                f"{name}.key 与 {name}.pem 不能一起使用：{problem}",
                f"{name}.key and {name}.pem do not go together: {problem}",
                "请从同一份备份恢复这两个文件。",
                "Restore both files from one backup.",
            )
        else:
            yield good(f"keys.{name}", f"{name} 的密钥与证书相符。", f"Key and certificate of {name} fit.")


def own_chains_hold(bus: Examined) -> Iterator[Check]:
    """The bus's own certificates lead to its CA."""
    anchor = _own(bus, "ca")
    for name in ("tls", "answer"):
        try:
            check_chain(_own(bus, name), (), (anchor,), bus.now)
        except Refusal as refusal:
            yield refused(f"chain.{name}", f"{name}.pem", refusal)
        else:
            yield good(f"chain.{name}", f"{name} 证书链完好。", f"The chain of the {name} certificate holds.")


def own_days_are_left(bus: Examined) -> Iterator[Check]:
    """None of the bus's own certificates ends in the next days."""
    ending = expiring(keys_in_force.own_certificates(bus.settings), bus.now, SOON_DAYS)
    if not ending:
        yield good(
            "days.own", f"平台自己的证书 {SOON_DAYS} 天内不到期。", f"No own certificate ends in {SOON_DAYS} days."
        )
    for one in ending:
        days = one.days_left(bus.now)
        yield Check(
            "days.own",
            days > URGENT_DAYS,
            f"平台的 {one.use} 证书 {one.not_after:%Y-%m-%d} 到期，还有 {days} 天。",
            f"The bus's {one.use} certificate ends on {one.not_after:%Y-%m-%d}, in {days} days.",
            "请在到期前换发；换 answer 证书时旧证书须留在 anchors.json 中。",
            "Replace it before that; of an answer certificate the old one stays among the anchors.",
            one.use,
        )


def anchors_are_ours(bus: Examined) -> Iterator[Check]:
    """What partners are given to trust is what this bus signs with."""
    anchors = trusted.anchors_of(bus.settings)
    keyring = keys_in_force.keyring_of(bus.settings, attended=False)
    log_key = log_key_octets(keyring.load("log", certificate=False).public_key).hex()
    answer, known = (
        keys_in_force.own_certificate(bus.settings, "answer"),
        [der_of_pem(pem.encode()) for pem in anchors.receipt_certificates],
    )
    wrong = [
        *(["origin"] if anchors.origin != bus.settings.bus.origin else []),
        *(["log_key"] if anchors.log_key != log_key else []),
        *(["receipt_certificates"] if answer not in known else []),
    ]
    if not wrong:
        yield good("keys.anchors", "anchors.json 与密钥一致。", "anchors.json says what the keys are.")
    for member in wrong:
        yield bad(
            "keys.anchors",
            f"anchors.json 的 {member} 与本平台的密钥不一致，对方会验不过回执。",
            f"{member} in anchors.json is not of this bus's keys: partners could not verify its receipts.",
            "请从备份恢复 anchors.json 或对应的密钥，并核查是谁改动的。",
            "Restore anchors.json or the key from a backup, and find out who changed it.",
        )


def evidence_key_is_ours(bus: Examined) -> Iterator[Check]:
    """Sealed evidence can be opened."""
    origin = msgspec.json.decode((bus.state / "origin.json").read_bytes(), type=places.Origin)
    if SealingKey.load(bus.keys / "evidence.key").fingerprint == origin.evidence_key:
        yield good("keys.evidence", "证据密钥正确。", "The evidence key is the right one.")
        return
    yield bad(
        "keys.evidence",
        "evidence.key 不是建立平台时的那把，封存的证据打不开。",
        "evidence.key is not the one that the bus was made with: sealed evidence cannot be opened.",
        "请从备份恢复 evidence.key。",
        "Restore evidence.key from a backup.",
    )


def authorities_are_read(bus: Examined) -> Iterator[Check]:
    """The files in [[authority]] hold authorities whose own chain holds. Raises Misconfigured naming the file."""
    for named, authority in zip(bus.settings.authority, trusted.city_authorities(bus.settings), strict=True):
        for der in authority.certificates:
            try:
                check_chain(der, (), (der,), bus.now)
            except Refusal as refusal:
                yield refused("certificates.authorities", named.certificates, refusal)


def enrolled_hold(bus: Examined) -> Iterator[Check]:
    """Each bureau has, for each use, a certificate that counts today and leads to an authority known here."""
    if bus.registry is None:
        return
    enrolled, trust = bus.registry.certificates(), bus.registry.trust()
    in_registry = [one for one in enrolled if one.revoked_at is None]
    problems = {one.fingerprint: _problem(one, trust, bus) for one in in_registry}
    served = {(one.bureau, one.use) for one in in_registry if problems[one.fingerprint] is None}
    wrong = 0
    for one in in_registry:
        problem = problems[one.fingerprint]
        if problem is None or (problem.code in QUIET and (one.bureau, one.use) in served):
            continue
        wrong += 1
        yield refused("certificates.enrolled", f"{one.bureau} {one.use} {one.fingerprint[:16]}", problem)
    if not wrong:
        count = len(in_registry)
        yield good(
            "certificates.enrolled", f"登记的 {count} 张证书均有效。", f"The {count} enrolled certificates hold."
        )


def enrolled_days_are_left(bus: Examined) -> Iterator[Check]:
    """No bureau is about to be left without a certificate."""
    if bus.registry is None:
        return
    ending = expiring(endings(bus.registry.certificates(), bus.now), bus.now, SOON_DAYS)
    left = [one for one in ending if one.not_after > bus.now]
    if not left:
        yield good(
            "days.enrolled",
            f"{SOON_DAYS} 天内没有单位的证书到期而无接替。",
            f"In the next {SOON_DAYS} days no bureau's certificate ends without a successor.",
        )
    for one in left:
        days, which = one.days_left(bus.now), f"{one.holder} {one.use} {one.fingerprint[:16]}"
        yield Check(
            "days.enrolled",
            days > URGENT_DAYS,
            f"{which} 还有 {days} 天到期，没有接替的证书。",
            f"{which} ends in {days} days and has no successor.",
            f"请 {one.holder} 提交新的证书申请并登记；新旧证书可以同时有效。",
            f"Have {one.holder} ask for a new one and enrol it; both may count at the same time.",
            which,
        )


def revocation_is_known(bus: Examined) -> Iterator[Check]:
    """Every address in [[authority]] has given a status that may still be believed."""
    revocations = trusted.open_revocations(bus.settings)
    kept, wrong = revocations.kept(), 0
    for place in _asked(revocations, bus):
        for check in _of_answer(place, kept.get(place), bus.now):
            wrong += 1
            yield check
    if not wrong and any(authority.is_asked for authority in revocations.authorities):
        yield good(
            "revocation.known", "各签发机构的吊销状态均为最新。", "The revocation status of every authority is current."
        )


def _asked(revocations: Revocations, bus: Examined) -> Iterator[tuple[str, str]]:
    for authority in revocations.authorities:
        yield from ((url, "") for url in authority.crl)
    for one in bus.registry.certificates() if bus.registry is not None else ():
        issuing, _ = revocations.authority_of(one)
        if issuing is not None and issuing.ocsp and one.not_after > bus.now and one.revoked_at is None:
            yield issuing.ocsp, one.fingerprint


def _of_answer(place: tuple[str, str], kept: Kept | None, now: datetime) -> Iterator[Check]:
    whose = f"{place[0]} {place[1][:16]}".strip()
    if kept is not None and kept.problem:
        yield refused("revocation.known", whose, Refusal(kept.problem, kept.detail))
    if kept is None or kept.next_update is None:
        yield _unknown(whose, "从未取得吊销状态", "has never given a revocation status")
    elif kept.next_update + GRACE < now:
        day = f"{kept.next_update:%Y-%m-%d %H:%M}Z"
        yield _unknown(whose, f"的吊销状态应于 {day} 更新，已超过 24 小时", f"should have renewed its status by {day}")


def _unknown(whose: str, zh: str, en: str) -> Check:
    return bad(
        "revocation.known",
        f"{whose} {zh}：该机构证书的报送现已停收。",
        f"{whose} {en}: nothing is taken from certificates of that authority now.",
        "请确认 serve 在运行、地址可以访问，并催促 CA 更新。",
        "See that serve runs and the address can be reached, and ask the CA for a new one.",
        whose,
    )


def _problem(one: EnrolledCertificate, trust: TrustList, bus: Examined) -> Refusal | None:
    """What is wrong with an enrolled certificate today, if anything."""
    standing = trust.by_fingerprint(one.fingerprint) or one
    try:
        check_window(standing, max(bus.now, one.not_before))  # one to come is no fault
        trusted.check_certificate(bus.settings, one.der, max(bus.now, one.not_before))
    except Refusal as refusal:
        # Trust is by enrolment: a signing certificate of whoever issued it counts. A connection's must pass TLS.
        if refusal.code == "chain.issuer_unknown" and one.use != "connection":
            return None
        return refusal
    return None


def _own(bus: Examined, name: str) -> bytes:
    return keys_in_force.own_certificate(bus.settings, name)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
