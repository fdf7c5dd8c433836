"""Mutants of what is signed and of the signature.

Parts are wrapped, copied, moved and renamed; references, transforms, algorithms, values and keys exchanged.
"""

import base64
import copy
from collections.abc import Iterator
from typing import Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from lxml import etree

from security.xmldsig import BASE64, DS, ENVELOPED, EXCLUSIVE_C14N, STR_TRANSFORM, WSSE, WSU, X509V3
from tests.security.mutants import BLOCK, IDS, Message, Mutant, Tree, changed, drop, made, names_for, swap
from tests.security.vectors import (
    CONNECTION,
    POWER,
    STRANGER,
    WATER,
    WATER_RSA,
    YT,
    b64,
    prefix_list,
    reference,
    seal,
    template,
    token,
)

OTHER_C14N: Final = (
    EXCLUSIVE_C14N + "WithComments",
    "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
    "http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments",
    "http://www.w3.org/2006/12/xml-c14n11",
    "http://www.w3.org/2010/xml-c14n2",
    "http://www.w3.org/2001/10/xml-exc-c14n",
    "",
)
OTHER_TRANSFORMS: Final = (
    ("http://www.w3.org/TR/1999/REC-xpath-19991116", "<ds:XPath>not(self::Sender)</ds:XPath>"),
    ("http://www.w3.org/2002/06/xmldsig-filter2", '<f:XPath xmlns:f="http://www.w3.org/2002/06/xmldsig-filter2"/>'),
    ("http://www.w3.org/TR/1999/REC-xslt-19991116",
     '<x:stylesheet xmlns:x="http://www.w3.org/1999/XSL/Transform" version="1.0"/>'),
    ("http://www.w3.org/2000/09/xmldsig#base64", ""),
    ("http://www.w3.org/2002/07/decrypt#XML", ""),
    ("http://docs.oasis-open.org/wss/oasis-wss-SwAProfile-1.1#Attachment-Content-Signature-Transform", ""),
    (ENVELOPED, ""),
    (STR_TRANSFORM, f'<wsse:TransformationParameters xmlns:wsse="{WSSE[1:-1]}"><ds:CanonicalizationMethod '
                    f'Algorithm="{EXCLUSIVE_C14N}"/></wsse:TransformationParameters>'),
    *((uri, "") for uri in OTHER_C14N),
)  # fmt: skip
_MORE, _DSIG, _ENC = "http://www.w3.org/2001/04/xmldsig-more#", DS[1:-1], "http://www.w3.org/2001/04/xmlenc#"
OTHER_SUITES: Final = (
    _DSIG + "rsa-sha1", _DSIG + "dsa-sha1", _DSIG + "hmac-sha1", _MORE + "hmac-sha256", _MORE + "hmac-md5",
    _MORE + "rsa-md5", _MORE + "rsa-sha256", _MORE + "rsa-sha512", _MORE + "ecdsa-sha1", _MORE + "ecdsa-sha512",
    _MORE + "ECDSA-SHA256", "http://www.w3.org/2009/xmldsig11#dsa-sha256", "none", "",
)  # fmt: skip
OTHER_DIGESTS: Final = (_DSIG + "sha1", _MORE + "md5", _MORE + "sha384", _ENC + "sha512", _ENC + "SHA256", "none", "")


def evil(tree: Tree, name: str) -> etree._Element:
    """A part of the same name that says something else, without an id."""
    element = copy.deepcopy(tree.parts()[name])
    element.tail = None
    for attribute in IDS:
        element.attrib.pop(attribute, None)
    if name == "body":
        feed = element.find(f".//{YT}Feed")
        assert feed is not None
        feed.text = "power-assets"
    elif name == "timestamp":
        element[0].text = "2026-07-01T08:01:00Z"
    else:
        element.text = b64(POWER.certificate_der or b"")
    return element


def wraps(message: Message) -> Iterator[Mutant]:
    """A signed part moved elsewhere or kept as a copy, another in its place, under every kind of id."""
    for name in Tree(message).parts():
        identifier = next(value for key, value in Tree(message).parts()[name].attrib.items() if key in IDS)
        for place in Tree(message).places():
            for attribute in (*IDS, None):
                tree = Tree(message)
                part, wrong, target = tree.parts()[name], evil(tree, name), tree.places()[place]
                if target is part or any(above is part for above in target.iterancestors()):
                    continue
                if attribute is not None:
                    wrong.set(attribute, identifier)
                swap(part, wrong)
                target.append(part)
                said = "no id" if attribute is None else etree.QName(attribute).localname
                yield tree.mutant(f"{name} wrapped in {place}, the other by {said} of {attribute or ''}"[:90])


def copies(message: Message) -> Iterator[Mutant]:
    """Another part beside the signed one, before and after it; the signed one within another; and doubled."""
    for name in Tree(message).parts():
        for how in ("before", "after", "doubled", "within", "around"):
            tree = Tree(message)
            part, wrong = tree.parts()[name], evil(tree, name)
            if how == "before":
                part.addprevious(wrong)
            elif how == "after":
                part.addnext(wrong)
            elif how == "doubled":
                part.addnext(copy.deepcopy(part))
            elif how == "within":
                swap(part, wrong)
                wrong.append(part)
            else:
                part.append(wrong)
            yield tree.mutant(f"another {name} {how}")


def moves(message: Message) -> Iterator[Mutant]:
    """A signed part, the signature or the Security header simply moved or left out."""
    whole = {"signature", "security", "key info", "signed info", "value"}
    for name in (*Tree(message).parts(), *whole):
        tree = Tree(message)
        drop({**tree.parts(), **tree.places()}[name])
        yield tree.mutant(f"{name} left out")
        for place in Tree(message).places():
            tree = Tree(message)
            part, target = {**tree.parts(), **tree.places()}[name], tree.places()[place]
            if part in (target, *target.iterancestors()) or part.getparent() is target:
                continue
            target.append(part)
            yield tree.mutant(f"{name} moved into {place}")


def ids(message: Message) -> Iterator[Mutant]:
    """Ids re-spelt, doubled on the part, doubled on whatever else stands there, and exchanged."""
    for name, part in Tree(message).parts().items():
        (old,) = (key for key in part.attrib if key in IDS)
        value = part.attrib[old]
        for attribute in IDS:
            if attribute == old:
                continue
            tree = Tree(message)
            del tree.parts()[name].attrib[old]
            tree.parts()[name].set(attribute, value)
            yield tree.mutant(f"id of {name} as {attribute}")
            tree = Tree(message)
            tree.parts()[name].set(attribute, value)
            yield tree.mutant(f"id of {name} also as {attribute}")
        for place in Tree(message).places():
            tree = Tree(message)
            target = tree.places()[place]
            if target is tree.parts()[name]:
                continue
            target.set("ID", value)
            yield tree.mutant(f"id of {name} also on {place}")
        for other in Tree(message).parts():
            if other != name:
                tree = Tree(message)
                one, two = tree.parts()[name], tree.parts()[other]
                one_id, two_id = one.attrib[WSU + "Id"], two.attrib[WSU + "Id"]
                one.set(WSU + "Id", two_id)
                two.set(WSU + "Id", one_id)
                yield tree.mutant(f"ids of {name} and {other} exchanged")


def references(message: Message) -> Iterator[Mutant]:
    """Every Reference left out, doubled, exchanged, or naming something else."""
    uris = ("", "#", "#none", "body", "#xpointer(/)", "#xpointer(id('body'))", "http://x.test/", "file:///etc/passwd",
            "cid:content@water", "#Body", " #body", "#body ", "#%62ody", "#BODY", "?#body")  # fmt: skip
    for index in range(len(_references(Tree(message)))):
        for uri in uris:
            tree = Tree(message)
            _references(tree)[index].set("URI", uri)
            yield tree.mutant(f"reference {index} to {uri!r}")
        for how in ("out", "twice", "first", "typed", "without URI", "named"):
            tree = Tree(message)
            each = _references(tree)[index]
            if how == "out":
                drop(each)
            elif how == "twice":
                each.addnext(copy.deepcopy(each))
            elif how == "first":
                tree.signed_info.insert(0, each)
            elif how == "typed":
                each.set("Type", _DSIG + "Manifest")
            elif how == "without URI":
                del each.attrib["URI"]
            else:
                each.set("Id", "body")
            yield tree.mutant(f"reference {index} {how}")


def _references(tree: Tree) -> list[etree._Element]:
    return tree.signed_info.findall(DS + "Reference")


def transforms(message: Message) -> Iterator[Mutant]:
    """Other transforms in place of the one, before and after it; canonical forms and prefix lists exchanged."""
    for index in range(len(_references(Tree(message)))):
        for uri, inside in OTHER_TRANSFORMS:
            for how in ("alone", "before", "after"):
                tree = Tree(message)
                holder = _references(tree)[index][0]
                new = made(f'<ds:Transform Algorithm="{uri}">{inside}</ds:Transform>')
                if how == "alone":
                    swap(holder[0], new)
                else:
                    holder.insert(0 if how == "before" else 1, new)
                yield tree.mutant(f"transform {uri.rsplit('/', 1)[-1]} {how} in reference {index}")
        for inside in ("s", "#default", "xml", "x", "nobody", " ".join(f"p{i}" for i in range(33))):
            tree = Tree(message)
            _references(tree)[index][0][0].append(made(prefix_list(inside)))
            yield tree.mutant(f"prefix list {inside[:12]} in reference {index}")
        tree = Tree(message)
        _references(tree)[index][0][:] = []
        yield tree.mutant(f"no transform in reference {index}")
        tree = Tree(message)
        drop(_references(tree)[index][0])
        yield tree.mutant(f"no Transforms in reference {index}")
    for uri in OTHER_C14N:
        tree = Tree(message)
        tree.signed_info[0].set("Algorithm", uri)
        yield tree.mutant(f"SignedInfo in the form {uri.rsplit('/', 1)[-1]}")
    for inside in ("s", "#default", "wsse", " ".join(f"p{i}" for i in range(33))):
        tree = Tree(message)
        tree.signed_info[0].append(made(prefix_list(inside)))
        yield tree.mutant(f"SignedInfo with prefix list {inside[:12]}")


def algorithms(message: Message) -> Iterator[Mutant]:
    """Signature and digest methods exchanged, as sent and sealed again by somebody who has only the public key."""
    for uri in OTHER_SUITES:
        tree = Tree(message)
        tree.signed_info[1].set("Algorithm", uri)
        yield tree.mutant(f"suite {uri.rsplit('/', 1)[-1]}")
        if "hmac" in uri:
            octets = seal(etree.tostring(tree.root, encoding="unicode"))
            yield changed(message, f"suite {uri.rsplit('/', 1)[-1]} keyed with the public key", octets)
    tree = Tree(message)
    tree.signed_info[1].append(made("<ds:HMACOutputLength>8</ds:HMACOutputLength>"))
    yield tree.mutant("HMACOutputLength")
    for index in range(len(_references(Tree(message)))):
        for uri in OTHER_DIGESTS:
            tree = Tree(message)
            _references(tree)[index][1].set("Algorithm", uri)
            yield tree.mutant(f"digest {uri.rsplit('/', 1)[-1]} in reference {index}")


def signatures(message: Message) -> Iterator[Mutant]:
    """A second Signature, SignedInfo, SignatureValue, KeyInfo; an Object; a Manifest; the four in another order."""
    other = Tree(Message("", seal(template(sender="power", token_xml=token(POWER), header=BLOCK), POWER)))
    for name in ("signature", "signed info", "value", "key info"):
        for how in ("before", "after", "in place", "inside"):
            for source in ("own", "other"):
                tree = Tree(message)
                there = tree.places()[name]
                new = copy.deepcopy((tree if source == "own" else other).places()[name])
                new.tail = None
                if how == "in place" and (source == "own" or name == "key info"):  # says the same: `#bst`
                    continue
                if how == "in place":
                    swap(there, new)
                elif how == "inside":
                    there.append(new)
                else:
                    (there.addprevious if how == "before" else there.addnext)(new)
                yield tree.mutant(f"{source} second {name} {how}")
    for place in Tree(message).places():
        for inside in ("<ds:Object/>", f"<ds:Object><ds:Manifest>{reference('#body')}</ds:Manifest></ds:Object>",
                       "<ds:Manifest/>", "<ds:SignatureProperties/>", "<ds:Signature/>"):  # fmt: skip
            tree = Tree(message)
            tree.places()[place].append(made(inside))
            signed = place in ("body", "operation", "timestamp", "signed info")
            if "Properties" in inside and place in ("header", "wrapper"):
                continue  # a header block that nobody has to understand
            yield tree.mutant(f"{inside[4:24]} in {place}{' (signed)' if signed else ''}")
    for order in ((1, 0, 2), (2, 1, 0), (0, 2, 1)):
        tree = Tree(message)
        tree.signature[:] = [list(tree.signature)[at] for at in order]
        yield tree.mutant(f"Signature in the order {order}")


def values(message: Message) -> Iterator[Mutant]:
    """SignatureValue and DigestValue cut, lengthened, coded or computed otherwise."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    value = base64.b64decode(Tree(message).value.text or "")
    r, s = int.from_bytes(value[:32], "big"), int.from_bytes(value[32:], "big")
    turned = value[:32] + (order - s).to_bytes(32, "big")
    octets = {
        "empty": b"", "cut": value[:-1], "half": value[:32], "longer": value + b"\0", "zeros": bytes(64),
        "ones": b"\xff" * 64, "exchanged": value[32:] + value[:32], "reversed": value[::-1],
        "r zero": bytes(32) + value[32:], "s zero": value[:32] + bytes(32),
        "s the order": value[:32] + order.to_bytes(32, "big"),
        "DER": encode_dss_signature(r, s), "doubled": value * 2, "of another": WATER_RSA.sign(b""),
    }  # fmt: skip
    texts = {name: b64(each) for name, each in octets.items()}
    plain = b64(value)
    texts |= {
        "url-safe": base64.urlsafe_b64encode(value).decode().rstrip("=") + "-", "unpadded": plain.rstrip("="),
        "padded more": plain + "=", "hexadecimal": value.hex(), "words": "签名", "data after": plain + "AAAA",
    }  # fmt: skip
    for name, text in texts.items():
        tree = Tree(message)
        tree.value.text = text
        yield tree.mutant(f"SignatureValue {name}")
    tree = Tree(message)
    tree.value.text = b64(turned)
    yield tree.mutant("SignatureValue turned over", harmless=True)
    for index in range(len(_references(Tree(message)))):
        stated = _references(Tree(message))[index][2].text or ""
        altered = {"empty": "", "cut": stated[:-4], "broken": f"{stated[:9]}\n{stated[9:]}", "doubled": stated * 2,
                   "other": b64(bytes(32))}  # fmt: skip
        for name, text in altered.items():
            tree = Tree(message)
            _references(tree)[index][2].text = text
            yield tree.mutant(f"DigestValue {index} {name}")


def keys(message: Message) -> Iterator[Mutant]:
    """The key named otherwise: another bureau's, one for connections, a stranger's; or in other words."""
    for who, key in (("power", POWER), ("connection", CONNECTION), ("rsa", WATER_RSA), ("stranger", STRANGER)):
        for kind, xml in names_for(key).items():
            tree = Tree(message)
            tree.key_info[:] = [made(xml)]
            if tree.token is not None:
                drop(tree.token)
            yield tree.mutant(f"key of {who} by {kind}")
        if Tree(message).token is not None:
            tree = Tree(message)
            assert tree.token is not None
            tree.token.text = b64(key.certificate_der or b"")
            yield tree.mutant(f"token of {who}")
    for name, xml in (
        ("KeyName", "<ds:KeyName>water</ds:KeyName>"),
        ("KeyValue", "<ds:KeyValue><ds:RSAKeyValue/></ds:KeyValue>"),
        ("RetrievalMethod", '<ds:RetrievalMethod URI="#bst"/>'),
        ("MgmtData", "<ds:MgmtData/>"),
        ("PGPData", "<ds:PGPData/>"),
        ("embedded token", "<wsse:SecurityTokenReference><wsse:Embedded/></wsse:SecurityTokenReference>"),
        ("issuer unknown", names_for(WATER)["issuer serial"].replace("CN=Test CA", "CN=Other CA")),
        ("no X509Data", "<ds:X509Data/>"),
        ("subject", "<ds:X509Data><ds:X509SubjectName>CN=water</ds:X509SubjectName></ds:X509Data>"),
        ("CRL", "<ds:X509Data><ds:X509CRL/></ds:X509Data>"),
    ):
        for how in ("alone", "before", "after"):
            tree = Tree(message)
            if how == "alone":
                tree.key_info[:] = [made(xml)]
            else:
                tree.key_info.insert(0 if how == "before" else 1, made(xml))
            yield tree.mutant(f"{name} {how} in KeyInfo")
    if Tree(message).token is not None:
        for attribute, text in (("ValueType", X509V3[:-2]), ("ValueType", X509V3.replace("X509v3", "PKCS7")),
                                ("EncodingType", BASE64 + "x"), ("EncodingType", "hex")):  # fmt: skip
            tree = Tree(message)
            assert tree.token is not None
            tree.token.set(attribute, text)
            yield tree.mutant(f"token of {attribute} {text[-12:]}")


OF_SIGNATURES: Final = (
    wraps, copies, moves, ids, references, transforms, algorithms, signatures, values, keys,
)  # fmt: skip
