"""The signed envelope of a delivery where no request is one: over a broker, in a package."""

from datetime import datetime
from typing import Final

from connectors.partner.folder import PartnerFolder
from security import cms_delivery, jws_delivery
from security.errors import Refusal
from security.message import Content
from security.signed_delivery import MOST_BYTES, Names

_CMS_OF: Final = "SM2"  # of which JOSE knows no algorithm


def names_of(
    folder: PartnerFolder,
    feed: str,
    content_type: str,
    message_id: str,
    now: datetime,
    on_behalf_of: str = "",
    sequence: int | None = None,
) -> Names:
    """What the bureau says of a delivery under its signature.

    on_behalf_of: as `Partner.push` has it; sequence: which of the sender's deliveries to the feed it is
    """
    return {
        "sender": on_behalf_of or folder.bureau,
        "recipient": folder.anchors.origin,
        "feed": feed,
        "message_id": message_id,
        "content_type": content_type,
        "signed_at": now,
        "sequence": sequence,
    }


def sealed(folder: PartnerFolder, content: Content, names: Names) -> bytes:
    """The envelope with its content: a CMS where the bureau's key is SM2, a JWS otherwise.

    Raises Refusal `jws.too_large`, `jws.member_form`, and the same of `cms`.
    """
    key = folder.signing
    kind = "cms" if key.algorithm == _CMS_OF else "jws"
    if content.size > MOST_BYTES:  # before it is read
        raise Refusal(f"{kind}.too_large", f"{content.size} > {MOST_BYTES}")
    sign = cms_delivery.sign_delivery if kind == "cms" else jws_delivery.sign_delivery
    return sign(content.read(), key, **names)


def sealed_apart(folder: PartnerFolder, content: Content, names: Names) -> bytes:
    """The same of content of any size that lies beside its envelope."""
    key = folder.signing
    sign = cms_delivery.sign_apart if key.algorithm == _CMS_OF else jws_delivery.sign_apart
    return sign(content, key, **names)
