"""Attacks on the JWS envelope at the real door: signed by an enrolled bureau wherever it could have signed them."""

import json
import time
from collections.abc import Callable
from typing import Any, Final

from security.batch import unverified
from security.jose import b64url
from tests.security.test_jws_delivery import header, sealed, under, unused_bits
from tests.security.test_jws_delivery import mac as mac_of
from tests.whole.real_bus import FEED, RealBus, csv, rows
from tests.whole.test_mqtt import IN, Client311, until

Attack = Callable[[RealBus, str], bytes]


def said(bus: RealBus, id: str, **spoilt: Any) -> dict[str, Any]:
    """The header of a delivery that would be taken, but for what is spoilt."""
    right = {"iss": "made-up", "aud": bus.origin, "mid": id, "feed": FEED, "iat": int(time.time())}
    return header(bus.folder().signing, csv(rows(id)), **{**right, **spoilt})


def signed(
    bus: RealBus, id: str, protected: str | None = None, outer: dict[str, Any] | None = None, **spoilt: Any
) -> bytes:
    """The delivery under its bureau's signature, which holds. protected: the header's text, where it is no header."""
    text = json.dumps(said(bus, id, **spoilt)) if protected is None else protected
    return sealed(text, bus.folder().signing, csv(rows(id)), **(outer or {}))


def respelt(bus: RealBus, id: str, **texts: Callable[[str], str]) -> bytes:
    whole = json.loads(signed(bus, id))
    return json.dumps({**whole, **{name: change(whole[name]) for name, change in texts.items()}}).encode()


def hmac_signed(bus: RealBus, id: str, algorithm: str) -> bytes:
    key = bus.folder().signing
    return under(mac_of(key.public_pem()), key, csv(rows(id)), **said(bus, id, alg=algorithm))


def twin(bus: RealBus, id: str) -> bytes:
    text = json.dumps(said(bus, id))
    return signed(bus, id, f'{text[:-1]}, "\\u0069ss": "water"}}')


# Nobody's: the signature is not looked at, or does not hold. No answer of any kind.
UNHEARD: Final[dict[str, Attack]] = {
    "alg none": lambda bus, id: signed(bus, id, alg="none"),
    "alg none, no signature": lambda bus, id: signed(bus, id, alg="none", outer={"signature": ""}),
    "HMAC with the public key": lambda bus, id: hmac_signed(bus, id, "HS256"),
    "HMAC with the public key, called ES256": lambda bus, id: hmac_signed(bus, id, "ES256"),
    "another algorithm's name": lambda bus, id: signed(bus, id, alg="RS256"),
    "unprotected header": lambda bus, id: signed(bus, id, outer={"header": {"kid": "x"}}),
    "embedded key": lambda bus, id: signed(bus, id, jwk={"kty": "EC"}),
    "key by address": lambda bus, id: signed(bus, id, jku="https://localhost/jwks"),
    "certificate by address": lambda bus, id: signed(bus, id, x5u="https://localhost/c.pem"),
    "embedded certificate": lambda bus, id: signed(bus, id, x5c=["MIIB"]),
    "crit": lambda bus, id: signed(bus, id, crit=["b64"], b64=False),
    "zip": lambda bus, id: signed(bus, id, zip="DEF"),
    "doubled member": twin,
    "doubled member outside": lambda bus, id: signed(bus, id)[:-1] + b', "payload": "e30"}',
    "padding": lambda bus, id: respelt(bus, id, signature=lambda text: text + "=="),
    "unused bits": lambda bus, id: respelt(bus, id, signature=unused_bits),
    "other content": lambda bus, id: respelt(bus, id, payload=lambda _: b64url(b"other")),
    "a report": lambda bus, id: signed(bus, id, typ="yt-report+jws"),
    "too large": lambda bus, id: signed(bus, id) + b" " * (1 << 20),
}
# The signer's own fault: a signed refusal with its code.
REFUSED: Final[dict[str, Attack]] = {
    "auth.sender_mismatch": lambda bus, id: signed(bus, id, iss="water"),
    "auth.wrong_recipient": lambda bus, id: signed(bus, id, aud="another.bus.example"),
    "mqtt.feed_of_topic": lambda bus, id: signed(bus, id, feed="made-up-lamps"),
    "signature.content_digest": lambda bus, id: signed(bus, id, dig=f"SHA-256:{'0' * 64}"),
    "signature.stale": lambda bus, id: signed(bus, id, iat=int(time.time()) - 8 * 86_400),
    "signature.future": lambda bus, id: signed(bus, id, iat=int(time.time()) + 400),
}


def document(octets: bytes) -> dict[str, Any]:
    found: dict[str, Any] = unverified(octets)
    return found


def test_no_attack_on_the_envelope_gets_a_receipt_or_leaves_a_delivery(bus: RealBus) -> None:
    before = bus.kept()
    ids = {name: f"attack-{number}" for number, name in enumerate([*UNHEARD, *REFUSED])}
    with Client311(bus, bus.folder(), "made-up:attacks") as client:
        client.subscribe("yt/v1/to/made-up/receipt")
        for name, attack in {**UNHEARD, **REFUSED}.items():
            client.client.publish(IN, attack(bus, ids[name]), 1).wait_for_publish(10)
        client.client.publish(IN, signed(bus, "attack-none"), 1)
        heard = until(
            lambda: len(client.messages) > len(REFUSED) and [document(octets) for _, octets in client.messages]
        )
    assert {(one["message_id"], one["outcome"]) for one in heard if one["outcome"] == "accepted"} == {
        ("attack-none", "accepted")
    }
    assert {one["message_id"]: one["code"] for one in heard if one["outcome"] != "accepted"} == {
        ids[code]: code for code in REFUSED
    }
    assert [name for name, id in ids.items() if bus.journal.inbox("made-up", id)] == []
    assert bus.kept().inbox == before.inbox + 1
