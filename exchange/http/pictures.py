"""The picture of what a delivery of sheets changed, as its bureau may fetch it."""

from datetime import datetime
from typing import Final

from exchange.bus import Bus
from exchange.entry import CITY_TIME
from exchange.journal import content_erased
from exchange.sheet_difference import of_stored
from exchange.sheet_picture import Caption, picture
from mappings.sheets import sheet_of
from security.batch import unverified
from security.errors import Refusal

SVG: Final = "image/svg+xml"
# Nothing that a bureau wrote is markup in it; should that fail one day, a browser is still to run nothing of it.
PICTURE: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "x-content-type-options": "nosniff",
}


def picture_of(sender: str, message_id: str, bus: Bus) -> bytes:
    """The SVG of a stored delivery, as far as what it said is still there.

    Raises Refusal `delivery.unknown`, `content.erased`, `report.not_ready`, `sheet.no_picture`.
    """
    row = bus.journal.inbox(sender, message_id)
    if row is None:
        raise Refusal("delivery.unknown", message_id)
    erased = bus.journal.content_erased(row)
    if erased is not None:
        raise Refusal("content.erased", content_erased(erased))
    report, feed = bus.journal.report(sender, message_id), bus.feeds.get(row.feed)
    if report is None:
        raise Refusal("report.not_ready", message_id)
    told = unverified(report)["report"].get("sheet")
    if feed is None or feed.sheet is None or told is None or bus.city is None:
        raise Refusal("sheet.no_picture", message_id)
    difference = of_stored(sender, message_id, told["numbers"], feed, bus.city, bus.store)
    day = feed.as_of or datetime.fromisoformat(row.signed_at).astimezone(CITY_TIME).date()
    caption = Caption(f"{feed.title_zh} {feed.title}", message_id, day.isoformat())
    return picture(difference, [sheet_of(number) for number in told["numbers"]], feed.sheet.size, caption).encode()
