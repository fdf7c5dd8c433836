"""Deliveries of the feed `bench-covers`, signed and ready to send as they stand."""

import base64
import hashlib
import itertools
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import numpy as np
from lxml import etree

from samples import quarter
from security.keys import SigningKey
from security.wss import sign

FEED: Final = "bench-covers"
ROWS: Final = 25
POOL: Final = 20_000  # covers, 7 m apart: the first 800 deliveries tell of new ones, all later ones change them
HEADER: Final = "编号,类型,经度,纬度,道路,权属单位,养护单位,状态,日期,备注"
SOAP: Final = "http://schemas.xmlsoap.org/soap/envelope/"
OURS: Final = "urn:yongtong:v1"


class Sender(NamedTuple):
    """Who signs: bureau code, signing key with its certificate, and the bus it speaks to."""

    bureau: str
    key: SigningKey
    certificate_der: bytes
    recipient: str


def _covers() -> list[tuple[str, str, str]]:
    """(key and class, longitude and latitude, street) of every cover of the pool, as text."""
    across = 170
    place = np.arange(POOL)
    u, v = 0.1 + place % across * 7 / quarter.CELL_M[0], 0.1 + place // across * 7 / quarter.CELL_M[1]
    longitude, latitude = quarter.degrees(u, v)
    kinds, streets = itertools.cycle(("给水井", "污水井", "雨水井")), itertools.cycle(quarter.UPWARD)
    return [
        (f"C{n:07},{kind}", f"{x:.7f},{y:.7f}", street)
        for n, kind, x, y, street in zip(place, kinds, longitude, latitude, streets, strict=False)
    ]


def contents(first: int, count: int) -> list[bytes]:
    """CSV contents number `first` and following, a little over 4 KB each; every row is new or changed."""
    covers = _covers()
    states = ("完好", "破损", "丢失")
    made = []
    for number in range(first, first + count):
        start, state = number * ROWS % POOL, states[number * ROWS // POOL % 3]
        said = f"样城自来水公司,样城市政养护所,{state},20120501,巡检更新，井盖与井座齐平，周边无积水"
        rows = [f"{key},{position},{street},{said}" for key, position, street in covers[start : start + ROWS]]
        made.append("\n".join([HEADER, *rows, ""]).encode())
    return made


def envelope(content: bytes, message_id: str, sender: Sender, now: datetime, feed: str = FEED) -> bytes:
    """One signed SOAP 1.1 SubmitDelivery with its content inline; it is fresh for nine minutes."""
    root = etree.Element(etree.QName(SOAP, "Envelope"), nsmap={"s": SOAP})
    body = etree.SubElement(root, etree.QName(SOAP, "Body"))
    operation = etree.SubElement(body, etree.QName(OURS, "SubmitDelivery"), nsmap={"yt": OURS})
    for name, text in (
        ("Sender", sender.bureau),
        ("Recipient", sender.recipient),
        ("MessageId", message_id),
        ("Feed", feed),
        ("ContentType", "text/csv"),
        ("ContentDigest", hashlib.sha256(content).hexdigest()),
        ("Content", base64.b64encode(content).decode()),
    ):
        etree.SubElement(operation, etree.QName(OURS, name)).text = text
    operation[5].set("algorithm", "SHA-256")
    return sign(root, sender.key, sender.certificate_der, created=now, expires=now + timedelta(minutes=9))


def requests(first: int, count: int, sender: Sender) -> list[bytes]:
    """Whole HTTP requests for `/soap/feeds`, one a delivery, with distinct message ids."""
    now = datetime.now(UTC)
    made = contents(first, count)
    return [post(envelope(each, f"bench-{first + n}", sender, now)) for n, each in enumerate(made)]


def post(body: bytes) -> bytes:
    """The octets of an HTTP request that posts a SOAP 1.1 envelope."""
    head = (
        "POST /soap/feeds HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml; charset=utf-8\r\n"
        f'SOAPAction: "{OURS}/SubmitDelivery"\r\nContent-Length: {len(body)}\r\n\r\n'
    )
    return head.encode() + body
