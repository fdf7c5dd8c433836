"""Answers of authorities, fetched over real sockets and kept: lists of OpenSSL's, its responder, and bad days."""

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.transports.fetch import fetch
from exchange.certificate_watch import CertificateWatch
from exchange.revocation import CityAuthority, Revocations
from security.authenticate import TrustList, carrier_of, signer_of
from security.errors import Refusal
from security.expiry import ending_of
from security.keys import der_of_pem, ders_of_pem
from security.message import EnrolledCertificate
from security.pki import enrolled
from security.revocation import GRACE, NEVER
from tests.certificates.servers import FileServer, OpensslAuthority, file_server
from tests.security.authorities import DAY, NOW, Holder

ROOT = Holder("City Root")
CA = Holder("City CA", ROOT)
WATER, POWER = CA.leaf(), CA.leaf("power")
ENROLLED = enrolled(WATER.der, "water", "signing")
HOUR = timedelta(hours=1)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


class City:
    """An authority that is asked, what is kept of it, and a clock that a test sets."""

    def __init__(
        self, folder: Path, server: FileServer, *, crl: tuple[str, ...] = ("/ca.crl",), ocsp: str = ""
    ) -> None:
        self.now, self.server, self.folder = NOW, server, folder / "revocation"
        self.authority = CityAuthority(
            (CA.der, ROOT.der), tuple(server.url(path) for path in crl), ocsp and server.url(ocsp)
        )
        self.revocations = Revocations(self.folder, (self.authority,))
        self.enrolled: list[EnrolledCertificate] = [ENROLLED]
        self.watch = self.watching(self.revocations)

    def watching(self, revocations: Revocations) -> CertificateWatch:
        return CertificateWatch(revocations, lambda: self.enrolled, [], fetch, lambda: b"n" * 16, lambda: self.now)

    def turn(self, after: timedelta = timedelta(0)) -> None:
        """Time passes, and whatever is due is asked."""
        self.now += after
        self.watch.turn(threading.Event())

    def trust(self) -> TrustList:
        return TrustList(self.revocations.applied(self.enrolled))

    def may_push(self) -> str:
        """What a push with the signing certificate of `water` hears now: empty when it is taken."""
        try:
            trust = self.trust()
            signer_of(trust.by_fingerprint(ENROLLED.fingerprint), "water", self.now)
            trust.check_status_known(ENROLLED.fingerprint, self.now)
        except Refusal as refusal:
            return refusal.code
        return ""

    def problem(self, path: str = "/ca.crl", certificate: str = "") -> str:
        return self.revocations.kept()[self.server.url(path), certificate].problem


def test_before_the_first_answer_nothing_is_taken_and_after_it_everything(tmp_path: Path, server: FileServer) -> None:
    city = City(tmp_path, server)
    assert city.may_push() == "auth.revocation_unknown"
    server.files["/ca.crl"] = CA.crl(POWER)
    city.turn()
    assert (city.may_push(), city.problem()) == ("", "")


def test_a_revoked_certificate_stops_with_the_answer_and_its_past_stands(tmp_path: Path, server: FileServer) -> None:
    city = City(tmp_path, server)
    server.files["/ca.crl"] = CA.crl()
    city.turn()
    version = city.revocations.version
    server.files["/ca.crl"] = CA.crl(WATER, at=NOW, since=NOW - HOUR)
    city.turn(after=HOUR)
    assert city.revocations.version != version
    assert city.may_push() == "auth.certificate_revoked"
    assert carrier_of(WATER.der, city.trust(), city.now) is None
    before = signer_of(city.trust().by_der(WATER.der), "water", NOW - 2 * HOUR)
    assert before.revoked_at == NOW - HOUR, "what it signed before that still verifies for its day"


def test_no_answer_that_differs_changes_what_was_trusted(tmp_path: Path, server: FileServer) -> None:
    city = City(tmp_path, server)
    server.files["/ca.crl"] = CA.crl()
    city.turn()
    digest = city.trust().digest
    server.files["/ca.crl"] = CA.crl(at=NOW, until=NOW + 2 * DAY)
    city.turn(after=HOUR)
    assert city.trust().digest == digest
    server.files["/ca.crl"] = CA.crl(WATER, at=NOW + HOUR)
    city.turn(after=HOUR)
    assert city.trust().digest != digest, "the audit says which certificates counted"


def test_a_silent_authority_is_believed_for_a_day_after_its_next_update(tmp_path: Path, server: FileServer) -> None:
    city = City(tmp_path, server)
    server.files["/ca.crl"] = CA.crl(until=NOW + DAY)
    city.turn()
    del server.files["/ca.crl"]
    city.turn(after=DAY + GRACE)
    assert (city.may_push(), city.problem()) == ("", "fetch.status")
    city.turn(after=timedelta(seconds=1))
    assert city.may_push() == "auth.revocation_unknown"
    assert carrier_of(WATER.der, city.trust(), city.now) is not None, "reads go on"
    server.files["/ca.crl"] = CA.crl(at=city.now, until=city.now + DAY)
    city.turn(after=timedelta(minutes=1))
    assert city.may_push() == ""


def test_a_silent_responder_is_believed_for_a_day_after_its_next_update(tmp_path: Path, server: FileServer) -> None:
    """The same of OCSP, where it is all that is asked."""
    city = City(tmp_path, server, crl=(), ocsp="/ocsp")
    server.files["/ocsp"] = CA.answer(WATER, until=NOW + DAY, nonce=b"n" * 16)
    city.turn()
    del server.files["/ocsp"]
    city.turn(after=DAY + GRACE)
    assert (city.may_push(), city.problem("/ocsp", ENROLLED.fingerprint)) == ("", "fetch.status")
    city.turn(after=timedelta(seconds=1))
    assert city.may_push() == "auth.revocation_unknown"
    assert carrier_of(WATER.der, city.trust(), city.now) is not None, "reads go on"


def test_an_authority_is_asked_by_its_setting_and_after_a_failure_sooner(tmp_path: Path, server: FileServer) -> None:
    city = City(tmp_path, server)
    server.files["/ca.crl"] = CA.crl(until=NOW + 9 * DAY)
    for after, asked in ((timedelta(0), 1), (HOUR - timedelta(seconds=1), 1), (timedelta(seconds=1), 2)):
        city.turn(after)
        assert len(server.asked) == asked
    del server.files["/ca.crl"]
    for after, asked in ((HOUR, 3), (timedelta(seconds=59), 3), (timedelta(seconds=1), 4)):
        city.turn(after)
        assert len(server.asked) == asked


BAD: dict[str, tuple[str, Any]] = {
    "not there": ("fetch.status", None),
    "a page": ("revocation.not_readable", b"<html>moved</html>"),
    "of another authority": ("revocation.other_issuer", Holder("Other CA").crl()),
    "by another key": ("revocation.signature_invalid", Holder("City CA").crl()),
    "of the future": ("revocation.future", CA.crl(at=NOW + 2 * DAY, until=NOW + 3 * DAY)),
    "yesterday's": ("revocation.rolled_back", CA.crl(at=NOW - 2 * HOUR, until=NOW + 9 * DAY)),
    "stale": ("revocation.stale", CA.crl(WATER, at=NOW, until=NOW + HOUR / 2)),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_answer_is_named_and_the_one_before_is_held(
    tmp_path: Path, server: FileServer, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    code, octets = BAD[fault]
    city = City(tmp_path, server)
    server.files["/ca.crl"] = CA.crl()
    city.turn()
    if octets is None:
        del server.files["/ca.crl"]
    else:
        server.files["/ca.crl"] = octets
    with caplog.at_level(logging.WARNING, "yongtong.certificates"):
        city.turn(after=HOUR)
    assert city.problem() == code
    assert code in caplog.text
    # Of a stale list that is newer, what it says is true nevertheless.
    assert city.may_push() == ("auth.certificate_revoked" if fault == "stale" else "")


def test_answers_outlive_a_restart(tmp_path: Path, server: FileServer) -> None:
    city = City(tmp_path, server, ocsp="/ocsp")
    server.files |= {"/ca.crl": CA.crl(), "/ocsp": CA.answer(WATER, "REVOKED")}
    city.turn()
    anew = Revocations(city.folder, (city.authority,))
    assert anew.applied([ENROLLED]) == city.revocations.applied([ENROLLED])
    assert anew.applied([ENROLLED])[0].revoked_at == NOW - 2 * DAY


@pytest.mark.parametrize("harm", ["altered", "removed", "index removed", "index altered"])
def test_who_writes_into_the_folder_can_only_stop_pushes(
    tmp_path: Path, server: FileServer, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    city = City(tmp_path, server)
    server.files["/ca.crl"] = CA.crl(WATER)
    city.turn()
    (kept,) = (path for path in city.folder.iterdir() if path.name != "index.json")
    index = city.folder / "index.json"
    if harm == "altered":
        kept.write_bytes(CA.crl()[:-1] + b"x")
    elif harm == "removed":
        kept.unlink()
    elif harm == "index removed":
        index.unlink()
    else:
        index.write_bytes(b"[{}]")
    anew = Revocations(city.folder, (city.authority,))
    _ = anew.version
    (found,) = anew.applied([ENROLLED])
    assert found.status_until == NEVER
    assert harm == "index removed" or "lost" in caplog.text


def test_another_process_hears_of_an_answer_at_its_next_question(tmp_path: Path, server: FileServer) -> None:
    city = City(tmp_path, server)
    other = Revocations(city.folder, (city.authority,))
    server.files["/ca.crl"] = CA.crl()
    city.turn()
    version = other.version
    assert other.applied([ENROLLED])[0].revoked_at is None
    server.files["/ca.crl"] = CA.crl(WATER, at=NOW)
    city.turn(after=HOUR)
    assert other.version != version
    assert other.applied([ENROLLED])[0].revoked_at == NOW - 2 * DAY


def test_answers_that_are_no_longer_used_do_not_pile_up(tmp_path: Path, server: FileServer) -> None:
    city = City(tmp_path, server)
    for hour in range(5):
        server.files["/ca.crl"] = CA.crl(at=NOW + hour * HOUR)
        city.turn(after=HOUR)
    assert len(list(city.folder.iterdir())) == 3, "the index, this answer and the one before"


def test_a_responder_that_fails_is_asked_once_a_turn_and_holds_no_list_up(tmp_path: Path, server: FileServer) -> None:
    city = City(tmp_path, server, ocsp="/ocsp")
    city.enrolled += [enrolled(CA.leaf(f"b{n}").der, f"b{n}", "signing") for n in range(5)]
    server.files["/ca.crl"] = CA.crl()
    city.turn()
    assert server.asked == ["/ca.crl", "/ocsp"]
    assert city.may_push() == "", "the list alone tells enough"


def test_a_certificate_of_nobodys_authority_is_left_as_it_is(tmp_path: Path, server: FileServer) -> None:
    city = City(tmp_path, server)
    own = enrolled(Holder("Bus CA").leaf().der, "water", "signing")
    assert city.revocations.applied([own]) == (own,)
    silent = CityAuthority((CA.der,))
    assert Revocations(tmp_path, (silent,)).applied([ENROLLED]) == (ENROLLED,)


def test_once_a_day_the_log_says_which_certificates_end(
    tmp_path: Path, server: FileServer, caplog: pytest.LogCaptureFixture
) -> None:
    """In words that grow louder: at 30 days, at 7, at 1. The bus's own are among them."""
    city = City(tmp_path, server, crl=())
    city.watch = CertificateWatch(
        city.revocations, lambda: city.enrolled, [ending_of("the-bus", "tls", CA.der)], fetch, bytes, lambda: city.now
    )
    said: list[tuple[int, str]] = []
    for day in range(0, 32):
        city.now = NOW + day * DAY
        for _ in range(2):
            city.turn()
        said = [(one.levelno, one.getMessage()) for one in caplog.records if "certificate.ends" in one.msg]
        assert len(said) == 2 * (day + 1), "each of the two once a day, however often it looks"
    water = [level for level, message in said if "holder=water" in message]
    assert water == [logging.WARNING] * 24 + [logging.ERROR] * 6 + [logging.CRITICAL] * 2
    assert f"use=signing certificate={ENROLLED.fingerprint[:16]}" in said[1][1]
    assert "holder=the-bus use=tls" in said[0][1]
    assert "days_left=30" in said[0][1]


# With OpenSSL as the authority ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["P-256", "SM2"])
def test_openssls_lists_are_read_and_its_revocation_stops_the_certificate(
    tmp_path: Path, server: FileServer, algorithm: str
) -> None:
    ca = OpensslAuthority(tmp_path / "ca", algorithm)
    certificate = enrolled(der_of_pem(ca.issue("water").read_bytes()), "water", "signing")
    authority = CityAuthority(ders_of_pem((ca.folder / "ca.pem").read_bytes()), (server.url("/ca.crl"),), every_s=0)
    revocations = Revocations(tmp_path / "kept", (authority,))
    watch = CertificateWatch(
        revocations, lambda: [certificate], [], fetch, lambda: b"n" * 16, lambda: datetime.now(UTC)
    )
    server.files["/ca.crl"] = ca.crl()
    watch.turn(threading.Event())
    (fresh,) = revocations.applied([certificate])
    assert fresh.revoked_at is None
    assert fresh.status_until is not None
    assert fresh.status_until > datetime.now(UTC) + GRACE
    ca.revoke("water")
    server.files["/ca.crl"] = ca.crl() and (ca.folder / "crl.pem").read_bytes()
    watch.turn(threading.Event())
    (revoked,) = revocations.applied([certificate])
    assert revoked.revoked_at is not None
    assert revoked.revoked_at <= datetime.now(UTC)


def test_a_list_signed_with_sha1_is_refused_by_name(tmp_path: Path, server: FileServer) -> None:
    ca = OpensslAuthority(tmp_path / "ca")
    authority = CityAuthority(ders_of_pem((ca.folder / "ca.pem").read_bytes()), (server.url("/ca.crl"),))
    revocations = Revocations(tmp_path / "kept", (authority,))
    server.files["/ca.crl"] = ca.crl("-md", "sha1")
    CertificateWatch(revocations, list, [], fetch, lambda: b"", lambda: datetime.now(UTC)).turn(threading.Event())
    assert revocations.kept()[server.url("/ca.crl"), ""].problem == "revocation.weak_algorithm"


def test_openssls_responder_is_asked_and_believed(tmp_path: Path) -> None:
    ca = OpensslAuthority(tmp_path / "ca")
    ders = [der_of_pem(ca.issue(name).read_bytes()) for name in ("water", "power")]
    certificates = [enrolled(der, name, "signing") for der, name in zip(ders, ("water", "power"), strict=True)]
    ca.issue("responder", "responder")
    ca.revoke("power")
    with ca.responder() as url:
        authority = CityAuthority(ders_of_pem((ca.folder / "ca.pem").read_bytes()), ocsp=url)
        revocations = Revocations(tmp_path / "kept", (authority,))
        watch = CertificateWatch(
            revocations, lambda: certificates, [], fetch, lambda: b"0123456789abcdef", lambda: datetime.now(UTC)
        )
        watch.turn(threading.Event())
    water, power = revocations.applied(certificates)
    assert (water.revoked_at, power.revoked_at is None) == (None, False)
    assert water.status_until is not None
    assert water.status_until > datetime.now(UTC) + GRACE, "-nmin 60: the next update is in an hour"
