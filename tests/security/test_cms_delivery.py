"""The CMS envelope of a delivery: each attack is refused by name, each honest form verifies, OpenSSL agrees.

The envelopes here are put together octet by octet, and not by the code that they try.
"""

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pytest
from asn1crypto import cms as other_cms
from asn1crypto import core
from asn1crypto import x509 as other_x509
from hypothesis import given, settings
from hypothesis import strategies as st

from security import pki
from security.authenticate import TrustList, signer_of
from security.cms_delivery import open_delivery, sign_delivery, verify_delivery
from security.errors import Misconfigured, Refusal
from security.keys import Kind, SigningKey, generate, spki
from security.message import Content, Delivery, EnrolledCertificate, Use, VerifiedPayload, in_memory
from security.signatures import payload_of
from security.signed_delivery import MOST_BYTES, check_age, typ_of
from security.sm2 import der_of, sm3

NOW = datetime(2026, 7, 1, tzinfo=UTC)
MAX_AGE = timedelta(days=7)
CA = pki.make_ca("Test CA", NOW)
CONTENT = "编号,状态\n水表-1,完好\n".encode()
KNOWN: list[EnrolledCertificate] = []

GB, PKCS7 = "2a811ccf5506010402", "2a864886f70d0107"  # without the last octet: 1 data, 2 signedData
SM3, SHA256, SHA1 = "2a811ccf55018311", "608648016503040201", "2b0e03021a"
SM2_SIGN, SM2_WITH_SM3, ECDSA_SHA256 = "2a811ccf5501822d01", "2a811ccf55018375", "2a8648ce3d040302"
RSA, ECDSA_SHA1 = "2a864886f70d010101", "2a8648ce3d0401"
CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_TIME = (f"2a864886f70d01090{n}" for n in (3, 4, 5))
CAPABILITIES = "2a864886f70d01090f"


def enrolled(kind: Kind, bureau: str = "water", use: Use = "signing") -> SigningKey:
    key = generate(kind)
    der = pki.issue(CA, bureau, key.public_key, use, NOW - timedelta(days=1), NOW + timedelta(days=9))
    KNOWN.append(pki.enrolled(der, bureau, use))
    return key.with_certificate(der)


KEYS = {kind: enrolled(kind) for kind in ("SM2", "ES256", "RS256", "EdDSA")}  # type: ignore[arg-type]  # literals
KEY, P256 = KEYS["SM2"], KEYS["ES256"]
POWER, CONNECTION = enrolled("SM2", "power"), enrolled("SM2", "water", "connection")
TRUST = TrustList(tuple(KNOWN))


def tlv(tag: int, *parts: bytes | str) -> bytes:
    """A DER element; parts in hex or octets."""
    octets = b"".join(bytes.fromhex(part) if isinstance(part, str) else part for part in parts)
    if len(octets) < 0x80:
        return bytes([tag, len(octets)]) + octets
    length = len(octets).to_bytes((len(octets).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 + len(length)]) + length + octets


def oid(dotted_in_hex: str) -> bytes:
    return tlv(6, dotted_in_hex)


def algorithm(name: str, parameters: bytes = b"") -> bytes:
    return tlv(0x30, oid(name), parameters)


def attribute(name: str, *values: bytes) -> bytes:
    return tlv(0x30, oid(name), tlv(0x31, *values))


def header(content: bytes = CONTENT, **spoilt: Any) -> dict[str, Any]:
    """A right header, but for what is spoilt; a member given as `...` is left out."""
    right = {
        "typ": typ_of("cms"), "iss": "water", "aud": "bus", "mid": "m-1", "cty": "text/csv", "feed": "water-meters",
        "iat": int(NOW.timestamp()), "dig": f"SHA-256:{sha256(content).hexdigest()}",
    }  # fmt: skip
    return {name: value for name, value in {**right, **spoilt}.items() if value is not ...}


def inside(head: dict[str, Any] | str | None = None, content: bytes = CONTENT, longer: int = 0) -> bytes:
    """What is signed: length, header, content. longer: how much the length says too much."""
    octets = (head if isinstance(head, str) else json.dumps(head or header(content))).encode()
    return (len(octets) + longer).to_bytes(4, "big") + octets + content


def named(key: SigningKey) -> tuple[bytes, bytes]:
    """Issuer's name in DER, and contents of the serial number."""
    tbs = other_x509.Certificate.load(key.certificate_der)["tbs_certificate"]
    return tbs["issuer"].dump(), tbs["serial_number"].contents


def issuer_and_serial(key: SigningKey) -> bytes:
    issuer, serial = named(key)
    return tlv(0x30, issuer, tlv(2, serial))


def key_identifier(key: SigningKey, tag: int = 0x80) -> bytes:
    return tlv(tag, pki.names_of(key.certificate_der or b"").ski or b"")


def made(
    content: bytes | None = None,
    key: SigningKey = KEY,
    *,
    family: str = GB,
    type_family: str | None = None,
    data: str = "01",
    digest: str | None = None,
    listed_digest: str | None = None,
    signature: str | None = None,
    parameters: bytes = b"",
    version: str = "01",
    signer_version: str = "01",
    sid: bytes | None = None,
    attributes: list[bytes] | None = None,
    more_attributes: tuple[bytes, ...] = (),
    ordered: bool = True,
    digested: bytes | None = None,
    signed_under: int = 0x31,
    signed: bytes | None = None,
    attributes_tag: int = 0xA0,
    certificates: bytes = b"",
    crls: bytes = b"",
    unsigned: bytes = b"",
    wrapped: bytes | None = None,
    signers: Callable[[bytes], tuple[bytes, ...]] = lambda signer: (signer,),
    altered: Callable[[bytes], bytes] = lambda signature: signature,
    after: bytes = b"",
) -> bytes:
    """An envelope whose signature holds over whatever it says."""
    content = inside() if content is None else content
    sm2 = key.algorithm == "SM2"
    digest, signature = digest or (SM3 if sm2 else SHA256), signature or (SM2_SIGN if sm2 else ECDSA_SHA256)
    hashed = sm3(content) if digest == SM3 else sha256(content).digest()
    attributes = attributes or [
        attribute(CONTENT_TYPE, oid((type_family or family) + data)),
        attribute(MESSAGE_DIGEST, tlv(4, digested or hashed)),
        attribute(SIGNING_TIME, tlv(0x17, NOW.strftime("%y%m%d%H%M%SZ").encode())),
    ]
    attributes += more_attributes
    listed = b"".join(sorted(attributes) if ordered else attributes)
    raw = key.sign(signed if signed is not None else tlv(signed_under, listed))
    signature_octets = altered(der_of(raw)) if len(raw) == 64 else raw
    signer = tlv(
        0x30, tlv(2, signer_version), issuer_and_serial(key) if sid is None else sid, algorithm(digest, parameters),
        tlv(attributes_tag, listed) if attributes_tag else b"", algorithm(signature, parameters),
        tlv(4, signature_octets), unsigned,
    )  # fmt: skip
    signed_data = tlv(
        0x30, tlv(2, version), tlv(0x31, algorithm(listed_digest or digest, parameters)),
        tlv(0x30, oid((type_family or family) + data), tlv(0xA0, tlv(4, content)) if wrapped is None else wrapped),
        certificates, crls, tlv(0x31, *signers(signer)),
    )  # fmt: skip
    return tlv(0x30, oid(family + "02"), tlv(0xA0, signed_data)) + after


def taken(octets: bytes, now: datetime = NOW) -> VerifiedPayload:
    """All that act one does with an envelope, in its order. Raises Refusal."""
    envelope = open_delivery(octets)
    verified = verify_delivery(envelope, signer_of(TRUST.of_signer(envelope.signed_data), envelope.sender, now))
    check_age(envelope, now, MAX_AGE)
    delivery = Delivery("mqtt", None, "", octets, Content(0, in_memory(b"").digest), now)
    return payload_of(verified, delivery)


def doubled(member: str) -> str:
    """The header's text with one member twice."""
    text = json.dumps(header())
    return text[:-1] + f', "{member}": {json.dumps(header()[member])}}}'


def indefinite(octets: bytes) -> bytes:
    """The outermost element with an indefinite length."""
    return bytes([octets[0], 0x80]) + octets[2 + (octets[1] & 0x7F) :] + b"\0\0"


def long_length(octets: bytes) -> bytes:
    """The outermost element's length with a zero before it."""
    count = octets[1] & 0x7F
    return bytes([octets[0], octets[1] + 1, 0]) + octets[2 : 2 + count] + octets[2 + count :]


def time_attribute(text: str, tag: int = 0x17) -> list[bytes]:
    right = sm3(inside())
    return [
        attribute(CONTENT_TYPE, oid(GB + "01")), attribute(MESSAGE_DIGEST, tlv(4, right)),
        attribute(SIGNING_TIME, tlv(tag, text.encode())),
    ]  # fmt: skip


def hmac_keyed_with_the_public_key(attributes: bytes) -> bytes:
    import hmac

    return hmac.new(spki(KEY.public_key), attributes, "sha256").digest()


RIGHT = made()
ISSUER, SERIAL = named(KEY)
DER = KEY.certificate_der or b""
POWER_DER = POWER.certificate_der or b""
EMPTY_CRL = tlv(0xA1, tlv(0x30))
ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    # not the one encoding
    "empty": (lambda: b"", "cms.shape"),
    "json": (lambda: b'{"payload": ""}', "cms.shape"),
    "too_large": (lambda: made(inside(content=b"x" * MOST_BYTES)), "cms.too_large"),
    "octets_after_the_end": (lambda: made(after=b"\0"), "cms.not_der"),
    "two_documents": (lambda: RIGHT + RIGHT, "cms.not_der"),
    "cut_off": (lambda: RIGHT[:-1], "cms.not_der"),
    "indefinite_length": (lambda: indefinite(RIGHT), "cms.not_der"),
    "length_with_a_zero_before": (lambda: long_length(RIGHT), "cms.not_der"),
    "long_form_of_a_short_length": (
        lambda: RIGHT.replace(oid(SM3), b"\x06\x81\x08" + bytes.fromhex(SM3)), "cms.not_der",
    ),
    "content_in_pieces": (lambda: made(wrapped=tlv(0xA0, tlv(0x24, tlv(4, inside())))), "cms.shape"),
    "content_indefinite": (lambda: made(wrapped=b"\xa0\x80" + tlv(4, inside()) + b"\0\0"), "cms.not_der"),
    "attributes_out_of_order": (lambda: made(ordered=False), "cms.not_der"),
    "version_with_a_zero_before": (lambda: made(version="0001"), "cms.shape"),
    # not the one shape
    "enveloped_data": (lambda: RIGHT.replace(oid(GB + "02"), oid(GB + "03"), 1), "cms.shape"),
    "content_type_of_receipts": (lambda: made(data="02"), "cms.shape"),
    "content_type_of_a_time_stamp": (lambda: made(type_family="2a864886f70d010910010", data="4"), "cms.shape"),
    "family_mixed": (lambda: made(type_family=PKCS7), "cms.shape"),
    "detached": (lambda: made(wrapped=b""), "cms.shape"),
    "two_contents": (lambda: made(wrapped=tlv(0xA0, tlv(4, inside()), tlv(4, b"x"))), "cms.shape"),
    "version_0": (lambda: made(version="00"), "cms.shape"),
    "signer_version_of_the_other_name": (lambda: made(signer_version="03"), "cms.shape"),
    "key_identifier_under_version_1": (lambda: made(sid=key_identifier(KEY)), "cms.shape"),
    "no_signer": (lambda: made(signers=lambda signer: ()), "cms.shape"),
    "serial_with_a_zero_before": (
        lambda: made(sid=tlv(0x30, ISSUER, tlv(2, "00", SERIAL))), "cms.not_der",
    ),
    # parts without a signature over them
    "second_signer": (lambda: made(signers=lambda signer: (signer, signer)), "cms.part_refused"),
    "second_signer_of_another_bureau": (
        lambda: made(signers=lambda signer: (signer, signer.replace(issuer_and_serial(KEY), issuer_and_serial(POWER)))),
        "cms.part_refused",
    ),
    "crls": (lambda: made(crls=EMPTY_CRL), "cms.part_refused"),
    "crls_beside_a_certificate": (lambda: made(certificates=tlv(0xA0, DER), crls=EMPTY_CRL), "cms.part_refused"),
    "unsigned_attributes": (
        lambda: made(unsigned=tlv(0xA1, attribute(SIGNING_TIME, tlv(0x17, b"260701000000Z")))), "cms.part_refused",
    ),
    "counter_signature": (lambda: made(unsigned=tlv(0xA1, attribute("2a864886f70d010906", b""))), "cms.part_refused"),
    "empty_unsigned_attributes": (lambda: made(unsigned=tlv(0xA1)), "cms.part_refused"),
    "two_certificates": (lambda: made(certificates=tlv(0xA0, DER, DER)), "cms.part_refused"),
    "no_certificate_where_some_should_be": (lambda: made(certificates=tlv(0xA0)), "cms.shape"),
    "embedded_certificate_of_another": (lambda: made(certificates=tlv(0xA0, POWER_DER)), "cms.signer_differs"),
    "embedded_certificate_altered": (lambda: made(certificates=tlv(0xA0, DER[:-1] + b"\0")), "cms.signer_differs"),
    "embedded_key": (lambda: made(certificates=tlv(0xA0, spki(KEY.public_key))), "cms.signer_differs"),
    # signed attributes
    "no_signed_attributes": (lambda: made(attributes_tag=0, signed=inside()), "cms.signed_attributes"),
    "attributes_signed_under_their_tag": (lambda: made(signed_under=0xA0), "signature.invalid"),
    "attributes_as_a_set": (lambda: made(attributes_tag=0x31), "cms.signed_attributes"),
    "content_signed_instead": (lambda: made(signed=inside()), "signature.invalid"),
    "attributes_posing_as_content": (lambda: made(tlv(0x31, inside()), attributes_tag=0), "cms.signed_attributes"),
    "contentType_left_out": (lambda: made(attributes=time_attribute("260701000000Z")[1:]), "cms.signed_attributes"),
    "messageDigest_left_out": (
        lambda: made(attributes=time_attribute("260701000000Z")[::2]), "cms.signed_attributes",
    ),
    "signingTime_left_out": (lambda: made(attributes=time_attribute("260701000000Z")[:2]), "cms.signed_attributes"),
    "a_fourth_attribute": (
        lambda: made(more_attributes=(attribute(CAPABILITIES, tlv(0x30)),)), "cms.signed_attributes",
    ),
    "signingTime_doubled": (
        lambda: made(more_attributes=(attribute(SIGNING_TIME, tlv(0x17, b"270101000000Z")),)), "cms.signed_attributes",
    ),
    "signingTime_in_place_of_contentType": (
        lambda: made(attributes=[*time_attribute("260701000000Z")[1:], *time_attribute("270101000000Z")[2:]]),
        "cms.signed_attributes",
    ),
    "two_values": (
        lambda: made(attributes=[*time_attribute("260701000000Z")[:2],
                                 attribute(SIGNING_TIME, tlv(0x17, b"260701000000Z"), tlv(0x17, b"270701000000Z"))]),
        "cms.shape",
    ),
    "contentType_attribute_of_the_other_family": (
        lambda: made(attributes=[attribute(CONTENT_TYPE, oid(PKCS7 + "01")), *time_attribute("260701000000Z")[1:]]),
        "cms.signed_attributes",
    ),
    "messageDigest_of_other_content": (lambda: made(digested=sm3(b"x")), "cms.message_digest"),
    "messageDigest_by_sha_256": (lambda: made(digested=sha256(inside()).digest()), "cms.message_digest"),
    "content_swapped": (lambda: RIGHT.replace(CONTENT, CONTENT.replace(b"1", b"2")), "cms.message_digest"),
    # algorithms
    "sm2_with_sha_256": (lambda: made(digest=SHA256), "cms.algorithm"),
    "sm2_with_sha_1": (lambda: made(digest=SHA1), "cms.algorithm"),
    "ecdsa_with_sm3": (lambda: made(key=P256, family=PKCS7, digest=SM3), "cms.algorithm"),
    "ecdsa_with_sha_1": (lambda: made(key=P256, family=PKCS7, signature=ECDSA_SHA1), "cms.algorithm"),
    "ecdsa_in_the_family_of_sm2": (lambda: made(key=P256), "cms.algorithm"),
    "digests_differ": (lambda: made(listed_digest=SHA256), "cms.algorithm"),
    "parameters": (lambda: made(parameters=tlv(6, SM3)), "cms.algorithm"),
    "parameters_doubled": (lambda: made(parameters=tlv(5) + tlv(5)), "cms.algorithm"),
    "null_that_holds_something": (lambda: made(parameters=tlv(5, b"x")), "cms.not_der"),
    "rsa": (lambda: made(key=KEYS["RS256"], family=PKCS7, signature=RSA), "cms.algorithm"),
    "ed25519": (lambda: made(key=KEYS["EdDSA"], family=PKCS7, signature="2b6570"), "cms.algorithm"),
    "sm2_name_on_ec_key": (
        lambda: made(key=P256, family=GB, digest=SM3, signature=SM2_SIGN), "signature.algorithm_not_of_key",
    ),
    "ecdsa_name_on_sm2_key": (
        lambda: made(family=PKCS7, digest=SHA256, signature=ECDSA_SHA256), "signature.algorithm_not_of_key",
    ),
    "sm2_name_on_rsa_key": (
        lambda: made(key=KEYS["RS256"], sid=issuer_and_serial(KEYS["RS256"]), digest=SM3, signature=SM2_SIGN),
        "signature.invalid",
    ),
    # signatures
    "signature_raw": (lambda: made(altered=lambda s: KEY.sign(b"x")), "signature.invalid"),
    "signature_empty": (lambda: made(altered=lambda s: b""), "signature.invalid"),
    "signature_with_octets_after": (lambda: made(altered=lambda s: s + b"\0"), "signature.invalid"),
    "signature_with_zeros_before": (
        lambda: made(altered=lambda s: tlv(0x30, tlv(2, b"\0\0", s[4 : 4 + s[3]]), s[4 + s[3] :])), "signature.invalid",
    ),
    "signature_of_zeros": (lambda: made(altered=lambda s: tlv(0x30, tlv(2, "00"), tlv(2, "00"))), "signature.invalid"),
    "signature_negative": (lambda: made(altered=lambda s: tlv(0x30, tlv(2, "ff"), tlv(2, "ff"))), "signature.invalid"),
    "signature_of_long_numbers": (
        lambda: made(altered=lambda s: tlv(0x30, tlv(2, "01" * 33), tlv(2, "01"))), "signature.invalid",
    ),
    "hmac_with_the_public_key": (
        lambda: made(altered=lambda s: hmac_keyed_with_the_public_key(b"x")), "signature.invalid",
    ),
    "signed_by_another_bureau": (lambda: made(key=POWER, sid=issuer_and_serial(KEY)), "signature.invalid"),
    # the header
    "length_too_long": (lambda: made(inside(longer=1 << 24)), "cms.header_length"),
    "length_of_all_ones": (lambda: made(b"\xff" * 4 + inside()[4:]), "cms.header_length"),
    "length_one_too_long": (lambda: made(inside(longer=1)), "cms.not_json"),
    "length_one_too_short": (lambda: made(inside(longer=-1)), "cms.not_json"),
    "length_little_endian": (lambda: made(inside()[3::-1] + inside()[4:]), "cms.header_length"),
    "length_zero": (lambda: made(b"\0\0\0\0" + CONTENT), "cms.not_json"),
    "no_length": (lambda: made(b"\0\0\0"), "cms.header_length"),
    "nothing": (lambda: made(b""), "cms.header_length"),
    "header_doubled_member": (lambda: made(inside(doubled("iss"))), "cms.member_doubled"),
    "header_doubled_in_a_nested_object": (lambda: made(inside('{"x": {"a": 1, "a": 2}}')), "cms.member_doubled"),
    "header_array": (lambda: made(inside("[]")), "cms.not_json"),
    "header_nan": (lambda: made(inside(json.dumps(header())[:-1] + ', "exp": NaN}')), "cms.not_json"),
    "header_deep": (lambda: made(inside("[" * 500_000)), "cms.not_json"),
    "header_with_alg": (lambda: made(inside(header(alg="none"))), "cms.member_refused"),
    "header_with_kid": (lambda: made(inside(header(kid=KEY.fingerprint))), "cms.member_refused"),
    "header_with_x5c": (lambda: made(inside(header(x5c=["MIIB"]))), "cms.member_refused"),
    "header_with_crit": (lambda: made(inside(header(crit=["b64"]))), "cms.member_refused"),
    **{f"without_{name}": ((lambda name=name: made(inside(header(**{name: ...})))), "cms.member_missing")  # type: ignore[misc]  # bound now
       for name in header()},
    "typ_of_jws": (lambda: made(inside(header(typ=typ_of("jws")))), "cms.not_a_delivery"),
    "receipt_as_delivery": (lambda: made(inside(header(typ="yt-receipt+jws"))), "cms.not_a_delivery"),
    "message_id_with_a_slash": (lambda: made(inside(header(mid="../x"))), "cms.member_form"),
    "feed_with_a_wildcard": (lambda: made(inside(header(feed="+"))), "cms.member_form"),
    "iss_a_number": (lambda: made(inside(header(iss=1))), "cms.member_form"),
    "iat_true": (lambda: made(inside(header(iat=True))), "cms.member_form"),
    "iat_beyond_all_calendars": (lambda: made(inside(header(iat=10**18))), "cms.member_form"),
    "digest_of_other_content": (lambda: made(inside(header(dig=f"SHA-256:{'0' * 64}"))), "signature.content_digest"),
    "digest_of_other_content_by_sm3": (lambda: made(inside(header(dig=f"SM3:{'0' * 64}"))), "signature.content_digest"),
    "digest_of_another_algorithm": (lambda: made(inside(header(dig=f"SHA-1:{'0' * 40}"))), "cms.member_form"),
    "digest_named_sm3_and_by_sha_256": (
        lambda: made(inside(header(dig=f"SM3:{sha256(CONTENT).hexdigest()}"))), "signature.content_digest",
    ),
    # who
    "certificate_unknown": (lambda: made(sid=tlv(0x30, ISSUER, tlv(2, "01"))), "auth.certificate_unknown"),
    "key_identifier_unknown": (lambda: made(sid=tlv(0x80, "00" * 20), signer_version="03"), "auth.certificate_unknown"),
    "key_identifier_empty": (lambda: made(sid=tlv(0x80), signer_version="03"), "auth.certificate_unknown"),
    "key_identifier_constructed": (lambda: made(sid=key_identifier(KEY, 0xA0), signer_version="03"), "cms.shape"),
    "connection_certificate": (lambda: made(key=CONNECTION), "auth.certificate_not_for_signing"),
    "sender_of_another_bureau": (lambda: made(inside(header(iss="power"))), "auth.sender_mismatch"),
    # when
    "times_differ": (lambda: made(inside(header(iat=int(NOW.timestamp()) + 1))), "cms.times_differ"),
    "time_without_zone": (lambda: made(attributes=time_attribute("260701000000")), "cms.signed_attributes"),
    "time_without_seconds": (lambda: made(attributes=time_attribute("2607010000Z")), "cms.not_der"),
    "time_of_another_zone": (lambda: made(attributes=time_attribute("260701080000+0800")), "cms.signed_attributes"),
    "time_general_before_2050": (lambda: made(attributes=time_attribute("20260701000000Z", 0x18)), "cms.not_der"),
    "time_with_fractions": (
        lambda: made(attributes=time_attribute("20260701000000.5Z", 0x18)), "cms.signed_attributes",
    ),
    "time_no_day": (lambda: made(attributes=time_attribute("260231000000Z")), "cms.signed_attributes"),
    "time_of_another_type": (lambda: made(attributes=time_attribute("260701000000Z", 4)), "cms.shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_is_refused_by_name(name: str) -> None:
    make, code = ATTACKS[name]
    with pytest.raises(Refusal) as refused:
        taken(make())
    assert refused.value.code == code, refused.value


FORMS: dict[str, Callable[[], bytes]] = {
    "gb": lambda: RIGHT,
    "pkcs7": lambda: made(family=PKCS7),
    "sm2_with_sm3": lambda: made(signature=SM2_WITH_SM3),
    "null_parameters": lambda: made(parameters=tlv(5)),
    "p_256": lambda: made(key=P256, family=PKCS7),
    "version_3": lambda: made(version="03"),
    "key_identifier": lambda: made(sid=key_identifier(KEY), signer_version="03", version="03"),
    "its_own_certificate": lambda: made(certificates=tlv(0xA0, DER)),
    "digest_by_sm3": lambda: made(inside(header(dig=f"SM3:{sm3(CONTENT).hex()}"))),
    "header_of_another_order": lambda: made(inside(json.dumps(dict(reversed(header().items())), indent=2))),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_allowed_form_verifies(name: str) -> None:
    payload = taken(FORMS[name]())
    assert (payload.content.read(), payload.message_id, payload.form) == (CONTENT, "m-1", "cms")


NAMES: Any = {
    "sender": "water", "recipient": "bus", "feed": "water-meters", "message_id": "m-1", "content_type": "text/csv",
    "signed_at": NOW,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["SM2", "ES256"])
def test_what_a_partner_signs_is_what_is_taken_and_is_the_der_that_another_writes(kind: str) -> None:
    octets = sign_delivery(CONTENT, KEYS[kind], **NAMES)
    assert other_cms.ContentInfo.load(octets, strict=True).dump(force=True) == octets
    payload = taken(octets)
    assert (payload.sender, payload.feed, payload.content_type, payload.signed_at) == (
        *("water", "water-meters", "text/csv", NOW),
    )
    assert (payload.signer.certificate, payload.content.read()) == (KEYS[kind].fingerprint, CONTENT)


@pytest.mark.parametrize("kind", ["RS256", "EdDSA"])
def test_a_key_of_another_kind_writes_no_cms(kind: str) -> None:
    with pytest.raises(Misconfigured, match=kind):
        sign_delivery(CONTENT, KEYS[kind], **NAMES)


def test_names_that_would_be_refused_are_not_signed() -> None:
    with pytest.raises(Refusal, match=r"cms\.member_form"):
        sign_delivery(CONTENT, KEY, **{**NAMES, "feed": "水"})


def test_any_octets_are_a_content() -> None:
    for content in (b"", bytes(range(256)), b"\xff" * 3, b"0" * 70_000):
        assert taken(sign_delivery(content, KEY, **NAMES)).content.read() == content


def test_an_envelope_is_good_to_the_second_that_skew_and_age_allow() -> None:
    for moment in (NOW + timedelta(minutes=5), NOW - MAX_AGE):
        assert taken(sign_delivery(CONTENT, KEY, **{**NAMES, "signed_at": moment})).message_id == "m-1"
    for moment, code in ((timedelta(minutes=5, seconds=1), "future"), (-MAX_AGE - timedelta(seconds=1), "stale")):
        with pytest.raises(Refusal, match=rf"signature\.{code}"):
            taken(sign_delivery(CONTENT, KEY, **{**NAMES, "signed_at": NOW + moment}))


def test_a_time_from_2050_on_is_written_out_and_read() -> None:
    moment = datetime(2051, 1, 2, 3, 4, 5, tzinfo=UTC)
    octets = sign_delivery(CONTENT, KEY, **{**NAMES, "signed_at": moment})
    assert b"20510102030405Z" in octets
    assert open_delivery(octets).signed_at == moment


# --- OpenSSL ----------------------------------------------------------------------------------------------------------


def openssl(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=False)


class OfGb(core.Sequence):  # type: ignore[misc]  # asn1crypto says no types
    """A ContentInfo as asn1crypto reads it, which knows no SignedData by the identifier of GB/T 35275."""

    _fields: ClassVar[Any] = [("type", core.ObjectIdentifier), ("content", other_cms.SignedData, {"explicit": 0})]


DISTID = ("-sigopt", "distid:1234567812345678")


def test_openssl_verifies_an_sm2_signature_over_the_attributes_as_a_set(tmp_path: Path) -> None:
    signer = OfGb.load(sign_delivery(CONTENT, KEY, **NAMES))["content"]["signer_infos"][0]
    (tmp_path / "attributes").write_bytes(signer["signed_attrs"].untag().dump())
    (tmp_path / "signature").write_bytes(signer["signature"].native)
    (tmp_path / "public.pem").write_bytes(KEY.public_pem())
    command = ("dgst", "-sm3", "-verify", tmp_path / "public.pem", *DISTID, "-signature", tmp_path / "signature")
    assert openssl(*command, tmp_path / "attributes").returncode == 0
    (tmp_path / "attributes").write_bytes(signer["signed_attrs"].dump())
    assert openssl(*command, tmp_path / "attributes").returncode != 0


def test_what_openssl_signs_with_an_sm2_key_is_taken(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(KEY.pem())
    attributes = tlv(0x31, *sorted(time_attribute("260701000000Z")))
    (tmp_path / "attributes").write_bytes(attributes)
    signed = openssl("dgst", "-sm3", "-sign", tmp_path / "key.pem", *DISTID, tmp_path / "attributes")
    assert signed.returncode == 0
    assert taken(made(altered=lambda _: signed.stdout)).message_id == "m-1"


@pytest.mark.parametrize("certificates", [("-nocerts",), ()])
def test_what_openssl_cms_signs_with_a_p_256_key_is_taken(
    certificates: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.pem").write_bytes(P256.pem())
    (tmp_path / "certificate.pem").write_bytes(pki.pem_of(P256.certificate_der or b""))
    for second in (0, 1):  # where the second passed between our header's time and OpenSSL's
        now = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=second)
        (tmp_path / "content").write_bytes(inside(header(iat=int(now.timestamp()))))
        signed = openssl(
            "cms", "-sign", "-binary", "-nodetach", "-nosmimecap", *certificates, "-md", "sha256", "-outform", "DER",
            "-signer", tmp_path / "certificate.pem", "-inkey", tmp_path / "key.pem", "-in", tmp_path / "content",
        )  # fmt: skip
        assert signed.returncode == 0, signed.stderr
        if open_signing_time(signed.stdout) == now:
            break
    envelope = open_delivery(signed.stdout)
    assert envelope.content == CONTENT
    assert verify_delivery(envelope, next(c for c in KNOWN if c.der == P256.certificate_der)).signer.bureau == "water"


def open_signing_time(octets: bytes) -> Any:
    signer = other_cms.ContentInfo.load(octets)["content"]["signer_infos"][0]
    return next(a["values"][0].native for a in signer["signed_attrs"] if a["type"].native == "signing_time")


def test_openssl_cms_verifies_what_we_sign_with_a_p_256_key(tmp_path: Path) -> None:
    for name, octets in {
        "envelope": sign_delivery(CONTENT, P256, **NAMES), "certificate.pem": pki.pem_of(P256.certificate_der or b""),
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(octets)
    verified = openssl(
        "cms", "-verify", "-binary", "-inform", "DER", "-in", tmp_path / "envelope", "-noverify", "-nointern",
        "-certfile", tmp_path / "certificate.pem",
    )  # fmt: skip
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.endswith(CONTENT)


# --- anything at all --------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_random_octets_are_refused_and_nothing_else_happens(octets: bytes) -> None:
    for some in (octets, b"\x30" + octets, tlv(0x30, octets), RIGHT[:30] + octets):
        with pytest.raises(Refusal):
            taken(some)


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_no_altered_envelope_gives_another_delivery(data: st.DataObject) -> None:
    octets = bytearray(data.draw(st.sampled_from([RIGHT, CERTIFIED])))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(octets) - 1))
        match data.draw(st.sampled_from(["flip", "drop", "insert", "repeat"])):
            case "flip":
                octets[at] ^= data.draw(st.integers(1, 255))
            case "drop":
                del octets[at : at + data.draw(st.integers(1, 40))]
            case "insert":
                octets[at:at] = data.draw(st.binary(min_size=1, max_size=9))
            case _:
                octets[at:at] = octets[at : at + data.draw(st.integers(1, 120))]
    if bytes(octets) in (RIGHT, CERTIFIED):
        return
    try:
        payload = taken(bytes(octets))
    except Refusal:
        return
    # Only what nothing follows from can differ: the version of SignedData, which of SM2's two names stands there.
    assert (payload.content.read(), payload.message_id, payload.form) == (CONTENT, "m-1", "cms")
    assert len(octets) in (len(RIGHT), len(CERTIFIED))


CERTIFIED = made(certificates=tlv(0xA0, DER))
