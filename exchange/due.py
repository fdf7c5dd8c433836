"""Which feeds act two may work on now: those with something to do that nobody stopped and that need not wait."""

from exchange.bus import Bus


def feeds_to_do(bus: Bus) -> list[str]:
    """Feeds whose work may go on now, by name. Of a stopped one what was taken back is ended all the same."""
    stopped = bus.stopped.now()
    waiting = bus.journal.feeds_waiting()
    return [
        feed
        for feed in [*waiting, *(one for one in bus.boundaries.feeds_due() if one not in waiting)]
        if bus.waits.due(feed) and (feed not in stopped or bus.journal.recalls(feed))
    ]
