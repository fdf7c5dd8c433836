"""The topics of the second door (protocol.md "MQTT topics"), and who may do what with them."""

import re
from typing import Final, Literal

DELIVERIES: Final = "yt/v1/feeds/+/in"  # what the bus subscribes to
Kind = Literal["receipt", "report", "changes"]

_PLAIN: Final = re.compile(r"[^+#\x00-\x1f\x7f-\x9f]{1,200}")  # a topic that one may publish to
_IN: Final = re.compile(r"yt/v1/feeds/([a-z0-9][a-z0-9\-]{0,63})/in")


def shared_deliveries(group: str) -> str:
    """All deliveries, of which each goes to one of those that subscribe in the same group."""
    return f"$share/{group}/{DELIVERIES}"


def feed_of(topic: str) -> str | None:
    """The feed that a topic takes deliveries for; None where it is no such topic."""
    found = _IN.fullmatch(topic)
    return found[1] if found else None


def inbound(feed: str) -> str:
    """Where a feed's deliveries are published."""
    return f"yt/v1/feeds/{feed}/in"


def outbound(bureau: str, kind: Kind) -> str:
    """Where a bureau hears of its own."""
    return f"yt/v1/to/{bureau}/{kind}"


def answer_topic(bureau: str, reply_to: str) -> str:
    """Where a bureau hears an answer: on the response topic that its message named, if none but that bureau may read
    it; else, and where it named none, on the topic of its receipts."""
    if may_hear(bureau, reply_to) and _PLAIN.fullmatch(reply_to):
        return reply_to
    return outbound(bureau, "receipt")


def may_hear(bureau: str, topic_filter: str) -> bool:
    """Whether a filter matches nothing but what is for this bureau: its code stands in it, and no wildcard before."""
    return topic_filter.startswith(f"yt/v1/to/{bureau}/")
