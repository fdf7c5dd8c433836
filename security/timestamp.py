"""Time by a third party: RFC 3161 tokens over the log's checkpoints, asked for and checked. Standard suites only: a
timestamp authority that signs with SM2 is beyond the library.

What is stamped is the checkpoint as the log signed it: the note's text, the empty line and the log's own signature
lines, without those of witnesses.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from asn1crypto import cms, tsp
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from security.errors import Refusal

# What the library and the parsers below it raise over octets that somebody sent.
PROBLEMS = (
    *(VerificationError, ValueError, TypeError, OverflowError, UnsupportedAlgorithm),
    *(x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)
CONTENT_TYPE = "application/timestamp-query"


class Question:
    """A request for a timestamp over octets, with a nonce that only this answer may carry."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._request = TimestampRequestBuilder().data(octets).hash_algorithm(HashAlgorithm.SHA256).build()

    def der(self) -> bytes:
        """What is posted to the authority."""
        return bytes(self._request.as_bytes())

    def check(self, response: bytes, roots: Sequence[bytes]) -> datetime:
        """The time in an answer to this very question. Raises as `verify_timestamp` does."""
        return _verified(response, self._octets, roots, self._request.nonce)


def verify_timestamp(response: bytes, octets: bytes, roots: Sequence[bytes]) -> datetime:
    """When an authority saw octets, by its answer (a TimeStampResp, DER), aware, UTC.

    roots: certificates that are trusted to end an authority's chain, DER
    Raises Refusal `timestamp.invalid` (its detail says what does not hold).
    """
    return _verified(response, octets, roots, None)


def _verified(response: bytes, octets: bytes, roots: Sequence[bytes], nonce: int | None) -> datetime:
    if not roots:
        raise Refusal("timestamp.invalid", "no timestamp authority is trusted")
    try:
        builder = VerifierBuilder(roots=[x509.load_der_x509_certificate(der) for der in roots], nonce=nonce)
        answer = decode_timestamp_response(_in_order(response))
        builder.build().verify_message(answer, octets)
        return answer.tst_info.gen_time.astimezone(UTC)
    except PROBLEMS as problem:
        raise Refusal("timestamp.invalid", str(problem)[:200]) from problem


def _in_order(response: bytes) -> bytes:
    """The same with its certificates in the order that DER wants of a set, which OpenSSL's `ts` does not keep and the
    library insists on. No signature covers their order; what is kept and shown is the answer as it came."""
    try:
        answer = tsp.TimeStampResp.load(response, strict=True)
        signed = answer["time_stamp_token"]["content"]
        certificates = [one.dump() for one in signed["certificates"]]
        if certificates == sorted(certificates):
            return response
        signed["certificates"] = [cms.CertificateChoices.load(der) for der in sorted(certificates)]
        return bytes(answer.dump())
    except (ValueError, TypeError, KeyError):  # no answer, or none with certificates: the library says what is wrong
        return response
