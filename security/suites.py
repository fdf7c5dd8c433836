"""By what name an algorithm goes in XML and in our own documents, and which hash goes with which signature.

W3C and JOSE have no name for SM2 and SM3. The State Cryptography Administration has: its object identifiers
(GM/T 0006), and RFC 3061 makes an identifier of each a URN, so nobody else's name can be the same. A city whose other
systems say it otherwise writes their URIs into `[suites]` of settings.toml.
"""

import functools
from collections.abc import Mapping
from typing import Final

import msgspec

from security.errors import Misconfigured
from security.keys import Algorithm
from security.message import Hash

SM2_WITH_SM3: Final = "urn:oid:1.2.156.10197.1.501"
SM3: Final = "urn:oid:1.2.156.10197.1.401"
_XML_SIGNATURES: Final[dict[str, Algorithm]] = {
    "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256": "ES256",
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256": "RS256",
    "http://www.w3.org/2007/05/xmldsig-more#sha256-rsa-MGF1": "PS256",  # RFC 9231 §2.3.10: salt 32, without parameters
    "http://www.w3.org/2021/04/xmldsig-more#eddsa-ed25519": "EdDSA",  # RFC 9231 §2.3.12
}
SHA256: Final = "http://www.w3.org/2001/04/xmlenc#sha256"
# RFC 7515 §4.1.1: a private `alg` is a collision-resistant name. Read in documents of a bus, never in a delivery.
_DOCUMENT_NAMES: Final[dict[Algorithm, str]] = {"SM2": SM2_WITH_SM3}


class XmlSuites(msgspec.Struct, frozen=True):
    """What XML signatures call SM2 with SM3, and SM3; the other names are fixed. Raises Misconfigured for another's."""

    sm2_signature: str = SM2_WITH_SM3
    sm3_digest: str = SM3

    def __post_init__(self) -> None:
        for uri in (self.sm2_signature, self.sm3_digest):
            if ":" not in uri or any(c.isspace() or c in "<>&\"'" for c in uri):
                raise Misconfigured("config.setting", f"[suites] {uri!r} is not a URI")
            if uri in _XML_SIGNATURES or uri == SHA256:
                raise Misconfigured("config.setting", f"[suites] {uri} is the name of another algorithm")


@functools.lru_cache(maxsize=16)
def xml_signatures(suites: XmlSuites) -> Mapping[str, Algorithm]:
    """Algorithm by the URI of a SignatureMethod. SHA-1, MD5 and every HMAC are not among them."""
    return {**_XML_SIGNATURES, suites.sm2_signature: "SM2"}


@functools.lru_cache(maxsize=64)
def xml_signature(suites: XmlSuites, algorithm: Algorithm) -> str:
    """The URI of an algorithm."""
    return next(uri for uri, name in xml_signatures(suites).items() if name == algorithm)


def xml_digest(suites: XmlSuites, algorithm: Algorithm) -> str:
    """The URI of the one hash that the references under a signature of this algorithm are digested by."""
    return suites.sm3_digest if hash_of(algorithm) == "SM3" else SHA256


def hash_of(algorithm: Algorithm) -> Hash:
    """The hash that goes with a signature algorithm: SM3 with SM2, SHA-256 with the others. They are never mixed."""
    return "SM3" if algorithm == "SM2" else "SHA-256"


def document_name(algorithm: Algorithm) -> str:
    """The `alg` of an algorithm in a document that a bus signs."""
    return _DOCUMENT_NAMES.get(algorithm, algorithm)


def document_algorithm(name: str) -> str:
    """The algorithm that an `alg` names; a name that nobody gave stays itself, and fits no key."""
    return next((algorithm for algorithm, given in _DOCUMENT_NAMES.items() if given == name), _bare(name))


def _bare(name: str) -> str:
    """`SM2` itself is no `alg`: one algorithm has one name."""
    return f"bare {name}" if name in _DOCUMENT_NAMES else name
