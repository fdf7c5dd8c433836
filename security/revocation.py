"""What an authority says of certificates after it has issued them: revocation lists (RFC 5280) and OCSP (RFC 6960).

Read, verified and dated here; fetched and kept elsewhere. A status has a time: from the moment that the authority
states a certificate counts no more, and what it signed before stands. A status that is too old is none.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from security.authority_signature import Signed, check_signed
from security.chain import issuer_of, shown, shown_name
from security.errors import Refusal
from security.keys import spki_of_certificate

GRACE: Final = timedelta(hours=24)  # after the next update that did not come, before nothing is taken any more
SKEW: Final = timedelta(minutes=5)
NAMED_BY: Final = hashes.SHA1()  # noqa: S303  # RFC 5019 §2.1.1: every responder knows it; it names, and proves nothing
NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)  # the end of a status that was never given
_KNOWN_IN_LIST: Final = frozenset((
    ExtensionOID.CRL_NUMBER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.ISSUING_DISTRIBUTION_POINT,
))  # fmt: skip


class Answer(msgspec.Struct, frozen=True):
    """What an authority said, verified.

    issuer:      name of the authority as RFC 4514 text: of whose certificates it speaks
    this_update, next_update: aware, UTC; of an answer that states no next update both are the same
    revoked:     since when, by serial number
    serial:      the only one of which an OCSP answer speaks; None for a list, which speaks of all of the issuer's
    of_users:    false for a list of CA certificates only
    """

    issuer: str
    this_update: datetime
    next_update: datetime
    revoked: Mapping[int, datetime]
    serial: int | None = None
    of_users: bool = True


class Standing(msgspec.Struct, frozen=True):
    """What is known of a certificate.

    revoked_at: since when it or an authority over it is revoked; None when it is not
    known_until: the last moment for which that may be believed, grace included; NEVER where nothing is known
    """

    revoked_at: datetime | None
    known_until: datetime


def read_list(octets: bytes, authorities: Sequence[bytes], at: datetime) -> Answer:
    """A certificate revocation list in DER or PEM, by one of the authorities (DER certificates).

    Raises Refusal: `revocation.not_readable`, `.kind_refused`, `.other_issuer`, `.signer_not_allowed`,
    `.weak_algorithm`, `.signature_invalid`, `.future`, `.no_next_update`. A list past its next update is read: what
    it says of a revoked certificate is true for ever, and what it does not say, `standing` does not believe.
    """
    with _readable("a list"):
        # (1) a list, whole, of a kind that tells everything  (2) of an authority of ours  (3) by its key  (4) dated
        in_pem = octets.lstrip().startswith(b"-----BEGIN")
        crl = x509.load_pem_x509_crl(octets) if in_pem else x509.load_der_x509_crl(octets)
        point = _whole(crl)
        _check_by(crl, _signer_of_list(crl, authorities))
        if crl.next_update_utc is None:
            raise Refusal("revocation.no_next_update", shown_name(crl.issuer))
        _check_begun(crl.last_update_utc, at)
        return Answer(
            issuer=crl.issuer.rfc4514_string(),
            this_update=crl.last_update_utc,
            next_update=crl.next_update_utc,
            revoked={entry.serial_number: entry.revocation_date_utc for entry in crl},
            of_users=point is None or not point.only_contains_ca_certs,
        )


def ocsp_request(certificate_der: bytes, issuer_der: bytes, nonce: bytes) -> bytes:
    """The question, in DER, for the status of one certificate. nonce: 16 to 32 random octets."""
    builder = _question(certificate_der, issuer_der, NAMED_BY)
    return builder.add_extension(x509.OCSPNonce(nonce), critical=False).build().public_bytes(Encoding.DER)


def read_answer(octets: bytes, certificate_der: bytes, issuer_der: bytes, at: datetime, nonce: bytes = b"") -> Answer:
    """An OCSP answer in DER about one certificate of an issuer.

    nonce: of the question; empty when an answer that was kept is read again. A responder may leave it out (RFC 8954).

    Raises Refusal: `revocation.not_readable`, `.responder_says` (no status, or the certificate is unknown to it),
    `.other_certificate`, `.nonce`, `.signer_not_allowed`, `.weak_algorithm`, `.signature_invalid`, `.future`.
    """
    with _readable("an answer"):
        # (1) an answer  (2) about this certificate, to this question  (3) by whom it may be  (4) dated
        response, certificate = _response_in(octets), x509.load_der_x509_certificate(certificate_der)
        _check_about(response, certificate_der, issuer_der)
        _check_nonce(response, nonce)
        _check_by(response, _responder(response, issuer_der, at))
        _check_begun(response.this_update_utc, at)
        if response.certificate_status == ocsp.OCSPCertStatus.UNKNOWN:
            raise Refusal("revocation.responder_says", f"unknown certificate: {shown(certificate)}")
        since = response.revocation_time_utc
        return Answer(
            issuer=certificate.issuer.rfc4514_string(),
            this_update=response.this_update_utc,
            next_update=response.next_update_utc or response.this_update_utc,
            revoked={} if since is None else {certificate.serial_number: since},
            serial=certificate.serial_number,
        )


def standing(path: Sequence[bytes], lists: Sequence[Answer | None], answer: Answer | None) -> Standing:
    """What is known of the first certificate of a path.

    path:   DER, the certificate and the authorities over it, each the issuer of the one before
    lists:  of each address that is asked, the newest list; None where there never was one
    answer: the newest OCSP answer about the certificate, if there is one

    It is revoked when anybody says so, however long ago. It is known to stand as long as every list, or else the
    answer, is fresh: an authority may spread its certificates over several lists.
    """
    issued = [x509.load_der_x509_certificate(der) for der in path]
    said = [one for one in (*lists, answer) if one is not None]
    found = [since for certificate in issued for one in said if (since := _since(certificate, one)) is not None]
    leaf = issued[0].issuer.rfc4514_string()
    known = [answer.next_update + GRACE] if answer is not None else []
    if any(one is not None and one.of_users and one.issuer == leaf for one in lists):
        known.append(min(NEVER if one is None else one.next_update + GRACE for one in lists))
    return Standing(min(found, default=None), max(known, default=NEVER))


def _since(certificate: x509.Certificate, answer: Answer) -> datetime | None:
    if answer.issuer != certificate.issuer.rfc4514_string():
        return None
    return answer.revoked.get(certificate.serial_number)


# --- lists -----------------------------------------------------------------------------------------------------------


def _whole(crl: x509.CertificateRevocationList) -> x509.IssuingDistributionPoint | None:
    """What part of an authority's certificates the list is of, if it says; raises Refusal unless it tells all there."""
    extensions = list(crl.extensions)
    unknown = [one.oid for one in extensions if one.critical and one.oid not in _KNOWN_IN_LIST]
    if unknown:  # the delta indicator among them
        raise Refusal("revocation.kind_refused", unknown[0].dotted_string)
    points = [one.value for one in extensions if isinstance(one.value, x509.IssuingDistributionPoint)]
    if not points:
        return None
    if points[0].indirect_crl or points[0].only_some_reasons or points[0].only_contains_attribute_certs:
        raise Refusal("revocation.kind_refused", "indirect, of some reasons, or of attribute certificates")
    return points[0]


def _signer_of_list(crl: x509.CertificateRevocationList, authorities: Sequence[bytes]) -> bytes:
    """The authority of the list's name; of several, the one whose key signed."""
    named = [der for der in authorities if x509.load_der_x509_certificate(der).subject == crl.issuer]
    if not named:
        raise Refusal("revocation.other_issuer", shown_name(crl.issuer))
    allowed = [der for der in named if _may_sign_lists(der)]
    if not allowed:
        raise Refusal("revocation.signer_not_allowed", shown_name(crl.issuer))
    return next((der for der in allowed if _signs(crl, der)), allowed[0])


def _may_sign_lists(authority_der: bytes) -> bool:
    try:
        usage = x509.load_der_x509_certificate(authority_der).extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.crl_sign


# --- OCSP ------------------------------------------------------------------------------------------------------------


def _response_in(octets: bytes) -> ocsp.OCSPResponse:
    response = ocsp.load_der_ocsp_response(octets)
    if response.response_status != ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise Refusal("revocation.responder_says", response.response_status.name.lower())
    return response


def _check_about(response: ocsp.OCSPResponse, certificate_der: bytes, issuer_der: bytes) -> None:
    about = (response.serial_number, response.issuer_name_hash, response.issuer_key_hash)
    asked = _question(certificate_der, issuer_der, response.hash_algorithm).build()
    if about != (asked.serial_number, asked.issuer_name_hash, asked.issuer_key_hash):
        raise Refusal("revocation.other_certificate", f"serial {response.serial_number:x}, not {asked.serial_number:x}")


def _question(certificate_der: bytes, issuer_der: bytes, named_by: hashes.HashAlgorithm) -> ocsp.OCSPRequestBuilder:
    certificate, issuer = map(x509.load_der_x509_certificate, (certificate_der, issuer_der))
    return ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, named_by)


def _check_nonce(response: ocsp.OCSPResponse, nonce: bytes) -> None:
    try:
        returned = response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return
    if nonce and returned != nonce:
        raise Refusal("revocation.nonce", returned.hex()[:32])


def _responder(response: ocsp.OCSPResponse, issuer_der: bytes, at: datetime) -> bytes:
    """Whose signature it should be: the issuer's, or that of a responder whom it certified for this and nothing else
    can (RFC 6960 §4.2.2.2), in force when the answer came: a key long retired may date its answers as it likes."""
    if _is_responder(response, issuer_der):
        return issuer_der
    for der in (certificate.public_bytes(Encoding.DER) for certificate in response.certificates):
        if _is_responder(response, der):
            _check_authorised(der, issuer_der, at)
            return der
    raise Refusal("revocation.signer_not_allowed", "a responder whose certificate is neither the CA's nor enclosed")


def _is_responder(response: ocsp.OCSPResponse, der: bytes) -> bool:
    if response.responder_name is not None:
        return x509.load_der_x509_certificate(der).subject == response.responder_name
    return response.responder_key_hash == _question(der, der, NAMED_BY).build().issuer_key_hash


def _check_authorised(responder_der: bytes, issuer_der: bytes, at: datetime) -> None:
    responder = x509.load_der_x509_certificate(responder_der)
    try:
        purposes = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
    in_force = responder.not_valid_before_utc <= at <= responder.not_valid_after_utc
    if (
        ExtendedKeyUsageOID.OCSP_SIGNING not in purposes
        or not in_force
        or issuer_of(responder_der, [issuer_der]) is None
    ):
        raise Refusal("revocation.signer_not_allowed", shown(responder))


# --- of both ---------------------------------------------------------------------------------------------------------


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """`cryptography` looks into a part only when it is asked for it, so what is malformed shows anywhere."""
    try:
        yield
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension, UnsupportedAlgorithm) as problem:
        raise Refusal("revocation.not_readable", f"not {what}: {problem}"[:160]) from problem


def _check_by(signed: Signed, signer_der: bytes) -> None:
    try:
        check_signed(signed, spki_of_certificate(signer_der))
    except Refusal as problem:
        weak = problem.code == "signature.algorithm_refused"
        code = "revocation.weak_algorithm" if weak else "revocation.signature_invalid"
        raise Refusal(code, f"{shown(x509.load_der_x509_certificate(signer_der))}: {problem.detail}"[:160]) from problem


def _signs(signed: Signed, signer_der: bytes) -> bool:
    try:
        _check_by(signed, signer_der)
    except Refusal:
        return False
    return True


def _check_begun(this_update: datetime, at: datetime) -> None:
    if this_update > at + SKEW:
        raise Refusal("revocation.future", f"{this_update.isoformat()}, now {at.isoformat(timespec='seconds')}")
