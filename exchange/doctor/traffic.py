"""Whether what should come comes, what came is worked off, nothing is lost, and somebody would hear of it."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from exchange.alarms import read_book
from exchange.doctor.check import Check, Examined, bad, good
from mappings.load import load_feeds

TOLD: Final = timedelta(days=1)  # how long an event is told of
LEAST_GRACE, MOST_GRACE = timedelta(minutes=5), timedelta(days=3)
STUCK: Final = timedelta(hours=1)  # an alarm that was not had out so long

# Critical events that say so: evidence or log are not what they were.
BROKEN: Final = ("door.audit_broken", "door.unavailable", "delivery.audit_broken", "timestamp.kept_one_does_not_hold")

# What happened to a delivery: what it means, and what to do. Codes of `tally.EVENTS`.
EVENTS: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "delivery.evidence_broken": (
        "一份已受理报送的原件与受理时的摘要不符，已挂起。",
        "The kept original of an accepted delivery is not what was accepted; it is held.",
        "请安全管理员核查磁盘和访问记录：yongtong audit verify，yongtong audit search --outcome held。",
        "A security officer has to look at disk and accesses: yongtong audit verify, audit search --outcome held.",
    ),
    "delivery.failed": (
        "一份报送多次处理失败，已挂起，其余照常。",
        "A delivery failed again and again in act two and is held; the others go on.",
        "请在 serve 日志中查 delivery.failed，处理后用 yongtong held 放行或拒收。",
        "Look for delivery.failed in serve's log; then release or refuse it: yongtong held.",
    ),
    "content.classified": (
        "收到含有不得在本网传输内容的报送，原件已封存。",
        "A delivery held what must not travel over this network; its original is sealed.",
        "请立即通知保密管理人员并联系报送单位；编号见 yongtong audit search --type spill。",
        "Tell the officer for classified matters and the sender at once; which: yongtong audit search --type spill.",
    ),
    "content.map_too_large": (
        "一份地形图报送会使平台持有的连续测图范围超过上限，已拒收，原件已封存。",
        "A map came that would bring the continuous map held here beyond the limit; refused, its original sealed.",
        "请通知保密管理人员并联系报送单位；编号见 yongtong audit search --type spill，上限见 [limits] held_map_km2。",
        "Tell the officer for classified matters and the sender: audit search --type spill; [limits] held_map_km2.",
    ),
}


def clock_agrees(bus: Examined) -> Iterator[Check]:
    """The clock did not jump, and agrees with what others' servers say."""
    if bus.seen is None:
        return
    to_do = (
        "请校准时钟并启用 NTP（chrony 或 systemd-timesyncd）；证书期限、签名时间和时间戳都以它为准。",
        "Set the clock and run NTP (chrony or systemd-timesyncd): days, signatures and timestamps go by it.",
    )
    jump, apart = bus.seen.clock.jump(), bus.seen.clock.apart()
    if jump is not None:
        at = f"{jump.at:%Y-%m-%d %H:%M}Z"
        yield bad(
            "clock.jumped",
            f"本机时钟在 {at} 前后跳变 {jump.seconds:+.0f} 秒。",
            f"This machine's clock jumped by {jump.seconds:+.0f} s about {at}.",
            *to_do,
        )
    for host, seconds in sorted(apart.items()):
        yield bad(
            "clock.agrees",
            f"本机时钟与 {host} 相差 {seconds:+.0f} 秒。",
            f"This machine's clock is {seconds:+.0f} s off that of {host}.",
            *to_do,
            host,
        )
    if jump is None and not apart:
        yield good("clock.agrees", "时钟没有跳变，与各服务器一致。", "The clock did not jump, and agrees with others.")


def log_is_whole(bus: Examined) -> Iterator[Check]:
    """The log is no smaller than its own signed heads, nor than it was known to be; and no door found it broken.

    Only this sees a loss by what lies within the state folder: where the folder of known heads was lost as well, or
    could not be written, and of entries that went out under no signed head yet.
    """
    if bus.journal is None:
        return
    size, text = bus.journal.size(), bus.journal.checkpoint()
    known = max(bus.journal.head(text).size if text else 0, bus.seen.counts.highest if bus.seen else 0)
    to_do = (
        "请立即停止 serve，保留现状副本，由安全管理员运行 yongtong audit verify 并从备份恢复。",
        "Stop serve, keep a copy of everything as it is; a security officer runs yongtong audit verify and restores.",
    )
    if size < known:
        yield bad(
            "log.whole",
            f"审计日志只有 {size} 条，而曾有 {known} 条：有记录丢失。",
            f"The log has {size} entries where {known} are known: entries are gone.",
            *to_do,
        )
    trouble = bus.journal.trouble
    broken = sorted(_recent(bus.seen.criticals, bus.now)) if bus.seen else []
    if (trouble is not None and trouble.broken) or broken:
        yield bad(
            "log.broken",
            f"审计日志前后不一致，相关请求已停止受理。{' '.join(broken)}",
            f"The log does not add up; what depends on it is not answered. {' '.join(broken)}",
            *to_do,
        )
    elif size >= known:
        yield good("log.whole", f"审计日志 {size} 条，没有缺失。", f"The log has {size} entries, and none is missing.")


def _recent(times: Mapping[str, datetime], now: datetime) -> list[str]:
    return [event for event, at in times.items() if event in BROKEN and now - at < TOLD]


def act_two_keeps_up(bus: Examined) -> Iterator[Check]:
    """Nothing waits for act two longer than the settings allow."""
    if bus.journal is None:
        return
    limit, late = timedelta(seconds=bus.settings.alarms.backlog_s), 0
    for feed, many, since in bus.journal.waiting_by_feed():
        waits = bus.now - datetime.fromisoformat(since)
        if waits <= limit:
            continue
        late += 1
        yield bad(
            "inbox.backlog",
            f"{feed} 有 {many} 份报送待处理，最早的已等 {_lasting(waits)}。",
            f"{many} deliveries of {feed} wait for act two, the oldest for {_lasting(waits)}.",
            "请确认处理进程在运行，查 serve 日志中的 worker.ended 和 feed.not_released。",
            "See that the worker runs; look in serve's log for worker.ended and feed.not_released.",
            feed,
        )
    if not late:
        yield good("inbox.backlog", "没有积压的报送。", "Nothing waits for act two too long.")


def deliveries_are_sound(bus: Examined) -> Iterator[Check]:
    """No delivery of the last day was stopped for a reason that somebody here must look into."""
    if bus.seen is None:
        return
    for code, (index, time) in sorted(bus.seen.counts.events.items()):
        if bus.now - datetime.fromisoformat(time) < TOLD:
            zh, en, next_zh, next_en = EVENTS[code]
            yield bad(code, f"{zh}（审计第 {index} 条）", f"{en} (entry {index})", next_zh, next_en, str(index))


def feeds_are_heard(bus: Examined) -> Iterator[Check]:
    """Every feed that has ever delivered has done so again within its rhythm. One that never has is not yet awaited."""
    if bus.journal is None:
        return
    silent = 0
    for id, feed in load_feeds(bus.settings.at(path) for path in bus.settings.feeds.folders).items():
        last = _last_heard(id, bus) if feed.rhythm is not None else None
        if last is None or feed.rhythm is None:
            continue
        since = bus.now - datetime.fromisoformat(last)
        if since <= feed.rhythm + min(max(feed.rhythm / 2, LEAST_GRACE), MOST_GRACE):
            continue
        silent += 1
        yield bad(
            "feeds.heard",
            f"{id}（{feed.title_zh}）已 {_lasting(since)} 没有报送，约定周期为 {_lasting(feed.rhythm)}。",
            f"{id} ({feed.title}) has sent nothing for {_lasting(since)}; its rhythm is {_lasting(feed.rhythm)}.",
            f"请询问 {feed.bureau}；周期有变时修改供数任务文件中的 rhythm。",
            f"Ask {feed.bureau}; where the rhythm has changed, change it in the feed's file.",
            id,
        )
    if not silent:
        yield good("feeds.heard", "各供数任务均按周期报送。", "Every feed keeps its rhythm.")


def _last_heard(feed: str, bus: Examined) -> str | None:
    """When its last delivery came, as the log writes it."""
    if bus.seen is not None:
        return bus.seen.counts.heard.get(feed)
    assert bus.journal is not None
    return next((entry.leaf.time for entry in bus.journal.search(type="delivery", feed=feed, limit=1)), None)


def alarms_arrive(bus: Examined) -> Iterator[Check]:
    """No alarm waits for a way that is away."""
    stuck = 0
    for letter in read_book(bus.state).letters:
        for way, tried in letter.ways.items():
            if tried.problem and bus.now - letter.made_at > STUCK:
                stuck += 1
                yield bad(
                    "alarms.ways",
                    f"告警经 {way} 送不出去：{tried.problem}",
                    f"Alarms cannot be sent by {way}: {tried.problem}",
                    "请用 yongtong alarms test 逐步核对。",
                    "Try it step by step: yongtong alarms test.",
                    way,
                )
    if not stuck:
        said = bus.settings.alarms
        way = "告警可以送出。" if said.ways else "未设置告警的送出方式（[alarms]）。"
        yield good("alarms.ways", way, "No alarm waits." if said.ways else "No way for alarms is set ([alarms]).")


def _lasting(time: timedelta) -> str:
    """A length of time, in the largest unit of which there are two."""
    for unit, one in (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("min", timedelta(minutes=1))):
        if time >= 2 * one:
            return f"{time / one:.0f} {unit}"
    return f"{time.total_seconds():.0f} s"
