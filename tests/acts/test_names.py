"""Names that outsiders choose: what is taken for one, and what a refusal says of them."""

from collections.abc import Iterator

import pytest

from security.errors import Refusal
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acts]:
    with both_acts(tmp_path_factory.mktemp("names")) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


@pytest.mark.parametrize("message_id", ["a", "..", "x" * 128, "A.b_c:d@e+f-g"])
def test_a_message_id_of_the_contract_is_taken(acts: Acts, message_id: str) -> None:
    assert acts.push(message_id, covers("A")).inbox.message_id == message_id


@pytest.mark.parametrize("message_id", ["", "x" * 129, "../x", "a/b", "a\\b", "a b", "a\tb", "a\nb", " a", "水", "%2e"])
def test_any_other_message_id_is_refused(acts: Acts, message_id: str) -> None:
    with pytest.raises(Refusal, match=r"soap\.schema_invalid.*MessageId: CVC_PATTERN_VALID"):
        acts.push(message_id, covers("A"))


@pytest.mark.parametrize("feed", ["", "../made-up-covers", "made-up-covers ", "MADE-UP-COVERS", "x" * 5000])
def test_a_feed_is_named_to_the_letter(acts: Acts, feed: str) -> None:
    with pytest.raises(Refusal, match=r"feed\.unknown"):
        acts.push("m-1", covers("A"), feed)
    assert len(acts.bus.journal.search(type="refusal")[0].leaf.feed) == 0, "what is no feed of ours stands in no leaf"


@pytest.mark.parametrize(
    "member, code, detail",
    [
        ("Content", "signature.content_not_base64", ""),
        ("ContentDigest", "soap.schema_invalid", "ContentDigest: CVC_DATATYPE_VALID_1_2_1"),
    ],
)
def test_a_refusal_of_the_shape_does_not_quote_the_content(acts: Acts, member: str, code: str, detail: str) -> None:
    with pytest.raises(Refusal) as refused:
        acts.receive(acts.delivery("m-2", covers("A"), **{member: "@@secret@@"}))
    assert (refused.value.code, refused.value.detail) == (code, detail)
    assert all("secret" not in repr(entry) for entry in acts.bus.journal.search(type="refusal"))
