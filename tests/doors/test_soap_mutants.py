"""Mutants of honest messages at the real door: nothing of them reaches the inbox, the evidence or act two."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import requests
from lxml import etree

from security.errors import sentences
from tests.doors.bus import ORIGIN
from tests.doors.test_soap import END, LINE, YT, Exchange, code_of, exchange
from tests.security.mutants import Message, Mutant
from tests.security.test_mutants import mutants_of
from tests.security.vectors import CONTENT, CONTENT_ID, SOAP12, b64, include, seal, template, token

__all__ = ["exchange"]  # a fixture of the other doors' tests
EVERY = 13  # of some 1,100 mutants; all of them are tried at the verifier in security/test_mutants.py
ROOT = b'Content-Type: application/xop+xml; charset=UTF-8; type="application/soap+xml"\r\n'
ROOT += b"Content-Transfer-Encoding: binary\r\nContent-ID: <root@x>\r\n\r\n"
PART = f"Content-Type: text/csv\r\nContent-Transfer-Encoding: binary\r\nContent-ID: <{CONTENT_ID}>\r\n\r\n".encode()
TYPE = 'multipart/related; type="application/xop+xml"; boundary=b'


def message(exchange: Exchange, *, mtom: bool) -> Message:
    """A delivery of water's to `covers`, good at this door."""
    key, created = exchange.water.signing, datetime.now(UTC)
    xml = template(
        feed="covers",
        token_xml=token(key),
        content=include() if mtom else b64(CONTENT),
        created=f"{created:%Y-%m-%dT%H:%M:%SZ}",
        expires=f"{created + timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}",
        header='<x:y xmlns:x="urn:x"/>',
        **({"soap": SOAP12} if mtom else {}),
    ).replace(">bus<", f">{ORIGIN}<")
    octets = seal(xml, key)
    return Message("mtom", octets, CONTENT, CONTENT_ID) if mtom else Message("inline", octets)


def posted(exchange: Exchange, sent: Message | Mutant, session: requests.Session) -> requests.Response:
    headers = {"Content-Type": "text/xml; charset=utf-8"}
    octets = sent.octets
    if sent.attachment is not None:
        headers = {"Content-Type": TYPE}
        octets = b"--b\r\n" + ROOT + octets + LINE + PART + sent.attachment + END
    return session.post(f"{exchange.url}/soap/feeds", data=octets, headers=headers, timeout=20)


def test_no_mutant_reaches_the_inbox_and_every_harmless_one_gets_the_one_receipt(
    exchange: Exchange, tell: Callable[[str], None]
) -> None:
    test, tried = exchange.test, 0
    with requests.Session() as session:
        session.trust_env = False  # REQUESTS_CA_BUNDLE would stand before what is set here
        session.verify = str(test.city.ca_file)
        session.cert = (str(exchange.water.file("connection.pem")), str(exchange.water.file("connection.key")))
        for original in (message(exchange, mtom=False), message(exchange, mtom=True)):
            mutants = mutants_of(original, every=EVERY)
            for mutant in (mutant for mutant in mutants if not mutant.harmless):
                code = code_of(posted(exchange, mutant, session))
                assert code in sentences(), mutant.name
                tried += 1
            assert test.bus.journal.inbox("water", "m-1") is None
            assert test.woken == 0
        receipts = set()
        for original in (message(exchange, mtom=False), message(exchange, mtom=True)):
            for taken in (original, *(mutant for mutant in mutants_of(original, every=EVERY) if mutant.harmless)):
                answer = posted(exchange, taken, session)
                receipts.add(etree.fromstring(answer.content).findtext(f".//{YT}Receipt", f"none: {taken.name}"))
        assert len(receipts) == 1, receipts
        assert test.bus.journal.inbox("water", "m-1") is not None
    tell(f"MUTANTS at the door: {tried} refused")
