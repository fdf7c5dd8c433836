"""The examination: every check in turn, none of which may keep the next from being made."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from typing import Final

import msgspec

from exchange.app import opening, places
from exchange.doctor import (
    certificates,
    converter,
    decisions,
    evidence,
    losses,
    maps,
    packages,
    place,
    queues,
    sequences,
    timestamps,
    traffic,
)
from exchange.doctor.check import Check, Examined, bad, good
from exchange.settings import Settings

PROBLEMS: Final = (Exception,)  # a sick bus breaks its reader in ways that nobody listed, and the next check is made

# A further check is one more function here: it looks at the bus and says what it finds. The name is for what it could
# not look at.
CHECKS: Final[Mapping[str, Callable[[Examined], Iterator[Check]]]] = {
    "bus.origin": place.bus_is_made,
    "keys.present": certificates.keys_are_there,
    "keys.private": certificates.keys_are_private,
    "keys.fit": certificates.keys_fit,
    "chain.own": certificates.own_chains_hold,
    "days.own": certificates.own_days_are_left,
    "keys.anchors": certificates.anchors_are_ours,
    "keys.evidence": certificates.evidence_key_is_ours,
    "place.feeds": place.feeds_load,
    "place.city": place.city_loads,
    "place.converter": converter.converter_runs,
    "place.disk": place.disk_has_room,
    "evidence.place": evidence.evidence_can_be_kept,
    "place.clock": place.clock_is_sane,
    "clock.agrees": traffic.clock_agrees,
    "log.whole": traffic.log_is_whole,
    "journal.index": place.index_agrees,
    "journal.whole": losses.log_has_known_heads,
    "registry.reads": place.registry_reads,
    "decisions.hold": decisions.decisions_hold,
    "decisions.signed": decisions.decisions_are_under_a_signed_head,
    "decisions.deciders": decisions.enough_can_decide,
    "decisions.triggers": decisions.database_changes_nothing_itself,
    "decisions.found": decisions.decisions_are_all_found,
    "erasures.hold": losses.what_was_erased_is_gone,
    "feeds.released": decisions.mappings_are_released,
    "certificates.authorities": certificates.authorities_are_read,
    "certificates.enrolled": certificates.enrolled_hold,
    "days.enrolled": certificates.enrolled_days_are_left,
    "revocation.known": certificates.revocation_is_known,
    "timestamps.covered": timestamps.log_is_stamped,
    "sequence.gaps": sequences.nothing_is_missing,
    "map.held": maps.held_map_has_room,
    "mqtt.broker": place.broker_answers,
    "packages.folder": packages.packages_are_taken,
    "queue.broker": queues.queue_answers,
    "inbox.backlog": traffic.act_two_keeps_up,
    "deliveries.sound": traffic.deliveries_are_sound,
    "feeds.heard": traffic.feeds_are_heard,
    "alarms.ways": traffic.alarms_arrive,
}


def examine(settings: Settings, now: datetime, least_free_bytes: int = 0) -> list[Check]:
    """All that was found, in the order in which it is best mended. now: aware, UTC. Never raises for a sick bus.

    least_free_bytes: instead of the settings' own
    """
    state, keys = settings.at(settings.state.folder), settings.at(settings.keys.folder)
    bus = Examined(settings, state, keys, now, least_free_bytes or settings.alarms.least_free_bytes)
    if not (state / "origin.json").exists():
        return [_no_bus(bus)]
    with ExitStack() as stack:
        found, bus = _opened(bus, stack)
        for name in CHECKS:
            found += look(bus, name)
        return found


def look(bus: Examined, name: str) -> list[Check]:
    """What one of the checks finds. Never raises."""
    found: list[Check] = []
    try:
        found.extend(CHECKS[name](bus))
    except PROBLEMS as problem:
        found.append(_shut(name, problem))
    return found


def _opened(bus: Examined, stack: ExitStack) -> tuple[list[Check], Examined]:
    """With journal and registry open, as far as they open, or what keeps them shut."""
    name = "journal.opens"
    try:
        if not places.journal_database(bus.settings).exists():  # opening would make a new one, and hide the loss
            raise FileNotFoundError(f"{bus.settings.state.journal or bus.state / 'journal.sqlite'}: not there")
        journal = opening.open_journal(bus.settings)
        stack.callback(journal.close)
        bus, name = msgspec.structs.replace(bus, journal=journal), "registry.reads"
        registry = opening.open_registry(bus.settings, journal)
        stack.callback(registry.close)
    except PROBLEMS as problem:
        return [_shut(name, problem)], bus
    opens = good("journal.opens", "审计日志可以打开。", "The journal opens.")
    return [opens], msgspec.structs.replace(bus, registry=registry)


def _shut(name: str, problem: Exception) -> Check:
    """What could not be looked at, and why."""
    return bad(
        name,
        f"打不开：{problem}",
        f"This does not open: {problem}",
        "请处理所指的文件或设置；数据文件损坏时停止服务，保留原件，从备份恢复。",
        "Mend the file or setting that is named; where data is damaged, stop, keep it as it is, restore from a backup.",
    )


def _no_bus(bus: Examined) -> Check:
    return bad(
        "bus.origin",
        f"{bus.state} 里还没有平台。",
        f"There is no bus in {bus.state} yet.",
        "请核对 [state] folder，或用 yongtong init --edition 2007 建立。",
        "Check [state] folder, or make one: yongtong init --edition 2007.",
    )
