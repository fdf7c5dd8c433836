"""A zeep client whose messages Yongtong takes: the stock signer with SHA-256, and the Timestamp that it does not make.

    client = zeep.Client("https://bus.example/soap/feeds?wsdl", transport=transport,
                         wsse=TimedSignature("signing.key", "signing.pem"))

`transport` wraps a requests session whose `cert` is the bureau's connection certificate and key and whose `verify` is
the platform's CA file. Needs the packages zeep and xmlsec. An RSA key signs as it stands; for a P-256 key give
`algorithm=xmlsec.constants.TransformEcdsaSha256`.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from xmlsec import constants
from zeep.wsse.signature import BinarySignature
from zeep.wsse.utils import WSU, get_security_header


class TimedSignature(BinarySignature):
    """zeep's BinarySignature, told to use SHA-256 (its default is SHA-1), over Body and a Timestamp of five minutes."""

    def __init__(
        self,
        key_file: str,
        certificate_file: str,
        password: str | None = None,
        algorithm: Any = constants.TransformRsaSha256,
    ) -> None:
        super().__init__(key_file, certificate_file, password, algorithm, constants.TransformSha256)

    def apply(self, envelope: Any, headers: Any) -> Any:
        """Add the Timestamp before zeep signs: zeep signs one that is there, and makes none."""
        created = datetime.now(UTC)
        times = [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (created, created + timedelta(minutes=5))]
        get_security_header(envelope).append(WSU.Timestamp(WSU.Created(times[0]), WSU.Expires(times[1])))
        return super().apply(envelope, headers)

    def verify(self, envelope: Any) -> Any:
        """Take the answer as TLS brought it.

        zeep would compare it with our own certificate, and accepts a Body that was not signed. The receipt in the
        answer is a signed document of its own: `yongtong verify RECEIPT --anchors FILE` decides on it.
        """
        return envelope
