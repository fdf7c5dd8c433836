"""Lists and answers about certificates: read, refused by name, dated, and what follows from them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asn1crypto import crl as asn1_crl
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from security.errors import Refusal
from security.revocation import GRACE, NEVER, Answer, ocsp_request, read_answer, read_list, standing
from tests.security.authorities import DAY, NOW, Holder, altered_anywhere

ROOT = Holder("City Root")
CA = Holder("City CA", ROOT)
WATER, POWER = CA.leaf(), CA.leaf("power")
OTHER, NAMESAKE = Holder("Other CA"), Holder("City CA", ROOT)
FOR_OCSP = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False)
RESPONDER = CA.leaf("responder", more=[FOR_OCSP])
KNOWN = (CA.der, ROOT.der)
NONCE = b"0123456789abcdef"
SINCE = NOW - 2 * DAY


def listed(octets: bytes, at: Any = NOW) -> Answer:
    return read_list(octets, KNOWN, at)


def answered(octets: bytes, nonce: bytes = NONCE, about: Holder = WATER) -> Answer:
    return read_answer(octets, about.der, CA.der, NOW, nonce)


def test_a_list_says_since_when_and_until_when() -> None:
    answer = listed(CA.crl(WATER))
    assert answer == Answer(
        issuer="CN=City CA",
        this_update=NOW - timedelta(hours=1),
        next_update=NOW + DAY,
        revoked={WATER.serial: SINCE},
    )
    pem = x509.load_der_x509_crl(CA.crl()).public_bytes(Encoding.PEM)
    assert listed(pem).revoked == {}


def test_an_authority_renewed_under_its_name_signs_its_list_with_either_key() -> None:
    for signer in (CA, NAMESAKE):
        assert read_list(signer.crl(WATER), (CA.der, NAMESAKE.der), NOW).revoked == {WATER.serial: SINCE}


POINT: Any = {"full_name": [x509.UniformResourceIdentifier("http://a.example/1.crl")], "relative_name": None}
PLAIN: Any = {
    "only_contains_user_certs": False, "only_contains_ca_certs": False, "only_some_reasons": None,
    "indirect_crl": False, "only_contains_attribute_certs": False,
}  # fmt: skip


def point(**changed: Any) -> tuple[x509.ExtensionType, bool]:
    return x509.IssuingDistributionPoint(**POINT, **{**PLAIN, **changed}), True


def test_a_list_of_one_of_several_places_is_taken() -> None:
    assert listed(CA.crl(WATER, more=[point(only_contains_user_certs=True)])).of_users
    assert not listed(ROOT.crl(CA, more=[point(only_contains_ca_certs=True)])).of_users


NO_LISTS = Holder("City CA", may=("key_cert_sign",))
GOOD_LIST = CA.crl(WATER)
LISTS: dict[str, tuple[str, Callable[[], Answer]]] = {
    "no list": ("revocation.not_readable", lambda: listed(b"<html>404</html>")),
    "a certificate": ("revocation.not_readable", lambda: listed(CA.der)),
    "cut short": ("revocation.not_readable", lambda: listed(GOOD_LIST[:-1])),
    "of another authority": ("revocation.other_issuer", lambda: listed(OTHER.crl(WATER))),
    "in our authority's name by another": ("revocation.signature_invalid", lambda: listed(OTHER.crl(named="City CA"))),
    "by a namesake": ("revocation.signature_invalid", lambda: listed(NAMESAKE.crl())),
    "altered": ("revocation.signature_invalid", lambda: listed(GOOD_LIST[:-1] + bytes([GOOD_LIST[-1] ^ 1]))),
    "by an authority without that right": (
        "revocation.signer_not_allowed", lambda: read_list(NO_LISTS.crl(), (NO_LISTS.der,), NOW)
    ),
    "of the future": ("revocation.future", lambda: listed(CA.crl(at=NOW + timedelta(minutes=6)))),
    "delta": ("revocation.kind_refused", lambda: listed(CA.crl(more=[(x509.DeltaCRLIndicator(1), True)]))),
    "indirect": ("revocation.kind_refused", lambda: listed(CA.crl(more=[point(indirect_crl=True)]))),
    "of some reasons": (
        "revocation.kind_refused",
        lambda: listed(CA.crl(more=[point(only_some_reasons=frozenset([x509.ReasonFlags.key_compromise]))])),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", LISTS)
def test_a_spoilt_list_is_refused_by_name(fault: str) -> None:
    code, read = LISTS[fault]
    with pytest.raises(Refusal) as refusal:
        read()
    assert refusal.value.code == code


def test_a_list_that_does_not_say_when_the_next_one_comes_is_refused_by_name() -> None:
    """No tool makes one any more, so the member is taken out and the list signed again."""
    listing = asn1_crl.CertificateList.load(CA.crl(WATER))
    tbs = listing["tbs_cert_list"]
    del tbs["next_update"]
    listing["signature"] = CA.key.sign(tbs.dump(force=True), ec.ECDSA(hashes.SHA256()))
    with pytest.raises(Refusal, match=r"revocation\.no_next_update"):
        listed(listing.dump(force=True))


def test_clocks_may_differ_by_five_minutes() -> None:
    assert listed(CA.crl(at=NOW + timedelta(minutes=5))).this_update == NOW + timedelta(minutes=5)


def test_a_stale_list_still_says_who_is_revoked() -> None:
    answer = listed(CA.crl(WATER, at=NOW - 9 * DAY, until=NOW - 8 * DAY, since=NOW - 10 * DAY))
    found = standing((WATER.der, CA.der), [answer], None)
    assert (found.revoked_at, found.known_until) == (NOW - 10 * DAY, NOW - 8 * DAY + GRACE)


@pytest.mark.parametrize("by", [None, RESPONDER], ids=["by the CA", "by its responder"])
@pytest.mark.parametrize("by_name", [True, False], ids=["by name", "by hash"])
def test_an_answer_is_taken_of_the_authority_and_of_whom_it_certified_for_this(by: Any, by_name: bool) -> None:
    answer = answered(CA.answer(WATER, by=by, by_name=by_name, nonce=NONCE))
    assert (answer.serial, answer.revoked, answer.next_update) == (WATER.serial, {}, NOW + DAY)
    assert answered(CA.answer(WATER, "REVOKED", by=by, by_name=by_name)).revoked == {WATER.serial: SINCE}


def test_the_question_names_the_certificate_and_bears_the_nonce() -> None:
    asked = ocsp.load_der_ocsp_request(ocsp_request(WATER.der, CA.der, NONCE))
    assert asked.serial_number == WATER.serial
    assert asked.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == NONCE


def test_an_answer_without_next_update_is_good_for_the_grace_only() -> None:
    answer = answered(CA.answer(WATER, until=None))
    found = standing((WATER.der, CA.der), [], answer)
    assert found.known_until == NOW - timedelta(hours=1) + GRACE


ENDED = CA.leaf("responder", more=[FOR_OCSP], ends=NOW - DAY)
GOOD_ANSWER = CA.answer(WATER)
LATER = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
ANSWERS: dict[str, tuple[str, Callable[[], Answer]]] = {
    "no answer": ("revocation.not_readable", lambda: answered(b"<html>")),
    "cut short": ("revocation.not_readable", lambda: answered(GOOD_ANSWER[:-1])),
    "try later": ("revocation.responder_says", lambda: answered(LATER.public_bytes(Encoding.DER))),
    "unknown": ("revocation.responder_says", lambda: answered(CA.answer(WATER, "UNKNOWN"))),
    "of another certificate": ("revocation.other_certificate", lambda: answered(CA.answer(POWER))),
    "of another authority's certificate": (
        "revocation.other_certificate",
        lambda: answered(OTHER.answer(OTHER.leaf())),
    ),
    "another nonce": ("revocation.nonce", lambda: answered(CA.answer(WATER, nonce=b"f" * 16))),
    "by another key": ("revocation.signature_invalid", lambda: answered(CA.answer(WATER, by=NAMESAKE, enclosed=False))),
    "altered": ("revocation.signature_invalid", lambda: answered(GOOD_ANSWER[:-1] + bytes([GOOD_ANSWER[-1] ^ 1]))),
    "by a bureau": ("revocation.signer_not_allowed", lambda: answered(CA.answer(WATER, by=POWER))),
    "by a responder of another": (
        "revocation.signer_not_allowed",
        lambda: answered(CA.answer(WATER, by=OTHER.leaf("responder", more=[FOR_OCSP]))),
    ),
    "by a responder that has ended": ("revocation.signer_not_allowed", lambda: answered(CA.answer(WATER, by=ENDED))),
    "by a responder not enclosed": (
        "revocation.signer_not_allowed",
        lambda: answered(CA.answer(WATER, by=RESPONDER, enclosed=False)),
    ),
    "of the future": ("revocation.future", lambda: answered(CA.answer(WATER, at=NOW + timedelta(minutes=6)))),
}


@pytest.mark.parametrize("fault", ANSWERS)
def test_a_spoilt_answer_is_refused_by_name(fault: str) -> None:
    code, read = ANSWERS[fault]
    with pytest.raises(Refusal) as refusal:
        read()
    assert refusal.value.code == code


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("kind", ["list", "answer"])
def test_no_octet_may_change_and_nothing_else_is_raised(kind: str) -> None:
    octets, read = (GOOD_LIST, listed) if kind == "list" else (CA.answer(WATER, "REVOKED", by=RESPONDER), answered)
    good, codes = read(octets), set()
    for altered in altered_anywhere(octets):
        try:
            assert read(altered) == good
        except Refusal as refusal:
            codes.add(refusal.code.partition(".")[0])
    assert codes == {"revocation"}


def test_nothing_known_is_not_a_good_word() -> None:
    path = (WATER.der, CA.der)
    fresh, old = listed(CA.crl()), listed(CA.crl(until=NOW + timedelta(hours=1)))
    assert standing(path, [None], None).known_until == NEVER
    assert standing(path, [], None).known_until == NEVER
    assert standing(path, [fresh, None], None).known_until == NEVER, "one of two lists was never had"
    assert standing(path, [fresh, old], None).known_until == old.next_update + GRACE
    assert standing(path, [listed(ROOT.crl())], None).known_until == NEVER, "only the root's list: of CAs, not of this"
    assert standing(path, [None], answered(CA.answer(WATER))).known_until == NOW + DAY + GRACE


def test_whoever_says_revoked_is_believed_and_the_earlier_time_counts() -> None:
    path = (WATER.der, CA.der)
    early = listed(CA.crl(WATER, since=NOW - 5 * DAY))
    good, bad = answered(CA.answer(WATER)), answered(CA.answer(WATER, "REVOKED"))
    assert standing(path, [early], good).revoked_at == NOW - 5 * DAY
    assert standing(path, [listed(CA.crl())], bad).revoked_at == SINCE
    assert standing(path, [early], bad).revoked_at == NOW - 5 * DAY
    assert standing(path, [listed(CA.crl(POWER))], good).revoked_at is None


def test_with_an_authority_fall_the_certificates_below_it() -> None:
    found = standing((WATER.der, CA.der, ROOT.der), [listed(CA.crl()), listed(ROOT.crl(CA))], None)
    assert found.revoked_at == SINCE


def test_a_serial_number_of_another_authority_says_nothing() -> None:
    elsewhere = read_list(OTHER.crl(WATER), (OTHER.der,), NOW)
    assert standing((WATER.der, CA.der), [listed(CA.crl()), elsewhere], None).revoked_at is None
