"""Mutants of honest messages: taken as what was signed, or refused by name; never as anything else."""

import os
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

import pytest

from security.authenticate import signer_of
from security.errors import Refusal, sentences
from security.message import Delivery, in_memory
from security.signatures import payload_of
from security.wss import open_envelope, verify
from security.xml import canonical
from tests.security.mutants import Message, Mutant, Operator, messages
from tests.security.mutants_of_signatures import OF_SIGNATURES
from tests.security.mutants_of_text import OF_TEXT
from tests.security.vectors import NOW, TRUST

OPERATORS: Final[tuple[Operator, ...]] = (*OF_SIGNATURES, *OF_TEXT)
MESSAGES: Final = list(messages())
# Every operator at every position of one message for each form of the content; of the others a part, in a soak all.
WHOLE: Final = {"ours", "1.1 inline token", "1.2 mtom issuer serial", "1.1 mtom expanded thumbprint"}
EVERY: Final = 1 if os.environ.get("YONGTONG_FUZZ_EXAMPLES") else 11
KNOWN: Final = {"same", *sentences()}


class Meaning(NamedTuple):
    """What a message says, when it is believed."""

    operation: bytes
    content: bytes
    signer: str
    signed_info: str


def meaning(message: Message | Mutant) -> Meaning:
    """Raises Refusal."""
    envelope = open_envelope(message.octets)
    certificate = signer_of(TRUST.named(envelope.key_reference), envelope.claimed("Sender"), NOW)
    part = None if message.attachment is None else in_memory(message.attachment)
    verified = verify(envelope, certificate, now=NOW, attachment=part, attachment_id=message.attachment_id)
    raw = in_memory(message.octets)
    delivery = Delivery("soap", None, "test", message.octets, raw, NOW, part, message.attachment_id)
    content = payload_of(verified, delivery).content.read()
    for child in verified.element.iter("{urn:yongtong:v1}Content"):
        child.text = None  # stands beside, in whichever way it came
    return Meaning(canonical(verified.element), content, verified.signer.certificate, verified.signed_digest)


def outcome(mutant: Mutant, original: Meaning) -> str:
    """`same`, the code of a refusal, or what is never to be seen."""
    try:
        return "same" if meaning(mutant) == original else "TAKEN AS SOMETHING ELSE"
    except Refusal as refusal:
        return refusal.code


def mutants_of(message: Message, operators: tuple[Operator, ...] = OPERATORS, every: int = 1) -> list[Mutant]:
    """Each mutant once, and none that is the message itself."""
    made = (mutant for operator in operators for mutant in operator(message))
    found = {(mutant.octets, mutant.attachment, mutant.attachment_id): mutant for mutant in made}
    found.pop((message.octets, message.attachment, message.attachment_id), None)
    return list(found.values())[::every]


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_every_mutant_is_refused_and_every_harmless_one_is_the_original(operator: Operator) -> None:
    wrong = []
    for message in MESSAGES:
        original = meaning(message)
        for mutant in mutants_of(message, (operator,), 1 if message.name in WHOLE else EVERY):
            found = outcome(mutant, original)
            if (found == "same") != mutant.harmless or found not in KNOWN:
                wrong.append((mutant.name, found))
    assert wrong == []


def test_there_are_hundreds_of_mutants_of_a_message_and_they_fail_in_many_ways(tell: Callable[[str], None]) -> None:
    """Were they all refused for one reason, they would say nothing of the checks that come after it."""
    (message,) = (message for message in MESSAGES if message.name == "1.1 inline token")
    original, mutants = meaning(message), mutants_of(message)
    codes = Counter(outcome(mutant, original) for mutant in mutants)
    same = codes.pop("same")
    tell(f"MUTANTS envelope: {len(mutants)} made, {codes.total()} refused, {same} the original; codes: {dict(codes)}")
    assert codes.total() > 1_000
    assert same == sum(mutant.harmless for mutant in mutants)
    assert len(codes) > 20
