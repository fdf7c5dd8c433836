"""Whether the queue that wakes act two takes us, and which step of the way there does not hold."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from exchange.app import working
from exchange.doctor.check import Check, Examined, bad, good
from scheduler.probe import Probed, Step, probe

# Of each step: how it is, Chinese and English, and what to do.
STEPS: Final[dict[Step, tuple[str, str, str, str]]] = {
    "address": (
        "连不上",
        "cannot be reached",
        "请核对 [worker] queue 中的地址和端口、防火墙，以及 RabbitMQ 是否在运行。",
        "Check address and port in [worker] queue, the firewall, and that RabbitMQ runs.",
    ),
    "tls": (
        "TLS 握手不成",
        "does not shake hands over TLS",
        "请核对 [worker] queue_ca 是否为其证书的签发机构，证书是否写明该主机名、是否在有效期内。",
        "Check that [worker] queue_ca is whose certificate it has, made out to this host name and in force.",
    ),
    "login": (
        "拒绝登录",
        "refuses the login",
        "请核对用户名和 queue_password_file 的内容：rabbitmqctl change_password。",
        "Check the user and what stands in queue_password_file: rabbitmqctl change_password.",
    ),
    "vhost": (
        "没有这个虚拟主机，或该用户无权进入",
        "has no such virtual host, or does not let this user in",
        "请运行 rabbitmqctl add_vhost 和 set_permissions（docs/queues.md）。",
        "Run rabbitmqctl add_vhost and set_permissions (docs/queues.md).",
    ),
    "queue": (
        "队列不能用",
        "does not give us our queue",
        "请核对权限（docs/queues.md）；同名队列参数不同时，先停 serve，再运行 rabbitmqctl delete_queue，不会丢失报送。",
        "Check the rights (docs/queues.md). Is a queue of that name of another kind? Stop serve, then rabbitmqctl "
        "delete_queue: no delivery is lost by that.",
    ),
}


def queue_answers(bus: Examined) -> Iterator[Check]:
    """The queue can be reached and is ours. Raises Misconfigured naming what the settings lack."""
    where = working.queue_of(bus.settings)
    if isinstance(where, Path):
        yield good(
            "queue.broker", "任务队列是状态目录中的文件。", "The queue is a folder of files in the state folder."
        )
        return
    found, at = probe(where), f"{where.host}:{where.port}"
    yield _broken(found, at) if found.broken else _well(found, at)


def _broken(found: Probed, at: str) -> Check:
    assert found.broken
    zh, en, next_zh, next_en = STEPS[found.broken]
    return bad(
        "queue.broker",
        f"任务队列 {at} {zh}（{found.broken}）：{found.reason}。报送照常收、照常出回执，处理要等队列恢复。",
        f"The queue at {at} {en} ({found.broken}): {found.reason}. Receipts go on; act two waits for it.",
        next_zh,
        next_en,
    )


def _well(found: Probed, at: str) -> Check:
    return good(
        "queue.broker",
        f"任务队列 {at} 可用，{found.workers} 个处理进程，{found.unread} 个任务待取。",
        f"The queue at {at} takes us; {found.workers} workers listen, {found.unread} tasks lie there.",
    )
