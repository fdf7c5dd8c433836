"""Whether what is enrolled and granted is what persons in office signed: nothing put in, hidden or stale."""

import time
from collections.abc import Iterator
from typing import Final

from exchange.app import places
from exchange.decision_documents import FEWEST_SECURITY
from exchange.doctor.check import Check, Examined, bad, good, refused
from mappings.load import load_feeds
from security.errors import Refusal

SIGNED_WITHIN_S: Final = 5.0


def decisions_hold(bus: Examined) -> Iterator[Check]:
    """Each entry or row that claims to decide and does not, named; and offices held twice."""
    if bus.registry is None:
        return
    troubles = bus.registry.troubles()
    for trouble in troubles:
        whose = f"审计记录 entry {trouble.entry}" if trouble.entry is not None else "登记册 register"
        yield refused("decisions.hold", whose, Refusal(trouble.code, trouble.detail))
    if not troubles:
        yield good(
            "decisions.hold",
            "每项登记、任职和授权都有两人签名。",
            "Each decision bears two signatures.",
        )


def decisions_are_all_found(bus: Examined) -> Iterator[Check]:
    """No decision of the log is left out of the table that finds them: a revocation hidden so would not act."""
    if bus.registry is None:
        return
    hidden = bus.registry.hidden()
    for index in hidden:
        yield bad(
            "decisions.found",
            f"审计记录 {index} 中的决定在数据库中被隐去，未能生效。",
            f"The decision in entry {index} is hidden from the table that finds it, and does not act.",
            "请停止服务，交审计管理员核查何人写入数据库，并从备份恢复。",
            "Stop, have an audit officer find out who wrote to the database, and restore from a backup.",
        )
    if not hidden:
        yield good("decisions.found", "日志中的决定无一隐去。", "No decision of the log is hidden.")


def mappings_are_released(bus: Examined) -> Iterator[Check]:
    """Each feed's file, as it stands, is the one that two persons released."""
    if bus.registry is None:
        return
    feeds = load_feeds(bus.settings.at(path) for path in bus.settings.feeds.folders)
    stale = [feed.id for feed in feeds.values() if bus.registry.mapping(feed.id) != feed.digest]
    for feed in stale:
        yield refused("feeds.released", feed, Refusal("feed.not_released", feed))
    if not stale:
        yield good("feeds.released", "各供数任务的映射文件均已发布。", "The mapping of each feed was released.")


def decisions_are_under_a_signed_head(bus: Examined) -> Iterator[Check]:
    """None waits for its head for longer than signing takes."""
    if bus.registry is None:
        return
    ends_s = time.monotonic() + SIGNED_WITHIN_S
    while bus.registry.unsigned() and time.monotonic() < ends_s:
        time.sleep(0.2)
    if bus.registry.unsigned():
        yield bad(
            "decisions.signed",
            "有决定未被签名的存证点覆盖，尚未生效。",
            "A decision is under no signed head, and is not in force.",
            "服务运行时应在数秒内补签；否则请停止服务，交审计管理员核查何人写入数据库。",
            "While serve runs it is signed within seconds; else stop, and have an audit officer look at the database.",
        )
    else:
        yield good("decisions.signed", "所有决定均在签名的存证点之下。", "Every decision is under a signed head.")


def enough_can_decide(bus: Examined) -> Iterator[Check]:
    """Two security officers at least are in office."""
    if bus.registry is None:
        return
    left = sum(person.role == "security" and not person.until for _, person in bus.registry.persons())
    if left < FEWEST_SECURITY:
        yield bad(
            "decisions.deciders",
            f"在任安全管理员只有 {left} 名，任何登记和授权都无法批准。",
            f"Only {left} security officers are in office: no enrolment or grant can be approved.",
            "只剩一名时不能再任命他人；须由各单位见证，用新的设立文件另建平台，并向各单位换发 anchors.json。",
            "One alone appoints nobody: found the bus anew before the bureaus, and hand out the new anchors.json.",
        )
    else:
        yield good("decisions.deciders", f"在任安全管理员 {left} 名。", f"{left} security officers are in office.")


def database_changes_nothing_itself(bus: Examined) -> Iterator[Check]:
    """The database holds no trigger and no view: none of ours, so somebody else's."""
    found = places.journal_database(bus.settings).meddling()
    for name in found:
        yield bad(
            "decisions.triggers",
            f"数据库中有非本系统建立的触发器或视图 {name}。",
            f"The database holds {name}, a trigger or view that is not ours.",
            "请停止服务，交审计管理员核查何人写入数据库，并从备份恢复。",
            "Stop, have an audit officer find out who wrote to the database, and restore from a backup.",
        )
    if not found:
        yield good("decisions.triggers", "数据库中没有触发器或视图。", "The database holds no trigger or view.")
