"""A bureau whose clients run side by side on one folder."""

import threading

from security.errors import Refusal
from security.message import in_memory
from tests.whole.real_bus import FEED, RealBus, csv, rows


def test_clients_that_share_a_folder_accuse_nobody_of_a_fork(bus: RealBus) -> None:
    """Each asks with the head that it finds, and another takes a later one before the answer comes."""
    problems, each = list[Exception](), 6

    def push(client: int) -> None:
        partner = bus.partner()
        for number in range(each):
            try:
                partner.push(FEED, in_memory(csv(rows(f"shared{client}"))), "text/csv", f"shared-{client}-{number}")
            except Refusal as refusal:
                problems.append(refusal)

    clients = [threading.Thread(target=push, args=(client,)) for client in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert problems == []
    assert not list(bus.folder().path.glob("forks/*"))
