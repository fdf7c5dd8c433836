"""Whether anything that senders number is missing for good."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from exchange.doctor.check import Check, Examined, bad, good
from mappings.load import load_feeds

NAMED: Final = 3


def nothing_is_missing(bus: Examined) -> Iterator[Check]:
    """No gap is older than its feed's `max_age`: up to then what is missing may be on its way, signed and not sent.

    Raises Misconfigured naming a feed's file.
    """
    if bus.journal is None:
        return
    feeds = load_feeds(bus.settings.at(path) for path in bus.settings.feeds.folders)
    found = bus.journal.gaps()
    late = [
        gap for gap in found.gaps
        if gap.feed not in feeds or bus.now - datetime.fromisoformat(gap.since) > feeds[gap.feed].max_age
    ]  # fmt: skip
    if not late:
        yield good(
            "sequence.gaps",
            f"{len(found.counted)} 路报送有序号，无逾期缺号。",
            f"{len(found.counted)} senders and feeds are numbered; nothing is missing beyond its time.",
        )
        return
    named = "; ".join(f"{gap.sender} {gap.feed} {gap.first}-{gap.last} ({gap.since[:10]})" for gap in late[:NAMED])
    yield bad(
        "sequence.gaps",
        f"{sum(gap.missing for gap in late)} 件报送逾期未到：{named}。",
        f"{sum(gap.missing for gap in late)} deliveries have not come in their time: {named}.",
        "请用 yongtong gaps 查看，联系该单位核对其发送记录，重新签名后补报原序号；原件已无的，说明原因存档。",
        "See yongtong gaps, and ask that bureau what it sent: it signs it anew under the same number, or says why not.",
    )
