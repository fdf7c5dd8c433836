"""The only way our code reads XML: no DTD, no entity, no comment, no processing instruction, no network, bounded.

What cannot be there cannot hide anything: comments split text that a reader joins, entities read other files, a DTD
gives attributes that no one signed. Only UTF-8 is read, so that a scan of the octets sees what the parser sees.
"""

import io
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lxml import etree

from security.errors import Misconfigured, Refusal

MAX_ATTRIBUTES: Final = 64  # of one element: canonical form sorts them by insertion, n² of a thousand thousand is days
MAX_NAMESPACES: Final = 1_000  # declarations in a document: canonical form of a part copies those in scope, n² again
USUAL_DEPTH: Final = 10
RARE: Final = 100
_DECLARED: Final = re.compile(rb"""<\?xml\s[^>]*?encoding\s*=\s*["']([A-Za-z0-9._\-]+)["']""")
_CROWDED = etree.XPath(f"boolean(/descendant::*/@*[{MAX_ATTRIBUTES + 1}])")
_MORE_THAN = etree.XPath("boolean(count(//*) > $most)")
_FOREIGN_NODES: Final = (etree.Comment, etree.ProcessingInstruction, etree.Entity)


class _Parsers(threading.local):
    """One parser a thread: a parser holds a lock while it works, and a large message must not hold up small ones."""

    def __init__(self) -> None:
        # The encoding is given: a declaration such as UTF-7 cannot make the parser read other characters than we scan.
        self.parser = etree.XMLParser(
            encoding="utf-8", resolve_entities=False, load_dtd=False, no_network=True, collect_ids=False
        )
        self.of_documents = etree.XMLParser(
            encoding="utf-8", resolve_entities=False, load_dtd=False, no_network=True, collect_ids=False,
            remove_comments=True, remove_pis=True,
        )  # fmt: skip
        # Of a PrefixList lxml hands on only what stands in the thread's dictionary of names, where `#default` never
        # stands, being no name; a tag that is looked for gets there. Without it such a signature would be refused.
        for _ in etree.iterparse(io.BytesIO(b"<a/>"), tag="#default"):
            pass


_parsers = _Parsers()
_too_deep: dict[int, etree.XPath] = {}


def parse(octets: bytes, *, max_bytes: int, max_depth: int = 64, max_elements: int = 50_000) -> etree._Element:
    """The root element of an XML document in UTF-8.

    max_bytes, max_depth, max_elements: limits of the document; a text of more than 10 MB is refused in any case.

    Raises Refusal: `xml.too_large`, `xml.encoding`, `xml.dtd`, `xml.too_complex`, `xml.not_well_formed`,
    `xml.comment_or_instruction`. A CDATA section may not hold `<!DOCTYPE`, nor more `<` than elements are allowed.
    """
    # (1) What the octets alone show, before any parser sees them.
    if len(octets) > max_bytes:
        raise Refusal("xml.too_large", f"{len(octets)} > {max_bytes}")
    declared = _DECLARED.match(octets.removeprefix(b"\xef\xbb\xbf")[:256])
    if b"\x00" in octets[:4] or (declared and declared[1].upper() not in (b"UTF-8", b"US-ASCII")):
        raise Refusal("xml.encoding", declared[1].decode("ascii") if declared else "UTF-16 or UTF-32")
    _scan(octets, max_elements)
    # (2) Well-formed.
    root = _well_formed(octets, _parsers.parser)
    # (3) What only the tree shows.
    outside = root.getprevious() is not None or root.getnext() is not None
    if outside or next(root.iter(*_FOREIGN_NODES), None) is not None:
        raise Refusal("xml.comment_or_instruction")
    _measure(root, octets, max_depth, max_elements)
    return root


def parse_document(text: str, *, max_bytes: int, max_depth: int = 16, max_elements: int = 50_000) -> etree._Element:
    """The root element of a bureau's own document, the content of a delivery, whose characters were decoded already.

    text: what its declaration says of an encoding is not asked any more
    max_bytes, max_depth, max_elements: limits of the document, in UTF-8

    Comments and processing instructions are left out, and text goes on over them: devices write comments, and no part
    of a document is signed or made canonical on its own. Raises Refusal as `parse` does: `xml.too_large`, `xml.dtd`,
    `xml.too_complex`, `xml.not_well_formed`.
    """
    octets = text.encode("utf-8")
    if len(octets) > max_bytes:
        raise Refusal("xml.too_large", f"{len(octets)} > {max_bytes}")
    _scan(octets, max_elements)
    root = _well_formed(octets, _parsers.of_documents)
    _measure(root, octets, max_depth, max_elements)
    return root


def _scan(octets: bytes, max_elements: int) -> None:
    """What no parser is to see: a DTD, or more tags than memory is meant for.

    Megabytes of base64 hold no `!` and no `<`, and `=` at their end only: looked for first, for that is quick.
    """
    if b"!" in octets and b"<!DOCTYPE" in octets:
        raise Refusal("xml.dtd")
    if _more_than(2 * max_elements + 2, b"<", octets):  # memory follows the number of tags, not of octets
        raise Refusal("xml.too_complex", f"more than {max_elements} elements")
    if _more_than(MAX_NAMESPACES, b"=", octets) and octets.count(b"xmlns") > MAX_NAMESPACES:
        raise Refusal("xml.too_complex", f"more than {MAX_NAMESPACES} namespace declarations")


def _more_than(most: int, letter: bytes, octets: bytes) -> bool:
    """Whether the letter stands there more often. From one to the next where it is rare, else every octet in turn."""
    if len(octets) <= most:
        return False
    at = -1
    for found in range(RARE):
        at = octets.find(letter, at + 1)
        if at < 0:
            return found > most
    return octets.count(letter) > most


def _well_formed(octets: bytes, parser: etree.XMLParser) -> etree._Element:
    try:
        return etree.fromstring(octets, parser)
    except (etree.XMLSyntaxError, ValueError) as problem:
        raise Refusal("xml.not_well_formed", _where(problem)) from problem


def _measure(root: etree._Element, octets: bytes, max_depth: int, max_elements: int) -> None:
    """What only the tree shows. An element takes four octets; few documents are deep, so the short path comes first."""
    too_many = len(octets) > 4 * max_elements and _MORE_THAN(root, most=max_elements)
    too_deep = _deeper_than(min(USUAL_DEPTH, max_depth))(root) and _deeper_than(max_depth)(root)
    if too_many or too_deep or _CROWDED(root):
        raise Refusal("xml.too_complex", f"depth {max_depth}, attributes {MAX_ATTRIBUTES}, elements {max_elements}")


def read_own(octets: bytes) -> etree._Element:
    """The root of XML that this program wrote itself, or took through `parse` before; not for anybody else's."""
    return etree.fromstring(octets, _parsers.parser)


def compile_schema(path: Path) -> etree.XMLSchema:
    """A compiled XML Schema of ours. Raises Misconfigured naming the file."""
    try:
        return etree.XMLSchema(etree.parse(path, etree.XMLParser(resolve_entities=False, no_network=True)))
    except (OSError, etree.XMLSyntaxError, etree.XMLSchemaParseError) as problem:
        raise Misconfigured("config.file", f"{path}: {problem}") from problem


def canonical(element: etree._Element, prefixes: Sequence[str] = ()) -> bytes:
    """The octets of an element in Exclusive XML Canonicalization 1.0 without comments.

    element:  in its document, not a copy: namespaces that it inherits count where `prefixes` name them
    prefixes: InclusiveNamespaces PrefixList; `#default` for the default namespace

    Raises Refusal `xml.not_canonicalisable` (relative namespace URIs have no canonical form, C14N 1.0 §1.3).
    """
    try:
        return etree.tostring(
            element, method="c14n", exclusive=True, with_comments=False, with_tail=False,
            inclusive_ns_prefixes=list(prefixes) or None,
        )  # fmt: skip
    except etree.C14NError as problem:
        raise Refusal("xml.not_canonicalisable", etree.QName(element).localname) from problem


def _deeper_than(depth: int) -> etree.XPath:
    """An expression that is true where an element lies deeper: a path stops at once in a shallow document."""
    if depth not in _too_deep:
        _too_deep[depth] = etree.XPath("boolean(" + "/*" * (depth + 1) + ")")
    return _too_deep[depth]


def _where(problem: Exception) -> str:
    """The first line of a parser's complaint, without what it quotes of the document."""
    position = getattr(problem, "position", None)
    return f"line {position[0]}, column {position[1]}" if position else "no element"
