"""What stands in one ds:Signature, read strictly: which algorithm, which references, which key is named.

XML Signature 1.1 is a language in which a signature can say almost anything; a bus needs one sentence of it. So each
element is expected at its place with its attributes, and anything else is refused by name. Nothing is verified here.
"""

import base64
import re
from typing import Final

import msgspec
from lxml import etree

from security.errors import Refusal
from security.keys import Algorithm
from security.pki import issuer_from_text, names_of
from security.suites import SHA256, XmlSuites, xml_digest, xml_signatures

DS: Final = "{http://www.w3.org/2000/09/xmldsig#}"
EC: Final = "{http://www.w3.org/2001/10/xml-exc-c14n#}"
WSSE: Final = "{http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd}"
WSU: Final = "{http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd}"

EXCLUSIVE_C14N: Final = "http://www.w3.org/2001/10/xml-exc-c14n#"
ENVELOPED: Final = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_TOKENS: Final = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-x509-token-profile-1.0#"
X509V3: Final = _TOKENS + "X509v3"
SKI: Final = _TOKENS + "X509SubjectKeyIdentifier"
_SECURITY: Final = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-message-security-1.0#"
BASE64: Final = _SECURITY + "Base64Binary"
STR_TRANSFORM: Final = _SECURITY + "STR-Transform"
THUMBPRINT: Final = "http://docs.oasis-open.org/wss/oasis-wss-soap-message-security-1.1#ThumbprintSHA1"

STANDARD: Final = XmlSuites()
MAX_REFERENCES: Final = 12
MAX_PREFIXES: Final = 32
_ID_ATTRIBUTES: Final = frozenset((WSU + "Id", "Id", "ID", "id", "{http://www.w3.org/XML/1998/namespace}id"))


class KeyReference(msgspec.Struct, frozen=True):
    """What a message says of the key it was signed with: a claim, to be compared with enrolled certificates.

    der:             a certificate carried in the message
    issuer, serial:  an issuer's name as RFC 4514 text, and the serial number
    ski:             subject key identifier
    thumbprint_sha1: SHA-1 of a certificate; a hint by which to find an enrolled one, never a proof
    """

    der: bytes | None = None
    issuer: str | None = None
    serial: int | None = None
    ski: bytes | None = None
    thumbprint_sha1: bytes | None = None

    def fits(self, certificate_der: bytes) -> bool:
        """Whether everything said is true of this certificate."""
        names = names_of(certificate_der)
        return (
            self.der in (None, certificate_der)
            and (self.issuer is None or issuer_from_text(self.issuer) == names.issuer)
            and self.serial in (None, names.serial)
            and self.ski in (None, names.ski)
            and self.thumbprint_sha1 in (None, names.sha1)
        )


class Reference(msgspec.Struct, frozen=True):
    """One ds:Reference: the id it names, how the part becomes octets, and their digest by the signature's hash.

    transforms: algorithm URIs in order; prefixes: of the exclusive canonicalisation's InclusiveNamespaces
    """

    id: str
    transforms: tuple[str, ...]
    prefixes: tuple[str, ...]
    digest: bytes


class Signature(msgspec.Struct, frozen=True):
    """A ds:Signature that has the one shape we read. algorithm: as the message says; the key has to agree.

    token_reference: the wsse:SecurityTokenReference, if the key is named by one
    token_id:        the id of the BinarySecurityToken that it points to, if it does
    """

    signed_info: etree._Element
    algorithm: Algorithm
    prefixes: tuple[str, ...]
    references: tuple[Reference, ...]
    value: bytes
    key: KeyReference
    token_reference: etree._Element | None
    token_id: str | None


def read_signature(signature: etree._Element, suites: XmlSuites | None = None) -> Signature:
    """The signature, if it says nothing but what is allowed. suites: the names that SM2 and SM3 go by.

    Raises Refusal: `signature.shape`, `signature.algorithm_refused`, `signature.hash_not_of_suite`,
    `signature.transform_refused`, `signature.too_many_references`, `signature.key_reference_refused`.
    """
    suites = suites or STANDARD
    # (1) SignedInfo, SignatureValue, KeyInfo, and no ds:Object: what an Object holds is signed by nobody's intention.
    signed_info, value, key_info = children(signature, DS + "SignedInfo", DS + "SignatureValue", DS + "KeyInfo")
    # (2) One canonicalisation method, one signature algorithm, at least one reference.
    parts = list(signed_info)
    if len(parts) < 3:
        raise Refusal("signature.shape", "SignedInfo")
    method, signature_method, *references = parts
    if len(references) > MAX_REFERENCES:
        raise Refusal("signature.too_many_references", f"{len(references)} > {MAX_REFERENCES}")
    canonicalisation, prefixes = _canonicalisation(method, DS + "CanonicalizationMethod")
    if canonicalisation != EXCLUSIVE_C14N:
        raise Refusal("signature.transform_refused", _short(canonicalisation))
    algorithm = _algorithm(signature_method, suites)
    key, token_reference, token_id = _key_reference(key_info)
    return Signature(
        signed_info=signed_info,
        algorithm=algorithm,
        prefixes=prefixes,
        references=tuple(_reference(reference, algorithm, suites) for reference in references),
        value=octets_of(value),
        key=key,
        token_reference=token_reference,
        token_id=token_id,
    )


def children(element: etree._Element, *names: str) -> list[etree._Element]:
    """The children of element, which must be exactly these, in this order. Raises Refusal `signature.shape`."""
    found = list(element)
    if [child.tag for child in found] != list(names):
        raise Refusal("signature.shape", etree.QName(element).localname)
    return found


def ids_of(element: etree._Element) -> list[str]:
    """Every id of one element: wsu:Id, Id, ID, id and xml:id are one set to us, whatever a toolkit reads."""
    return [str(value) for name, value in element.items() if name in _ID_ATTRIBUTES]


def unbase64(text: str) -> bytes:
    """The octets of xs:base64Binary, which may be broken by white space. Raises ValueError for anything else."""
    return base64.b64decode(b"".join(text.encode("ascii").split()), validate=True)


def octets_of(element: etree._Element) -> bytes:
    """The octets of an element that holds base64 and nothing else. Raises Refusal `signature.shape`."""
    if len(element):
        raise Refusal("signature.shape", etree.QName(element).localname)
    try:
        return unbase64(element.text or "")
    except ValueError as problem:
        raise Refusal("signature.shape", etree.QName(element).localname) from problem


def attribute(element: etree._Element, name: str) -> str:
    """The one attribute that element may have beside none. Raises Refusal `signature.shape` for any other."""
    if element.keys() != [name]:
        raise Refusal("signature.shape", etree.QName(element).localname)
    return element.get(name, "")


def _algorithm(method: etree._Element, suites: XmlSuites) -> Algorithm:
    """The signature algorithm. SHA-1, MD5 and every HMAC end here: an HMAC keyed with a public key is anybody's."""
    # A child would be HMACOutputLength, or parameters of PSS, whose hash and salt are fixed by its name here.
    if method.tag != DS + "SignatureMethod" or len(method):
        raise Refusal("signature.shape", "SignatureMethod")
    uri = attribute(method, "Algorithm")
    algorithm = xml_signatures(suites).get(uri)
    if algorithm is None:
        raise Refusal("signature.algorithm_refused", _short(uri))
    return algorithm


def _reference(reference: etree._Element, algorithm: Algorithm, suites: XmlSuites) -> Reference:
    """One reference. Only `#id`: no XPointer, no file, no address, and never the empty URI that means the document."""
    if reference.tag != DS + "Reference" or not {"URI", "Id"}.issuperset(reference.keys()):
        raise Refusal("signature.shape", "Reference")
    uri = reference.get("URI", "")
    if len(uri) < 2 or uri[0] != "#" or "(" in uri:
        raise Refusal("signature.reference_unknown", _short(uri))
    transforms, method, value = children(reference, DS + "Transforms", DS + "DigestMethod", DS + "DigestValue")
    digest_uri = attribute(method, "Algorithm")
    if digest_uri != xml_digest(suites, algorithm) or len(method):
        known = digest_uri in (SHA256, suites.sm3_digest)
        code = "signature.hash_not_of_suite" if known else "signature.algorithm_refused"
        raise Refusal(code, f"{_short(digest_uri)} beside {algorithm}" if known else _short(digest_uri))
    steps = [_canonicalisation(transform, DS + "Transform") for transform in transforms]
    prefixes = steps[-1][1] if steps else ()
    if any(step[1] for step in steps[:-1]):
        raise Refusal("signature.transform_refused", "InclusiveNamespaces not on the last transform")
    return Reference(uri[1:], tuple(step[0] for step in steps), prefixes, octets_of(value))


def _canonicalisation(method: etree._Element, name: str) -> tuple[str, tuple[str, ...]]:
    """The algorithm of a transform or canonicalisation method, and its InclusiveNamespaces.

    XPath and XSLT stand as children of a Transform, and are refused as such before anybody runs them.
    """
    if method.tag != name:
        raise Refusal("signature.shape", etree.QName(method).localname)
    uri = attribute(method, "Algorithm")
    if uri == STR_TRANSFORM:
        return uri, _token_parameters(method)
    inner = list(method)
    if not inner:
        return uri, ()
    if uri != EXCLUSIVE_C14N or [child.tag for child in inner] != [EC + "InclusiveNamespaces"] or len(inner[0]):
        raise Refusal("signature.transform_refused", _short(uri))
    prefixes = tuple(attribute(inner[0], "PrefixList").split())
    if len(prefixes) > MAX_PREFIXES:
        raise Refusal("signature.transform_refused", f"{len(prefixes)} prefixes > {MAX_PREFIXES}")
    return uri, prefixes


def _token_parameters(transform: etree._Element) -> tuple[str, ...]:
    """WSS 1.1 §8.3: the STR-Transform says how the token is canonicalised; exclusively, or it is refused."""
    (parameters,) = children(transform, WSSE + "TransformationParameters")
    (method,) = children(parameters, DS + "CanonicalizationMethod")
    uri, prefixes = _canonicalisation(method, DS + "CanonicalizationMethod")
    if uri != EXCLUSIVE_C14N:
        raise Refusal("signature.transform_refused", _short(uri))
    return prefixes


def _key_reference(key_info: etree._Element) -> tuple[KeyReference, etree._Element | None, str | None]:
    """Which key is meant. KeyValue, KeyName, RetrievalMethod and PKIPath name keys that nobody enrolled."""
    only = list(key_info)
    if len(only) != 1:
        raise Refusal("signature.key_reference_refused", f"{len(only)} in KeyInfo")
    if only[0].tag == DS + "X509Data":
        return _x509_data(only[0]), None, None
    if only[0].tag != WSSE + "SecurityTokenReference":
        raise Refusal("signature.key_reference_refused", etree.QName(only[0]).localname)
    inner = list(only[0])
    if len(inner) != 1:
        raise Refusal("signature.key_reference_refused", "SecurityTokenReference")
    (named,) = inner
    if named.tag == DS + "X509Data":
        return _x509_data(named), only[0], None
    kind = named.get("ValueType")
    if named.tag == WSSE + "Reference" and kind in (None, X509V3) and named.get("URI", "").startswith("#"):
        return KeyReference(), only[0], named.get("URI", "")[1:]
    if named.tag == WSSE + "KeyIdentifier" and kind == SKI:
        return KeyReference(ski=octets_of(named)), only[0], None
    if named.tag == WSSE + "KeyIdentifier" and kind == THUMBPRINT:
        return KeyReference(thumbprint_sha1=octets_of(named)), only[0], None
    raise Refusal("signature.key_reference_refused", f"{etree.QName(named).localname} {_short(kind or '')}".strip())


def _x509_data(x509_data: etree._Element) -> KeyReference:
    """Certificate, issuer and serial, SKI: each at most once, and later all of one enrolled certificate."""
    found: dict[str, etree._Element] = {}
    for child in x509_data:
        if child.tag in found:
            raise Refusal("signature.key_reference_refused", "X509Data names several certificates")
        found[child.tag] = child
    certificate, ski = found.pop(DS + "X509Certificate", None), found.pop(DS + "X509SKI", None)
    issuer_serial = found.pop(DS + "X509IssuerSerial", None)
    if found or (certificate is None and ski is None and issuer_serial is None):
        raise Refusal("signature.key_reference_refused", ", ".join(etree.QName(tag).localname for tag in found))
    issuer, serial = (None, None) if issuer_serial is None else _issuer_serial(issuer_serial)
    return KeyReference(
        der=None if certificate is None else octets_of(certificate),
        issuer=issuer,
        serial=serial,
        ski=None if ski is None else octets_of(ski),
    )


def _issuer_serial(issuer_serial: etree._Element) -> tuple[str, int]:
    issuer, serial = children(issuer_serial, DS + "X509IssuerName", DS + "X509SerialNumber")
    digits = (serial.text or "").strip()
    if not re.fullmatch("[0-9]{1,60}", digits):
        raise Refusal("signature.key_reference_refused", "X509SerialNumber")
    return (issuer.text or "").strip(), int(digits)


def _short(uri: str) -> str:
    """The telling end of an algorithm's URI, for the sentence that refuses it."""
    return uri.rsplit("/", 1)[-1][:80] or "none"
