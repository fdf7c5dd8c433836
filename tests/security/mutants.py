"""Honest messages to be altered on their way, and the tree of one with its places.

`attacks.py` holds single attacks by somebody who signs; here the signer is honest, and a mutant is made from the octets
that were sent (`mutants_of_signatures.py`, `mutants_of_text.py`). A harmless mutant changes nothing that was signed and
has to be taken as the original; every other has to be refused.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

import msgspec
from lxml import etree

from security.keys import SigningKey
from security.pki import names_of
from security.wss import sign
from security.xmldsig import BASE64, DS, SKI, THUMBPRINT, WSSE, WSU
from tests.security.vectors import (
    BARE,
    CONTENT,
    CONTENT_ID,
    NOW,
    SOAP11,
    SOAP12,
    WATER,
    XOP,
    b64,
    include,
    reference,
    seal,
    template,
)

XML: Final = "{http://www.w3.org/XML/1998/namespace}"
BLOCK: Final = '<x:y xmlns:x="urn:x"/>'  # a header block that nobody has to understand
IDS: Final = (WSU + "Id", "Id", "ID", "id", XML + "id")


class Message(msgspec.Struct, frozen=True):
    """An honest message: its envelope, and the attachment that came with it."""

    name: str
    octets: bytes
    attachment: bytes | None = None
    attachment_id: str = ""


class Mutant(msgspec.Struct, frozen=True):
    """What became of a message. harmless: nothing that was signed is changed."""

    name: str
    octets: bytes
    attachment: bytes | None = None
    attachment_id: str = ""
    harmless: bool = False


Operator = Callable[[Message], Iterator[Mutant]]


def names_for(key: SigningKey) -> dict[str, str]:
    """How a KeyInfo can name a key's certificate, by kind."""
    der = key.certificate_der or b""
    names = names_of(der)
    serial = (
        "<ds:X509IssuerSerial><ds:X509IssuerName>CN=Test CA</ds:X509IssuerName>"
        f"<ds:X509SerialNumber>{names.serial}</ds:X509SerialNumber></ds:X509IssuerSerial>"
    )
    identifier = '<wsse:KeyIdentifier ValueType="{}" EncodingType="' + BASE64 + '">{}</wsse:KeyIdentifier>'
    kinds = {
        "issuer serial": f"<ds:X509Data>{serial}</ds:X509Data>",
        "ski": identifier.format(SKI, b64(names.ski or b"")),
        "certificate": f"<ds:X509Data><ds:X509Certificate>{b64(der)}</ds:X509Certificate></ds:X509Data>",
        "thumbprint": identifier.format(THUMBPRINT, b64(names.sha1)),
    }
    head = f'<wsse:SecurityTokenReference xmlns:wsse="{WSSE[1:-1]}" xmlns:wsu="{WSU[1:-1]}" wsu:Id="str">'
    return {kind: f"{head}{inside}</wsse:SecurityTokenReference>" for kind, inside in kinds.items()}


def messages() -> Iterator[Message]:
    """Every way to send one delivery: by our own signer; by SOAP version, form of the content, kind of reference."""
    yield Message("ours", signed_by_us())
    for version, soap in (("1.1", SOAP11), ("1.2", SOAP12)):
        for form in ("inline", "mtom", "mtom expanded"):
            for kind in ("token", *names_for(WATER)):
                pieces: dict[str, Any] = {"soap": soap, "feed": "甬é-assets", "header": BLOCK}
                if kind != "token":
                    signed = reference("#body") + reference("#ts") + reference("#str")
                    pieces |= {**BARE, "references": signed, "key_info": names_for(WATER)[kind]}
                if form == "inline":
                    yield Message(f"{version} {form} {kind}", seal(template(**pieces)))
                else:
                    expand = CONTENT if form == "mtom expanded" else None
                    octets = seal(template(**pieces, content=include()), expand=expand)
                    yield Message(f"{version} {form} {kind}", octets, CONTENT, CONTENT_ID)


def signed_by_us() -> bytes:
    """A delivery signed by the signer that partners and the bus use."""
    envelope = etree.fromstring(template(feed="甬é-assets"))
    envelope[0][:] = [etree.fromstring(BLOCK)]
    der = WATER.certificate_der
    assert der is not None
    return sign(envelope, WATER, der, created=NOW, expires=NOW + timedelta(minutes=5))


class Tree:
    """A message's envelope as a tree to be cut up."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.root = etree.fromstring(message.octets)
        self.header, self.body = self.root
        self.soap = str(self.root.tag).removesuffix("Envelope")
        self.security = self.one(WSSE + "Security")
        self.timestamp = self.one(WSU + "Timestamp")
        self.signature = self.one(DS + "Signature")
        self.signed_info, self.value, self.key_info = self.signature
        self.operation = self.body[0]
        self.block = self.one("{urn:x}y")
        self.token = self.root.find(f".//{WSSE}BinarySecurityToken")

    def one(self, tag: str) -> etree._Element:
        found = self.root.find(f".//{tag}")
        assert found is not None
        return found

    def parts(self) -> dict[str, etree._Element]:
        """What is signed, by name."""
        parts = {"body": self.body, "timestamp": self.timestamp}
        return parts if self.token is None else {**parts, "token": self.token}

    def places(self) -> dict[str, etree._Element]:
        """Where something can be put."""
        wrapper = etree.SubElement(self.header, "{urn:w}wrapper")
        return {
            "header": self.header, "wrapper": wrapper, "security": self.security, "signature": self.signature,
            "key info": self.key_info, "signed info": self.signed_info, "timestamp": self.timestamp,
            "envelope": self.root, "body": self.body, "operation": self.operation, "value": self.value,
        }  # fmt: skip

    def mutant(self, name: str, *, harmless: bool = False) -> Mutant:
        return changed(self.message, name, etree.tostring(self.root, encoding="utf-8"), harmless=harmless)


def changed(message: Message, name: str, octets: bytes, *, harmless: bool = False) -> Mutant:
    return Mutant(f"{message.name}: {name}", octets, message.attachment, message.attachment_id, harmless)


def swap(old: etree._Element, new: etree._Element) -> None:
    parent = old.getparent()
    assert parent is not None
    new.tail, old.tail = old.tail, None
    parent.replace(old, new)


def drop(element: etree._Element) -> None:
    parent = element.getparent()
    assert parent is not None
    parent.remove(element)


def made(xml: str) -> etree._Element:
    spaces = f'xmlns:ds="{DS[1:-1]}" xmlns:wsse="{WSSE[1:-1]}" xmlns:wsu="{WSU[1:-1]}" xmlns:xop="{XOP[1:-1]}"'
    return etree.fromstring(f"<r {spaces}>{xml}</r>")[0]
