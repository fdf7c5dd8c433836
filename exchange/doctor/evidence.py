"""Whether evidence can be kept, read and erased where the settings have it lie."""

from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qs, urlsplit

from exchange.app import places
from exchange.doctor.check import Check, Examined, bad, good

# Of each step: what did not go well, and what to do.
BROKEN: Final = {
    "address": (
        "连不上存储地址",
        "its address cannot be reached",
        "请核对 [evidence] url 中的 endpoint、域名解析和防火墙。",
        "Check endpoint in [evidence] url, the name service and the firewall.",
    ),
    "credentials": (
        "没有找到访问凭据",
        "no credentials are found",
        "请为运行平台的账号设置 AWS_ACCESS_KEY_ID 与 AWS_SECRET_ACCESS_KEY，或放好凭据文件；不要写进 settings.toml。",
        "Give the account that runs the bus AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a credentials file; "
        "never write them into settings.toml.",
    ),
    "bucket": (
        "存储桶不能列出",
        "the bucket cannot be listed",
        "请核对桶名、region、凭据的权限（ListBucket）；证书不受信任时请设置 AWS_CA_BUNDLE。",
        "Check bucket, region and what the credentials permit (ListBucket); for a CA of your own set AWS_CA_BUNDLE.",
    ),
    "put": (
        "不能写入",
        "nothing can be written",
        "写不进去，报送就会被推迟：请核对写权限（PutObject）、配额和剩余空间。",
        "Until it can, deliveries are put off: check the right to write (PutObject), quota and room.",
    ),
    "get": (
        "写入后读不出",
        "what was written cannot be read",
        "请核对读权限（GetObject），或查明存储为何返回别的内容。",
        "Check the right to read (GetObject), or why it gives back something else.",
    ),
    "condition": (
        "不支持按条件写入（If-Match）",
        "it does not put on a condition (If-Match)",
        "两人同时销毁同一分段时可能互相覆盖：请升级存储，在此之前逐件销毁。",
        "Two erasures in one segment at once may undo each other: upgrade the store, and erase one by one until then.",
    ),
    "delete": (
        "不能删除",
        "nothing can be deleted",
        "没有删除权限（DeleteObject）就不能销毁到期的原文：请授权。",
        "Without the right to delete (DeleteObject) nothing can be erased: grant it.",
    ),
}


def evidence_can_be_kept(bus: Examined) -> Iterator[Check]:
    """A probe is put, read and deleted; the first step that fails is named. Then what would hinder erasing, and who
    could listen. Raises Misconfigured for a URL that is none."""
    with closing(places.evidence_place(bus.settings)) as place:
        for step, tried in place.steps().items():
            try:
                tried()
            except OSError as problem:
                yield _broken(step, problem)
                return
        yield good("evidence.place", "证据可以写入、读出、删除。", "Evidence can be written, read and deleted.")
        if kept := place.keeps_copies():
            yield bad(
                "evidence.erasable",
                f"存储桶会留存旧版本（{kept}）：销毁之后原文仍在。",
                f"The bucket keeps what is overwritten ({kept}): what is erased goes on lying there.",
                "请为平台另用一个不启用版本与锁定的存储桶，并清除旧版本；在此之前的销毁不彻底。",
                "Give the bus a bucket without versions and locks, and remove old versions; until then erasing is not.",
            )
    if _in_the_clear(bus.settings.evidence.url):
        yield bad(
            "evidence.transport",
            "证据以明文 http 传往另一台机器。",
            "Evidence travels to another machine by plain http.",
            '请把 endpoint 改为 https；在此之前至少设置 [evidence] seal = "all"。',
            'Make endpoint https; until then at least set [evidence] seal = "all".',
        )


def _broken(step: str, problem: OSError) -> Check:
    zh, en, next_zh, next_en = BROKEN[step]
    return bad(
        "evidence.place",
        f"证据存储在“{step}”这一步出错，{zh}：{problem}",
        f"The evidence's place fails at the step “{step}”, {en}: {problem}",
        next_zh,
        next_en,
    )


def _in_the_clear(url: str) -> bool:
    """Whether it is plain http and not to this machine."""
    endpoint = urlsplit(parse_qs(urlsplit(url).query).get("endpoint", [""])[0])
    host = endpoint.hostname or ""
    try:
        here = ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    return endpoint.scheme == "http" and not here
