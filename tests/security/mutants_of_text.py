"""Mutants of the document around and under a signature.

Foreign nodes, white space, namespaces, headers, members of the operation, times, the content by other means, and the
same text in other octets.
"""

import copy
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from lxml import etree

from security.xmldsig import WSSE
from tests.security.mutants import Message, Mutant, Tree, changed, drop, made
from tests.security.vectors import CONTENT, CONTENT_ID, SOAP11, SOAP12, YT, b64, include


def insertions(message: Message) -> Iterator[Mutant]:
    """Comment, instruction, entity, text, CDATA put into every element that has text, and around the root."""
    foreign = {"comment": "<!--x-->", "instruction": "<?x y?>", "entity": "&x;", "element": '<q xmlns="urn:q"/>',
               "null": "&#0;", "text": "x", "zero width": "\u200b"}  # fmt: skip
    text = message.octets.decode()
    spots = [match.end() for match in re.finditer(r"<[^/?!][^<>]*[^/]>(?=[^<\s])", text)]
    for number, at in enumerate(spots):
        where = re.findall(r"<([\w:]+)", text[:at])[-1]
        for kind, inserted in foreign.items():
            yield changed(message, f"{kind} in {where} {number}", (text[:at] + inserted + text[at:]).encode())
            middle = at + text[at:].index("<") // 2
            yield changed(message, f"{kind} amid {where} {number}", (text[:middle] + inserted + text[middle:]).encode())
        end = at + text[at:].index("<")
        whole = f"{text[:at]}<![CDATA[{text[at:end]}]]>{text[end:]}"
        yield changed(message, f"CDATA around {where} {number}", whole.encode(), harmless=True)
    for kind, around in (("DTD", "<!DOCTYPE x>"), ("DTD with entity", '<!DOCTYPE x [<!ENTITY x "y">]>'),
                         ("comment", "<!--x-->"), ("instruction", "<?x y?>")):  # fmt: skip
        yield changed(message, f"{kind} before all", around.encode() + message.octets)
        yield changed(message, f"{kind} after all", message.octets + around.encode())


def spaces(message: Message) -> Iterator[Mutant]:
    """White space: harmless where nothing is signed and within base64 that is not signed, an alteration elsewhere."""
    where = {"header": True, "security": True, "signature": True, "envelope": True, "signed info": False,
             "timestamp": False, "body": False, "operation": False}  # fmt: skip
    for place, harmless in where.items():
        for inserted in (" ", "\t\n"):
            tree = Tree(message)
            target = tree.places()[place]
            drop(tree.one("{urn:w}wrapper"))
            target.text = (target.text or "") + inserted
            yield tree.mutant(f"white space {inserted!r} in {place}", harmless=harmless)
    tree = Tree(message)
    text = tree.value.text or ""
    tree.value.text = "\n ".join(text[at : at + 20] for at in range(0, len(text), 20))
    yield tree.mutant("SignatureValue broken into lines", harmless=True)


def namespaces(message: Message) -> Iterator[Mutant]:
    """Prefixes declared again, for something else, default namespaces put in between, xml: attributes."""
    spots = {"Envelope": "<s:Envelope ", "Header": "<s:Header", "Body": "<s:Body", "operation": "<SubmitDelivery",
             "Feed": "<Feed", "Security": "<wsse:Security", "SignedInfo": "<ds:SignedInfo",
             "Reference": "<ds:Reference", "Timestamp": "<wsu:Timestamp"}  # fmt: skip
    unused = ('xmlns:unused="urn:unused"', 'xmlns="urn:yongtong:v1"', 'xmlns="urn:evil"', 'xml:lang="zh"',
              'xml:base="http://x.test/"', 'xml:space="preserve"')  # fmt: skip
    own = {
        "Envelope": ('xmlns:wsu="urn:evil"', 'xmlns:s="urn:evil"'),
        "Body": ('xmlns:s="urn:evil"', 'xmlns:wsu="urn:evil"'),
        "operation": ('xmlns:s="urn:evil"',), "Feed": ('xmlns="urn:evil"', 'xmlns=""', 'xmlns:evil="urn:e" evil:a="1"'),
        "Security": ('xmlns:wsu="urn:evil"', 'xmlns:ds="urn:evil"'), "SignedInfo": ('xmlns:ds="urn:evil"',),
        "Reference": ('xmlns:ds="urn:evil"',), "Timestamp": ('xmlns:wsu="urn:evil"',),
    }  # fmt: skip
    for name, spot in spots.items():
        for attribute in (*unused, *own.get(name, ())):
            octets = message.octets.replace(spot.encode(), f"{spot.rstrip()} {attribute} ".encode(), 1)
            yield changed(
                message, f"{attribute} on {name}", octets, harmless=_changes_nothing(message, name, attribute)
            )


def _changes_nothing(message: Message, name: str, attribute: str) -> bool:
    """Whether an attribute there leaves every signed octet as it was.

    Unused declarations do, wherever they stand; xml: attributes only where nothing is signed (exclusive canonical form
    takes none from outside); a default namespace where every name below has a prefix or a default of its own; another
    meaning for a prefix where what is signed below declares it again.
    """
    if "unused" in attribute:
        return True
    if attribute.startswith("xml:"):
        return name in ("Envelope", "Header", "Security")
    if attribute.startswith('xmlns="urn:') and name not in ("operation", "Feed"):
        return True
    if (name, attribute) == ("Feed", 'xmlns="urn:yongtong:v1"'):
        return True
    declared_again = {("operation", "xmlns:s"), ("Security", "xmlns:ds")}
    if message.name == "ours":
        declared_again.add(("Security", "xmlns:wsu"))
    return (name, attribute.partition("=")[0]) in declared_again


def headers(message: Message) -> Iterator[Mutant]:
    """Blocks for other roles, blocks that must be understood, another order, a second Security, another version."""
    soap, other = Tree(message).soap, SOAP12 if Tree(message).soap == SOAP11 else SOAP11
    for who in ("security", "block"):
        for space in (soap, other):
            for name, text in (("actor", "urn:x"), ("role", "urn:x"), ("mustUnderstand", "1"),
                               ("mustUnderstand", "true"), ("mustUnderstand", "yes"), ("relay", "1")):  # fmt: skip
                tree = Tree(message)
                (tree.security if who == "security" else tree.block).set(space + name, text)
                harmless = name == "relay" or (who == "security" and name == "mustUnderstand")
                yield tree.mutant(f"{who} with {name} {text} of {space[-10:-1]}", harmless=harmless)
    for how in ("security last", "block left out", "token last", "header after body", "no header", "two headers",
                "second security", "security in body", "block between", "version of all",
                "version of the outside"):  # fmt: skip
        tree = Tree(message)
        if how == "security last":
            tree.header.append(tree.security)
        elif how == "block left out":
            drop(tree.block)
        elif how == "token last":
            tree.security.append(tree.security[0])
        elif how == "header after body":
            tree.root.append(tree.header)
        elif how == "no header":
            drop(tree.header)
        elif how == "two headers":
            tree.header.addnext(etree.Element(soap + "Header"))
        elif how == "second security":
            tree.security.addprevious(etree.Element(WSSE + "Security"))
        elif how == "security in body":
            tree.operation.append(copy.deepcopy(tree.security))
        elif how == "block between":
            tree.header.addnext(etree.Element("{urn:x}between"))
        octets = etree.tostring(tree.root, encoding="utf-8")
        if how == "version of all":
            octets = octets.replace(soap[1:-1].encode(), other[1:-1].encode())
        elif how == "version of the outside":
            octets = octets.replace(b"<s:Body", f'<s:Body xmlns:s="{soap[1:-1]}"'.encode(), 1)
            octets = octets.replace(soap[1:-1].encode(), other[1:-1].encode(), 1)
        yield changed(message, how, octets, harmless=how in ("security last", "block left out", "token last"))


def members(message: Message) -> Iterator[Mutant]:
    """Each member of the operation left out, doubled, altered by a letter, in other Unicode, in other case."""
    for member in Tree(message).operation:
        name = etree.QName(member).localname
        if name == "Content" and message.attachment is not None:
            continue
        text = member.text or ""
        wide = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text[:9])
        altered = {
            "empty": "", "in capitals": text.upper(), "spaced": f" {text}", "cut": text[:-1], "longer": f"{text}A",
            "decomposed": unicodedata.normalize("NFD", text), "full width": wide + text[9:],
            "homoglyph": text.replace("a", "\u0430"), "joined": f"{text[:1]}\u200d{text[1:]}",
        }  # fmt: skip
        for how, new in altered.items():
            if new == text:
                continue
            tree = Tree(message)
            found = tree.operation.find(YT + name)
            assert found is not None
            found.text = new
            yield tree.mutant(f"{name} {how}")
        for how in ("left out", "doubled", "first", "by reference"):
            tree = Tree(message)
            found = tree.operation.find(YT + name)
            assert found is not None
            if how == "left out":
                drop(found)
            elif how == "doubled":
                found.addnext(copy.deepcopy(found))
            elif how == "first" and found is not tree.operation[0]:
                tree.operation.insert(0, found)
            elif how == "by reference" and text:
                octets = message.octets.replace(f">{text}<".encode(), f">&#{ord(text[0])};{text[1:]}<".encode(), 1)
                yield changed(message, f"{name} {how}", octets, harmless=True)
                continue
            else:
                continue
            yield tree.mutant(f"{name} {how}")


def times(message: Message) -> Iterator[Mutant]:
    """Created and Expires later, without zone, left out, exchanged, or joined by a third."""
    for index, text in ((0, "2026-07-01T08:00:01Z"), (0, "2026-07-01T08:00:00.001Z"), (0, "2026-07-01T08:00:00+00:00"),
                        (0, "2026-07-01T08:00:00"), (0, "9999-12-31T23:59:59Z"), (0, ""), (1, "2026-07-01T09:05:00Z"),
                        (1, "9999-12-31T23:59:59Z"), (1, "2026-07-01T08:05:00+08:00"), (1, "never")):  # fmt: skip
        tree = Tree(message)
        tree.timestamp[index].text = text
        yield tree.mutant(f"{'Expires' if index else 'Created'} {text}")
    for how in ("no Created", "no Expires", "exchanged", "third"):
        tree = Tree(message)
        if how.startswith("no"):
            drop(tree.timestamp[0 if how == "no Created" else 1])
        elif how == "exchanged":
            tree.timestamp.append(tree.timestamp[0])
        else:
            tree.timestamp.append(copy.deepcopy(tree.timestamp[1]))
        yield tree.mutant(f"Timestamp {how}")


def contents(message: Message) -> Iterator[Mutant]:
    """The content by other means: Include where base64 stood, base64 where Include stood, other and missing parts."""
    tree = Tree(message)
    octets = message.octets.decode()
    inside = octets[octets.index("<Content>") + 9 : octets.index("</Content>")]

    def with_content(
        name: str, new: str, part: bytes | None, part_id: str = CONTENT_ID, *, harmless: bool = False
    ) -> Mutant:
        spoilt = octets.replace(f"<Content>{inside}</Content>", f"<Content>{new}</Content>", 1)
        return Mutant(f"{message.name}: {name}", spoilt.encode(), part, part_id if part is not None else "", harmless)

    by_part, signed_inline = include(), message.attachment is None or "expanded" in message.name
    yield with_content("content of another, inline", b64(b"other"), None)
    yield with_content("content inline", b64(CONTENT), None, harmless=signed_inline)
    yield with_content("content inline in lines", b64(CONTENT)[:8] + "\n" + b64(CONTENT)[8:], None)
    yield with_content(
        "content by part", by_part, CONTENT, harmless=True if signed_inline else message.attachment is not None
    )
    yield with_content("content by another part", by_part, b"other")
    yield with_content("content by an empty part", by_part, b"")
    yield with_content("content by a longer part", by_part, CONTENT + b"\n")
    yield with_content("content by a part cut short", by_part, CONTENT[:-1])
    yield with_content("Include without a part", by_part, None)
    yield with_content("a part without Include", b64(CONTENT), CONTENT)
    yield with_content("a part of another name", by_part, CONTENT, "other@water")
    yield with_content("Include twice", by_part * 2, CONTENT)
    yield with_content("Include and text", by_part + b64(CONTENT), CONTENT)
    yield with_content("text and Include", b64(CONTENT) + by_part, CONTENT)
    for href in ("http://x.test/", "file:///etc/passwd", "cid:", "CID:content@water", "#body", "content@water", ""):
        yield with_content(f"Include of {href}", include(href), CONTENT)
    yield with_content("Include of another namespace", by_part.replace("2004/08", "2003/12"), CONTENT)
    yield with_content("Include with an attribute", by_part.replace("/>", ' type="x"/>'), CONTENT)
    yield with_content("Include with a child", by_part.replace("/>", "><x/></xop:Include>"), CONTENT)
    yield with_content("Include within an element", f"<x>{by_part}</x>", CONTENT)
    for place in ("header", "wrapper", "body", "operation", "value", "key info", "timestamp"):
        tree = Tree(message)
        tree.places()[place].append(made(by_part))
        yield tree.mutant(f"Include also in {place}")


def spellings(message: Message) -> Iterator[Mutant]:
    """The same document in other octets, some of which no reader here takes."""
    octets = message.octets
    text = octets.decode()
    harmless = {
        "mark": b"\xef\xbb\xbf" + octets,
        "declaration": b'<?xml version="1.0" encoding="UTF-8"?>' + octets,
        "standalone": b'<?xml version="1.0" encoding="utf-8" standalone="yes"?>\n' + octets + b"\n",
        "quotes": re.sub(r'="([^"]*)"', r"='\1'", text).encode(),
        "attributes the other way round": _attributes_reversed(text).encode(),
        "carriage returns": text.replace("\n", "\r\n").encode(),
        "empty elements": re.sub(r"<([\w:]+)([^<>]*)></\1>", r"<\1\2/>", text).encode(),
        "spaces in tags": re.sub(r"</([\w:]+)>", r"</\1  >", text).encode(),
    }
    for name, each in harmless.items():
        yield changed(message, f"spelt with {name}", each, harmless=True)
    wrong = {
        "UTF-16": text.encode("utf-16"), "UTF-16 without mark": text.encode("utf-16-le"),
        "UTF-32": text.encode("utf-32"),
        "said to be UTF-7": b'<?xml version="1.0" encoding="UTF-7"?>' + octets,
        "said to be GBK": b'<?xml version="1.0" encoding="GBK"?>' + octets,
        "cut": octets[:-9], "cut in the middle": octets[: len(octets) // 2], "twice": octets * 2, "nothing": b"",
        "garbage after": octets + b"x", "null after": octets + b"\0", "null before": b"\0" + octets,
        "second root": octets + b"<x/>", "Latin 1": text.replace("é", "\udce9").encode("utf-8", "surrogateescape"),
        "carriage returns by number": text.replace("\n", "&#13;\n").encode(),
        "version 2.0": b'<?xml version="2.0"?>' + octets.replace(b"water", b"power"),
    }  # fmt: skip
    for name, each in wrong.items():
        yield changed(message, f"spelt {name}", each)


def _attributes_reversed(text: str) -> str:
    def reverse(match: re.Match[str]) -> str:
        attributes = re.findall(r'\s+([\w:]+="[^"]*")', match[2])
        return f"<{match[1]} {' '.join(reversed(attributes))}{match[3]}>" if attributes else match[0]

    return re.sub(r'<([\w:]+)((?:\s+[\w:]+="[^"]*")+)\s*(/?)>', reverse, text)


OF_TEXT: Final = (insertions, spaces, namespaces, headers, members, times, contents, spellings)
