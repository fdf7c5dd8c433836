"""Certificate in exchange for a request (PKCS#10, RFC 2986): the bureau's private key never leaves the bureau.

Of a request only the public key counts. Its subject is shown to the officer and then forgotten, its extensions are not
looked at: what a certificate may do, and in whose name, the bus decides.
"""

import hashlib
import re
from datetime import datetime, timedelta
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from security import pki
from security.authority_signature import check_signed, spki_of_request
from security.chain import shown_name
from security.errors import Refusal
from security.keys import Kind, PublicKey, kind_of, public_key_of_spki
from security.message import Use

MOST_OCTETS: Final = 32_768
CLOCKS_APART: Final = timedelta(hours=1)  # a certificate begins this much before it is made
_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_NAMES: Final = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")


class Request(msgspec.Struct, frozen=True):
    """A request whose signature held: whoever made it has the private key.

    subject:     what it calls itself, for the officer's eyes; nothing of it is believed
    kind:        of the key
    fingerprint: SHA-256, lower-case hex, of the SubjectPublicKeyInfo: what bureau and officer compare by telephone
    """

    subject: str
    kind: Kind
    fingerprint: str
    public_key: PublicKey


def read_request(octets: bytes) -> Request:
    """A PKCS#10 request in DER, or in PEM with nothing else beside it.

    Raises Refusal: `certificate.csr_invalid`, `certificate.csr_not_proved`, `certificate.key_weak`,
    `signature.algorithm_refused` (signed by SHA-1, MD5 …).
    """
    # (1) one request, whole  (2) of a key that we take  (3) and by that key: the proof that its private half is held
    request, spki, subject = _request_in(octets)
    try:
        public_key = public_key_of_spki(spki)
    except Refusal as problem:
        raise Refusal("certificate.key_weak", problem.detail) from problem
    try:
        check_signed(request, spki)
    except Refusal as problem:
        if problem.code == "signature.algorithm_refused":
            raise
        raise Refusal("certificate.csr_not_proved", subject) from problem
    fingerprint = hashlib.sha256(spki).hexdigest()
    return Request(subject, kind_of(public_key), fingerprint, public_key)


def certificate_from_csr(
    ca: pki.Authority, csr_octets: bytes, bureau: str, use: Use, now: datetime, until: datetime
) -> bytes:
    """The certificate, in DER, that the authority issues for a request.

    bureau: its code, which becomes the subject; what the request calls itself does not
    now, until: aware, UTC; the certificate is valid from an hour before `now`, for clocks differ

    Raises Refusal as `read_request` does; `certificate.key_weak` too for an SM2 key that should serve TLS;
    `certificate.days_invalid` when `until` is not after `now` or after the authority's own end.
    """
    request = read_request(csr_octets)
    if use == "connection" and request.kind == "SM2":
        raise Refusal("certificate.key_weak", "an SM2 key cannot serve standard TLS")
    ends = x509.load_der_x509_certificate(ca.certificate_der).not_valid_after_utc
    if not now < until <= ends:
        raise Refusal("certificate.days_invalid", f"{until:%Y-%m-%d}; the authority's own ends {ends:%Y-%m-%d}")
    # A broker of the city's takes the connection's common name for the account: it is the bureau's code.
    name = bureau if use == "connection" else f"{bureau} {use}"
    return pki.issue(ca, name, request.public_key, use, now - CLOCKS_APART, until)


def _request_in(octets: bytes) -> tuple[x509.CertificateSigningRequest, bytes, str]:
    """The request, the octets of its public key and what it calls itself. Raises Refusal `certificate.csr_invalid`."""
    if len(octets) > MOST_OCTETS:
        raise Refusal("certificate.csr_invalid", f"{len(octets)} octets")
    names = [match[1].decode() for match in _BEGIN.finditer(octets)]
    if len(names) > 1 or any(name not in _NAMES for name in names):  # a private key beside it, two requests …
        raise Refusal("certificate.csr_invalid", f"the file holds: {', '.join(names)}"[:120])
    try:
        load = x509.load_pem_x509_csr if names else x509.load_der_x509_csr
        request = load(octets)
        spki, subject = spki_of_request(request.public_bytes(Encoding.DER)), shown_name(request.subject)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as problem:
        raise Refusal("certificate.csr_invalid", type(problem).__name__) from problem
    return request, spki, subject
