"""Which link of a chain is broken: each fault by name, and the certificate that is meant."""

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from security.chain import authorities_over, check_chain, issuer_of
from security.errors import Refusal
from tests.security.authorities import DAY, NOW, Holder, altered_anywhere

ROOT = Holder("City Root", path_length=1)
MIDDLE = Holder("City CA", ROOT, path_length=0)
LEAF = MIDDLE.leaf()
OTHER = Holder("Other Root")


def refused(leaf: Holder | bytes, intermediates: tuple[Holder, ...] = (MIDDLE,), anchors: tuple[Holder, ...] = (ROOT,), **at: Any) -> Refusal:  # noqa: E501  # fmt: skip
    der = leaf if isinstance(leaf, bytes) else leaf.der
    with pytest.raises(Refusal) as refusal:
        check_chain(der, [one.der for one in intermediates], [one.der for one in anchors], at.get("at", NOW))
    return refusal.value


def test_a_chain_that_holds_is_given_from_leaf_to_anchor() -> None:
    strangers = [OTHER.der, Holder("City CA").der]
    chain = check_chain(LEAF.der, [*strangers, MIDDLE.der], [OTHER.der, ROOT.der], NOW)
    assert chain.path == (LEAF.der, MIDDLE.der, ROOT.der)


def test_an_anchor_in_the_middle_ends_the_chain() -> None:
    assert check_chain(LEAF.der, [ROOT.der], [MIDDLE.der], NOW).path == (LEAF.der, MIDDLE.der)
    assert check_chain(LEAF.der, [], [LEAF.der], NOW).path == (LEAF.der,)


@pytest.mark.parametrize(
    "key, algorithm",
    [
        (rsa.generate_private_key(65537, 2048), hashes.SHA512()),
        (ec.generate_private_key(ec.SECP384R1()), hashes.SHA384()),
        (ed25519.Ed25519PrivateKey.generate(), None),
    ],
    ids=["RSA", "P-384", "Ed25519"],
)
def test_an_authority_may_have_other_keys_than_a_bureau(key: Any, algorithm: Any) -> None:
    root = Holder("Root", key=key, algorithm=algorithm)
    leaf = root.leaf(algorithm=algorithm)
    assert check_chain(leaf.der, [], [root.der], NOW).path == (leaf.der, root.der)


def spoilt() -> dict[str, tuple[str, Holder, Callable[[], Refusal]]]:
    """By fault: the code, the certificate that must be named, and the refusal."""
    ended = Holder("City CA", ROOT, ends=NOW - DAY)
    to_come = Holder("City CA", ROOT, begins=NOW + DAY)
    no_ca = Holder("City CA", ROOT, ca=False, may=("digital_signature",))
    not_for_certificates = Holder("City CA", ROOT, may=("crl_sign",))
    short = Holder("Root", path_length=0)
    below_short = Holder("City CA", short)
    namesake = Holder("City CA", ROOT)
    weak_root = Holder("Root", key=rsa.generate_private_key(65537, 1024))
    constrained = Holder("City CA", ROOT, more=[(x509.NameConstraints([x509.DNSName("a.example")], None), True)])
    expired = MIDDLE.leaf(ends=NOW - DAY)
    leaves = {
        one: one.leaf() for one in (ended, to_come, no_ca, not_for_certificates, below_short, weak_root, constrained)
    }
    weak_leaf = MIDDLE.leaf(key=rsa.generate_private_key(65537, 1024))
    ended_root = Holder("Root", ends=NOW - DAY)
    of_ended_root = ended_root.leaf()
    return {
        "leaf has ended": ("chain.expired", expired, lambda: refused(expired)),
        "leaf is to come": ("chain.not_yet_valid", LEAF, lambda: refused(LEAF, at=NOW - 40 * DAY)),
        "authority has ended": ("chain.expired", ended, lambda: refused(leaves[ended], (ended,))),
        "authority is to come": ("chain.not_yet_valid", to_come, lambda: refused(leaves[to_come], (to_come,))),
        "anchor has ended": ("chain.expired", ended_root, lambda: refused(of_ended_root, (), (ended_root,))),
        "no authority": ("chain.not_a_ca", no_ca, lambda: refused(leaves[no_ca], (no_ca,))),
        "not for certificates": (
            "chain.key_usage", not_for_certificates,
            lambda: refused(leaves[not_for_certificates], (not_for_certificates,)),
        ),
        "one authority too many": (
            "chain.path_too_long", short, lambda: refused(leaves[below_short], (below_short,), (short,))
        ),
        "same name, other key": ("chain.signature_invalid", LEAF, lambda: refused(LEAF, (namesake,))),
        "authority left out": ("chain.issuer_unknown", LEAF, lambda: refused(LEAF, ())),
        "anchor left out": ("chain.issuer_unknown", MIDDLE, lambda: refused(LEAF, (MIDDLE,), (OTHER,))),
        "leaf's key of 1024 bits": ("chain.weak_key", weak_leaf, lambda: refused(weak_leaf)),
        "anchor's key of 1024 bits": (
            "chain.weak_key", weak_root, lambda: refused(leaves[weak_root], (), (weak_root,))
        ),
        "name constraints": (
            "chain.extension_unknown", constrained, lambda: refused(leaves[constrained], (constrained,))
        ),
    }  # fmt: skip


SPOILT = spoilt()


@pytest.mark.parametrize("fault", SPOILT)
def test_the_broken_link_is_named(fault: str) -> None:
    code, meant, refusal = SPOILT[fault]
    problem = refusal()
    assert problem.code == code
    assert problem.detail.startswith(f"{meant.subject.rfc4514_string()}, serial {meant.serial:x}")


def test_an_altered_certificate_is_named() -> None:
    altered = LEAF.der[:-1] + bytes([LEAF.der[-1] ^ 1])
    assert refused(altered).code == "chain.signature_invalid"


def test_an_authority_renewed_under_its_name_leads_to_the_anchor_by_either_certificate() -> None:
    """The CA has a new key; certificates of the old one and of the new one hold as long as both are known."""
    renewed = Holder("City CA", ROOT)
    for middle in (MIDDLE, renewed):
        leaf = middle.leaf()
        for order in itertools.permutations([MIDDLE.der, renewed.der]):
            assert check_chain(leaf.der, order, [ROOT.der], NOW).path == (leaf.der, middle.der, ROOT.der)


def test_of_two_of_one_name_the_one_whose_key_is_named_says_what_is_wrong() -> None:
    ended = Holder("City CA", ROOT, key=MIDDLE.key, ends=NOW - DAY)
    stranger = Holder("City CA", ROOT)
    for order in itertools.permutations((ended, stranger)):
        problem = refused(LEAF, order)
        assert (problem.code, f"serial {ended.serial:x}" in problem.detail) == ("chain.expired", True)


def test_authorities_that_certify_one_another_end_somewhere() -> None:
    first = Holder("A")
    second = Holder("B", first)
    again = Holder("A", second, key=first.key)
    assert refused(again.leaf(), (first, second, again), (OTHER,)).code == "chain.issuer_unknown"
    assert len(authorities_over(again.leaf().der, [again.der, second.der])) == 2


def test_what_is_no_certificate_is_refused_by_name() -> None:
    assert refused(b"no certificate").code == "chain.not_readable"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_no_octet_of_a_certificate_may_change_and_nothing_else_is_raised() -> None:
    """But one that says how many bits of the signature's last octet are none: it changes nothing that is signed."""
    codes = set()
    for octets in altered_anywhere(LEAF.der):
        try:
            held = check_chain(octets, [MIDDLE.der], [ROOT.der], NOW).path[0]
        except Refusal as refusal:
            codes.add(refusal.code.partition(".")[0])
        else:
            assert x509.load_der_x509_certificate(held).tbs_certificate_bytes == LEAF.certificate.tbs_certificate_bytes
    assert codes == {"chain"}


@pytest.mark.parametrize("digest", ["-sha1", "-md5"])
def test_a_broken_digest_is_named(tmp_path: Path, digest: str) -> None:
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=CA"]
    leaf = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "k", "-out", "r.csr", "-subj", "/CN=water"]
    sign = [
        "x509",
        "-req",
        "-in",
        "r.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-out",
        "l.pem",
        digest,
    ]
    for command in (made, leaf, sign):
        subprocess.run(["openssl", *command], cwd=tmp_path, check=True, capture_output=True)
    ders = [
        x509.load_pem_x509_certificate((tmp_path / file).read_bytes()).public_bytes(Encoding.DER)
        for file in ("l.pem", "ca.pem")
    ]
    at = x509.load_der_x509_certificate(ders[0]).not_valid_before_utc
    with pytest.raises(Refusal, match=rf"chain\.weak_algorithm.*CN=water.*{digest[1:]}WithRSA"):
        check_chain(ders[0], [], [ders[1]], at)


def test_authorities_over_a_certificate_are_found_whatever_the_day() -> None:
    ended = Holder("City CA", ROOT, ends=NOW - DAY)
    leaf = ended.leaf()
    assert authorities_over(leaf.der, [ROOT.der, OTHER.der, ended.der]) == (ended.der, ROOT.der)
    assert issuer_of(leaf.der, [ROOT.der, OTHER.der]) is None
