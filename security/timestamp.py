"""Time by a third party: RFC 3161 tokens over the log's checkpoints, asked for and checked. Standard suites only: a
timestamp authority that signs with SM2 is beyond the library.

What is stamped is the checkpoint as the log signed it: the note's text, the empty line and the log's own signature
lines, without those of witnesses.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from security.errors import Refusal

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
        answer = decode_timestamp_response(response)
        builder.build().verify_message(answer, octets)
        return answer.tst_info.gen_time.astimezone(UTC)
    except (VerificationError, ValueError, TypeError) as problem:
        raise Refusal("timestamp.invalid", str(problem)[:200]) from problem
