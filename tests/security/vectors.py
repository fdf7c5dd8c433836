"""Signed envelopes good and spoilt, made from scratch, and a signer that signs whatever it is told to.

`seal` is not the bus's own signer: it fills in any template, weak algorithms and odd transforms included, so that each
attack in `attacks.py` is a properly signed message wherever the attacker could have had one.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from lxml import etree

from security.authenticate import TrustList
from security.keys import SigningKey, generate, spki
from security.message import EnrolledCertificate, Principal
from security.pki import enrolled, issue, make_ca, names_of
from security.xmldsig import (
    BASE64,
    DS,
    EC,
    ENVELOPED,
    EXCLUSIVE_C14N,
    SHA256,
    SKI,
    STR_TRANSFORM,
    THUMBPRINT,
    WSSE,
    WSU,
    X509V3,
)

NOW = datetime(2026, 7, 1, 8, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SOAP11 = "{http://schemas.xmlsoap.org/soap/envelope/}"
SOAP12 = "{http://www.w3.org/2003/05/soap-envelope}"
YT = "{urn:yongtong:v1}"
XOP = "{http://www.w3.org/2004/08/xop/include}"
ECDSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
CONTENT = "编号,类型\nLD001,单臂路灯\n".encode() * 20
CONTENT_ID = "content@water"
CA = make_ca("Test CA", NOW)


def holder(bureau: str, kind: Any = "ES256", use: Any = "signing", until: datetime = NOW + DAY) -> SigningKey:
    """A key with a certificate for a bureau."""
    key = generate(kind)
    return key.with_certificate(issue(CA, bureau, key.public_key, use, NOW - 3 * DAY, until))


def as_enrolled(key: SigningKey, bureau: str, use: Any = "signing", **more: Any) -> EnrolledCertificate:
    """What the registry keeps of a key's certificate."""
    assert key.certificate_der is not None
    kept = enrolled(key.certificate_der, bureau, use)
    return msgspec.structs.replace(kept, **more)


WATER, WATER_RSA, POWER = holder("water"), holder("water", "RS256"), holder("power")
# The key that is enrolled, under a certificate that is not.
WATER_AGAIN = WATER.with_certificate(issue(CA, "water", WATER.public_key, "signing", NOW - 3 * DAY, NOW + DAY))
STRANGER, CONNECTION = holder("water"), holder("water", use="connection")
EXPIRED, REVOKED = holder("water", until=NOW - DAY), holder("water")
ENROLLED = as_enrolled(WATER, "water")
TRUST = TrustList((
    ENROLLED, as_enrolled(WATER_RSA, "water"), as_enrolled(POWER, "power"), as_enrolled(EXPIRED, "water"),
    as_enrolled(CONNECTION, "water", "connection"), as_enrolled(REVOKED, "water", revoked_at=NOW - DAY),
))  # fmt: skip
SIGNER = Principal("water", ENROLLED.fingerprint)


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def token(key: SigningKey = WATER, value_type: str = X509V3) -> str:
    assert key.certificate_der is not None
    return (
        f'<wsse:BinarySecurityToken wsu:Id="bst" EncodingType="{BASE64}" ValueType="{value_type}">'
        f"{b64(key.certificate_der)}</wsse:BinarySecurityToken>"
    )


def by_token() -> str:
    return f'<wsse:SecurityTokenReference wsu:Id="str"><wsse:Reference URI="#bst" ValueType="{X509V3}"/>' \
           "</wsse:SecurityTokenReference>"  # fmt: skip


def transform(uri: str = EXCLUSIVE_C14N, inside: str = "") -> str:
    return f'<ds:Transform Algorithm="{uri}">{inside}</ds:Transform>'


def prefix_list(prefixes: str) -> str:
    return f'<ec:InclusiveNamespaces xmlns:ec="{EC[1:-1]}" PrefixList="{prefixes}"/>'


def reference(uri: str, transforms: str | None = None, digest: str = SHA256) -> str:
    return (
        f'<ds:Reference URI="{uri}"><ds:Transforms>{transform() if transforms is None else transforms}</ds:Transforms>'
        f'<ds:DigestMethod Algorithm="{digest}"/><ds:DigestValue/></ds:Reference>'
    )


def include(href: str = f"cid:{CONTENT_ID}") -> str:
    return f'<xop:Include xmlns:xop="{XOP[1:-1]}" href="{href}"/>'


def template(
    *,
    soap: str = SOAP11,
    sender: str = "water",
    feed: str = "water-assets",
    content: str | None = None,
    operation_extra: str = "",
    envelope_attributes: str = "",
    header: str = "",
    security_attributes: str = "",
    security_extra: str = "",
    token_xml: str | None = None,
    created: str = "2026-07-01T08:00:00Z",
    expires: str = "2026-07-01T08:05:00Z",
    timestamp: str | None = None,
    suite: str = ECDSA_SHA256,
    suite_parameters: str = "",
    method: str = EXCLUSIVE_C14N,
    method_parameters: str = "",
    references: str | None = None,
    key_info: str | None = None,
    signature_extra: str = "",
    body_attributes: str = 'wsu:Id="body"',
    body_extra: str = "",
) -> str:
    """An envelope to be sealed; each argument replaces one piece of a good one."""
    stamp = f'<wsu:Timestamp wsu:Id="ts"><wsu:Created>{created}</wsu:Created>'
    stamp += f"<wsu:Expires>{expires}</wsu:Expires></wsu:Timestamp>" if expires else "</wsu:Timestamp>"
    references = reference("#body") + reference("#ts") + reference("#bst") if references is None else references
    return f"""<s:Envelope xmlns:s="{soap[1:-1]}" xmlns:wsu="{WSU[1:-1]}" {envelope_attributes}><s:Header>{header}
<wsse:Security xmlns:wsse="{WSSE[1:-1]}" s:mustUnderstand="1" {security_attributes}>
{token() if token_xml is None else token_xml}{stamp if timestamp is None else timestamp}
<ds:Signature xmlns:ds="{DS[1:-1]}"><ds:SignedInfo>
<ds:CanonicalizationMethod Algorithm="{method}">{method_parameters}</ds:CanonicalizationMethod>
<ds:SignatureMethod Algorithm="{suite}">{suite_parameters}</ds:SignatureMethod>{references}</ds:SignedInfo>
<ds:SignatureValue/><ds:KeyInfo>{by_token() if key_info is None else key_info}</ds:KeyInfo>{signature_extra}
</ds:Signature>{security_extra}</wsse:Security></s:Header><s:Body {body_attributes}>
<SubmitDelivery xmlns="urn:yongtong:v1"><Sender>{sender}</Sender><Recipient>bus</Recipient><MessageId>m-1</MessageId>
<Feed>{feed}</Feed><ContentType>text/csv</ContentType>
<ContentDigest algorithm="SHA-256">{hashlib.sha256(CONTENT).hexdigest()}</ContentDigest>
<Content>{b64(CONTENT) if content is None else content}</Content>{operation_extra}</SubmitDelivery>{body_extra}
</s:Body></s:Envelope>"""


def seal(xml: str, key: SigningKey = WATER, expand: bytes | None = None) -> bytes:
    """The template with its digests and its signature filled in, by whatever algorithms it names.

    expand: digest the Body with the Include replaced by the base64 of these octets, as some toolkits do
    """
    root = etree.fromstring(xml)
    signed_info = root.find(f".//{DS}SignedInfo")
    assert signed_info is not None
    for each in signed_info.iter(DS + "Reference"):
        digest_value, digest_method = each.find(DS + "DigestValue"), each.find(DS + "DigestMethod")
        assert digest_value is not None
        assert digest_method is not None
        octets = _referenced(root, each, expand)
        name = str(digest_method.get("Algorithm")).rsplit("#")[-1]
        digest_value.text = b64(hashlib.new(name if name in ("sha1", "md5") else "sha256", octets).digest())
    method, suite = signed_info[0], str(signed_info[1].get("Algorithm"))
    value = root.find(f".//{DS}SignatureValue")
    assert value is not None
    value.text = b64(_signed(suite, key, c14n(signed_info, str(method.get("Algorithm")), prefixes_in(method))))
    return etree.tostring(root, encoding="utf-8")


def c14n(element: etree._Element, algorithm: str, prefixes: list[str]) -> bytes:
    return etree.tostring(
        element, method="c14n", exclusive="exc-c14n" in algorithm, with_comments="WithComments" in algorithm,
        with_tail=False, inclusive_ns_prefixes=prefixes or None,
    )  # fmt: skip


def prefixes_in(method: etree._Element) -> list[str]:
    return " ".join(str(e.get("PrefixList")) for e in method.iter(EC + "InclusiveNamespaces")).split()


def _referenced(root: etree._Element, each: etree._Element, expand: bytes | None) -> bytes:
    """The octets under one reference, found by id as other implementations do; nothing where there is no such id."""
    identifier = str(each.get("URI")).removeprefix("#")
    target = next((e for e in root.iter() if identifier in (e.get(WSU + "Id"), e.get("Id"), e.get("ID"), e.get("id"),
                  e.get("{http://www.w3.org/XML/1998/namespace}id"))), None)  # fmt: skip
    if target is None:
        return b""
    method = list(each.iter(DS + "Transform"))[-1:]
    algorithm = str(method[0].get("Algorithm")) if method else ""
    if algorithm == STR_TRANSFORM:
        bst = root.find(f".//{WSSE}BinarySecurityToken")
        if bst is None:
            return b""
        return c14n(bst, EXCLUSIVE_C14N, []).replace(b"BinarySecurityToken ", b'BinarySecurityToken xmlns="" ', 1)
    octets = c14n(target, algorithm, prefixes_in(method[0]) if method else [])
    if expand is not None:
        octets = octets.replace(c14n(etree.fromstring(include()), EXCLUSIVE_C14N, []), b64(expand).encode())
    return octets


def _signed(suite: str, key: SigningKey, octets: bytes) -> bytes:
    private_key = key.issuing_key()
    if "hmac" in suite:  # the attack: the public key, which everybody has, as the secret
        return hmac.new(spki(key.public_key), octets, "sha1" if "sha1" in suite else "sha256").digest()
    if isinstance(private_key, rsa.RSAPrivateKey) and "sha1" in suite:
        return private_key.sign(octets, padding.PKCS1v15(), hashes.SHA1())
    if isinstance(private_key, ec.EllipticCurvePrivateKey) and "sha1" in suite:
        return private_key.sign(octets, ec.ECDSA(hashes.SHA1()))
    return key.sign(octets)


# Key references other than the token. Each names WATER's certificate.
WATER_DER = ENROLLED.der
NAMES = names_of(WATER_DER)
ISSUER_SERIAL = (
    f"<ds:X509IssuerSerial><ds:X509IssuerName>CN=Test CA</ds:X509IssuerName>"
    f"<ds:X509SerialNumber>{NAMES.serial}</ds:X509SerialNumber></ds:X509IssuerSerial>"
)
CERTIFICATE = f"<ds:X509Certificate>{b64(WATER_DER)}</ds:X509Certificate>"
_SKI = f"<ds:X509SKI>{b64(NAMES.ski or b'')}</ds:X509SKI>"


def named(inside: str) -> str:
    return f'<wsse:SecurityTokenReference wsu:Id="str">{inside}</wsse:SecurityTokenReference>'


def identifier(value_type: str, octets: bytes) -> str:
    return f'<wsse:KeyIdentifier ValueType="{value_type}" EncodingType="{BASE64}">{b64(octets)}</wsse:KeyIdentifier>'


BARE: Any = {"token_xml": "", "references": reference("#body") + reference("#ts")}

GOOD: dict[str, Callable[[], bytes]] = {
    "ecdsa_p256": lambda: seal(template()),
    "soap_1_2": lambda: seal(template(soap=SOAP12)),
    "token_not_signed": lambda: seal(template(references=reference("#body") + reference("#ts"))),
    "without_expires": lambda: seal(template(expires="")),
    "issuer_serial": lambda: seal(template(**BARE, key_info=named(f"<ds:X509Data>{ISSUER_SERIAL}</ds:X509Data>"))),
    "x509_ski": lambda: seal(template(**BARE, key_info=named(f"<ds:X509Data>{_SKI}</ds:X509Data>"))),
    "x509_certificate": lambda: seal(template(**BARE, key_info=f"<ds:X509Data>{CERTIFICATE}</ds:X509Data>")),
    "certificate_and_issuer_serial": lambda: seal(
        template(**BARE, key_info=named(f"<ds:X509Data>{ISSUER_SERIAL}{CERTIFICATE}</ds:X509Data>"))
    ),
    "ski_identifier": lambda: seal(template(**BARE, key_info=named(identifier(SKI, NAMES.ski or b"")))),
    "thumbprint": lambda: seal(template(**BARE, key_info=named(identifier(THUMBPRINT, NAMES.sha1)))),
    "key_reference_signed": lambda: seal(
        template(references=reference("#body") + reference("#ts") + reference("#str"))
    ),
    "str_transform": lambda: seal(
        template(
            references=reference("#body") + reference("#ts") + reference("#str", transform(STR_TRANSFORM, (
                "<wsse:TransformationParameters><ds:CanonicalizationMethod "
                f'Algorithm="{EXCLUSIVE_C14N}"/></wsse:TransformationParameters>'
            )))
        )
    ),
    "enveloped_before_c14n": lambda: seal(
        template(references=reference("#body", transform(ENVELOPED) + transform())
                 + reference("#ts", transform(ENVELOPED) + transform()))
    ),
    "plain_id": lambda: seal(template(body_attributes='Id="body"')),
    "xml_id": lambda: seal(template(body_attributes='xml:id="body"')),
    "inherited_prefixes": lambda: seal(
        template(
            envelope_attributes='xmlns:a="urn:a" xmlns:b="urn:b" xmlns:c="urn:c"',
            references=reference("#body", transform(inside=prefix_list("a b #default"))) + reference("#ts"),
            method_parameters=prefix_list("c s"),
        )
    ),
    "upper_case_id": lambda: seal(template(body_attributes='ID="body"')),
    "lower_case_id": lambda: seal(template(body_attributes='id="body"')),
    "default_namespace_named": lambda: seal(
        template(
            envelope_attributes='xmlns="urn:d"',
            references=reference("#body", transform(inside=prefix_list("#default")))
            + reference("#ts", transform(inside=prefix_list("#default s"))),
            method_parameters=prefix_list("#default"),
        )
    ),
    "header_that_nobody_must_understand": lambda: seal(template(header='<x xmlns="urn:x" s:mustUnderstand="0"/>')),
}  # fmt: skip
