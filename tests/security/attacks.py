"""Attacks on signed envelopes, each named for its fault, with the code under which it must be refused.

`python -m tests.security.attacks DIR` writes every vector, good and spoilt, as a file named for its fault.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from lxml import etree

from security.keys import SigningKey
from security.xmldsig import DS, ENVELOPED, EXCLUSIVE_C14N, SKI, STR_TRANSFORM, THUMBPRINT, WSSE, WSU, X509V3
from tests.security.vectors import (
    BARE,
    CERTIFICATE,
    CONNECTION,
    CONTENT,
    DAY,
    EXPIRED,
    GOOD,
    ISSUER_SERIAL,
    NAMES,
    NOW,
    POWER,
    REVOKED,
    RSA_SHA256,
    SOAP11,
    SOAP12,
    STRANGER,
    WATER,
    WATER_AGAIN,
    WATER_DER,
    WATER_RSA,
    b64,
    identifier,
    include,
    named,
    prefix_list,
    reference,
    seal,
    template,
    token,
    transform,
)

_EVIL = (
    '<s:Body {id}><SubmitDelivery xmlns="urn:yongtong:v1"><Sender>water</Sender><MessageId>evil</MessageId>'
    "</SubmitDelivery></s:Body>"
)


def _wrapped(evil_attributes: str, into: str) -> bytes:
    """The signed Body moved into a header block, and another one in its place."""
    root = etree.fromstring(seal(template(header="<w:wrapper xmlns:w='urn:w'/>")))
    body = root[1]
    spaces = f'xmlns:s="{SOAP11[1:-1]}" xmlns:wsu="{WSU[1:-1]}"'
    evil = _EVIL.format(id=f"{spaces} {evil_attributes}")
    root.replace(body, etree.fromstring(evil))
    place = {"header": root[0][0], "security": root[0][1], "envelope": root}[into]
    place.append(body)
    return etree.tostring(root)


def _wrapped_timestamp() -> bytes:
    octets = seal(template(header="<w:wrapper xmlns:w='urn:w'/>", created="2026-06-01T08:00:00Z",
                           expires="2026-06-01T08:05:00Z"))  # fmt: skip
    root = etree.fromstring(octets)
    old = root.find(f".//{WSU}Timestamp")
    assert old is not None
    fresh = etree.fromstring(f'<wsu:Timestamp xmlns:wsu="{WSU[1:-1]}"><wsu:Created>2026-07-01T08:00:00Z</wsu:Created>'
                             "</wsu:Timestamp>")  # fmt: skip
    parent = old.getparent()
    assert parent is not None
    parent.replace(old, fresh)
    root[0][0].append(old)
    return etree.tostring(root)


def _after(old: str, new: str, **pieces: Any) -> Callable[[], bytes]:
    """A good envelope of which something is changed after signing."""

    def made() -> bytes:
        octets = seal(template(**pieces))
        spoilt = octets.replace(old.encode(), new.encode(), 1)
        assert spoilt != octets, old
        return spoilt

    return made


def _before(key: SigningKey = WATER, **pieces: Any) -> Callable[[], bytes]:
    """A properly signed envelope that says something it may not say."""
    return lambda: seal(template(**pieces), key)


def _digest_of_altered_body() -> bytes:
    """The Body altered, and its DigestValue made to fit: only the signature over SignedInfo still says no."""
    mine, other = seal(template()), seal(template(feed="power-assets"))
    old, new = (_between(octets, b'URI="#body"', b"</ds:DigestValue>") for octets in (mine, other))
    return mine.replace(old, new).replace(b"water-assets", b"power-assets")


def _between(octets: bytes, begin: bytes, end: bytes) -> bytes:
    at = octets.index(begin)
    return octets[at : octets.index(end, at)]


def _rsa_1024() -> bytes:
    """Signed by an RSA key of 1024 bits with a certificate of its own. Such a key cannot even be enrolled."""
    short = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "short")])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(short.public_key())
        .serial_number(1).not_valid_before(NOW - DAY).not_valid_after(NOW + DAY).sign(short, hashes.SHA256())
    )  # fmt: skip
    der = certificate.public_bytes(serialization.Encoding.DER)
    xml = template(suite=RSA_SHA256).replace(token(), token().replace(b64(WATER_DER), b64(der)))
    return seal(xml)


def _stripped(*, whole: bool = False) -> etree._Element:
    root = etree.fromstring(seal(template()))
    gone = root.find(f".//{WSSE}Security" if whole else f".//{DS}Signature")
    assert gone is not None
    parent = gone.getparent()
    assert parent is not None
    parent.remove(gone)
    return root


_MANY = reference("#body") + reference("#ts") + "".join(reference(f"#x{i}") for i in range(11))
_MORE = "http://www.w3.org/2001/04/xmldsig-more#"
_DSIG = "http://www.w3.org/2000/09/xmldsig#"
_KEY_VALUE = "<ds:KeyValue><ds:RSAKeyValue><ds:Modulus/><ds:Exponent/></ds:RSAKeyValue></ds:KeyValue>"
_BODY_ONLY, _STAMP_ONLY = reference("#body"), reference("#ts")
_TOKEN_TRANSFORM = transform(
    STR_TRANSFORM, "<wsse:TransformationParameters>"
    f'<ds:CanonicalizationMethod Algorithm="{EXCLUSIVE_C14N}"/></wsse:TransformationParameters>'
)  # fmt: skip

ATTACKS: dict[str, tuple[str, Callable[[], bytes]]] = {
    # What is not signed
    "not_signed_at_all": ("signature.missing", lambda: etree.tostring(_stripped())),
    "no_security_header": ("signature.missing", lambda: etree.tostring(_stripped(whole=True))),
    "body_not_signed": ("signature.not_covered", _before(references=_STAMP_ONLY + reference("#bst"))),
    "timestamp_not_signed": ("signature.not_covered", _before(references=_BODY_ONLY)),
    "body_without_id": ("signature.reference_unknown", _before(body_attributes="")),
    # Wrapping
    "wrapped_body_in_header": ("signature.reference_unknown", lambda: _wrapped('wsu:Id="evil"', "header")),
    "wrapped_body_evil_without_id": ("signature.reference_unknown", lambda: _wrapped("", "header")),
    "wrapped_body_same_id": ("signature.ids_doubled", lambda: _wrapped('wsu:Id="body"', "header")),
    "wrapped_body_same_id_other_spelling": ("signature.ids_doubled", lambda: _wrapped('Id="body"', "header")),
    "wrapped_body_in_security": ("signature.header_refused", lambda: _wrapped('wsu:Id="evil"', "security")),
    "wrapped_body_as_second_body": ("signature.envelope", lambda: _wrapped('wsu:Id="evil"', "envelope")),
    "wrapped_timestamp": ("signature.reference_unknown", _wrapped_timestamp),
    # Ids
    "ids_doubled": ("signature.ids_doubled", _before(header='<x xmlns="urn:x" wsu:Id="body"/>')),
    "ids_doubled_id_and_wsu_id": ("signature.ids_doubled", _before(header='<x xmlns="urn:x" Id="body"/>')),
    "ids_doubled_xml_id": ("signature.ids_doubled", _before(header='<x xmlns="urn:x" xml:id="body"/>')),
    "ids_doubled_in_lower_case": ("signature.ids_doubled", _before(header='<x xmlns="urn:x" id="ts"/>')),
    "ids_doubled_on_one_element": ("signature.ids_doubled", _before(body_attributes='wsu:Id="body" ID="body"')),
    "ids_doubled_inside_body": ("signature.ids_doubled", _before(operation_extra='<X ID="bst"/>')),
    # Altered after signing
    "body_altered": ("signature.invalid", _after("water-assets", "power-assets")),
    "content_altered": ("signature.invalid", _after(b64(CONTENT)[:8], "QUJDREVG")),
    "body_altered_and_its_digest": ("signature.invalid", _digest_of_altered_body),
    "timestamp_altered": ("signature.invalid", _after("08:00:00Z", "08:00:01Z")),
    "expires_altered": ("signature.invalid", _after("08:05:00Z", "08:05:01Z")),
    "signature_value_altered": ("signature.invalid", _after("<ds:SignatureValue>", "<ds:SignatureValue>AAAA")),
    "token_of_another": ("auth.sender_mismatch", _after(b64(WATER_DER), b64(POWER.certificate_der or b""))),
    # Time
    "stale": ("signature.stale", _before(created="2026-07-01T07:40:00Z", expires="2026-07-01T07:45:00Z")),
    "stale_without_expires": ("signature.stale", _before(created="2026-07-01T07:49:59Z", expires="")),
    "future": ("signature.future", _before(created="2026-07-01T08:05:01Z", expires="2026-07-01T08:06:00Z")),
    "window_too_long": ("signature.window", _before(expires="2026-07-01T08:10:01Z")),
    "expires_before_created": ("signature.window", _before(expires="2026-07-01T07:59:00Z")),
    "timestamp_missing": ("signature.timestamp_missing", _before(timestamp="", references=_BODY_ONLY)),
    "timestamp_without_created": (
        "signature.timestamp_missing",
        _before(timestamp='<wsu:Timestamp wsu:Id="ts"><wsu:Expires>2026-07-01T08:05:00Z</wsu:Expires></wsu:Timestamp>'),
    ),
    "timestamp_doubled": ("signature.header_refused", _before(security_extra='<wsu:Timestamp wsu:Id="ts2"/>')),
    "timestamp_not_utc": ("signature.timestamp_missing", _before(created="2026-07-01T16:00:00+08:00")),
    "timestamp_without_zone": ("signature.timestamp_missing", _before(created="2026-07-01T08:00:00")),
    "timestamp_of_the_last_year": (
        "signature.timestamp_missing", _before(created="9999-12-31T23:59:59Z", expires="")
    ),
    "timestamp_of_the_last_year_with_expires": (
        "signature.timestamp_missing", _before(created="9999-12-31T23:55:00Z", expires="9999-12-31T23:59:59Z")
    ),
    "timestamp_of_the_first_year": (
        "signature.stale", _before(created="0001-01-01T00:00:00Z", expires="0001-01-01T00:05:00Z")
    ),
    "timestamp_of_month_13": ("signature.timestamp_missing", _before(created="2026-13-01T08:00:00Z")),
    # XML
    "dtd": ("xml.dtd", lambda: b"<!DOCTYPE x>" + seal(template())),
    "entity_bomb": (
        "xml.dtd",
        lambda: b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + seal(template()).replace(b"m-1", b"&b;"),
    ),
    "comment_in_body": ("xml.comment_or_instruction", _after("m-1", "m-<!-- canonical form leaves this out -->1")),
    "instruction_in_header": ("xml.comment_or_instruction", _after("<s:Header>", "<s:Header><?x y?>")),
    "relative_namespace_in_body": ("xml.not_canonicalisable", _after("m-1", '<x xmlns="rel"/>')),
    "not_utf_8": ("xml.encoding", lambda: seal(template()).decode().encode("utf-16")),
    # The envelope
    "two_operations": ("signature.envelope", _before(body_extra='<SubmitDelivery xmlns="urn:yongtong:v1"/>')),
    "text_beside_operation": ("signature.envelope", _before(body_extra="text")),
    "operation_of_another_namespace": ("signature.envelope", _after('xmlns="urn:yongtong:v1"', 'xmlns="urn:other"')),
    "sender_doubled": ("signature.envelope", _before(operation_extra="<Sender>power</Sender>")),
    "sender_with_markup": ("signature.envelope", _before(sender="wa<x>t</x>er")),
    "soap_of_another_version": ("signature.envelope", _before(soap="{urn:soap}")),
    # Headers
    "second_security_header": ("signature.header_refused", _before(header=f'<q:Security xmlns:q="{WSSE[1:-1]}"/>')),
    "second_security_header_for_another_role": (
        "signature.header_refused",
        _before(header=f'<q:Security xmlns:q="{WSSE[1:-1]}" s:actor="urn:other"/>'),
    ),
    "security_header_for_another_role": (
        "signature.header_refused", _before(security_attributes='s:actor="urn:other"')
    ),
    "header_for_another_role": ("signature.header_refused", _before(header='<x xmlns="urn:x" s:actor="urn:next"/>')),
    "header_for_another_role_soap_1_2": (
        "signature.header_refused",
        _before(soap=SOAP12, header='<x xmlns="urn:x" s:role="urn:next"/>'),
    ),
    "must_understand_unknown_header": (
        "signature.header_refused",
        _before(header='<x xmlns="urn:x" s:mustUnderstand="1"/>'),
    ),
    "must_understand_spelt_true": (
        "signature.header_refused",
        _before(soap=SOAP12, header='<x xmlns="urn:x" s:mustUnderstand=" true "/>'),
    ),
    "username_token": ("signature.header_refused", _before(security_extra="<wsse:UsernameToken/>")),
    # The signature's shape
    "second_signature": ("signature.header_refused", _before(security_extra=f'<ds:Signature xmlns:ds="{DS[1:-1]}"/>')),
    "second_signature_in_body": ("signature.shape", _before(operation_extra=f'<q:Signature xmlns:q="{DS[1:-1]}"/>')),
    "object": ("signature.shape", _before(signature_extra='<ds:Object Id="o"><x xmlns="urn:x"/></ds:Object>')),
    "manifest": (
        "signature.shape",
        _before(
            references=reference("#body") + reference("#ts") + reference("#m"),
            signature_extra=f'<ds:Object><ds:Manifest Id="m">{reference("#body")}</ds:Manifest></ds:Object>',
        ),
    ),
    "body_referenced_twice": ("signature.shape", _before(references=_BODY_ONLY * 2 + _STAMP_ONLY)),
    "too_many_references": ("signature.too_many_references", _before(references=_MANY)),
    "reference_to_another_header": (
        "signature.reference_unknown",
        _before(header='<x xmlns="urn:x" wsu:Id="x"/>', references=_BODY_ONLY + _STAMP_ONLY + reference("#x")),
    ),
    "reference_to_nothing": ("signature.reference_unknown", _before(references=_BODY_ONLY + reference("#none"))),
    "reference_to_whole_document": ("signature.reference_unknown", _before(references=reference("") + _STAMP_ONLY)),
    "reference_to_a_web_page": (
        "signature.reference_unknown", _before(references=_BODY_ONLY + _STAMP_ONLY + reference("http://x.test/"))
    ),
    "reference_to_a_file": (
        "signature.reference_unknown", _before(references=_BODY_ONLY + _STAMP_ONLY + reference("file:///etc/passwd"))
    ),
    "reference_by_xpointer": (
        "signature.reference_unknown", _before(references=reference("#xpointer(id('body'))") + _STAMP_ONLY)
    ),
    # Transforms
    "no_transform": ("signature.transform_refused", _before(references=reference("#body", "") + _STAMP_ONLY)),
    "xpath_transform": (
        "signature.transform_refused",
        _before(
            references=reference("#body", transform("http://www.w3.org/TR/1999/REC-xpath-19991116",
                                                    "<ds:XPath>not(self::Sender)</ds:XPath>") + transform())
            + _STAMP_ONLY
        ),
    ),
    "xslt_transform": (
        "signature.transform_refused",
        _before(
            references=reference("#body", transform("http://www.w3.org/TR/1999/REC-xslt-19991116",
                                                    '<x:stylesheet xmlns:x="urn:xsl"/>') + transform()) + _STAMP_ONLY
        ),
    ),
    "c14n_with_comments": (
        "signature.transform_refused",
        _before(references=reference("#body", transform(EXCLUSIVE_C14N + "WithComments")) + _STAMP_ONLY),
    ),
    "inclusive_c14n": (
        "signature.transform_refused",
        _before(references=reference("#body", transform("http://www.w3.org/TR/2001/REC-xml-c14n-20010315"))
                + _STAMP_ONLY),
    ),
    "inclusive_c14n_of_signed_info": (
        "signature.transform_refused", _before(method="http://www.w3.org/TR/2001/REC-xml-c14n-20010315")
    ),
    "too_many_prefixes": (
        "signature.transform_refused",
        _before(references=reference("#body", transform(inside=prefix_list(" ".join(f"p{i}" for i in range(33)))))
                + _STAMP_ONLY),
    ),
    "enveloped_after_c14n": (
        "signature.transform_refused",
        _before(references=reference("#body", transform() + transform(ENVELOPED)) + _STAMP_ONLY),
    ),
    "enveloped_twice": (
        "signature.transform_refused",
        _before(references=reference("#body", transform(ENVELOPED) * 2 + transform()) + _STAMP_ONLY),
    ),
    "enveloped_on_token": (
        "signature.transform_refused",
        _before(references=_BODY_ONLY + _STAMP_ONLY + reference("#bst", transform(ENVELOPED) + transform())),
    ),
    "str_transform_on_body": (
        "signature.transform_refused",
        _before(
            references=reference("#body", _TOKEN_TRANSFORM) + _STAMP_ONLY
        ),
    ),
    "str_transform_on_token": (
        "signature.transform_refused",
        _before(references=_BODY_ONLY + _STAMP_ONLY + reference("#bst", _TOKEN_TRANSFORM)),
    ),
    "str_transform_without_token": (
        "signature.transform_refused",
        _before(**{**BARE, "references": _BODY_ONLY + _STAMP_ONLY + reference("#str", _TOKEN_TRANSFORM)},
                key_info=named(identifier(THUMBPRINT, NAMES.sha1))),
    ),
    "str_transform_to_inclusive_c14n": (
        "signature.transform_refused",
        _before(references=_BODY_ONLY + _STAMP_ONLY + reference("#str", _TOKEN_TRANSFORM.replace(
            EXCLUSIVE_C14N, "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"))),
    ),
    # Algorithms
    "digest_sha_1": (
        "signature.algorithm_refused", _before(references=reference("#body", None, _DSIG + "sha1") + _STAMP_ONLY)
    ),
    "digest_md5": (
        "signature.algorithm_refused", _before(references=reference("#body", None, _MORE + "md5") + _STAMP_ONLY)
    ),
    "rsa_sha_1": (
        "signature.algorithm_refused", _before(WATER_RSA, token_xml=token(WATER_RSA), suite=_DSIG + "rsa-sha1")
    ),
    "rsa_md5": ("signature.algorithm_refused", _before(WATER_RSA, token_xml=token(WATER_RSA), suite=_MORE + "rsa-md5")),
    "ecdsa_sha_1": ("signature.algorithm_refused", _before(suite=_MORE + "ecdsa-sha1")),
    "hmac_sha_1_with_public_key": ("signature.algorithm_refused", _before(suite=_DSIG + "hmac-sha1")),
    "hmac_sha_256_with_public_key": ("signature.algorithm_refused", _before(suite=_MORE + "hmac-sha256")),
    "hmac_truncated_to_nothing": (
        "signature.shape",
        _before(suite=_MORE + "hmac-sha256", suite_parameters="<ds:HMACOutputLength>0</ds:HMACOutputLength>"),
    ),
    "rsa_name_on_ec_key": ("signature.algorithm_not_of_key", _before(suite=RSA_SHA256)),
    "ec_name_on_rsa_key": ("signature.algorithm_not_of_key", _before(WATER_RSA, token_xml=token(WATER_RSA))),
    "rsa_1024": ("auth.certificate_unknown", _rsa_1024),
    # The key
    "key_value_only": ("signature.key_reference_refused", _before(**BARE, key_info=_KEY_VALUE)),
    "key_name_only": ("signature.key_reference_refused", _before(**BARE, key_info="<ds:KeyName>water</ds:KeyName>")),
    "retrieval_method": ("signature.key_reference_refused", _before(**BARE, key_info='<ds:RetrievalMethod URI="#k"/>')),
    "key_info_empty": ("signature.key_reference_refused", _before(**BARE, key_info="")),
    "pki_path": ("signature.key_reference_refused", _before(token_xml=token(value_type=X509V3[:-6] + "X509PKIPathv1"))),
    "two_certificates": (
        "signature.key_reference_refused", _before(**BARE, key_info=f"<ds:X509Data>{CERTIFICATE * 2}</ds:X509Data>")
    ),
    "token_missing": ("signature.key_reference_refused", _before(**BARE)),
    "token_is_not_the_one_named": (
        "signature.key_reference_refused", _before(key_info=named(f"<ds:X509Data>{CERTIFICATE}</ds:X509Data>"))
    ),
    "certificate_and_issuer_serial_disagree": (
        "auth.certificate_unknown",
        _before(**BARE, key_info=f"<ds:X509Data>{CERTIFICATE}{ISSUER_SERIAL}</ds:X509Data>".replace(
            str(NAMES.serial), str(NAMES.serial + 1))),
    ),
    "thumbprint_of_nobody": (
        "auth.certificate_unknown", _before(**BARE, key_info=named(identifier(THUMBPRINT, bytes(20))))
    ),
    "thumbprint_of_another_key": (
        "signature.invalid", _before(STRANGER, **BARE, key_info=named(identifier(THUMBPRINT, NAMES.sha1)))
    ),
    "ski_of_another_key": (
        "signature.invalid", _before(STRANGER, **BARE, key_info=named(identifier(SKI, NAMES.ski or b"")))
    ),
    "token_of_the_same_key": ("auth.certificate_unknown", _before(token_xml=token(WATER_AGAIN))),
    "certificate_of_the_same_key": (
        "auth.certificate_unknown",
        _before(**BARE, key_info="<ds:X509Data><ds:X509Certificate>"
                f"{b64(WATER_AGAIN.certificate_der or b'')}</ds:X509Certificate></ds:X509Data>"),
    ),
    "certificate_unknown": ("auth.certificate_unknown", _before(STRANGER, token_xml=token(STRANGER))),
    "certificate_expired": ("auth.certificate_expired", _before(EXPIRED, token_xml=token(EXPIRED))),
    "certificate_revoked": ("auth.certificate_revoked", _before(REVOKED, token_xml=token(REVOKED))),
    "certificate_for_connection_only": (
        "auth.certificate_not_for_signing", _before(CONNECTION, token_xml=token(CONNECTION))
    ),
    "sender_of_another_bureau": ("auth.sender_mismatch", _before(sender="power")),
    "signed_with_another_key": ("signature.invalid", _before(STRANGER)),
    # The attachment
    "include_not_sole_child": ("signature.include_refused", _before(content="<x/>" + include())),
    "include_beside_text": ("signature.include_refused", _before(content="QQ==" + include())),
    "include_twice": ("signature.include_refused", _before(content=include() * 2)),
    "include_elsewhere": ("signature.include_refused", _before(feed=include())),
    "include_in_header": ("signature.include_refused", _before(header=include(), content=include())),
    "include_by_http": ("signature.include_refused", _before(content=include("http://x.test/content"))),
    "include_by_file": ("signature.include_refused", _before(content=include("file:///etc/passwd"))),
    "include_without_attachment": ("signature.attachment_mismatch", _before(content=include())),
    # The content
    "content_digest_of_other_content": ("signature.content_digest", _before(content=b64(CONTENT + b"x"))),
    "content_not_base64": ("signature.content_not_base64", _before(content="%%%%")),
}  # fmt: skip


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in GOOD.items():
        (folder / f"good.{name}.xml").write_bytes(make())
    for name, (code, attack) in ATTACKS.items():
        (folder / f"{code}.{name}.xml").write_bytes(attack())
