"""From a certificate up to an anchor, and which link is broken where it does not get there.

Trust is by enrolment (`security.authenticate`); a chain is looked at when a city's certificate is enrolled, and by
`yongtong doctor`. `cryptography`'s own verifier is for TLS: it asks for a subject alternative name, which certificates
for signing lack, has no SM2, and does not say which certificate of a broken chain is meant (ADR 21).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from security.authority_signature import authority_key
from security.errors import Refusal
from security.keys import spki_of_certificate
from security.pki import check_issued

T = TypeVar("T", bound=x509.ExtensionType)

LONGEST: Final = 8  # certificates from leaf to anchor
LONGEST_NAME: Final = 100  # characters
# Critical extensions that are looked at here, or say something that an enrolled certificate is not asked for.
_KNOWN: Final = frozenset((
    ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.CERTIFICATE_POLICIES,
))  # fmt: skip


class Chain(msgspec.Struct, frozen=True):
    """A chain that holds. path: DER certificates, the leaf first, the anchor last."""

    path: tuple[bytes, ...]


def check_chain(leaf_der: bytes, intermediates: Sequence[bytes], anchors: Sequence[bytes], at: datetime) -> Chain:
    """The chain from a certificate to one of the anchors, if it holds at that time; else Refusal.

    intermediates, anchors: DER certificates, in any order; what leads nowhere is not looked at
    at: aware, UTC

    The detail names the certificate that is meant. Codes: `chain.not_readable`, `chain.not_yet_valid`,
    `chain.expired`, `chain.weak_key`, `chain.weak_algorithm`, `chain.extension_unknown`, `chain.issuer_unknown`,
    `chain.not_a_ca`, `chain.key_usage`, `chain.path_too_long`, `chain.signature_invalid`.
    """
    leaf = _read(leaf_der)
    authorities = [_read(der) for der in (*anchors, *intermediates)]
    return Chain(_climb((leaf,), authorities, frozenset(anchors), at))


def issuer_of(certificate_der: bytes, authorities: Sequence[bytes]) -> bytes | None:
    """The one of the authorities' certificates that issued this one, by name and signature; None when none did."""
    for authority in authorities:
        try:
            check_issued(certificate_der, authority)
        except Refusal:
            continue
        return authority
    return None


def authorities_over(certificate_der: bytes, authorities: Sequence[bytes]) -> tuple[bytes, ...]:
    """The certificates over this one, its issuer first, whatever the day; empty when none of these issued it."""
    path: list[bytes] = []
    at: bytes | None = certificate_der
    while at is not None and len(path) < LONGEST:
        at = issuer_of(at, [authority for authority in authorities if authority != at])
        if at is None or at in path:
            break
        path.append(at)
    return tuple(path)


def shown(certificate: x509.Certificate) -> str:
    """A certificate as a person finds it: subject and serial number."""
    return f"{shown_name(certificate.subject)}, serial {certificate.serial_number:x}"


def shown_name(name: x509.Name) -> str:
    """A name as RFC 4514 text, cut short, and without what would move a terminal's cursor."""
    text = "".join(character if character.isprintable() else "�" for character in name.rfc4514_string())
    return text if len(text) <= LONGEST_NAME else text[:LONGEST_NAME] + "…"


def _read(der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Read here, where what is malformed is expected: `cryptography` looks into a part when it is asked for it.
        _ = certificate.extensions, shown(certificate), shown_name(certificate.issuer)
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension) as problem:
        raise Refusal("chain.not_readable", str(problem)[:120]) from problem
    return certificate


def _climb(
    path: tuple[x509.Certificate, ...], authorities: Sequence[x509.Certificate], anchors: frozenset[bytes], at: datetime
) -> tuple[bytes, ...]:
    """The whole path to an anchor. Where several authorities bear the name, the first that leads there counts."""
    top = path[-1]
    _check_itself(top, at)
    if top.public_bytes(Encoding.DER) in anchors:
        return tuple(certificate.public_bytes(Encoding.DER) for certificate in path)
    broken = Refusal("chain.issuer_unknown", f"{shown(top)}; issuer {shown_name(top.issuer)}")
    for authority in _named(top, authorities):
        if authority in path or len(path) >= LONGEST:
            continue
        try:
            _check_link(path, authority)
            return _climb((*path, authority), authorities, anchors, at)
        except Refusal as problem:
            broken = problem
    raise broken


def _named(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Authorities of the name that the certificate gives for its issuer; the one whose key it names comes last, for
    what is wrong with that one is what a person wants to hear."""
    wanted = _authority_key_identifier(certificate)
    found = [authority for authority in authorities if authority.subject == certificate.issuer]
    return sorted(found, key=lambda authority: wanted is not None and _key_identifier(authority) == wanted)


def _check_itself(certificate: x509.Certificate, at: datetime) -> None:
    name = shown(certificate)
    if at < certificate.not_valid_before_utc:
        raise Refusal("chain.not_yet_valid", f"{name}: from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M}Z")
    if at > certificate.not_valid_after_utc:
        raise Refusal("chain.expired", f"{name}: until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M}Z")
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _KNOWN:
            raise Refusal("chain.extension_unknown", f"{name}: {extension.oid.dotted_string}")
    try:
        authority_key(spki_of_certificate(certificate.public_bytes(Encoding.DER)))
    except (Refusal, ValueError) as problem:
        detail = problem.detail if isinstance(problem, Refusal) else "not readable"
        raise Refusal("chain.weak_key", f"{name}: {detail}") from problem


def _check_link(path: tuple[x509.Certificate, ...], authority: x509.Certificate) -> None:
    """Whether the authority may have issued the path's top, and did."""
    name, top = shown(authority), path[-1]
    constraints = _extension(authority, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise Refusal("chain.not_a_ca", name)
    usage = _extension(authority, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise Refusal("chain.key_usage", name)
    # RFC 5280 §4.2.1.9: authorities below this one, the leaf not counted, nor those that issued to themselves.
    below = sum(1 for certificate in path[1:] if certificate.subject != certificate.issuer)
    if constraints.path_length is not None and below > constraints.path_length:
        raise Refusal("chain.path_too_long", f"{name}: allows {constraints.path_length}, there are {below}")
    try:
        check_issued(top.public_bytes(Encoding.DER), authority.public_bytes(Encoding.DER))
    except Refusal as problem:
        if problem.code == "signature.algorithm_refused":
            raise Refusal("chain.weak_algorithm", f"{shown(top)}: {problem.detail}") from problem
        raise Refusal("chain.signature_invalid", f"{shown(top)}; issuer {name}") from problem


def _extension(certificate: x509.Certificate, kind: type[T]) -> T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _authority_key_identifier(certificate: x509.Certificate) -> bytes | None:
    found = _extension(certificate, x509.AuthorityKeyIdentifier)
    return found.key_identifier if found is not None else None


def _key_identifier(certificate: x509.Certificate) -> bytes | None:
    found = _extension(certificate, x509.SubjectKeyIdentifier)
    return found.digest if found is not None else None
