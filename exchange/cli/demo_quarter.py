"""The made-up quarter: two overlapping registers become components, a case gets its answer, the log its proof."""

import random
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import requests
from lxml import etree

import mappings.feed
from connectors.partner.folder import PartnerFolder
from connectors.transports.soap_client import SoapClient, Wsse
from exchange import audit, bundle_export, ownership
from exchange.app import opening, places, trusted
from exchange.bundle_check import verify_bundle
from exchange.cli import demo_broker, demo_voices
from exchange.cli.bundles import exporting
from exchange.cli.demo_story import Pairs, Story
from exchange.cli.people import registry
from exchange.cli.trial import AUDITOR, City, Trial
from exchange.cli.verifying import read_anchors
from exchange.entry import Detail
from exchange.receipts import verify_receipt
from samples.generate import Truth, generate
from security import bundle
from security.checkpoint import Checkpoint
from security.message import Content, file_content, in_memory

FEEDS = Path(mappings.feed.__file__).parent / "feeds"
SEED = 2007
BETWEEN = date(2026, 9, 1)  # after the census was true, before the water bureau spoke
BEFORE = date(2026, 6, 1)
PURPOSE = "井盖缺失案件 a missing cover"


def prepared(folder: Path) -> Trial:
    """A bus for the quarter, its parties enrolled each with keys; the water bureau has no grant yet."""
    truth = generate(folder / "quarter", SEED)
    files = folder / "quarter"
    city = City(truth.extent, files / "districts.geojson", files / "grid.geojson", (FEEDS,))
    trial = Trial(folder / "bus", city)
    trial.enrol("urban-management", "Urban management bureau", "城市管理局")
    trial.enrol("water", "Water bureau", "水务局")
    trial.enrol("case-system", "Case system of the supervision centre", "监督中心案件系统", "case system")
    trial.enrol("haishu-centre", "Haishu district centre", "海曙区监督中心", "district centre")
    trial.enrol("security-office", "Security office", "安全审计岗", "officer")
    demo_voices.enrol(trial)
    trial.grant("urban-management", "push", "urban-census")
    trial.grant("haishu-centre", "pull", "components")
    trial.grant("case-system", "pull", "ownership")
    trial.grant("case-system", "pull", "components")
    demo_broker.enrol(trial)
    return trial


def play(trial: Trial, story: Story) -> None:
    """The main job, step by step, while a district centre listens to what changes."""
    files = trial.folder.parent / "quarter"
    truth = generate(files, SEED)
    earlier = trial.partner("security-office").checkpoint()
    with demo_broker.listening(trial) as centre:
        _deliveries(trial, story, files, truth)
        demo_broker.heard(trial, story, centre)
    _audit(trial, story, earlier)
    _evidence(trial, story)
    with closing(opening.open_store(trial.settings)) as store:
        story.ledger = store.ledger()


def _deliveries(trial: Trial, story: Story, files: Path, truth: Truth) -> None:
    """Registers, map, cameras and readings, each by its own door; a case in between gets its answer."""
    census, water = file_content(files / "census.csv"), file_content(files / "water.csv")
    _refusals(trial, story, water)
    trial.grant("water", "push", "water-register")
    story.deliver(trial.partner("urban-management"), "urban-management", "urban-census", census, "census-2026")
    story.deliver(trial.partner("water"), "water", "water-register", water, "water-2026-11")
    _registers(trial, story, truth)
    _components(trial, story, truth)
    _questions(trial, story, truth)
    demo_voices.play(trial, story, files, truth)
    demo_broker.gateway(trial, story, files)
    told = story.deliver(
        trial.partner("water"), "water", "water-register", file_content(files / "water-later.csv"), "water-2026-12"
    )
    story.check("a later register: what it no longer names has ended", told.gone == len(truth.later.ended), told.gone)


def _refusals(trial: Trial, story: Story, content: Content) -> None:
    """Default is no: without a grant, without being known, with a body altered after signing."""
    water = trial.partner("water")
    story.refused(
        "an enrolled bureau without a grant is refused",
        "auth.no_grant",
        lambda: water.push("water-register", content, "text/csv", "too-early"),
    )
    story.refused("a stranger is refused, and not told why", "auth.refused", lambda: _as_stranger(trial))
    story.refused("an altered body is refused", "signature.invalid", lambda: _altered(trial))
    with closing(opening.open_journal(trial.settings)) as journal:
        outcomes = [entry.leaf.outcome for entry in journal.search(type="refusal")]
    wanted = {"auth.no_grant", "signature.invalid"}
    story.check("the refusals stand in the audit", wanted <= set(outcomes), ", ".join(outcomes))


class _Altering(Wsse):
    """Signs, and then changes what it signed."""

    def apply(self, envelope: etree._Element, headers: dict[str, str]) -> tuple[etree._Element, dict[str, str]]:
        """The envelope with another message id than the signed one."""
        signed, headers = super().apply(envelope, headers)
        next(signed.iter("{urn:yongtong:v1}MessageId")).text = "altered"
        return signed, headers


def _altered(trial: Trial) -> Any:
    return _submit(trial, "urban-management", _Altering, with_certificate=True)


def _as_stranger(trial: Trial) -> Any:
    return _submit(trial, "urban-management", Wsse, with_certificate=False)


def _submit(trial: Trial, bureau: str, wsse: type[Wsse], *, with_certificate: bool) -> Any:
    """A delivery sent by hand: with the bureau's signing key, with or without its connection certificate."""
    folder, content = PartnerFolder(trial.partners / bureau), in_memory(b"x")
    session = _session(folder)
    if not with_certificate:
        session.cert = None
    key = folder.signing
    signer = wsse(key, key.certificate_der or b"", folder.answerers(), lambda: datetime.now(UTC))
    members = {
        "Sender": bureau,
        "Recipient": folder.anchors.origin,
        "MessageId": "by-hand",
        "Feed": "urban-census",
        "ContentType": "text/csv",
        "ContentDigest": {"_value_1": content.digest.hex, "algorithm": "SHA-256"},
        "Content": content.read(),
    }
    return SoapClient(trial.url, "feeds", session, signer).call("SubmitDelivery", members)


def _session(folder: PartnerFolder) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.cert = (folder.file("connection.pem"), folder.file("connection.key"))
    session.verify = folder.file("ca.pem")
    return session


def _registers(trial: Trial, story: Story, truth: Truth) -> None:
    """The faults sown into each register were found, each under its own code, and no other."""
    sown = [truth.registers["census.csv"], truth.registers["water.csv"]]
    for told, register in zip(story.deliveries, sown, strict=True):
        found = story.faults(told)
        wanted = {code: len(rows) for code, rows in register.rejected.items()}
        story.check(
            f"{told.feed}: every sown fault found, and no other", found == wanted, f"{sum(wanted.values())} records"
        )


def _components(trial: Trial, story: Story, truth: Truth) -> None:
    """Two registers, one set of components: who is whose twin, what is disputed, what nobody claims."""
    with closing(opening.open_store(trial.settings)) as store:
        keys = [str(key) for (key,) in store.connection().execute("SELECT id FROM components")]
        answers = [ownership.ownership(store, key) for key in keys]
    claimed = [{claim.feed: claim.source_key for claim in answer.claims} for answer in answers]
    joined = {one["urban-census"]: one["water-register"] for one in claimed if len(one) == 2}
    right = sum(joined.get(key) == twin for key, twin in truth.pairs.items())
    wrong = len(joined) - right
    story.add_pairs(Pairs(len(truth.pairs), right, wrong, sum(key not in joined for key in truth.pairs)))
    story.check("pairs of the two registers are joined, and no others", joined == truth.pairs, f"{right} pairs")
    story.check("components are those that are true", len(answers) == truth.components, f"{len(answers)}")
    verdicts = [answer.verdict for answer in answers]
    disputes = verdicts.count("two bureaus claim this")
    story.check("every dispute of owners is found", disputes == len(truth.disputes), f"{disputes} disputes")
    gaps, orphans = verdicts.count("role unknown"), verdicts.count("nobody claims this")
    story.check("every gap is found", gaps == len(truth.gaps), f"{gaps} components")
    story.check("every cover that nobody claims is found", orphans == len(truth.orphans), f"{orphans} components")


def _questions(trial: Trial, story: Story, truth: Truth) -> None:
    """A case officer stands before a cover that both bureaus know of."""
    key = sorted(set(truth.pairs) - set(truth.disputes) - set(truth.gaps))[0]
    with closing(opening.open_store(trial.settings)) as store:
        query = "SELECT component_id FROM claims WHERE source_key = ?"
        (number,) = store.connection().execute(query, (key,)).fetchone()
        there = ownership.component(store, str(number))
    case = trial.partner("case-system")
    near = case.nearest(there.longitude_deg, there.latitude_deg, 2.0, purpose=PURPOSE, case_number="2026-0001")
    story.check("near a place: the component is found", bool(near) and near[0].ownership.component.key == number,
                f"{near[0].distance_m:.2f} m" if near else "nothing")  # fmt: skip
    identifier = there.identifier or str(number)
    now = case.ownership(identifier, purpose=PURPOSE, case_number="2026-0001")
    owner = next(role for role in now.roles if role.role == "owner")
    words = ", ".join(unit.name or "" for unit in owner.units)
    story.check("whose is it: one owner, two bureaus' claims, each with its audit entry",
                now.verdict == "one owner" and len(now.claims) == 2, f"{identifier}: {words}")  # fmt: skip
    between = case.ownership(identifier, BETWEEN, purpose=PURPOSE, case_number="2026-0001")
    alone = [claim.feed for claim in between.claims] == ["urban-census"]
    story.check("whose was it on a past day: the claim of that day alone", alone, f"on {BETWEEN}: {between.verdict}")
    before = case.ownership(identifier, BEFORE, purpose=PURPOSE, case_number="2026-0001")
    story.check("before anybody spoke: nobody claims this", before.verdict == "nobody claims this", f"on {BEFORE}")
    address = f"{trial.url}/api/v1/components/{identifier}/ownership"
    component = trial.partner("haishu-centre").component(identifier, purpose=PURPOSE)
    story.check("the district centre reads the component", component.identifier == identifier, component.grid_code)
    story.refused(
        "and may not ask whose it is: its grant does not say so",
        "auth.no_grant",
        lambda: trial.partner("haishu-centre").ownership(identifier, purpose=PURPOSE),
    )
    with _session(PartnerFolder(trial.partners / "case-system")) as session:
        answer = session.get(address, params={"purpose": PURPOSE}, timeout=30).json()["ownership"]
    story.check("the same answer over REST", answer["verdict"] == now.verdict, f"{answer['verdict']}")


def _audit(trial: Trial, story: Story, earlier: Checkpoint) -> None:
    """An officer proves the log and a receipt with nothing of the operator's but the anchors."""
    later = trial.partner("security-office").checkpoint()
    grown = f"{earlier.size} → {later.size} entries, consistent"
    story.check("the officer's own client remembered the log and follows it", later.size > earlier.size > 0, grown)
    folder = trial.partners / "water"
    anchors = read_anchors(folder / "anchors.json")
    verdict = audit.verify(trial.state, anchors)
    story.check("the whole log holds", verdict.ok, f"{verdict.entries} entries, {verdict.receipts} receipts")
    receipt = (folder / "receipts" / "water-2026-11.receipt.json").read_bytes()
    story.check("a receipt holds offline", verify_receipt(receipt, anchors).kind == "receipt", "water-2026-11")
    copy = trial.folder / "copy"
    copy.mkdir()
    entry = _flip_one_byte(trial.state / "journal.sqlite", copy / "journal.sqlite")
    found = audit.verify(copy, anchors)
    named = [problem.entry for problem in found.problems]
    story.check(
        "one byte flipped in a copy: the verifier names the entry", not found.ok and entry in named, f"entry {entry}"
    )


def _evidence(trial: Trial, story: Story) -> None:
    """An auditor takes the evidence of one delivery out; a stranger checks it with nothing but the anchors."""
    path, anchors = trial.folder / "evidence.zip", trusted.anchors_of(trial.settings)
    asked: Detail = {"export": "message", "of": "water-2026-11"}
    with registry(trial.settings) as opened, exporting(trial.settings, opened, AUDITOR, asked) as sources:
        row = sources.bus.journal.inbox("water", "water-2026-11")
        assert row is not None
        parts = bundle_export.of_message(row, sources)
    with path.open("wb") as file:
        bundle.write(file, parts)
    verdict = verify_bundle(file_content(path), anchors, places.utc_now())
    held = f"{len(parts)} parts, {path.stat().st_size:,} bytes; not asked for here: {', '.join(verdict.not_asked)}"
    story.check("an evidence bundle holds with nothing but the anchors", verdict.state == "holds", held)
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    spoiled = verify_bundle(in_memory(bytes(octets)), anchors, places.utc_now())
    named = ", ".join(row.name for row in spoiled.rows if row.state == "broken")
    story.check("one byte flipped in it: it does not hold", spoiled.state == "broken", f"broken: {named}")


def _flip_one_byte(journal: Path, copy: Path) -> int:
    """Copy a journal and flip one byte of one entry; gives the entry."""
    with (
        closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
        (entries,) = target.execute("SELECT count(*) FROM entries").fetchone()
        entry = random.Random(SEED).randrange(entries)  # noqa: S311  # which one does not matter
        (leaf,) = target.execute("SELECT leaf FROM entries WHERE idx = ?", (entry,)).fetchone()
        spoiled = bytearray(leaf)
        spoiled[len(spoiled) // 2] ^= 1
        target.execute("UPDATE entries SET leaf = ? WHERE idx = ?", (bytes(spoiled), entry))
        target.commit()
    return entry
