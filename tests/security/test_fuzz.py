"""Whatever comes, the readers of envelopes say what it is or refuse it by name, in bounded time and memory.

`make soak` sets YONGTONG_FUZZ_EXAMPLES for a longer run.
"""

import asyncio
import contextlib
import copy
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from lxml import etree
from starlette.types import Message as Received

from connectors.transports.multipart import media_type, take_apart
from exchange.http.body import SPOOL_ABOVE_BYTES, Spool, read_body
from security.envelope import Limits
from security.errors import Refusal
from security.message import in_memory
from security.wss import open_envelope
from security.xml import parse, parse_document
from tests.doors.test_multipart import TYPE, message
from tests.security.mutants import IDS, Message, Mutant
from tests.security.test_mutants import MESSAGES, meaning
from tests.security.vectors import seal

EXAMPLES: Final = int(os.environ.get("YONGTONG_FUZZ_EXAMPLES", "150"))
fuzz: Final = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
few: Final = settings(max_examples=max(EXAMPLES // 5, 1), deadline=None)
MEANINGS: Final = {each.name: meaning(each) for each in MESSAGES}
SPLINTERS: Final = (
    b"<", b">", b"</", b"/>", b"&", b"&#0;", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<!DOCTYPE x", b"<?", b"xmlns",
    b'="', b"'", b"\0", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"--b-1", b"--", b"=", b' Id="body"',
)  # fmt: skip
WORDS: Final = ("", " ", "x", "=", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "٢٠٢٦-07-01T08:00:00Z", "甬")
messages = st.sampled_from(MESSAGES)


@st.composite
def spoilt(draw: st.DrawFn, octets: bytes, others: tuple[bytes, ...]) -> bytes:
    """Octets of which up to four places were flipped, cut, dropped, repeated, or replaced by a piece of something."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(octets) - 1, 0)))
        size = draw(st.integers(0, 80))
        piece = octets[at : at + size]
        kind = draw(st.sampled_from(["flip", "cut", "drop", "repeat", "splinter", "rubbish", "splice"]))
        if kind == "cut":
            octets = octets[:at]
        elif kind == "flip" and octets:
            octets = octets[:at] + bytes([octets[at] ^ draw(st.integers(1, 255))]) + octets[at + 1 :]
        elif kind == "drop":
            octets = octets[:at] + octets[at + size :]
        elif kind == "repeat":
            octets = octets[:at] + piece * draw(st.integers(2, 50)) + octets[at + size :]
        elif kind == "splinter":
            octets = octets[:at] + draw(st.sampled_from(SPLINTERS)) + octets[at:]
        elif kind == "rubbish":
            octets = octets[:at] + draw(st.binary(max_size=20)) + octets[at + size :]
        else:
            other = draw(st.sampled_from(others))
            there = draw(st.integers(0, max(len(other) - 1, 0)))
            octets = octets[:at] + other[there : there + draw(st.integers(0, 2_000))] + octets[at + size :]
    return octets


@st.composite
def regrown(draw: st.DrawFn, octets: bytes) -> bytes:
    """The same tree with up to four branches removed, doubled, moved, renamed, or given other words or attributes."""
    root = etree.fromstring(octets)
    for _ in range(draw(st.integers(1, 4))):
        elements = list(root.iter(etree.Element))
        one, two = (elements[draw(st.integers(0, len(elements) - 1))] for _ in "12")
        kind = draw(
            st.sampled_from(["remove", "double", "move", "rename", "text", "tail", "attribute", "bare", "swap"])
        )
        movable = one is not root and one not in (two, *two.iterancestors())
        parent = one.getparent()
        if kind == "rename":
            one.tag = two.tag
        elif kind == "text":
            one.text = draw(
                st.sampled_from([two.text, None, "", " ", "x", "9999-12-31T23:59:59Z", "٢٠٢٦-07-01T08:00:00Z", "="])
            )
        elif kind == "tail" and parent is not None:
            one.tail = draw(st.sampled_from([two.text, None, " ", "x"]))
        elif kind == "attribute":
            names = [*IDS, *two.attrib, "URI", "Algorithm", "href", "ValueType", "PrefixList"]
            values = [*two.attrib.values(), *one.attrib.values(), "", "#", "#body", "body", "cid:%ff", "x" * 300]
            one.set(draw(st.sampled_from(names)), draw(st.sampled_from(values)))
        elif kind == "bare":
            one.attrib.clear()
        elif movable and kind == "move":
            two.append(one)
        elif movable and kind == "swap":
            one.addprevious(two) if two is not root and one not in two.iterdescendants() else None
        elif parent is not None and kind == "remove":
            parent.remove(one)
        elif parent is not None and kind == "double":
            one.addnext(copy.deepcopy(one))
    return etree.tostring(root, encoding="utf-8")


def same_or_refused(sent: Message, octets: bytes) -> None:
    mutant = Mutant(sent.name, octets, sent.attachment, sent.attachment_id)
    with contextlib.suppress(Refusal):
        assert meaning(mutant) == MEANINGS[sent.name]


@given(st.binary(max_size=400))
@fuzz
def test_rubbish_is_refused(octets: bytes) -> None:
    for read in (partial(parse, max_bytes=1_000), open_envelope):
        with pytest.raises(Refusal):
            read(octets + b"\0")  # never a document
    with contextlib.suppress(Refusal, UnicodeDecodeError):
        parse_document(octets.decode(), max_bytes=1_000)


@given(st.data(), messages)
@fuzz
def test_altered_octets_are_the_original_or_refused(data: Any, sent: Message) -> None:
    same_or_refused(sent, data.draw(spoilt(sent.octets, tuple(each.octets for each in MESSAGES))))


@given(st.data(), messages)
@fuzz
def test_an_altered_tree_is_the_original_or_refused(data: Any, sent: Message) -> None:
    same_or_refused(sent, data.draw(regrown(sent.octets)))


@given(st.data(), messages)
@fuzz
def test_an_altered_tree_that_is_signed_again_is_read_or_refused(data: Any, sent: Message) -> None:
    """A signer may say anything; it must not break what reads it, and what it is taken for is what was digested."""
    xml = data.draw(regrown(sent.octets)).decode()
    try:
        octets = seal(xml)
    except (AssertionError, ValueError, IndexError, TypeError, etree.LxmlError):  # no place to put a signature
        assume(False)
    with contextlib.suppress(Refusal):
        meaning(Mutant(sent.name, octets, sent.attachment, sent.attachment_id))


@given(st.data(), st.text(max_size=60))
@fuzz
def test_multipart_is_taken_apart_or_refused(data: Any, rubbish: str) -> None:
    good = message()
    declared = data.draw(st.sampled_from([TYPE, f"{TYPE}; x={rubbish}", rubbish, TYPE.replace("b-1", rubbish)]))
    octets = data.draw(spoilt(good, (good, MESSAGES[0].octets)))
    with contextlib.suppress(Refusal):
        related = take_apart(in_memory(octets), media_type(declared), max_envelope_bytes=10_000)
        assert related.envelope in octets
        assert related.attachment.read() in octets


@given(
    st.lists(st.binary(max_size=50) | st.integers(0, SPOOL_ABOVE_BYTES).map(bytes), max_size=6),
    st.integers(0, 2_000_000),
)
@few
def test_a_body_in_any_pieces_is_whole_or_refused(pieces: list[bytes], declared: int) -> None:
    left = [*pieces, b""]

    async def receive() -> Received:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def read(folder: Path) -> bytes:
        body = read_body(receive, declared, max_bytes=1_500_000, seconds=5.0, spool=Spool(folder), bureau="water")
        async with body as content:
            return content.read()

    with tempfile.TemporaryDirectory() as folder:
        if max(declared, len(b"".join(pieces))) > 1_500_000:
            with pytest.raises(Refusal, match=r"size\.too_large"):
                asyncio.run(read(Path(folder)))
        else:
            assert asyncio.run(read(Path(folder))) == b"".join(pieces)
        assert list(Path(folder).iterdir()) == []


# Bounds: the largest envelope that is read at all, filled with one thing -------------------------------------------

ROOM: Final = 8_000_000


def _numbered(one: str, count: int) -> str:
    return "".join(one.replace("@", str(number)) for number in range(count))


def _inside(attributes: str, times: int = 1) -> str:
    return f"<a {attributes}/>" * times


FULL: Final[dict[str, Callable[[], str]]] = {
    "text": lambda: "x" * ROOM,
    "letters of three octets": lambda: "甬" * (ROOM // 3),
    "references to characters": lambda: "&#38;" * (ROOM // 5),
    "elements": lambda: "<a/>" * (ROOM // 4),
    "elements within the limit": lambda: "<a></a>" * 49_000,
    "open tags": lambda: "<a>" * (ROOM // 3),
    "levels": lambda: "<a>" * 200 + "</a>" * 200,
    "attributes of one element": lambda: _inside(_numbered(' a@=""', 100_000)),
    "attributes of many elements": lambda: _inside(_numbered(' a@=""', 63), 4_000),
    "one long attribute": lambda: _inside(f'b="{"x" * (ROOM - 100_000)}"'),
    "namespaces of one element": lambda: _inside(_numbered(' xmlns:a@="urn:@"', 50_000)),
    "namespaces within the limit": lambda: _inside(_numbered(' xmlns:a@="urn:@"', 980)).replace(
        "/>", f">{'<b/>' * 20_000}</a>"
    ),
    "CDATA": lambda: f"<a><![CDATA[{']' * (ROOM - 100_000)}]]></a>",
    "names": lambda: _numbered("<n@/>", 49_000),
    "ids": lambda: _numbered('<a Id="@"/>', 49_000),
    "lines": lambda: "\r\n" * (ROOM // 2),
}


def spent(name: str) -> tuple[float, int]:
    """Processor seconds and resident megabytes that one reading takes beyond what stood before."""
    octets = MESSAGES[0].octets.replace(b"<Feed>", FULL[name]().encode() + b"<Feed>", 1)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with contextlib.suppress(Refusal):
        meaning(Mutant(name, octets))
    with contextlib.suppress(Refusal):
        open_envelope(octets, Limits(max_bytes=1_000))
    return time.process_time() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024


def test_the_fullest_envelope_takes_bounded_time_and_memory() -> None:
    """Each in a process of its own, for the most memory that a process has held never goes down."""
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        taken = dict(zip(FULL, pool.map(spent, FULL, chunksize=1), strict=True))
    print("FULL", {name: f"{seconds:.2f} s, {megabytes} MB" for name, (seconds, megabytes) in taken.items()})
    assert max(seconds for seconds, _ in taken.values()) < 2.0
    assert max(megabytes for _, megabytes in taken.values()) < 200
