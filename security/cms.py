"""What stands in one SignedData, read strictly: content, algorithm, signer's name, signature (RFC 5652, GB/T 35275).

Of all that CMS can say a bus needs one sentence: DER, content inside, one signer, three signed attributes. Each element
is expected at its place with its own tag and the shortest length, and anything else is refused by name. A general
ASN.1 library reads BER, lazily and wherever it stands; so this reads by itself, and `asn1crypto` only writes.

    ContentInfo { signedData, [0] SignedData { version, { digest algorithm }, { data, [0] content },
        [0] { the signer's certificate }?, { SignerInfo { version, issuer and serial | [0] key identifier,
            digest algorithm, [0] { contentType, messageDigest, signingTime }, signature algorithm, signature } } } }

Object identifiers are of one family throughout, GB/T 35275's or PKCS#7's. Nothing is verified here but the digest.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec
from asn1crypto import core, parser
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from security.errors import Misconfigured, Refusal
from security.keys import SigningKey
from security.message import sha256
from security.pki import names_of
from security.sm2 import raw_of, sm3

SEQUENCE, SET, INTEGER, OCTETS, NULL, OID, UTC_TIME, GENERALIZED_TIME = 0x30, 0x31, 0x02, 0x04, 0x05, 0x06, 0x17, 0x18
_EXPLICIT_0, _IMPLICIT_0, _EXPLICIT_1 = 0xA0, 0x80, 0xA1  # of [0] and [1]: constructed, or over octets alone
_MOST_LENGTH_OCTETS: Final = 4


def _oid(dotted: str) -> bytes:
    octets: bytes = core.ObjectIdentifier(dotted).contents
    return octets


class _Family(NamedTuple):
    """Object identifiers of the two content types, as contents octets."""

    signed_data: bytes
    data: bytes


class _Suite(NamedTuple):
    """What belongs together: digest and signature algorithm. written: as we write it; read: all that say the same."""

    digest: bytes
    written: bytes
    read: tuple[bytes, ...]
    families: tuple[_Family, ...]


GB: Final = _Family(_oid("1.2.156.10197.6.1.4.2.2"), _oid("1.2.156.10197.6.1.4.2.1"))
PKCS7: Final = _Family(_oid("1.2.840.113549.1.7.2"), _oid("1.2.840.113549.1.7.1"))
_SM2: Final = _oid("1.2.156.10197.1.301.1")  # GM/T 0006: the signature algorithm of SM2
_SM2_WITH_SM3: Final = _oid("1.2.156.10197.1.501")  # what GmSSL writes at the same place
_ECDSA_WITH_SHA256: Final = _oid("1.2.840.10045.4.3.2")
# The digest goes with the signature, so that neither can be weakened by itself; GB/T 35275 is of SM2 alone.
_SUITES: Final = {
    "SM2": _Suite(_oid("1.2.156.10197.1.401"), _SM2, (_SM2, _SM2_WITH_SM3), (GB, PKCS7)),
    "ES256": _Suite(_oid("2.16.840.1.101.3.4.2.1"), _ECDSA_WITH_SHA256, (_ECDSA_WITH_SHA256,), (PKCS7,)),
}
_CONTENT_TYPE, _MESSAGE_DIGEST, _SIGNING_TIME = (_oid(f"1.2.840.113549.1.9.{n}") for n in (3, 4, 5))


class SignedContent(msgspec.Struct, frozen=True):
    """A SignedData that has the one shape we read.

    algorithm:         `SM2` or `ES256`, as the message says
    issuer_der, serial: the signer's certificate by issuer (DER of the name) and number; None where it is named by
    ski:               subject key identifier
    certificate_der:   the one certificate that came with it, if any: not signed, to be compared
    signed_at:         of the signed attributes, whole seconds, UTC
    signed:            the octets under the signature: the signed attributes as a DER SET OF
    signature:         in DER, as it came; raw: the same as r ‖ s
    """

    content: bytes
    algorithm: str
    issuer_der: bytes | None
    serial: int | None
    ski: bytes | None
    certificate_der: bytes | None
    signed_at: datetime
    signed: bytes
    signature: bytes
    raw: bytes

    def names(self, certificate_der: bytes) -> bool:
        """Whether all that it says of the signer's certificate is true of this one."""
        names = names_of(certificate_der)
        return (
            (self.issuer_der, self.serial) in ((None, None), (names.issuer_der, names.serial))
            and self.ski in (None, names.ski)
            and self.certificate_der in (None, certificate_der)
        )


class _Der:
    """Octets as the DER elements that stand in them, taken one after the other (X.690 §10, §8.1.3)."""

    def __init__(self, octets: bytes) -> None:
        self._octets, self._at = octets, 0

    @property
    def next(self) -> int:
        """Identifier octet of the next element; -1 where there is none."""
        return self._octets[self._at] if self._at < len(self._octets) else -1

    def take(self, identifier: int, what: str) -> bytes:
        """Contents of the next element, which must have this identifier octet. Raises Refusal."""
        if self.next != identifier:
            raise Refusal("cms.shape", what)
        begin, length = self._length(what)
        self._at = begin + length
        if self._at > len(self._octets):
            raise Refusal("cms.not_der", what)
        return self._octets[begin : self._at]

    def element(self, identifier: int, what: str) -> bytes:
        """The same with its header."""
        begin = self._at
        self.take(identifier, what)
        return self._octets[begin : self._at]

    def inside(self, identifier: int, what: str) -> "_Der":
        """The elements within the next one."""
        return _Der(self.take(identifier, what))

    def end(self, what: str) -> None:
        """Return if nothing is left."""
        if self.next != -1:
            raise Refusal("cms.shape", what)

    def _length(self, what: str) -> tuple[int, int]:
        """Where the contents begin and how long they are: definite, and in as few octets as can be."""
        octets, at = self._octets, self._at + 1
        first = octets[at] if at < len(octets) else 0x80
        if first < 0x80:
            return at + 1, first
        count = first - 0x80
        length = int.from_bytes(octets[at + 1 : at + 1 + count], "big")
        shortest = max(1, (length.bit_length() + 7) // 8)
        if length < 0x80 or count != shortest or count > _MOST_LENGTH_OCTETS:
            raise Refusal("cms.not_der", what)
        return at + 1 + count, length


def read(octets: bytes) -> SignedContent:
    """The one shape, or Refusal: `cms.not_der`, `cms.shape`, `cms.part_refused`, `cms.algorithm`,
    `cms.signed_attributes`, `cms.message_digest`, `signature.invalid` (not DER of two numbers)."""
    # (1) One document, of one family.
    document = _Der(octets)
    info = document.inside(SEQUENCE, "ContentInfo")
    if document.next != -1:
        raise Refusal("cms.not_der", "octets after the end")
    family = _family(info.take(OID, "contentType"))
    data = info.inside(_EXPLICIT_0, "content").inside(SEQUENCE, "SignedData")
    info.end("ContentInfo")
    _version(data, "SignedData")
    digests = data.inside(SET, "digestAlgorithms")
    digest = _algorithm(digests, "digestAlgorithms")
    digests.end("digestAlgorithms")
    # (2) The content is inside, and is data: no type under which other octets would be signed.
    encapsulated = data.inside(SEQUENCE, "encapContentInfo")
    if encapsulated.take(OID, "eContentType") != family.data:
        raise Refusal("cms.shape", "eContentType")
    wrapped = encapsulated.inside(_EXPLICIT_0, "eContent")
    content = wrapped.take(OCTETS, "eContent")
    wrapped.end("eContent")
    encapsulated.end("encapContentInfo")
    # (3) Beside it at most the one certificate, and no revocation lists: nothing unsigned has a say.
    certificate_der = _certificate(data)
    if data.next == _EXPLICIT_1:
        raise Refusal("cms.part_refused", "crls")
    # (4) One signer.
    signers = data.inside(SET, "signerInfos")
    data.end("SignedData")
    signer = signers.inside(SEQUENCE, "SignerInfo")
    if signers.next != -1:
        raise Refusal("cms.part_refused", "second signer")
    return _signer(signer, family, digest, content, certificate_der)


def _signer(
    signer: _Der, family: _Family, digest: bytes, content: bytes, certificate_der: bytes | None
) -> SignedContent:
    version = _version(signer, "SignerInfo")
    issuer_der, serial, ski = _named(signer)
    if version != (1 if ski is None else 3):  # RFC 5652 §5.3
        raise Refusal("cms.shape", "version of SignerInfo")
    # (5) One digest algorithm in both places, and the one of the signature's suite.
    if _algorithm(signer, "digestAlgorithm") != digest:
        raise Refusal("cms.algorithm", "digestAlgorithm")
    if signer.next != _EXPLICIT_0:
        raise Refusal("cms.signed_attributes", "none")
    attributes = signer.take(_EXPLICIT_0, "signedAttrs")
    algorithm = _suite_of(digest, _algorithm(signer, "signatureAlgorithm"), family)
    signature = signer.take(OCTETS, "signature")
    if signer.next == _EXPLICIT_1:
        raise Refusal("cms.part_refused", "unsignedAttrs")
    signer.end("SignerInfo")
    # (6) The attributes that are signed speak of this content.
    return SignedContent(
        content=content,
        algorithm=algorithm,
        issuer_der=issuer_der,
        serial=serial,
        ski=ski,
        certificate_der=certificate_der,
        signed_at=_signed_at(attributes, family, _digest(algorithm, content)),
        # Signed as the SET OF that they are, not under the tag [0] that they stand under (RFC 5652 §5.4).
        signed=_set_of(attributes),
        signature=signature,
        raw=_raw(signature),
    )


def _family(oid: bytes) -> _Family:
    for family in (GB, PKCS7):
        if oid == family.signed_data:
            return family
    raise Refusal("cms.shape", "contentType")


def _version(elements: _Der, what: str) -> int:
    """1 or 3: which of them, RFC 5652 and GB/T 35275 say differently, and nothing follows from it."""
    version = elements.take(INTEGER, f"version of {what}")
    if version not in (b"\x01", b"\x03"):
        raise Refusal("cms.shape", f"version of {what}")
    return version[0]


def _algorithm(elements: _Der, what: str) -> bytes:
    """The identifier of an algorithm without parameters, which are absent or NULL."""
    identifier = elements.inside(SEQUENCE, what)
    oid = identifier.take(OID, what)
    if identifier.next == NULL and identifier.take(NULL, what):
        raise Refusal("cms.not_der", what)
    if identifier.next != -1:
        raise Refusal("cms.algorithm", f"parameters of {what}")
    return oid


def _suite_of(digest: bytes, signature: bytes, family: _Family) -> str:
    for algorithm, suite in _SUITES.items():
        if digest == suite.digest and signature in suite.read and family in suite.families:
            return algorithm
    raise Refusal("cms.algorithm", "digestAlgorithm and signatureAlgorithm")


def _certificate(data: _Der) -> bytes | None:
    if data.next != _EXPLICIT_0:
        return None
    certificates = data.inside(_EXPLICIT_0, "certificates")
    certificate_der = certificates.element(SEQUENCE, "certificates")
    if certificates.next != -1:
        raise Refusal("cms.part_refused", "certificates")
    return certificate_der


def _named(signer: _Der) -> tuple[bytes | None, int | None, bytes | None]:
    if signer.next == _IMPLICIT_0:
        return None, None, signer.take(_IMPLICIT_0, "subjectKeyIdentifier")
    sid = signer.inside(SEQUENCE, "issuerAndSerialNumber")
    issuer_der = sid.element(SEQUENCE, "issuer")
    number = sid.take(INTEGER, "serialNumber")
    sid.end("issuerAndSerialNumber")
    serial = int.from_bytes(number, "big", signed=True)
    if core.Integer(serial).contents != number:
        raise Refusal("cms.not_der", "serialNumber")
    return issuer_der, serial, None


def _signed_at(attributes: bytes, family: _Family, digest: bytes) -> datetime:
    """The signing time, once the attributes are the three, of one value each, and the other two are right."""
    elements, found, order = _Der(attributes), dict[bytes, bytes](), list[bytes]()
    while elements.next != -1 and len(order) < 4:
        order.append(elements.element(SEQUENCE, "signedAttrs"))
        attribute = _Der(order[-1]).inside(SEQUENCE, "signedAttrs")
        oid = attribute.take(OID, "signedAttrs")
        found[oid] = attribute.take(SET, "signedAttrs")  # of a doubled one the count below tells
        attribute.end("signedAttrs")
    if len(order) != 3 or set(found) != {_CONTENT_TYPE, _MESSAGE_DIGEST, _SIGNING_TIME}:
        raise Refusal("cms.signed_attributes", "not exactly contentType, messageDigest, signingTime")
    if order != sorted(order):
        raise Refusal("cms.not_der", "order of signedAttrs")
    if found[_CONTENT_TYPE] != _emit(OID, family.data):
        raise Refusal("cms.signed_attributes", "contentType")
    if found[_MESSAGE_DIGEST] != _emit(OCTETS, digest):
        raise Refusal("cms.message_digest")
    return _moment(found[_SIGNING_TIME])


def _moment(value: bytes) -> datetime:
    """A signing time in the one spelling that RFC 5652 §11.3 leaves: UTCTime until 2049, whole seconds, Z."""
    elements = _Der(value)
    long = elements.next == GENERALIZED_TIME
    text = elements.take(GENERALIZED_TIME if long else UTC_TIME, "signingTime")
    elements.end("signingTime")
    try:
        digits = text.decode("ascii")
        if not long:
            digits = ("19" if digits[:2] >= "50" else "20") + digits
        moment = datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as problem:
        raise Refusal("cms.signed_attributes", "signingTime") from problem
    if _time(moment) != value:
        raise Refusal("cms.not_der", "signingTime")
    return moment


def _raw(signature: bytes) -> bytes:
    try:
        return raw_of(signature)
    except InvalidSignature as problem:
        raise Refusal("signature.invalid", "not DER of two numbers") from problem


def _digest(algorithm: str, content: bytes) -> bytes:
    return sm3(content) if algorithm == "SM2" else sha256(content).value


# --- writing ---------------------------------------------------------------------------------------------------------


def write(content: bytes, key: SigningKey, signed_at: datetime) -> bytes:
    """The SignedData of a content, in DER, its signer named by issuer and serial number.

    key: SM2 (in GB/T 35275's identifiers) or P-256 (in PKCS#7's), with its certificate, which does not travel
    signed_at: aware; whole seconds are kept

    Raises Misconfigured for another kind of key.
    """
    suite = _SUITES.get(key.algorithm)
    if suite is None or key.certificate_der is None:
        raise Misconfigured(
            "config.key", f"a CMS is signed by SM2 or ES256 and with a certificate, not by {key.algorithm} alone"
        )
    family, names = suite.families[0], names_of(key.certificate_der)
    attributes = b"".join(
        sorted(
            (
                _attribute(_CONTENT_TYPE, _emit(OID, family.data)),
                _attribute(_MESSAGE_DIGEST, _emit(OCTETS, _digest(key.algorithm, content))),
                _attribute(_SIGNING_TIME, _time(signed_at)),
            )
        )
    )
    raw = key.sign(_set_of(attributes))
    signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    one, digest = _emit(INTEGER, b"\x01"), _emit(SEQUENCE, _emit(OID, suite.digest))
    signer = _emit(
        SEQUENCE,
        one,
        _emit(SEQUENCE, names.issuer_der, core.Integer(names.serial).dump()),
        digest,
        _emit(_EXPLICIT_0, attributes),
        _emit(SEQUENCE, _emit(OID, suite.written)),
        _emit(OCTETS, signature),
    )
    encapsulated = _emit(SEQUENCE, _emit(OID, family.data), _emit(_EXPLICIT_0, _emit(OCTETS, content)))
    data = _emit(SEQUENCE, one, _emit(SET, digest), encapsulated, _emit(SET, signer))
    return _emit(SEQUENCE, _emit(OID, family.signed_data), _emit(_EXPLICIT_0, data))


def _emit(identifier: int, *contents: bytes) -> bytes:
    octets: bytes = parser.emit(identifier >> 6, identifier >> 5 & 1, identifier & 0x1F, b"".join(contents))
    return octets


def _set_of(attributes: bytes) -> bytes:
    return _emit(SET, attributes)


def _attribute(oid: bytes, value: bytes) -> bytes:
    return _emit(SEQUENCE, _emit(OID, oid), _emit(SET, value))


def _time(moment: datetime) -> bytes:
    utc = moment.astimezone(UTC)
    if 1950 <= utc.year < 2050:
        return _emit(UTC_TIME, utc.strftime("%y%m%d%H%M%SZ").encode("ascii"))
    return _emit(GENERALIZED_TIME, f"{utc.year:04d}{utc:%m%d%H%M%S}Z".encode("ascii"))
