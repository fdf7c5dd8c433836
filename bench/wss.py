"""Verifying a signed delivery as the door does it, beside libxmlsec1 by python-xmlsec and signxml.

Ours: parse with limits, shape, key reference, certificate, signature, digests of token, Timestamp and Body, time, and
the operation read again from what was digested. Peer: parse, and verify the same three references by the certificate
that the message carries; that it is enrolled, that the Body is among the references and when it was signed, the peer
leaves to others. We keep the keys of enrolled certificates; the peer's users load a key for each message (zeep), and
could keep it too: both are measured.
"""

import base64
import random
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import xmlsec
from lxml import etree
from signxml import SignatureConfiguration, SignatureMethod, XMLVerifier

from bench.deliveries import Sender, envelope
from bench.figures import Figure, alternating, figure
from security.authenticate import TrustList, signer_of
from security.keys import Kind, generate
from security.pki import enrolled, issue, make_ca, pem_of
from security.wss import Limits, open_envelope, verify
from security.xmldsig import DS, WSSE

SMALL: Final = 10_000
LARGE: Final = 5 * 1024 * 1024  # the most that is taken inline
MESSAGES: Final = 8
RUN_S: Final = 0.5
RUNS: Final = 5
LIMITS: Final = Limits()
Verify = Callable[[bytes], None]


def measure(_: Path) -> Figure:
    """wss_verify_per_s: contents of 10 KB."""
    return _figure("wss_verify_per_s", SMALL)


def measure_large(_: Path) -> Figure:
    """wss_verify_5mb_per_s: contents of 5 MiB, the most that is taken inline."""
    return _figure("wss_verify_5mb_per_s", LARGE)


class _Party:
    """A bureau that signs, enrolled with us, and its messages."""

    def __init__(self, kind: Kind, size: int) -> None:
        self.now = datetime.now(UTC)
        self.parser = etree.XMLParser(resolve_entities=False, no_network=True)
        key, until = generate(kind), self.now + timedelta(days=1)
        ca, since = make_ca("CA", self.now), self.now - timedelta(days=1)
        self.der = issue(ca, "water", key.public_key, "signing", since, until)
        self.trust = TrustList((enrolled(self.der, "water", "signing"),))
        sender = Sender("water", key.with_certificate(self.der), self.der, "bus")
        rng = random.Random(size)
        self.messages = [envelope(rng.randbytes(size), f"m-{n}", sender, self.now) for n in range(MESSAGES)]
        self.kept = {self.der: self._loaded(self.der)}

    def ours(self, octets: bytes) -> None:
        opened = open_envelope(octets, LIMITS)
        certificate = signer_of(self.trust.named(opened.key_reference), opened.claimed("Sender"), self.now)
        assert verify(opened, certificate, now=self.now).text("Sender") == "water"

    def by_xmlsec(self, octets: bytes) -> None:
        root = self._parsed(octets)
        self._checked(root, self._loaded(_certificate_in(root)))

    def by_xmlsec_with_keys_kept(self, octets: bytes) -> None:
        root = self._parsed(octets)
        self._checked(root, self.kept[_certificate_in(root)])

    def _parsed(self, octets: bytes) -> etree._Element:
        return etree.fromstring(octets, self.parser)

    def _loaded(self, der: bytes) -> xmlsec.Key:
        return xmlsec.Key.from_memory(der, xmlsec.constants.KeyDataFormatCertDer)

    def _checked(self, root: etree._Element, key: xmlsec.Key) -> None:
        xmlsec.tree.add_ids(root, ["Id"])
        context = xmlsec.SignatureContext()
        context.key = key
        context.verify(root.find(f".//{DS}Signature"))

    def by_signxml(self, octets: bytes) -> None:
        suites = frozenset((SignatureMethod.ECDSA_SHA256, SignatureMethod.RSA_SHA256))
        expected = SignatureConfiguration(expect_references=3, signature_methods=suites, require_x509=True)
        XMLVerifier().verify(octets, x509_cert=pem_of(self.der).decode(), expect_config=expected, id_attribute="Id")


def _certificate_in(root: etree._Element) -> bytes:
    return base64.b64decode(root.findtext(f".//{WSSE}BinarySecurityToken", ""))


def _figure(name: str, size: int) -> Figure:
    """The figure under RSA, by which partners' toolkits sign unless told otherwise; ECDSA in the note."""
    rsa, ecdsa = _Party("RS256", size), _Party("ES256", size)
    ours, peer = alternating(
        lambda _: _rate(rsa.ours, rsa.messages), lambda _: _rate(rsa.by_xmlsec, rsa.messages), RUNS
    )
    ours_ec, peer_ec = alternating(
        lambda _: _rate(ecdsa.ours, ecdsa.messages), lambda _: _rate(ecdsa.by_xmlsec, ecdsa.messages), RUNS
    )
    by_ecdsa = figure(name, ours_ec, peer_ec, "", "")
    kept, other = _rate(rsa.by_xmlsec_with_keys_kept, rsa.messages), _rate(rsa.by_signxml, rsa.messages)
    note = (
        f"RSA-2048, {len(rsa.messages[0]):,} octets signed, three references, half a second of processor each run, one "
        f"thread; ECDSA P-256: {by_ecdsa.ours:,.0f}, peer {by_ecdsa.peer:,.0f}, ratio {by_ecdsa.ratio:.2f}; peer: "
        f"python-xmlsec, its key loaded from the message's certificate (keys kept between messages: {kept:,.0f}, "
        f"ratio {statistics.median(ours) / kept:.2f}); signxml {other:,.0f}"
    )
    return figure(name, ours, peer, "verified/s", note)


def _rate(check: Verify, messages: Sequence[bytes]) -> float:
    """Messages verified in a second of processor time; other processes of the machine do not count."""
    done, began_s = 0, time.process_time()
    while (took_s := time.process_time() - began_s) < RUN_S:
        for octets in messages:
            check(octets)
        done += len(messages)
    return done / took_s
