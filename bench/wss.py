"""Verifying a signed delivery as the door does it, beside libxmlsec1 by python-xmlsec and signxml.

Ours: parse with limits, shape, key reference, certificate, signature, digests of token, Timestamp and Body, time, and
the operation read again from what was digested. Peers: parse, and verify the same three references with the signer's
key; that the Body is among them, whose key it is and when it was signed, they leave to others.
"""

import random
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
from security.xmldsig import DS

SMALL: Final = 10_000
LARGE: Final = 5 * 1024 * 1024  # the most that is taken inline
MESSAGES: Final = 8
RUN_S: Final = 1.0
RUNS: Final = 7
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
        key, until = generate(kind), self.now + timedelta(days=1)
        self.der = issue(make_ca("CA", self.now), "water", key.public_key, "signing", self.now - timedelta(days=1), until)
        self.trust = TrustList((enrolled(self.der, "water", "signing"),))
        sender = Sender("water", key.with_certificate(self.der), self.der, "bus")
        rng = random.Random(size)
        self.messages = [envelope(rng.randbytes(size), f"m-{n}", sender, self.now) for n in range(MESSAGES)]
        self.key = self.key_for_xmlsec()

    def ours(self, octets: bytes) -> None:
        opened = open_envelope(octets, LIMITS)
        certificate = signer_of(self.trust.named(opened.key_reference), opened.claimed("Sender"), self.now)
        assert verify(opened, certificate, now=self.now).text("Sender") == "water"

    def key_for_xmlsec(self) -> xmlsec.Key:
        return xmlsec.Key.from_memory(pem_of(self.der), xmlsec.constants.KeyDataFormatCertPem)

    def by_xmlsec(self, octets: bytes) -> None:
        self._xmlsec(octets, self.key)

    def by_xmlsec_and_loaded_key(self, octets: bytes) -> None:
        self._xmlsec(octets, self.key_for_xmlsec())

    def _xmlsec(self, octets: bytes, key: xmlsec.Key) -> None:
        root = etree.fromstring(octets, etree.XMLParser(resolve_entities=False, no_network=True))
        xmlsec.tree.add_ids(root, ["Id"])
        context = xmlsec.SignatureContext()
        context.key = key
        context.verify(root.find(f".//{DS}Signature"))

    def by_signxml(self, octets: bytes) -> None:
        suites = frozenset((SignatureMethod.ECDSA_SHA256, SignatureMethod.RSA_SHA256))
        expected = SignatureConfiguration(expect_references=3, signature_methods=suites, require_x509=True)
        XMLVerifier().verify(octets, x509_cert=pem_of(self.der).decode(), expect_config=expected, id_attribute="Id")


def _figure(name: str, size: int) -> Figure:
    """The figure under RSA, which WSS4J, .NET, zeep and node sign with unless told otherwise; ECDSA in the note."""
    rsa, ecdsa = _Party("RS256", size), _Party("ES256", size)
    ours, peer = alternating(lambda _: _rate(rsa.ours, rsa.messages), lambda _: _rate(rsa.by_xmlsec, rsa.messages), RUNS)
    ours_ec, peer_ec = alternating(
        lambda _: _rate(ecdsa.ours, ecdsa.messages), lambda _: _rate(ecdsa.by_xmlsec, ecdsa.messages), RUNS
    )
    by_ecdsa = figure(name, ours_ec, peer_ec, "", "")
    loaded, other = (_rate(each, rsa.messages) for each in (rsa.by_xmlsec_and_loaded_key, rsa.by_signxml))
    note = (
        f"RSA-2048, {len(rsa.messages[0]):,} octets signed, three references, a second of processor time each run, one "
        f"thread; ECDSA P-256: {by_ecdsa.ours:,.0f}, peer {by_ecdsa.peer:,.0f}, ratio {by_ecdsa.ratio:.2f}; peer: "
        f"python-xmlsec, its key loaded once ({loaded:,.0f} where it is loaded from the certificate each time); "
        f"signxml {other:,.0f}"
    )
    return figure(name, ours, peer, "verified/s", note)


def _rate(check: Verify, messages: Sequence[bytes]) -> float:
    """Messages verified in a second of processor time: other processes of the machine do not count."""
    done, began_s = 0, time.process_time()
    while (took_s := time.process_time() - began_s) < RUN_S:
        for octets in messages:
            check(octets)
        done += len(messages)
    return done / took_s
