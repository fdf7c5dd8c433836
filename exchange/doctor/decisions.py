"""Whether what is enrolled and granted is what persons in office signed: nothing put in, hidden or stale."""

from collections.abc import Iterator

from exchange.doctor.check import Check, Examined, bad, good, refused
from mappings.load import load_feeds
from security.errors import Refusal


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
