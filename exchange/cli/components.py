"""What stands where, whose it is, what happened: `component`, `near`, `ownership`, `disputes`, `changes`.

Here on the bus's own machine, or over SOAP with --as.
"""

import argparse
from contextlib import closing
from typing import Any

from exchange import ownership, provenance, publication
from exchange.app import opening
from exchange.cli.output import STDOUT, print_json, print_table, printable, say
from exchange.cli.parsing import Commands, add_command, change_number, day, degrees, page_size, settings_of
from exchange.cli.partner import add_partner_options, partner_of
from exchange.journal import Entry
from mappings.codelists import classes, editions
from mappings.schema import CLASSES_BETWEEN

ROLE_WORDS = {"authority": "主管部门 authority", "owner": "权属单位 owner", "maintainer": "养护单位 maintainer"}


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """component, near, ownership, disputes, changes."""
    component = add_command(
        commands, common, "component", _component, says="one component", example="yongtong component 3302030101000001"
    )
    component.add_argument("id", metavar="ID", help="its identifier, or the internal number")
    near = add_command(
        commands,
        common,
        "near",
        _near,
        says="components around a place, and whose they are",
        example="yongtong near 121.549 29.874 --radius 20 --class 0102",
    )
    near.add_argument("longitude", metavar="LON", type=degrees, help="degrees of CGCS2000")
    near.add_argument("latitude", metavar="LAT", type=degrees)
    near.add_argument("--class", dest="class_code", metavar="C", help="class code of the master edition")
    near.add_argument("--radius", type=float, default=20.0, metavar="M", help="metres (20)")
    asked = add_command(
        commands,
        common,
        "ownership",
        _ownership,
        says="whose a component is, now or on a past day, and how we know",
        example="yongtong ownership 3302030101000001 --on 2026-11-01 --purpose 案件处置",
    )
    asked.add_argument("id", metavar="ID")
    disputed = add_command(
        commands,
        common,
        "disputes",
        _disputes,
        says="what bureaus do not agree on: two owners, or records that position alone did not join",
        example="yongtong disputes --limit 20",
    )
    disputed.add_argument("--after", type=int, default=0, metavar="N", help="component number to begin after (0)")
    disputed.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many of each kind (100)")
    changes = add_command(
        commands,
        common,
        "changes",
        _changes,
        says="what happened to components after a change number, each with its latest change",
        example="yongtong changes --after 0 --as haishu-centre --json",
    )
    changes.add_argument("--after", type=change_number, default=0, metavar="N", help="a change number (0, all)")
    changes.add_argument(
        "--limit", type=page_size, default=publication.USUAL, metavar="M", help="at most so many (200)"
    )
    for parser in (near, asked):
        parser.add_argument("--on", type=day, metavar="DATE", help="at the end of that day (+08:00)")
    for parser in (component, near, asked, changes):
        parser.add_argument("--purpose", default="enquiry", help="stands in the audit (enquiry)")
        parser.add_argument("--case", metavar="NUMBER", help="case number; stands in the audit")
        add_partner_options(parser, required=False)


def _component(options: argparse.Namespace) -> int:
    found: Any
    if options.bureau:
        found = partner_of(options).component(options.id, purpose=options.purpose, case_number=options.case)
    else:
        found = _here(options, lambda store: ownership.component(store, options.id))
    if options.json:
        print_json(found)
        return 0
    _print_component(found)
    if found.readings:
        rows = [_reading_row(one) for one in found.readings]
        print_table("最新监测读数 Latest readings", ["quantity", "reading", "unit", "observed", "feed", "proof"], rows)
    return 0


def _near(options: argparse.Namespace) -> int:
    place = (options.longitude, options.latitude, options.radius, options.class_code, options.on)
    found: Any
    if options.bureau:
        near = partner_of(options).nearest(*place, purpose=options.purpose, case_number=options.case)
        found = [(one.distance_m, one.ownership) for one in near]
    else:
        found = [(one.distance_m, one.answer) for one in _here(options, lambda store: ownership.nearest(store, *place))]
    if options.json:
        print_json({"near": [{"distance_m": distance, "ownership": answer} for distance, answer in found]})
        return 0
    if not found:
        say(f"{options.radius:g} 米内没有部件 Nothing within {options.radius:g} m; widen it with --radius")
        return 0
    rows = [
        (f"{distance:.2f}", one.component.identifier or f"pending #{one.component.key}",
         " ".join(_class_words(one.component.class_code).split()[:2]),
         one.verdict, _units(one, "owner"))
        for distance, one in found
    ]  # fmt: skip
    print_table("附近部件 Near", ["m", "identifier", "class", "verdict", "owner"], rows)
    return 0


def _ownership(options: argparse.Namespace) -> int:
    answer: Any
    if options.bureau:
        answer = partner_of(options).ownership(
            options.id, options.on, purpose=options.purpose, case_number=options.case
        )
    else:
        answer = _here(options, lambda store: ownership.ownership(store, options.id, options.on))
    print_json(answer) if options.json else print_ownership(answer)
    return 0


def _disputes(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    with closing(opening.open_store(settings)) as store:
        found = ownership.disputes(store, options.after, max(1, options.limit))
    if options.json:
        print_json(found)
        return 0
    rows = [
        (one.component.key, one.component.identifier or "pending", _class_words(one.component.class_code),
         _units(one, "owner"))
        for one in found.owners
    ]  # fmt: skip
    print_table("权属争议 Two bureaus claim this", ["number", "identifier", "class", "owner"], rows)
    ties = [
        (tie.component, f"{tie.bureau} / {tie.feed} / {tie.source_key}", ", ".join(map(str, tie.others)),
         f"{tie.distance_m:.2f}")
        for tie in found.ties
    ]  # fmt: skip
    print_table("待人工归并 Position alone does not tell", ["number", "claim", "may be one of", "m"], ties)
    return 0


def _changes(options: argparse.Namespace) -> int:
    page: Any
    if options.bureau:
        asked = {"limit": options.limit, "purpose": options.purpose, "case_number": options.case}
        page = partner_of(options).changes(options.after, **asked)
    else:
        page = _here(options, lambda store: publication.changes_after(store, options.after, options.limit))
    if options.json:
        print_json(page)
        return 0
    rows = [(one.change_number, one.kind, one.component or f"pending #{one.key}") for one in page.changes]
    print_table(f"变更 Changes after {options.after}", ["number", "kind", "identifier"], rows)
    say(f"next: yongtong changes --after {page.next}")
    return 0


def _here(options: argparse.Namespace, ask: Any) -> Any:
    """Ask the store on this machine; the operator's question stands in the audit like anybody's."""
    settings = settings_of(options)
    with closing(opening.open_journal(settings)) as journal, closing(opening.open_store(settings)) as store:
        detail: dict[str, str | int] = {"purpose": options.purpose, "case_number": options.case or ""}
        journal.note(Entry(type="read", outcome="answered", actor="operator", detail=detail)).result()
        return ask(store)


def _print_component(component: Any) -> None:
    rows = [
        ("标识码 identifier", component.identifier or f"pending #{component.key}"),
        ("类别 class", _class_words(component.class_code)),
        ("名称 name", component.name),
        ("状态 state", component.state),
        ("位置 position", f"{component.longitude_deg:.7f}, {component.latitude_deg:.7f} ± {component.accuracy_m} m"),
        ("行政区划 division", component.division_code),
        ("单元网格 grid", component.grid_code),
        ("变更号 change", component.change_number),
    ]
    print_table("管理部件 Component", ["", ""], rows)


def _reading_row(reading: Any) -> tuple[object, ...]:
    said = " ".join(str(part) for part in (reading.value, reading.state) if part is not None)
    proof = f"{reading.evidence_class}, record {reading.record} of {reading.message_id}, audit entry {reading.entry}"
    observed = f"{reading.observed_at:%Y-%m-%d %H:%M:%SZ}"
    return reading.quantity, said, reading.value_unit, observed, f"{reading.bureau} / {reading.feed}", proof


def print_ownership(answer: Any) -> None:
    """An ownership answer for a person: verdict, roles, and every claim with where its proof lies."""
    _print_component(answer.component)
    day = f" on {answer.on}" if answer.on else ""
    rows = [(ROLE_WORDS[role.role], role.status, _unit_words(role.units)) for role in answer.roles]
    print_table(f"权属 Ownership{day}: {answer.verdict}", ["", "status", "unit"], rows)
    STDOUT.print("单位申报 Claims", style="bold")
    for claim in answer.claims:
        until = f" – {claim.valid_to:%Y-%m-%d}" if claim.valid_to else " –"
        proof = f"{claim.evidence_class}, record {claim.record} of {claim.message_id}, audit entry {claim.entry}"
        said = ", ".join(
            f"{ROLE_WORDS[role].split()[0]} {unit.name or unit.code} ({unit.basis})"
            for role in ROLE_WORDS
            if (unit := getattr(claim, role)) is not None
        )
        told = {name: text for name, text in claim.attributes.items() if name != provenance.FIELD}
        attributes = ", ".join(f"{name} {text}" for name, text in told.items())
        for line in (
            f"  {claim.bureau} / {claim.feed} / {claim.source_key}   {claim.valid_from:%Y-%m-%d}{until}",
            f"      {said}",
            *([f"      {attributes}"] if attributes else []),
            f"      {proof}{_stood_in(claim)}",
            *_sources(claim),
            *_taken_back(claim),
        ):
            STDOUT.print(printable(line), markup=False, soft_wrap=True)


def _sources(claim: Any) -> list[str]:
    """Of what a district's node said: which bureaus it has it from, and where in its log that stands."""
    said = provenance.read(claim.attributes.get(provenance.FIELD, ""))
    if said is None:
        return []
    return [
        f"      经 {said.origin} 来自 {one.bureau} / {one.feed}   record {one.record} of {one.message_id}, "
        f"entry {one.entry} of that log, receipt {one.receipt[:16]}…"
        for one in said.claims
    ]


def _taken_back(claim: Any) -> list[str]:
    """That its bureau recalled what it said, and that its content was erased."""
    recalled, erased = claim.recalled_at, claim.erased_on
    return [
        *([f"      已于 {recalled:%Y-%m-%d} 撤回 recalled on {recalled:%Y-%m-%d}"] if recalled else []),
        *([f"      内容已于 {erased} 销毁 content erased on {erased}"] if erased else []),
    ]


def _stood_in(claim: Any) -> str:
    """Who said it, where that was another than the bureau in whose name it stands."""
    if claim.asserted_by is None:
        return ""
    return f"   {claim.asserted_by} 代 {claim.sender} 申报 asserted by {claim.asserted_by} for {claim.sender}"


def _class_words(code: str) -> str:
    """A class code with its name, from the edition whose codes have this length."""
    if CLASSES_BETWEEN in code:
        return f" {CLASSES_BETWEEN} ".join(map(_class_words, code.split(CLASSES_BETWEEN)))
    for edition in editions().values():
        if len(code) == edition.class_digits:
            found = classes(edition.name).filter(code=code)
            return f"{code} {found['name_zh'][0]} {found['name_en'][0]}" if found.height else code
    return code


def _units(answer: Any, role: str) -> str:
    return next((_unit_words(one.units) or one.status for one in answer.roles if one.role == role), "")


def _unit_words(units: Any) -> str:
    return " / ".join(f"{unit.name or unit.code} ({unit.basis})" for unit in units)
