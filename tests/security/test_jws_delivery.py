"""The JWS envelope of a delivery: each attack is refused by name, each honest form verifies."""

import hmac
import json
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Literal

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from security import pki
from security.authenticate import TrustList, signer_of
from security.errors import Refusal
from security.jose import b64url
from security.jws import sign_document
from security.jws_delivery import open_delivery, sign_delivery, verify_delivery
from security.keys import SigningKey, generate
from security.message import Content, Delivery, EnrolledCertificate, Use, VerifiedPayload, in_memory
from security.signatures import payload_of
from security.signed_delivery import MOST_BYTES, check_age, typ_of

TYP = typ_of("jws")
NOW = datetime(2026, 7, 1, tzinfo=UTC)
MAX_AGE = timedelta(days=7)
CA = pki.make_ca("Test CA", NOW)
CONTENT = "编号,状态\n水表-1,完好\n".encode()
Header = dict[str, Any]


def enrolled(kind: Literal["ES256", "RS256", "EdDSA"], bureau: str = "water", use: Use = "signing") -> SigningKey:
    key = generate(kind)
    der = pki.issue(CA, bureau, key.public_key, use, NOW - timedelta(days=1), NOW + timedelta(days=9))
    KNOWN.append(pki.enrolled(der, bureau, use))
    return key.with_certificate(der)


KNOWN: list[EnrolledCertificate] = []
KEYS = {kind: enrolled(kind) for kind in ("ES256", "RS256", "EdDSA")}  # type: ignore[arg-type]  # literals of the tuple
KEY = KEYS["ES256"]
POWER, CONNECTION = enrolled("ES256", "power"), enrolled("ES256", "water", "connection")
TRUST = TrustList(tuple(KNOWN))


def header(key: SigningKey = KEY, content: bytes = CONTENT, **spoilt: Any) -> Header:
    """A right protected header, but for what is spoilt; a member given as `...` is left out."""
    right = {
        "alg": key.algorithm, "typ": TYP, "kid": key.fingerprint, "x5t#S256": b64url(bytes.fromhex(key.fingerprint)),
        "iss": "water", "aud": "bus", "mid": "m-1", "cty": "text/csv", "feed": "water-meters",
        "iat": int(NOW.timestamp()), "dig": f"SHA-256:{sha256(content).hexdigest()}",
    }  # fmt: skip
    return {name: value for name, value in {**right, **spoilt}.items() if value is not ...}


def sealed(protected: str | Header, key: SigningKey = KEY, content: bytes = CONTENT, **outer: Any) -> bytes:
    """An envelope of any protected text under a signature that holds; outer: further or other members outside."""
    text = protected if isinstance(protected, str) else json.dumps(protected)
    first, second = b64url(text.encode()), b64url(content)
    signature = b64url(key.sign(f"{first}.{second}".encode()))
    return json.dumps({"payload": second, "protected": first, "signature": signature, **outer}).encode()


def taken(octets: bytes, now: datetime = NOW) -> VerifiedPayload:
    """All that act one does with an envelope, in its order. Raises Refusal."""
    envelope = open_delivery(octets)
    certificate = signer_of(TRUST.by_fingerprint(envelope.certificate), envelope.sender, now)
    verified = verify_delivery(envelope, certificate)
    check_age(envelope, now, MAX_AGE)
    delivery = Delivery("mqtt", None, "", octets, Content(0, in_memory(b"").digest), now)
    return payload_of(verified, delivery)


def doubled(member: str) -> str:
    """The protected header's text with one member twice."""
    text = json.dumps(header())
    return text[:-1] + f', "{member}": {json.dumps(header()[member])}}}'


def respelt(octets: bytes, member: str, change: Callable[[str], str]) -> bytes:
    """An envelope with one of its base64url texts written otherwise."""
    outer = json.loads(octets)
    return json.dumps({**outer, member: change(outer[member])}).encode()


def unused_bits(text: str) -> str:
    """The same octets by a decoder that ignores the unused bits of the last letter."""
    assert len(text) % 4
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + letters[letters.index(text[-1]) + 1]


def under(signature: Callable[[bytes], bytes], key: SigningKey = KEY, content: bytes = CONTENT, **spoilt: Any) -> bytes:
    """An envelope with what `signature` makes of the octets to be signed."""
    first, second = b64url(json.dumps(header(key, content, **spoilt)).encode()), b64url(content)
    octets = signature(f"{first}.{second}".encode())
    return json.dumps({"payload": second, "protected": first, "signature": b64url(octets)}).encode()


def mac(secret: bytes, algorithm: str = "sha256") -> Callable[[bytes], bytes]:
    return lambda octets: hmac.new(secret, octets, algorithm).digest()


def pss(octets: bytes) -> bytes:
    key = KEYS["RS256"].issuing_key()
    assert isinstance(key, RSAPrivateKey)
    return key.sign(octets, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


def as_der(raw: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))


def escaped_twin(member: str) -> str:
    """The protected header's text with one member twice, the second time with its first letter escaped."""
    text = json.dumps(header())
    return text[:-1] + f', "\\u{ord(member[0]):04x}{member[1:]}": {json.dumps(header()[member])}}}'


RIGHT = sealed(header())
SHORT = sealed(header(content=b"x"), content=b"x")
NOBODY = {"kid": "00" * 32, "x5t#S256": b64url(bytes(32))}
ONE_SHORT = json.dumps(header()) + " " * (-(len(json.dumps(header())) + 1) % 3)  # of octets, of a multiple of three
TEN_THOUSAND_DIGITS = json.dumps(header(iat=0)).replace(": 0", ": 1" + "0" * 9999)
OUTER = json.loads(RIGHT)
ATTACKS: dict[str, tuple[bytes, str]] = {
    # JSON that two readers may read differently
    "doubled_outer_member": (RIGHT[:-1] + b', "payload": "e30"}', "jws.member_doubled"),
    "doubled_in_a_nested_object": (RIGHT[:-1] + b', "x": {"a": [{"b": 1, "b": 2}]}}', "jws.member_doubled"),
    "doubled_iss": (sealed(doubled("iss")), "jws.member_doubled"),
    "doubled_crit_in_jwk": (sealed('{"jwk": {"kty": "EC", "kty": "oct"}}'), "jws.member_doubled"),
    "nan": (sealed(json.dumps(header())[:-1] + ', "exp": NaN}'), "jws.not_json"),
    "comment": (b"/* */" + RIGHT, "jws.not_json"),
    "two_documents": (RIGHT + RIGHT, "jws.not_json"),
    "doubled_by_an_escape": (sealed(escaped_twin("iss")), "jws.member_doubled"),
    "doubled_outer_by_an_escape": (RIGHT[:-1] + b', "\\u0070ayload": "e30"}', "jws.member_doubled"),
    "doubled_in_an_array_of_the_header": (sealed('{"crit": [[{"a": 1, "a": 1}]]}'), "jws.member_doubled"),
    "infinity": (sealed(json.dumps(header())[:-1] + ', "exp": -Infinity}'), "jws.not_json"),
    "header_followed_by_more": (sealed(json.dumps(header()) + "{}"), "jws.not_json"),
    "header_not_an_object": (sealed(json.dumps([header()])), "jws.not_json"),
    "header_empty": (sealed(""), "jws.not_json"),
    "header_deep": (sealed('{"a":' * 100_000), "jws.not_json"),
    "single_quotes": (RIGHT.replace(b'"', b"'"), "jws.not_json"),
    "trailing_comma": (RIGHT[:-1] + b",}", "jws.not_json"),
    "null_octet_after": (RIGHT + b"\0", "jws.not_json"),
    "overlong_utf_8": (RIGHT[:-1] + b', "\xc0\xae": 1}', "jws.not_json"),
    "surrogate_of_its_own": (RIGHT[:-1] + b', "\\ud800": 1}', "jws.member_refused"),
    "byte_order_mark": (b"\xef\xbb\xbf" + RIGHT, "jws.not_json"),
    "utf_16": (RIGHT.decode().encode("utf-16"), "jws.not_json"),
    "array": (b"[" + RIGHT + b"]", "jws.not_json"),
    "deep": (b"[" * 500_000, "jws.not_json"),
    "empty": (b"", "jws.not_json"),
    "unsigned": (CONTENT, "jws.not_json"),
    "compact": (".".join(OUTER[name] for name in ("protected", "payload", "signature")).encode(), "jws.not_json"),
    "too_large": (sealed(header(content=b"x" * MOST_BYTES), content=b"x" * MOST_BYTES), "jws.too_large"),
    # members outside the signature
    "unprotected_header": (sealed(header(), header={"alg": "none"}), "jws.member_refused"),
    "general_form": (json.dumps({"payload": OUTER["payload"], "signatures": [{}]}).encode(), "jws.member_refused"),
    "unprotected_header_empty": (sealed(header(), header={}), "jws.member_refused"),
    "signatures_beside": (sealed(header(), signatures=[]), "jws.member_refused"),
    **{f"{name}_outside": (sealed(header(), **{name: "none"}), "jws.member_refused") for name in ("alg", "kid", "typ")},
    "jwk_outside": (sealed(header(), jwk={"kty": "oct", "k": ""}), "jws.member_refused"),
    "member_in_capitals": (RIGHT.replace(b'"payload"', b'"Payload"'), "jws.member_refused"),
    "signature_not_text": (sealed(header(), signature=None), "jws.member_form"),
    "protected_as_an_object": (json.dumps({**OUTER, "protected": header()}).encode(), "jws.member_form"),
    "unknown_outer_member": (sealed(header(), note="x"), "jws.member_refused"),
    "no_signature": (json.dumps({k: OUTER[k] for k in ("payload", "protected")}).encode(), "jws.member_missing"),
    "payload_not_text": (sealed(header(), payload={}), "jws.member_form"),
    # members that would choose key or meaning
    "crit": (sealed(header(crit=["b64"])), "jws.member_refused"),
    "crit_empty": (sealed(header(crit=[])), "jws.member_refused"),
    "crit_names_what_is_known": (sealed(header(crit=["iat"])), "jws.member_refused"),
    "b64_true": (sealed(header(b64=True)), "jws.member_refused"),
    "header_in_the_header": (sealed(header(header={"alg": "ES256"})), "jws.member_refused"),
    "jwk_of_the_signer": (sealed(header(jwk={"kty": "oct", "k": b64url(KEY.public_pem())})), "jws.member_refused"),
    "jku_to_a_file": (sealed(header(jku="file:///etc/passwd")), "jws.member_refused"),
    "x5c_of_the_signer": (sealed(header(x5c=[b64encode(KEY.certificate_der or b"").decode()])), "jws.member_refused"),
    "nbf": (sealed(header(nbf=0)), "jws.member_refused"),
    "epk": (sealed(header(epk={})), "jws.member_refused"),
    "b64_false": (sealed(header(b64=False)), "jws.member_refused"),
    "zip": (sealed(header(zip="DEF")), "jws.member_refused"),
    "jwk": (sealed(header(jwk={"kty": "EC"})), "jws.member_refused"),
    "jku": (sealed(header(jku="https://evil.example/jwks")), "jws.member_refused"),
    "x5u": (sealed(header(x5u="https://evil.example/c.pem")), "jws.member_refused"),
    "x5c": (sealed(header(x5c=["MIIB"])), "jws.member_refused"),
    "x5t_sha_1": (sealed(header(x5t="AAAA")), "jws.member_refused"),
    "exp": (sealed(header(exp=1)), "jws.member_refused"),
    "upper_case_alg_beside": (sealed(header(ALG="none")), "jws.member_refused"),
    **{f"without_{name}": (sealed(header(**{name: ...})), "jws.member_missing") for name in header()},
    # algorithms
    "alg_none": (sealed(header(alg="none")), "jws.member_form"),
    "alg_none_without_signature": (sealed(header(alg="none"), signature=""), "jws.member_form"),
    **{f"alg_{name}": (sealed(header(alg=name), signature=""), "jws.member_form") for name in ("None", "NONE", "nOnE")},
    "alg_empty": (sealed(header(alg="")), "jws.member_form"),
    "alg_with_a_blank": (sealed(header(alg="ES256 ")), "jws.member_form"),
    "alg_in_small_letters": (sealed(header(alg="es256")), "jws.member_form"),
    "alg_a_list": (sealed(header(alg=["ES256"])), "jws.member_form"),
    "alg_null": (sealed(header(alg=None)), "jws.member_form"),
    "hmac_with_the_public_key": (under(mac(KEY.public_pem()), alg="HS256"), "jws.member_form"),
    "hmac_with_the_certificate": (under(mac(KEY.certificate_der or b""), alg="HS256"), "jws.member_form"),
    "hmac_with_nothing": (under(mac(b""), alg="HS256"), "jws.member_form"),
    "hmac_of_more_bits": (under(mac(KEY.public_pem(), "sha512"), alg="HS512"), "jws.member_form"),
    "hmac_called_es256": (under(mac(KEY.public_pem())), "signature.invalid"),
    "hmac_called_rs256": (under(mac(KEYS["RS256"].public_pem()), KEYS["RS256"]), "signature.invalid"),
    "hmac_called_eddsa": (under(mac(KEYS["EdDSA"].public_pem()), KEYS["EdDSA"]), "signature.invalid"),
    "es256k": (sealed(header(alg="ES256K")), "jws.member_form"),
    "rs1": (sealed(header(KEYS["RS256"], alg="RS1"), KEYS["RS256"]), "jws.member_form"),
    "signature_of_noughts": (under(lambda _: bytes(64)), "signature.invalid"),
    "signature_of_nothing": (under(lambda _: b""), "signature.invalid"),
    "signature_as_der": (under(lambda octets: as_der(KEY.sign(octets))), "signature.invalid"),
    "signature_too_long": (under(lambda octets: KEY.sign(octets) + b"\0"), "signature.invalid"),
    "signature_too_short": (under(lambda octets: KEY.sign(octets)[:-1]), "signature.invalid"),
    "signature_twice": (under(lambda octets: KEY.sign(octets) * 2), "signature.invalid"),
    "signature_of_the_payload_alone": (under(lambda octets: KEY.sign(octets.split(b".")[1])), "signature.invalid"),
    "signature_of_the_content_undecoded": (under(lambda _: KEY.sign(CONTENT)), "signature.invalid"),
    "pss_signature_called_pkcs1": (under(pss, KEYS["RS256"]), "signature.invalid"),
    "rsa_name_on_ed25519_key": (
        sealed(header(KEYS["EdDSA"], alg="RS256"), KEYS["EdDSA"]), "signature.algorithm_not_of_key"
    ),
    "ec_name_on_ed25519_key": (
        sealed(header(KEYS["EdDSA"], alg="ES256"), KEYS["EdDSA"]), "signature.algorithm_not_of_key"
    ),
    "eddsa_name_on_rsa_key": (
        sealed(header(KEYS["RS256"], alg="EdDSA"), KEYS["RS256"]), "signature.algorithm_not_of_key"
    ),
    "es384": (sealed(header(alg="ES384")), "jws.member_form"),
    "sm2": (sealed(header(alg="SM2")), "jws.member_form"),
    "rsa_name_on_ec_key": (sealed(header(alg="RS256")), "signature.algorithm_not_of_key"),
    "pss_name_on_ec_key": (sealed(header(alg="PS256")), "signature.algorithm_not_of_key"),
    "ec_name_on_rsa_key": (sealed(header(KEYS["RS256"], alg="ES256"), KEYS["RS256"]), "signature.algorithm_not_of_key"),
    "eddsa_name_on_ec_key": (sealed(header(alg="EdDSA")), "signature.algorithm_not_of_key"),
    "pkcs1_signature_called_pss": (sealed(header(KEYS["RS256"], alg="PS256"), KEYS["RS256"]), "signature.invalid"),
    # spellings of base64url
    "padding_of_the_header": (respelt(sealed(ONE_SHORT), "protected", lambda t: t + "="), "jws.base64url"),
    "padding_of_the_signature": (respelt(RIGHT, "signature", lambda t: t + "=="), "jws.base64url"),
    "padding_before": (respelt(RIGHT, "payload", lambda t: "=" + t), "jws.base64url"),
    "one_letter_more": (respelt(RIGHT, "payload", lambda t: t + "A" * ((5 - len(t)) % 4)), "jws.base64url"),
    "unused_bits_x5t": (sealed(header(**{"x5t#S256": unused_bits(header()["x5t#S256"])})), "jws.base64url"),
    "tab": (respelt(RIGHT, "protected", lambda t: t + "\t"), "jws.base64url"),
    "null_octet": (respelt(RIGHT, "payload", lambda t: t + "\0"), "jws.base64url"),
    "surrogate": (respelt(RIGHT, "signature", lambda t: t + "\ud800"), "jws.base64url"),
    "padding": (respelt(SHORT, "payload", lambda t: t + "=="), "jws.base64url"),
    "unused_bits_payload": (respelt(SHORT, "payload", unused_bits), "jws.base64url"),
    "unused_bits_signature": (respelt(RIGHT, "signature", unused_bits), "jws.base64url"),
    "white_space": (respelt(RIGHT, "payload", lambda t: t[:4] + "\n" + t[4:]), "jws.base64url"),
    "standard_alphabet": (respelt(RIGHT, "signature", lambda t: "+/" + t[2:]), "jws.base64url"),
    "not_ascii": (respelt(RIGHT, "signature", lambda t: "水" + t[1:]), "jws.base64url"),
    # who, to whom, what
    "kid_of_another": (sealed(header(kid=POWER.fingerprint)), "jws.keys_differ"),
    "x5t_of_another": (sealed(header(**{"x5t#S256": b64url(bytes.fromhex(POWER.fingerprint))})), "jws.keys_differ"),
    "kid_upper_case": (sealed(header(kid=KEY.fingerprint.upper())), "jws.member_form"),
    "certificate_unknown": (sealed(header(**NOBODY)), "auth.certificate_unknown"),
    "connection_certificate": (sealed(header(CONNECTION), CONNECTION), "auth.certificate_not_for_signing"),
    "sender_of_another_bureau": (sealed(header(iss="power")), "auth.sender_mismatch"),
    "signed_by_another_bureau": (sealed(header(), POWER), "signature.invalid"),
    "kid_a_path": (sealed(header(kid="../../etc/passwd")), "jws.member_form"),
    "kid_of_sql": (sealed(header(kid="' OR 1=1 --")), "jws.member_form"),
    "iss_with_a_slash": (sealed(header(iss="water/power")), "jws.member_form"),
    "iss_in_capitals": (sealed(header(iss="WATER")), "jws.member_form"),
    "aud_a_list": (sealed(header(aud=["bus"])), "jws.member_form"),
    "cty_not_ascii": (sealed(header(cty="text/表")), "jws.member_form"),
    "mid_too_long": (sealed(header(mid="m" * 129)), "jws.member_form"),
    "typ_as_a_media_type": (sealed(header(typ="application/yt-delivery+jws")), "jws.not_a_delivery"),
    "changes_as_delivery": (sealed(header(typ="yt-changes+jws")), "jws.not_a_delivery"),
    "refusal_as_delivery": (sealed(header(typ="yt-refusal+jws")), "jws.not_a_delivery"),
    "receipt_as_delivery": (sealed(header(typ="yt-receipt+jws")), "jws.not_a_delivery"),
    "report_as_delivery": (sealed(header(typ="yt-report+jws")), "jws.not_a_delivery"),
    "typ_in_capitals": (sealed(header(typ="YT-Delivery+JWS")), "jws.not_a_delivery"),
    "document_as_delivery": (sign_document({"a": 1}, TYP, KEY, NOW), "jws.member_missing"),
    "digest_of_other_content": (sealed(header(dig=f"SHA-256:{'0' * 64}")), "signature.content_digest"),
    "digest_of_another_algorithm": (sealed(header(dig=f"SHA-1:{'0' * 40}")), "jws.member_form"),
    "digest_of_sm3": (sealed(header(dig=f"SM3:{'0' * 64}")), "jws.member_form"),
    "digest_without_a_name": (sealed(header(dig="0" * 64)), "jws.member_form"),
    "content_emptied": (respelt(RIGHT, "payload", lambda t: ""), "signature.invalid"),
    "digest_upper_case": (sealed(header(dig=header()["dig"].upper())), "jws.member_form"),
    "content_swapped": (respelt(RIGHT, "payload", lambda t: b64url(b"other")), "signature.invalid"),
    "message_id_with_a_slash": (sealed(header(mid="../x")), "jws.member_form"),
    "message_id_with_a_line_end": (sealed(header(mid="m-1\n")), "jws.member_form"),
    "feed_with_a_wildcard": (sealed(header(feed="+")), "jws.member_form"),
    "iss_a_number": (sealed(header(iss=1)), "jws.member_form"),
    "iss_null": (sealed(header(iss=None)), "jws.member_form"),
    # when
    "stale": (sealed(header(iat=int((NOW - MAX_AGE).timestamp()) - 1)), "signature.stale"),
    "future": (sealed(header(iat=int(NOW.timestamp()) + 301)), "signature.future"),
    "iat_a_fraction": (sealed(header(iat=1.5)), "jws.member_form"),
    "iat_a_whole_fraction": (sealed(header(iat=NOW.timestamp())), "jws.member_form"),
    "iat_null": (sealed(header(iat=None)), "jws.member_form"),
    "iat_with_an_exponent": (sealed(json.dumps(header(iat=0)).replace('"iat": 0', '"iat": 1e9')), "jws.member_form"),
    "iat_true": (sealed(header(iat=True)), "jws.member_form"),
    "iat_a_text": (sealed(header(iat="1")), "jws.member_form"),
    "iat_beyond_all_calendars": (sealed(header(iat=10**18)), "jws.member_form"),
    "iat_of_ten_thousand_digits": (sealed(TEN_THOUSAND_DIGITS), "jws.not_json"),
    "iat_negative": (sealed(header(iat=-1)), "jws.member_form"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_is_refused_by_name(name: str) -> None:
    octets, code = ATTACKS[name]
    with pytest.raises(Refusal) as refused:
        taken(octets)
    assert refused.value.code == code, refused.value


@pytest.mark.parametrize("kind", KEYS)
def test_what_a_partner_signs_is_what_is_taken(kind: str) -> None:
    octets = sign_delivery(
        CONTENT, KEYS[kind], sender="water", recipient="bus", feed="water-meters", message_id="m-1",
        content_type="text/csv", signed_at=NOW,
    )  # fmt: skip
    payload = taken(octets)
    assert payload.content.read() == CONTENT
    assert (payload.sender, payload.feed, payload.message_id, payload.content_type) == (
        *("water", "water-meters", "m-1", "text/csv"),
    )
    assert (payload.signer.certificate, payload.signed_at, payload.form) == (KEYS[kind].fingerprint, NOW, "jws")


def test_pss_is_taken_of_an_rsa_key() -> None:
    assert taken(under(pss, KEYS["RS256"], alg="PS256")).content.read() == CONTENT


@pytest.mark.parametrize("text", [json.dumps(header(), indent=2), json.dumps(dict(reversed(header().items())))])
def test_order_and_blanks_of_the_header_are_the_senders_own(text: str) -> None:
    assert taken(sealed(text)).message_id == "m-1"


def test_any_octets_are_a_content() -> None:
    for content in (b"", bytes(range(256)), b"\xff" * 3):
        assert taken(sealed(header(content=content), content=content)).content.read() == content


def test_an_envelope_of_just_the_size_is_taken() -> None:
    assert taken(RIGHT + b" " * (MOST_BYTES - len(RIGHT))).message_id == "m-1"
    with pytest.raises(Refusal, match=r"jws\.too_large"):
        taken(RIGHT + b" " * (MOST_BYTES - len(RIGHT) + 1))


def test_an_envelope_is_good_to_the_second_that_skew_and_age_allow() -> None:
    for iat in (int(NOW.timestamp()) + 300, int((NOW - MAX_AGE).timestamp())):
        assert taken(sealed(header(iat=iat))).message_id == "m-1"


def test_names_that_would_be_refused_are_not_signed() -> None:
    with pytest.raises(Refusal, match=r"jws\.member_form"):
        sign_delivery(
            CONTENT, KEY, sender="water", recipient="bus", feed="水", message_id="m-1", content_type="x", signed_at=NOW
        )


@given(st.data())
@settings(max_examples=200)
def test_no_altered_octet_gives_another_delivery(data: Any) -> None:
    position = data.draw(st.integers(0, len(RIGHT) - 1))
    altered = bytearray(RIGHT)
    altered[position] ^= data.draw(st.integers(1, 255))
    try:
        payload = taken(bytes(altered))
    except Refusal:
        return
    assert (payload.content.read(), payload.message_id) == (CONTENT, "m-1")


MEMBERS = st.dictionaries(st.sampled_from(["payload", "protected", "signature", "header"]), st.text() | st.integers())


@given(st.binary(max_size=200) | MEMBERS.map(lambda members: json.dumps(members).encode()))
@settings(max_examples=300, deadline=None)
def test_random_octets_are_refused_and_nothing_else_happens(octets: bytes) -> None:
    with pytest.raises(Refusal):
        taken(octets)


@given(st.dictionaries(st.sampled_from(sorted(header())), st.text() | st.integers() | st.floats() | st.none()))
@settings(max_examples=200, deadline=None)
def test_whatever_stands_in_a_signed_header_it_is_taken_or_refused(spoilt: Header) -> None:
    try:
        taken(sealed(header(**spoilt)))
    except Refusal:
        return
    assert set(spoilt) <= {"mid", "cty", "aud", "feed", "iat"}, "what names the signer or the content is the right one"
