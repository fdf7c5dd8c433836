"""A bus's REST addresses as a partner asks them: the octets of an answer, or the bus's own refusal."""

from typing import Any, Final

import msgspec
import requests

from connectors.partner.folder import PartnerFolder
from security.errors import Refusal, Unavailable, sentences

TIMEOUT_S: Final = 60.0


class _Said(msgspec.Struct, frozen=True):
    code: str
    detail: str
    reference: str


class _Refused(msgspec.Struct, frozen=True):
    refusal: _Said


def session_of(folder: PartnerFolder) -> requests.Session:
    """A session that shows the partner's connection certificate and trusts the bus's CA alone."""
    session = requests.Session()
    session.trust_env = False  # no proxy and no other CA than ours comes between by an environment variable
    session.cert = (folder.file("connection.pem"), folder.file("connection.key"))
    session.verify = folder.file("ca.pem")
    return session


def asked(session: requests.Session, method: str, address: str, **sent: Any) -> bytes:
    """The octets of a 200. sent: as `requests` names it. Raises Refusal with the bus's own code; Unavailable."""
    try:
        answer = session.request(method, address, timeout=TIMEOUT_S, **sent)
    except requests.RequestException as problem:
        raise Unavailable(f"{address}: {problem}") from problem
    if answer.status_code == 200:
        return answer.content
    try:
        said = msgspec.json.decode(answer.content, type=_Refused).refusal
    except msgspec.MsgspecError as problem:
        raise Unavailable(f"{address}: HTTP {answer.status_code}") from problem
    refusal = Refusal(said.code, said.detail) if said.code in sentences() else Refusal("answer.refused", said.code)
    refusal.reference = said.reference
    raise refusal
