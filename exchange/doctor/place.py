"""Whether the place is fit to run in: settings, folders, disk, clock, broker, feeds, journal."""

import fcntl
import random
import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from exchange import log_index
from exchange.app import opening, over_mqtt, places
from exchange.doctor.check import Check, Examined, bad, good
from exchange.local_systems import check_declared
from mappings.load import load_feeds

SKEW: Final = timedelta(seconds=5)
CONNECT_S: Final = 5.0
PIECES_DRAWN: Final = 4  # of the audit's index
SILENT_S: Final = 0.5  # a broker that does not want us says so at once


def bus_is_made(bus: Examined) -> Iterator[Check]:
    """The state folder is of the bus that the settings name."""
    said = msgspec.json.decode((bus.state / "origin.json").read_bytes(), type=places.Origin)
    named = (bus.settings.bus.origin, bus.settings.city.edition)
    if (said.origin, said.edition) == named:
        yield good("bus.origin", f"平台 {said.origin} 已建立。", f"The bus {said.origin} is made.")
        return
    yield bad(
        "bus.origin",
        f"状态目录属于 {said.origin}（{said.edition} 版），设置写的是 {named[0]}（{named[1]} 版）。",
        f"The state folder is of {said.origin} (edition {said.edition}); the settings say {named[0]} ({named[1]}).",
        "名称和版本在建立时固定：请改回设置，或另指 [state] 目录。",
        "Both were fixed at init: put the settings back, or name another [state] folder.",
    )


def disk_has_room(bus: Examined) -> Iterator[Check]:
    """Room for evidence and journal."""
    free = shutil.disk_usage(bus.state).free
    said = f"{free / 1e9:.1f} GB"
    if free >= bus.least_free_bytes:
        yield good("place.disk", f"状态目录所在磁盘还有 {said}。", f"The state folder's disk has {said} free.")
        return
    yield bad(
        "place.disk",
        f"状态目录 {bus.state} 所在磁盘只剩 {said}。",
        f"The disk of {bus.state} has only {said} free.",
        "磁盘写满后报送会被推迟：请腾出空间，或把状态目录迁到更大的磁盘。",
        "With a full disk deliveries are put off: make room, or move the state folder to a larger disk.",
    )


def feeds_load(bus: Examined) -> Iterator[Check]:
    """Feed files and the city's polygons, as `serve` reads them. Raises Misconfigured naming the file."""
    feeds = load_feeds(bus.settings.at(path) for path in bus.settings.feeds.folders)
    yield good("place.feeds", f"{len(feeds)} 个供数任务可用。", f"{len(feeds)} feeds load.")


def city_loads(bus: Examined) -> Iterator[Check]:
    """The city's polygons and local systems, with all that feeds declare. Raises Misconfigured naming the file."""
    systems = opening.city_of(bus.settings).systems
    check_declared(opening.feeds_of(bus.settings).values(), systems)
    yield good(
        "place.city",
        f"区划和单元网格可用，地方坐标系 {len(systems)} 个。",
        f"Districts and unit grids load, and {len(systems)} local reference systems.",
    )


def clock_is_sane(bus: Examined) -> Iterator[Check]:
    """The clock has not gone back behind the log."""
    last = bus.journal.search(limit=1) if bus.journal is not None else []
    if not last:
        return
    entered = datetime.fromisoformat(last[0].leaf.time)
    if entered <= bus.now + SKEW:
        yield good("place.clock", "时钟不早于审计日志。", "The clock is not behind the log.")
        return
    yield bad(
        "place.clock",
        f"本机时钟 {bus.now:%Y-%m-%d %H:%M:%S}Z 早于审计日志最后一条 {entered:%Y-%m-%d %H:%M:%S}Z。",
        f"This machine's clock says {bus.now:%Y-%m-%d %H:%M:%S}Z, the log's last entry {entered:%Y-%m-%d %H:%M:%S}Z.",
        "请校准时钟（NTP）；日志时间不会倒退，时钟落后时证书期限和签名时间会判错。",
        "Set the clock (NTP); log time never goes back, and with a slow clock days and signatures are misjudged.",
    )


def index_agrees(bus: Examined) -> Iterator[Check]:
    """The index that searches use: every full piece of the log has one, and some drawn by lot say what their entries
    say. `audit rebuild --check` looks at all."""
    if bus.journal is None:
        return
    full, indexed = bus.journal.indexed()
    drawn = random.SystemRandom().sample(range(full), min(full, PIECES_DRAWN))
    differing = log_index.differing(bus.journal.database, lambda done, of: None, drawn)
    if indexed == full and not differing:
        yield good(
            "journal.index",
            f"审计索引完整，抽查 {len(drawn)} 段一致。",
            f"The audit's index is whole; {len(drawn)} pieces agree.",
        )
        return
    yield bad(
        "journal.index",
        f"审计索引缺 {full - indexed} 段，抽查 {len(drawn)} 段中 {len(differing)} 段与审计记录不一致。",
        f"The audit's index lacks {full - indexed} pieces; of {len(drawn)} drawn {len(differing)} differ from the log.",
        "检索可能漏项：请运行 yongtong audit rebuild --check，保留副本后运行 yongtong audit rebuild。",
        "A search may miss entries: run yongtong audit rebuild --check, keep a copy, then yongtong audit rebuild.",
    )


def registry_reads(bus: Examined) -> Iterator[Check]:
    """Who is enrolled and what is granted can be read."""
    if bus.registry is None:
        return
    bus.registry.trust()
    count = len(bus.registry.bureaus())
    yield good("registry.reads", f"登记册可以读取，{count} 个单位。", f"The registry reads; {count} bureaus.")


def broker_answers(bus: Examined) -> Iterator[Check]:
    """The MQTT broker can be reached: the city's with our certificate, the embedded one while `serve` runs."""
    mqtt = bus.settings.mqtt
    if mqtt.broker == "off":
        yield good("mqtt.broker", "未启用 MQTT。", "MQTT is off.")
    elif mqtt.broker != "embedded":
        address = over_mqtt.broker_address(bus.settings)
        yield _reached(address.host, address.port, address.tls)
    elif listening := _embedded_listens(bus.state / "serve.lock"):
        yield _reached(*listening, None)
    else:
        yield good(
            "mqtt.broker", "serve 未运行，内置代理随它启动。", "serve is not running; its broker starts with it."
        )


def _reached(host: str, port: int, tls: ssl.SSLContext | None) -> Check:
    try:
        with closing(socket.create_connection((host, port), CONNECT_S)) as plain:
            if tls is not None:
                _shake_hands(plain, tls, host)
    except OSError as problem:
        why = getattr(problem, "verify_message", "") or getattr(problem, "reason", "") or problem
        return bad(
            "mqtt.broker",
            f"连不上 MQTT 代理 {host}:{port}：{why}。",
            f"The MQTT broker at {host}:{port} cannot be reached: {why}.",
            "请核对 [mqtt] 的地址、证书和防火墙。",
            "Check address and certificates in [mqtt], and the firewall.",
        )
    return good("mqtt.broker", f"MQTT 代理 {host}:{port} 可以连通。", f"The MQTT broker at {host}:{port} answers.")


def _shake_hands(plain: socket.socket, tls: ssl.SSLContext, host: str) -> None:
    """TLS with our certificate. In TLS 1.3 a broker that refuses it says so after the handshake only."""
    with tls.wrap_socket(plain, server_hostname=host) as connection:
        connection.settimeout(SILENT_S)
        try:
            connection.recv(1)
        except TimeoutError:  # it waits for us to speak: we are welcome
            return


def _embedded_listens(path: Path) -> tuple[str, int] | None:
    """Host and port of the embedded broker, as the `serve` that holds the lock file wrote them; else None."""
    try:
        with path.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                host, _, port = file.read().strip().partition(" ")
                return (host, int(port)) if port else None
    except FileNotFoundError:
        pass
    return None
