"""Suites: each kind of key signs by its own algorithm, in XML and in documents, and is taken by no other name."""

import itertools
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from lxml import etree

from security.authenticate import TrustList
from security.envelope import Envelope
from security.errors import Misconfigured, Refusal
from security.jose import b64url, unb64url
from security.jws import jcs, open_document, sign_document
from security.jws_delivery import open_delivery, sign_delivery, verify_delivery
from security.keys import Algorithm, SigningKey, fits, kind_of, verify_signature
from security.message import Content, Delivery, in_memory
from security.pki import pem_of
from security.signatures import payload_of, reopen
from security.sm2 import der_of
from security.suites import SHA256, SM2_WITH_SM3, SM3, XmlSuites, document_name, xml_signature, xml_signatures
from security.wss import VerifiedEnvelope, open_envelope, sign, verify
from security.xml import canonical
from tests.security.vectors import CONTENT, NOW, as_enrolled, b64, holder

ALGORITHMS: Final[tuple[Algorithm, ...]] = ("ES256", "RS256", "PS256", "EdDSA", "SM2")
KEYS: Final = {kind: holder("water", kind) for kind in ("ES256", "RS256", "EdDSA", "SM2")}
SIGNERS: Final = {**KEYS, "PS256": KEYS["RS256"].signing_by("PS256")}
RENAMED: Final = XmlSuites("urn:city:sm2", "urn:city:sm3")
STANDARD: Final = XmlSuites()
DISTID: Final = "distid:1234567812345678"
_DSIG, _MORE = "http://www.w3.org/2000/09/xmldsig#", "http://www.w3.org/2001/04/xmldsig-more#"
REFUSED: Final = (
    *(_DSIG + name for name in ("rsa-sha1", "dsa-sha1", "hmac-sha1")),
    *(_MORE + name for name in ("rsa-md5", "rsa-sha384", "rsa-sha512", "rsa-ripemd160", "ecdsa-sha1", "ecdsa-sha384")),
    *(_MORE + name for name in ("ecdsa-sha512", "hmac-md5", "hmac-sha256", "hmac-sha512")),
    *("http://www.w3.org/2007/05/xmldsig-more#" + name for name in ("rsa-pss", "sha1-rsa-MGF1", "sha512-rsa-MGF1")),
    *("http://www.w3.org/2021/04/xmldsig-more#" + name for name in ("eddsa-ed448", "eddsa-ed25519ph")),
    *("urn:city:sm2", "SM2", "none", ""),
)  # fmt: skip


def called(key: SigningKey, algorithm: Algorithm) -> SigningKey:
    """A liar: signs as its key does, and says that it was by algorithm."""
    liar = SigningKey(key.issuing_key(), key.certificate_der)
    liar.algorithm = algorithm
    return liar


def plain(content: bytes, digest: str, value: str) -> etree._Element:
    return etree.fromstring(
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><SubmitDelivery '
        'xmlns="urn:yongtong:v1"><Sender>water</Sender><MessageId>m-1</MessageId>'
        f'<ContentDigest algorithm="{digest}">{value}</ContentDigest><Content>{b64(content)}</Content>'
        "</SubmitDelivery></s:Body></s:Envelope>"
    )


def envelope_of(key: SigningKey, digest: Any = "SHA-256", suites: XmlSuites = STANDARD) -> bytes:
    assert key.certificate_der is not None
    root = plain(CONTENT, digest, in_memory(CONTENT).digest_by(digest).hex)
    return sign(root, key, key.certificate_der, created=NOW, expires=NOW + timedelta(minutes=5), suites=suites)


def verified(octets: bytes, key: SigningKey, suites: XmlSuites = STANDARD) -> VerifiedEnvelope:
    return verify(open_envelope(octets, suites=suites), as_enrolled(key, "water"), now=NOW)


def code_of(call: Any, *arguments: Any, **named: Any) -> tuple[str, str]:
    with pytest.raises(Refusal) as refused:
        call(*arguments, **named)
    return refused.value.code, refused.value.detail


@pytest.mark.parametrize("suites", [STANDARD, RENAMED], ids=["standard", "renamed"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_envelope_signed_by_each_suite_verifies_and_altered_does_not(algorithm: Any, suites: XmlSuites) -> None:
    key = SIGNERS[algorithm]
    octets = envelope_of(key, suites=suites)
    assert xml_signature(suites, algorithm).encode() in octets
    assert verified(octets, key, suites).text("MessageId") == "m-1"
    assert code_of(verified, octets.replace(b"m-1", b"m-2"), key, suites)[0] == "signature.invalid"
    assert code_of(verified, octets.replace(b":00:00.", b":00:01."), key, suites)[0] == "signature.invalid"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_attachment_in_its_expanded_form_verifies_by_each_suite(algorithm: Any) -> None:
    """The Body is signed with the content in place, and sent with an Include: hashed piece by piece, by SM3 too."""
    key = SIGNERS[algorithm]
    octets = envelope_of(key)
    include = b'<xop:Include xmlns:xop="http://www.w3.org/2004/08/xop/include" href="cid:c"></xop:Include>'
    sent = octets.replace(b64(CONTENT).encode(), include)
    found = verify(
        open_envelope(sent), as_enrolled(key, "water"), now=NOW, attachment=in_memory(CONTENT), attachment_id="c"
    )
    assert found.form == "mtom-expanded"


def test_every_mix_of_key_and_algorithm_is_refused_but_the_keys_own(tell: Callable[[str], None]) -> None:
    """Each kind of key x each algorithm x XML, document, delivery, and the bare signature."""
    cells = taken = 0
    for (kind, key), algorithm in itertools.product(KEYS.items(), ALGORITHMS):
        own = fits(kind_of(key.public_key), algorithm)
        liar = SIGNERS[algorithm] if own else called(key, algorithm)
        certificate = as_enrolled(key, "water")
        tries = [
            lambda: verified(envelope_of(liar), key),  # noqa: B023  # called within the turn
            lambda: open_document(sign_document({"v": 1}, "x", liar), certificate.der, "x"),  # noqa: B023
            lambda: verify_signature(certificate.der, algorithm, liar.sign(b"x"), b"x"),  # noqa: B023
        ]
        if algorithm != "SM2":  # which has no name there: the envelope is refused before its key is asked for
            tries.append(lambda: verify_delivery(open_delivery(_delivery(liar)), certificate))  # noqa: B023
        for attempt in tries:
            cells += 1
            if own:
                attempt()
                taken += 1
            else:
                assert code_of(attempt)[0] == "signature.algorithm_not_of_key", (kind, algorithm)
    tell(f"MATRIX key x algorithm x form: {cells} cells, {taken} taken, {cells - taken} refused by name")
    assert (cells, taken) == (4 * (4 * 4 + 3), 4 * 4 + 3)


def _delivery(key: SigningKey) -> bytes:
    names = {"sender": "water", "recipient": "bus", "feed": "f", "message_id": "m", "content_type": "text/csv"}
    return sign_delivery(b"content", key, **names, signed_at=NOW)


@pytest.mark.parametrize("uri", REFUSED)
@pytest.mark.parametrize("kind", KEYS)
def test_an_algorithm_that_is_not_accepted_is_refused_by_its_name(kind: str, uri: str) -> None:
    octets = envelope_of(KEYS[kind]).replace(
        xml_signature(STANDARD, kind_of(KEYS[kind].public_key)).encode(), uri.encode()
    )
    assert code_of(verified, octets, KEYS[kind]) == ("signature.algorithm_refused", uri.rsplit("/", 1)[-1] or "none")


@pytest.mark.parametrize(
    "uri", [_DSIG + "sha1", _MORE + "md5", _MORE + "sha384", "http://www.w3.org/2001/04/xmlenc#sha512", "urn:city:sm3"]
)
def test_a_digest_that_is_not_accepted_is_refused_by_its_name(uri: str) -> None:
    octets = envelope_of(KEYS["ES256"]).replace(SHA256.encode(), uri.encode())
    assert code_of(verified, octets, KEYS["ES256"]) == ("signature.algorithm_refused", uri.rsplit("/", 1)[-1])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_two_hashes_are_not_mixed_under_one_signature(algorithm: Any) -> None:
    own, other = (SM3, SHA256) if algorithm == "SM2" else (SHA256, SM3)
    for count in (1, 3):  # one reference, and all of them
        octets = envelope_of(SIGNERS[algorithm]).replace(own.encode(), other.encode(), count)
        code, detail = code_of(verified, octets, SIGNERS[algorithm])
        assert (code, detail.endswith(f"beside {algorithm}")) == ("signature.hash_not_of_suite", True)


@pytest.mark.parametrize(
    "inside",
    [
        '<p:RSAPSSParams xmlns:p="http://www.w3.org/2007/05/xmldsig-more#"/>',
        '<p:RSAPSSParams xmlns:p="http://www.w3.org/2007/05/xmldsig-more#"><p:SaltLength>32</p:SaltLength></p:RSAPSSParams>',
        '<p:RSAPSSParams xmlns:p="http://www.w3.org/2007/05/xmldsig-more#"><p:SaltLength>0</p:SaltLength></p:RSAPSSParams>',
    ],
)
def test_parameters_of_pss_are_refused_whatever_they_say(inside: str) -> None:
    octets = envelope_of(SIGNERS["PS256"])
    place = b'sha256-rsa-MGF1">'
    assert code_of(open_envelope, octets.replace(place, place + inside.encode()))[0] == "signature.shape"


def test_a_pss_signature_with_another_salt_or_as_pkcs1_does_not_hold() -> None:
    key: Any = KEYS["RS256"].issuing_key()
    pss = [padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=length) for length in (0, 20, 222)]
    for scheme in (*pss, padding.PKCS1v15(), padding.PSS(padding.MGF1(hashes.SHA1()), salt_length=32)):
        signature = key.sign(b"x", scheme, hashes.SHA256())
        assert code_of(verify_signature, key.public_key(), "PS256", signature, b"x")[0] == "signature.invalid"


@pytest.mark.parametrize("signature, digest", [("", "urn:x:1"), ("no uri", "urn:x:1"), ("urn:a<b", "urn:x:1"),
                                               (_MORE + "ecdsa-sha256", "urn:x:1"), ("urn:x:1", SHA256)])  # fmt: skip
def test_a_setting_that_gives_sm2_the_name_of_another_algorithm_stops_the_start(signature: str, digest: str) -> None:
    with pytest.raises(Misconfigured, match="suites"):
        XmlSuites(signature, digest)


# The content's own digest


def payload(octets: bytes, key: SigningKey) -> Any:
    return payload_of(verified(octets, key), Delivery("soap", None, "test", octets, in_memory(octets), NOW))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("digest", ["SHA-256", "SM3"])
def test_the_content_may_be_stated_by_either_hash_and_is_known_by_sha256(algorithm: Any, digest: Any) -> None:
    octets = envelope_of(SIGNERS[algorithm], digest)
    found = payload(octets, SIGNERS[algorithm])
    assert (found.content.read(), found.content.digest) == (CONTENT, in_memory(CONTENT).digest)
    request_digest = verified(octets, SIGNERS[algorithm]).signature_digest
    again = reopen(
        octets, None, expected=found.content.digest, request_digest=request_digest,
        signer=found.signer, signed_at=NOW, form="inline",
    )  # fmt: skip
    assert again == found


def test_another_content_than_sm3_says_is_refused(tmp_path: Path) -> None:
    key = KEYS["SM2"]
    assert key.certificate_der is not None
    for name, value in (("SM3", in_memory(CONTENT).digest.hex), ("SHA-256", in_memory(CONTENT).digest_by("SM3").hex),
                        ("SM3", in_memory(b"other").digest_by("SM3").hex), ("SHA-1", "00" * 20)):  # fmt: skip
        root = plain(CONTENT, name, value)
        octets = sign(root, key, key.certificate_der, created=NOW, expires=NOW + timedelta(minutes=5))
        assert code_of(payload, octets, key)[0] == "signature.content_digest"


def test_the_sm3_digest_of_a_slice_of_a_file_is_of_the_slice(tmp_path: Path) -> None:
    octets = bytes(range(256)) * 9_000  # more than one piece
    (tmp_path / "file").write_bytes(b"before" + octets + b"after")
    slice_of = Content(len(octets), in_memory(octets).digest, path=tmp_path / "file", offset=6)
    assert slice_of.digest_by("SM3") == in_memory(octets).digest_by("SM3")
    assert b"".join(slice_of.pieces(1000)) == octets


# Documents


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_document_names_its_algorithm_and_opens(algorithm: Any) -> None:
    key = SIGNERS[algorithm]
    octets = sign_document({"v": 1, "said": "路灯"}, "yt-receipt+jws", key)
    protected = unb64url(octets.decode().split('"protected":"')[1].split('"')[0])
    name = SM2_WITH_SM3 if algorithm == "SM2" else algorithm
    assert f'"alg":"{name}"'.encode() in protected
    assert open_document(octets, key.certificate_der or b"", "yt-receipt+jws") == {"v": 1, "said": "路灯"}


def test_sm2_has_one_name_in_documents_and_none_in_deliveries() -> None:
    key = KEYS["SM2"]
    liar = called(key, "SM2")
    liar.algorithm = "sm2"  # type: ignore[assignment]  # what a document might say
    assert document_name("SM2") == SM2_WITH_SM3
    for name in ("sm2", "SM2SM3", "SGD_SM3_SM2"):
        liar.algorithm = name  # type: ignore[assignment]
        octets = sign_document({"v": 1}, "x", liar)
        assert code_of(open_document, octets, key.certificate_der, "x")[0] == "signature.algorithm_not_of_key"
    assert code_of(_delivery, key) == ("jws.member_form", "alg")


def test_a_document_whose_alg_says_plain_sm2_is_refused() -> None:
    key = KEYS["SM2"]
    assert key.certificate_der is not None
    header = {"alg": "SM2", "typ": "x", "kid": key.fingerprint, "x5t#S256": b64url(bytes.fromhex(key.fingerprint))}
    protected, body = b64url(jcs(header)), b64url(jcs({"v": 1}))
    signature = b64url(key.sign(f"{protected}.{body}".encode()))
    octets = jcs({"payload": body, "protected": protected, "signature": signature})
    assert code_of(open_document, octets, key.certificate_der, "x")[0] == "signature.algorithm_not_of_key"


# What partners read


def test_the_document_names_every_suite_as_the_code_does() -> None:
    text = (Path(__file__).parents[2] / "docs/suites.md").read_text()
    for uri in (*xml_signatures(STANDARD), SHA256, SM3, *map(document_name, ALGORITHMS)):
        assert f"`{uri.replace('http://www.w3.org/', '…/')}`" in text, uri


# OpenSSL

DGST: Final = "openssl dgst {} -verify key.pem -signature signature signed_info"
CHECKS: Final = {
    "ES256": DGST.format("-sha256"),
    "RS256": DGST.format("-sha256"),
    "PS256": DGST.format("-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32"),
    "EdDSA": "openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in signed_info -sigfile signature",
    "SM2": DGST.format(f"-sm3 -sigopt {DISTID}"),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_openssl_verifies_signed_info_and_its_digests_by_each_suite(algorithm: Any, tmp_path: Path) -> None:
    key = SIGNERS[algorithm]
    assert key.certificate_der is not None
    opened: Envelope = open_envelope(envelope_of(key))
    value = opened.signature.value
    (tmp_path / "cert.pem").write_bytes(pem_of(key.certificate_der))
    (tmp_path / "signed_info").write_bytes(canonical(opened.signature.signed_info, opened.signature.prefixes))
    (tmp_path / "signature").write_bytes(der_of(value) if algorithm in ("ES256", "SM2") else value)
    body = canonical(opened.element.getparent())  # type: ignore[arg-type]  # of the Body
    (tmp_path / "body").write_bytes(body.replace(opened.place.encode(), opened.inline.encode(), 1))
    command = f"openssl x509 -in cert.pem -noout -pubkey > key.pem && {CHECKS[algorithm]}"
    told = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=True).stdout
    assert told in (b"Verified OK\n", b"Signature Verified Successfully\n")
    digest = ["openssl", "dgst", "-sm3" if algorithm == "SM2" else "-sha256", "-binary", "body"]
    (body,) = (part for part in opened.parts if part.name == "Body")
    assert subprocess.run(digest, cwd=tmp_path, capture_output=True, check=True).stdout == body.reference.digest


def test_an_sm2_certificate_is_found_by_every_name() -> None:
    kept = as_enrolled(KEYS["SM2"], "water")
    trust, certificate = TrustList((kept,)), x509.load_der_x509_certificate(kept.der)
    ski = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert trust.by_ski(ski) == trust.by_issuer_serial("CN=Test CA", certificate.serial_number) == kept
