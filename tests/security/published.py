"""Other people's signatures taken apart in their primitives: canonical form, digest, signature value.

The bus reads one shape of XML Signature. This reader knows the many shapes of the published vectors, enveloped and
enveloping, and hands each primitive to the function that the bus uses; what the bus has no function for (inclusive
canonical form, SHA-1) is done beside it, so that the rest of the vector still counts.
"""

import base64
import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from lxml import etree

from security.errors import Refusal
from security.keys import verify_signature
from security.xml import canonical
from security.xmldsig import DS, EC, ENVELOPED, EXCLUSIVE_C14N, SHA256, ids_of

DS11: Final = "{http://www.w3.org/2009/xmldsig11#}"
INCLUSIVE_C14N: Final = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
XPATH: Final = "http://www.w3.org/TR/1999/REC-xpath-19991116"
BASE64: Final = "http://www.w3.org/2000/09/xmldsig#base64"
OURS: Final = {
    "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256": "ES256",
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256": "RS256",
    "http://www.w3.org/2007/05/xmldsig-more#sha256-rsa-MGF1": "PS256",
}
NOT_OURS: Final = "not ours"
_HASHES: Final = ("sha1", "sha224", "sha256", "sha384", "sha512")
_WITHOUT_SIGNATURE: Final = "not(ancestor-or-self::dsig:Signature)"


class Taken(msgspec.Struct, frozen=True):
    """What a signature came to in its primitives: `right`, `wrong`, a refusal's code, or `not ours`.

    value:   of the signature value, by a key at hand; not ours where the bus takes no such algorithm or no such key
    digests: of each reference; not ours where its target lies elsewhere or its transforms are more than canonical forms
    ours:    whether a reference is digested as the bus does it: by our canonical form and SHA-256
    """

    algorithm: str
    value: str
    digests: tuple[str, ...]
    ours: tuple[bool, ...]


def taken_apart(octets: bytes, path: Path) -> Taken | None:
    """The first signature in the octets of a file; None where there is none, or nothing in it."""
    root = etree.fromstring(octets)
    signature = next(root.iter(DS + "Signature"), None)
    signed_info = None if signature is None else signature.find(DS + "SignedInfo")
    if signature is None or signed_info is None:
        return None
    algorithm = _uri(signed_info, DS + "SignatureMethod")
    references = signed_info.findall(DS + "Reference")
    value = _value(signature, signed_info, OURS[algorithm], path) if algorithm in OURS else NOT_OURS
    digests = tuple(_digest(signature, reference) for reference in references)
    return Taken(algorithm, value, digests, tuple(map(_is_ours, references)))


def _is_ours(reference: etree._Element) -> bool:
    last = [step.get("Algorithm") for step in reference.iter(DS + "Transform")][-1:]
    return last == [EXCLUSIVE_C14N] and _uri(reference, DS + "DigestMethod") == SHA256


def _value(signature: etree._Element, signed_info: etree._Element, algorithm: str, path: Path) -> str:
    octets = _canonical(signed_info, signed_info.find(DS + "CanonicalizationMethod"))
    value = base64.b64decode(signature.findtext(DS + "SignatureValue", ""))
    said = {_said_of(key, algorithm, value, octets) for key in _keys(signature, path)}
    return next((word for word in ("right", "signature.key_not_accepted", "wrong") if word in said), NOT_OURS)


def _said_of(key: Any, algorithm: str, value: bytes, octets: bytes) -> str:
    """What the bus says of the value under this key; that it does not take the key only where the value is right."""
    try:
        verify_signature(key, algorithm, value, octets)
    except Refusal as refusal:
        weak = refusal.code == "signature.key_not_accepted" and _holds(key, algorithm, value, octets)
        return refusal.code if weak else "wrong"
    return "right"


def _holds(key: Any, algorithm: str, value: bytes, octets: bytes) -> bool:
    """The same beside the bus, by any key."""
    with contextlib.suppress(InvalidSignature):
        if isinstance(key, rsa.RSAPublicKey) and algorithm == "RS256":
            key.verify(value, octets, padding.PKCS1v15(), hashes.SHA256())
            return True
        if isinstance(key, ec.EllipticCurvePublicKey) and algorithm == "ES256":
            half = len(value) // 2
            r, s = int.from_bytes(value[:half], "big"), int.from_bytes(value[half:], "big")
            key.verify(encode_dss_signature(r, s), octets, ec.ECDSA(hashes.SHA256()))
            return True
    return False


def _digest(signature: etree._Element, reference: etree._Element) -> str:
    """Of what the reference names. Takes the signature out of its document where a transform says so."""
    uri, method = reference.get("URI", ""), _uri(reference, DS + "DigestMethod").rsplit("#")[-1]
    transforms = list(reference.iter(DS + "Transform"))
    target = _target(signature, uri)
    if target is None or method not in _HASHES:
        return NOT_OURS
    try:
        octets = _transformed(signature, target, transforms)
    except Refusal as refusal:
        return refusal.code
    if octets is None:
        return NOT_OURS
    stated = base64.b64decode("".join(reference.findtext(DS + "DigestValue", "").split()))
    return "right" if hashlib.new(method, octets).digest() == stated else "wrong"


def _transformed(signature: etree._Element, target: etree._Element, steps: list[etree._Element]) -> bytes | None:
    octets: bytes | None = None
    for step in steps:
        algorithm = step.get("Algorithm", "")
        if algorithm == ENVELOPED or (algorithm == XPATH and _WITHOUT_SIGNATURE in "".join(step.itertext())):
            _take_out(signature)
        elif algorithm == BASE64:
            octets = base64.b64decode("".join(target.itertext(etree.Element)))  # type: ignore[call-overload]
        elif algorithm in (EXCLUSIVE_C14N, INCLUSIVE_C14N):
            octets = _canonical(target, step)
        else:
            return None
    return _canonical(target, None) if octets is None else octets


def _target(signature: etree._Element, uri: str) -> etree._Element | None:
    root = signature.getroottree().getroot()
    if uri == "":
        return root
    name = uri.removeprefix("#xpointer(id('").removesuffix("'))") if "xpointer" in uri else uri[1:]
    ids = {value: element for element in root.iter(etree.Element) for value in (*ids_of(element), *_more_ids(element))}
    return ids.get(name) if uri.startswith("#") else None


def _more_ids(element: etree._Element) -> Iterator[str]:
    if (value := element.get("AssertionID")) is not None:  # SAML 1.1
        yield value


def _take_out(signature: etree._Element) -> None:
    """The enveloped-signature transform, for good: text that follows the signature stays."""
    parent = signature.getparent()
    if parent is None:
        return
    before, tail = signature.getprevious(), signature.tail or ""
    if before is not None:
        before.tail = (before.tail or "") + tail
    else:
        parent.text = (parent.text or "") + tail
    signature.tail = None
    parent.remove(signature)


def _canonical(element: etree._Element, method: etree._Element | None) -> bytes:
    """By our own function where the method is exclusive; else beside it."""
    algorithm = INCLUSIVE_C14N if method is None else method.get("Algorithm", "")
    if algorithm == EXCLUSIVE_C14N:
        assert method is not None
        prefixes = [listed.get("PrefixList", "") for listed in method.iter(EC + "InclusiveNamespaces")]
        return canonical(element, " ".join(prefixes).split())
    # lxml puts xmlns="" into the inclusive form of a part; of a document of its own it does not
    alone = etree.fromstring(etree.tostring(element, with_tail=False))
    return etree.tostring(alone, method="c14n", with_comments="WithComments" in algorithm)


def _uri(parent: etree._Element, tag: str) -> str:
    found = parent.find(tag)
    return "" if found is None else found.get("Algorithm", "")


# Keys: in the message as its authors put them, in a file beside it, or in the folder of keys ------------------------


def _keys(signature: etree._Element, path: Path) -> Iterator[Any]:
    """Every key at hand, whether the bus would take it or not."""
    for element in signature.iter(DS + "X509Certificate"):
        yield x509.load_der_x509_certificate(_octets(element)).public_key()
    for element in signature.iter(DS11 + "DEREncodedKeyValue"):
        yield serialization.load_der_public_key(_octets(element))
    for numbers in signature.iter(DS + "RSAKeyValue"):
        modulus, exponent = (_number(numbers, DS + name) for name in ("Modulus", "Exponent"))
        yield rsa.RSAPublicNumbers(exponent, modulus).public_key()
    beside = [*path.parent.glob("*.pem"), *path.parent.glob("keys/*.crt"), *(path.parent.parent / "keys").glob("*.pem")]
    for file in sorted(beside):
        yield _key_of(file.read_bytes())


def _key_of(octets: bytes) -> Any:
    if b"BEGIN PUBLIC KEY" in octets:
        return serialization.load_pem_public_key(octets)
    body = octets.partition(b"-----BEGIN CERTIFICATE-----")[2].partition(b"-----END")[0]
    return x509.load_der_x509_certificate(base64.b64decode(body) or octets).public_key()


def _number(parent: etree._Element, tag: str) -> int:
    found = parent.find(tag)
    assert found is not None
    return int.from_bytes(_octets(found), "big")


def _octets(element: etree._Element) -> bytes:
    return base64.b64decode("".join((element.text or "").split()))
