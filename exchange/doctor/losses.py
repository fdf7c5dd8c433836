"""Whether the log has all heads that are known of it outside, and nothing is back that was erased."""

from collections.abc import Iterator

from exchange.app import places, trusted
from exchange.doctor.check import Check, Examined, bad, good, refused
from exchange.erased_apart import to_repeat
from security.errors import Refusal


def log_has_known_heads(bus: Examined) -> Iterator[Check]:
    """No head is known outside the database that the log has lost. Raises Misconfigured naming a file that is none.

    Only this sees that the whole state folder was put back to an older day, and a log as long of other entries.
    """
    if bus.journal is None:
        return
    gap = trusted.log_gap(bus.settings, bus.journal)
    if gap is not None:
        yield refused("journal.whole", str(places.heads_folder(bus.settings)), Refusal("audit.log_behind", str(gap)))
        return
    yield good("journal.whole", "日志不短于其在外已知的存证点。", "The log has every head that is known of it outside.")


def what_was_erased_is_gone(bus: Examined) -> Iterator[Check]:
    """A restore brought nothing back that two persons had erased."""
    if bus.registry is None:
        return
    again = [one.id for one in to_repeat(places.heads_folder(bus.settings), bus.registry)]
    if not again:
        yield good("erasures.hold", "已销毁的内容没有因恢复而重现。", "Nothing that was erased is back.")
        return
    yield bad(
        "erasures.hold",
        f"恢复备份带回了已决定销毁的内容：{len(again)} 项（{'、'.join(again[:3])}）。",
        f"A restored backup brought back what had been erased: {len(again)} decisions ({', '.join(again[:3])}).",
        "请审计管理员运行 yongtong erasure again --by 姓名。",
        "An audit officer runs: yongtong erasure again --by NAME.",
    )
