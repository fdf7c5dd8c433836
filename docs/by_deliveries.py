"""What verify_bundle.py asks of a delivery: whose receipt and report they are, and what is not there."""

from by_openssl import check


def check_same(said, number, entries):
    """A receipt or report is of the delivery that an entry accepted, as its own entry and that one say."""
    check(said["leaf"] == entries[str(said["index"])]["leaf"], "it is of another entry")
    check(str(said.get("accepted_index", said["index"])) == number, "it is of another delivery")
    for one in (entries[str(said["index"])], entries[number]):
        check((said["sender"], said["feed"]) == (one["is"]["sender"], one["is"]["feed"]), "it is of another delivery")
        check(one["says"].get("message_id", said["message_id"]) == said["message_id"], "it is of another delivery")


def owed(names, entries, manifest):
    """The last delivery, and what is to be there of each and is not: its report only once an entry says what came."""
    ends, missing = ("processed", "refused", "held", "recalled"), []
    numbers = {name.split("/")[1] for name in names if name.startswith("messages/")}
    check(manifest["kind"] != "message" or len(numbers) == 1, "a bundle of one delivery has one")
    became = {
        (one["is"]["sender"], one["says"].get("message_id"))
        for one in entries.values()
        if one["is"]["type"] in ("processing", "recall") and one["is"]["outcome"] in ends
    }
    for number in numbers:
        leaf, id = entries[number]["is"], entries[number]["says"].get("message_id")
        check((leaf["type"], leaf["outcome"]) == ("delivery", "accepted"), f"entry {number} accepts none")
        named = manifest["kind"] != "message" or id is None or manifest["subject"] == f"{leaf['sender']} {id}"
        check(named, f"entry {number} accepts another than the subject")
        report = ["report.json"] * (id is not None and (leaf["sender"], id) in became)
        missing += [f"messages/{number}/{part}" for part in ("envelope", "receipt.json", *report)]
    return max(map(int, numbers), default=0), [name for name in missing if name not in names]
