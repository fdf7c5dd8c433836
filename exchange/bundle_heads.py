"""存证点 The heads in a bundle: its own, under which every entry is proven, and others that somebody signed or timed.

Another head counts once it is proven to be of the same log; that it cannot be, is a fork.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime

from exchange.bundle_parts import NUMBER, Findings, Proven, named, nodes_of
from exchange.timestamping import covering, stamped_octets
from security import merkle
from security.anchors import Anchors
from security.checkpoint import Checkpoint
from security.cosignature import Cosignature, cosignatures
from security.errors import Refusal
from security.jose import strict_object
from security.jws import jcs
from security.message import Content
from security.timestamp import verify_timestamp
from security.wss import SKEW


class Heads:
    """The heads of one bundle under examination. own: None until `check_own`, and where it does not hold."""

    def __init__(self, parts: Mapping[str, Content], anchors: Anchors, now: datetime, findings: Findings) -> None:
        self._parts, self._anchors, self._now = parts, anchors, now
        self._say, self._judged = findings.say, findings.judged
        self.own: Checkpoint | None = None
        self._joined: set[tuple[int, bytes]] = set()  # heads that are proven to be of the same log as our own

    def check_own(self) -> None:
        """The head under which entries are proven: signed by the log's key."""
        with self._judged("inclusion", "checkpoint"):
            head = self._anchors.head(self._parts["checkpoint"].read().decode())
            self.own = head
            self._joined.add((head.size, head.root))
            self._say("inclusion", "holds", f"head of {head.size} entries, signed by the log's key")
            if head.origin != self._anchors.log_name:
                ended = f"旧纪元 {head.origin} 已终止: of an epoch that is over, whose keys somebody else may have"
                self._say("inclusion", "holds", f"{ended}; only witnesses and timestamps say that it is not made since")

    def check_others(self) -> None:
        """The heads that others signed, each shown to be of this log."""
        for name in named(self._parts, rf"consistency/({NUMBER})\.json"):
            with self._judged("inclusion", name):
                self._check_consistency(name)
        for name in named(self._parts, rf"heads/({NUMBER})\.checkpoint"):
            with self._judged("inclusion", name):
                head = self._anchors.head(self._parts[name].read().decode())
                if name != f"heads/{head.size}.checkpoint":
                    raise ValueError(f"is the head of {head.size}")
                self.join(head)

    def _check_consistency(self, name: str) -> None:
        """Only its shape, here; it proves something once there is a head at its beginning."""
        octets = self._parts[name].read()
        document = strict_object(octets)
        ends, _ = (document["first"], document["second"]), nodes_of(document["nodes"])
        if jcs(document) != octets or document.keys() != {"first", "nodes", "second"}:
            raise ValueError("not canonical, or other members than a proof has")
        if name != f"consistency/{ends[0]}.json" or (self.own and ends[1] != self.own.size):
            raise ValueError(f"is a proof from {ends[0]} to {ends[1]}")

    def join(self, head: Checkpoint) -> None:
        """Take a head as one of this log's. Raises ValueError where it is not proven to be."""
        ours = self.own
        if ours is None:
            raise ValueError("there is no head to compare it with")
        if (head.size, head.root) in self._joined:
            return
        if head.size > ours.size:
            raise ValueError(f"a head of {head.size} entries, later than the bundle's own of {ours.size}")
        name = f"consistency/{head.size}.json"
        if name not in self._parts:
            raise ValueError(f"{name} is not there: nothing shows that it is a head of the same log")
        nodes = nodes_of(strict_object(self._parts[name].read())["nodes"])
        if not merkle.verify_consistency(head.size, ours.size, nodes, head.root, ours.root):
            same = "" if head.size == ours.size else f", or {name} is not their proof"
            raise ValueError(f"FORK 分叉: the heads of {head.size} and {ours.size} entries are not of one log{same}")
        self._joined.add((head.size, head.root))

    def _noted(self) -> Iterator[tuple[str, str, Checkpoint]]:
        """The heads that count: name, note, head."""
        for name in ("checkpoint", *named(self._parts, rf"heads/({NUMBER})\.checkpoint")):
            try:
                note = self._parts[name].read().decode()
                head = self._anchors.head(note)
            except (KeyError, Refusal, UnicodeDecodeError):  # its own row says so
                continue
            if (head.size, head.root) in self._joined:
                yield name, note, head

    def check_witnesses(self, last: int) -> None:
        """Whether enough witnesses signed a head over entry `last`."""
        witnesses, quorum = self._anchors.witnesses, max(self._anchors.quorum, 1)
        if not witnesses:
            self._say("witnesses", "missing", "UNWITNESSED 无见证: the anchors name no witness")
            return
        best: list[tuple[int, int, str]] = []
        for name, note, head in self._noted():
            found = self._witnessed(name, note)
            who = ", ".join(f"{one.witness} {one.at:%Y-%m-%dT%H:%M:%SZ}" for one in found)
            best.append((len(found), head.size, f"{name}: {who or 'nobody'}"))
        enough = [one for one in best if one[0] >= quorum]
        covered = max((size for _, size, _ in enough), default=0)
        if covered > last:
            self._say("witnesses", "holds", f"{next(text for _, size, text in enough if size == covered)}")
        else:
            most, _, who = max(best, default=(0, 0, "no head"))
            about = f"UNWITNESSED 无见证: {most} of {quorum} witnesses over entry {last} ({who})"
            self._say("witnesses", "missing", about)

    def _witnessed(self, name: str, note: str) -> list[Cosignature]:
        """Who signed a head, by name. One witness's line that does not hold is left out: it spoils nobody else's."""
        found: dict[str, Cosignature] = {}
        for witness in self._anchors.witnesses:
            try:
                said = cosignatures(note, [witness])
            except Refusal as refusal:
                self._say("witnesses", "holds", f"{name}: left out of the count: {refusal.code} {refusal.detail}")
                continue
            for one in said:
                if one.at > self._now + SKEW:
                    about = f"{name}: left out of the count: {one.witness} at {one.at.isoformat()}, which is to come"
                    self._say("witnesses", "holds", about)
                else:
                    found[one.witness] = one
        return [found[witness] for witness in sorted(found)]

    def check_timestamps(self, last: int, entries: Mapping[int, Proven]) -> None:
        """Whether an authority's time is over entry `last`, and none before the entries that it covers."""
        roots = self._anchors.timestamp_roots
        if not roots:
            self._say("timestamp", "missing", "NO TIMESTAMP 无时间戳: the anchors name no timestamp authority")
            return
        noted, covers = {head.size: (note, head) for _, note, head in self._noted()}, False
        for name in named(self._parts, rf"heads/({NUMBER})\.tsr"):
            with self._judged("timestamp", name):
                size = int(name[len("heads/") : -len(".tsr")])
                if size not in noted:
                    raise ValueError("there is no head that it is over")
                stamped = stamped_octets(noted[size][0])
                at = verify_timestamp(self._parts[name].read(), stamped, roots)
                if at > self._now + SKEW:
                    raise ValueError(f"of {at.isoformat()}, which is to come")
                times = [one.leaf.time for index, one in entries.items() if index < size]
                if times and at + SKEW < datetime.fromisoformat(max(times)):
                    raise ValueError(f"of {at.isoformat()}, before entries that it covers")
                covers = covers or size > last
                about = f"{name}: {at.isoformat()}, over {size} entries"
                entry = entries.get(last) if size > last else None
                late = covering(datetime.fromisoformat(entry.leaf.time), at) if entry else ""
                self._say("timestamp", "holds", f"{about}; {late}" if late else about)
        if not covers:
            self._say("timestamp", "missing", f"NO TIMESTAMP 无时间戳 over entry {last}")
