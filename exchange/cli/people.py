"""Who acts: persons in office and their keys (`person …`), and what waits for a second one (`decision …`).

三员分立: system, security and audit are three offices, and nobody holds two. Which command belongs to which office is
said once, in `OFFICES`; whoever acts shows it with their key.
"""

import argparse
import base64
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from exchange.app import changing, keys_in_force, opening, places
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, add_group, settings_of
from exchange.decision_documents import ROLE_WORDS, Document, Officer, Role, document_apart, fingerprint_of
from exchange.decisions import SIGNERS
from exchange.registry import Registry
from exchange.settings import Settings
from security import tokens
from security.errors import Misconfigured, Refusal
from security.keyring import Keyring, a_person
from security.keys import generate, load_public_pem
from security.message import sha256

PEOPLE: Final = "people"  # folder of private keys beside the settings file; each belongs on its person's own token
OPERATOR: Final = "operator"

# Every command at which a person acts, and whose office it is. All other commands ask for no office: a bureau acts with
# its own keys, and what anybody may see on the bus's machine holds no secret of a bureau.
OFFICES: Final[Mapping[str, tuple[Role, ...]]] = {
    "bureau enrol": ("security",),
    "bureau revoke": ("security",),
    "grant propose": ("security",),
    "grant approve": ("security",),
    "grant revoke": ("security",),
    "grant simulate": ("security",),
    "feed release": ("system",),
    "feed frame": ("security",),  # parameters of a local frame are secret
    "layers release": ("system",),
    "person appoint": ("security",),
    "person dismiss": ("security",),
    "decision approve": ("security",),
    "decision withdraw": ("security",),
    "evidence ask": ("audit",),
    "evidence open": ("audit",),
    "erasure ask": ("audit",),
    "erasure carry": ("audit",),
    "erasure again": ("audit",),
    "spill ask": ("audit",),
    "spill purge": ("audit",),
    "key propose": ("system",),
    "key rotate": ("system",),
    "epoch propose": ("system",),
    "epoch open": ("system",),
    "backup": ("system",),
    "held release": ("system",),
    "held refuse": ("system",),
    "feed stop": ("system",),
    "feed start": ("system",),
    "dead replay": ("system",),
    "dead stop": ("system",),
    "dead resume": ("system",),
    # With details; what anybody sees of an entry has no case, no query, no message id.
    "audit search": ("audit",),
    "audit prove": ("audit",),
    "audit present": ("audit",),
    # Original bytes are among it; those of a sensitive feed only by a decision of two.
    "audit export message": ("audit",),
    "audit export ownership": ("audit",),
    "audit export day": ("audit",),
}


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """person appoint|dismiss|list, decision list|approve|withdraw."""
    person = add_group(commands, "person", says="who holds which office")
    appoint = add_command(
        person,
        common,
        "appoint",
        _appoint,
        says="propose a person for an office; another security officer approves",
        example="yongtong person appoint 赵六 audit --new-key --by 张三",
    )
    appoint.add_argument("name", metavar="NAME")
    appoint.add_argument("role", choices=list(ROLE_WORDS))
    appoint.add_argument("--of", default=OPERATOR, metavar="BUREAU", help=f"whom that person belongs to ({OPERATOR})")
    appoint.add_argument("--public-key", type=Path, metavar="PEM", help="of the key on the person's own token")
    appoint.add_argument("--new-key", action="store_true", help="make one in the people folder: for a trial")
    dismiss = add_command(
        person,
        common,
        "dismiss",
        _dismiss,
        says="end a person's office now",
        example="yongtong person dismiss person-1f2e3d4c5b6a --by 张三",
    )
    dismiss.add_argument("person", metavar="PERSON", help="name or pseudonym")
    add_command(
        person, common, "list", _persons, says="persons, offices, since when", example="yongtong person list --json"
    )
    decision = add_group(commands, "decision", says="what one person proposed and another must approve")
    add_command(decision, common, "list", _list, says="what waits", example="yongtong decision list")
    approve = add_command(
        decision,
        common,
        "approve",
        approve_decision,
        says="put a proposed decision in force; not by who proposed it",
        example="yongtong decision approve d-1f2e3d4c5b6a --by 李四",
    )
    withdraw = add_command(
        decision,
        common,
        "withdraw",
        _withdraw,
        says="end a proposal",
        example="yongtong decision withdraw d-1f2e3d4c5b6a --by 张三",
    )
    for parser in (approve, withdraw):
        parser.add_argument("id", metavar="ID")
    for parser in (appoint, dismiss, approve, withdraw):
        add_person_options(parser)


def add_person_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """--by, --key, --people: who acts, and where their key lies."""
    parser.add_argument("--by", required=required, metavar="NAME", help="who acts; stands in the audit by a pseudonym")
    parser.add_argument("--key", metavar="REF", help="their private key (people/NAME.key beside the settings)")
    parser.add_argument("--people", metavar="DIR", help="folder of keys (people beside the settings)")


@contextmanager
def registry(settings: Settings) -> Iterator[Registry]:
    """The registry, opened beside whatever runs. Raises Misconfigured where keys lie as they must not."""
    keys_in_force.check_keys_placed(settings)
    with (
        closing(opening.open_journal(settings)) as journal,
        closing(opening.open_registry(settings, journal)) as opened,
    ):
        yield opened


@contextmanager
def acting(options: argparse.Namespace) -> Iterator[tuple[Registry, Officer]]:
    """The registry, and the person who acts, whose office the command belongs to. Raises Refusal `role.not_held`."""
    settings = settings_of(options)
    officer = officer_of(options.by, options.key, people_of(settings, options.people))
    with registry(settings) as opened:
        offices = OFFICES[options.command]
        try:
            opened.person(officer.key.public_key, *offices)
        except Refusal as refusal:
            with suppress(Refusal):  # a log that lost entries takes none
                opened.note_turned_away(options.command, officer, refusal)
            raise
        yield opened, officer


def people_of(settings: Settings, folder: str | None) -> Path:
    """The folder of persons' keys."""
    return Path(folder) if folder else settings.at(PEOPLE)


def officer_of(name: str, reference: str | None, people: Path) -> Officer:
    """A person with their key: a file, under a passphrase or not, or a `pkcs11:` URI. Raises Misconfigured."""
    if reference is None or not reference.startswith(tokens.SCHEME):
        path = Path(reference).resolve() if reference else people / f"{name}.key"
        if not path.is_file():
            raise Misconfigured(
                "config.person_key_missing",
                f"{path}: no key of {name} here; name it with --key, or its folder with --people",
            )
        reference = str(path)
    keyring = Keyring(people, {name: reference}, ask=a_person())
    return Officer(name, keyring.load(name, certificate=False))


def new_officer(name: str, people: Path) -> Officer:
    """A person with a new key, kept in the people folder. Raises Misconfigured where one lies there already."""
    people.mkdir(parents=True, exist_ok=True, mode=0o700)
    officer = Officer(name, generate("ES256"))
    places.write_secret(people / f"{name}.key", officer.key.pem())
    return officer


def proposed(options: argparse.Namespace, said: dict[str, Any]) -> int:
    """Tell what was proposed, and who goes on."""
    if options.json:
        print_json({**said, "state": "proposed"})
    else:
        told = [(name, value) for name, value in said.items() if not isinstance(value, dict)]
        print_table("已提出 Proposed", ["", ""], told)
    id = said.get("decision") or said.get("grant")
    say(f"next: 由另一人批准 a second person runs: yongtong decision approve {id} --by NAME")
    return 0


def approve_decision(options: argparse.Namespace) -> int:
    """Approve any decision; `grant approve` is the same."""
    with acting(options) as (opened, officer):
        apart = changing.apart_of(settings_of(options))
        if apart is not None and (document := document_apart(apart)).id == options.id:
            _show_signed(opened, document, "")
            changing.keep_apart(settings_of(options), opened.approve_epoch_apart(apart, officer))
            return _approved(options, document)
        for proposer, one in opened.proposals():
            if one.document.id == options.id:  # nobody signs what they have not seen
                _show_signed(opened, one.document, proposer)
        document = opened.approve(options.id, officer)
    return _approved(options, document)


def _show_signed(opened: Registry, document: Document, proposer: str) -> None:
    say(f"所签文件 what is signed, proposed by {proposer}:" if proposer else "所签文件 what is signed:")
    say(msgspec.json.format(msgspec.json.encode(_shown(opened, document)), indent=1).decode())


def _approved(options: argparse.Namespace, document: Document) -> int:
    name = "grant" if document.kind == "grant" else "decision"
    said = {name: options.id, "kind": document.kind, "state": "approved"}
    print_json(said) if options.json else print_table("已批准 Approved", ["", ""], said.items())
    return 0


def _withdraw(options: argparse.Namespace) -> int:
    with acting(options) as (opened, officer):
        opened.revoke("proposal", options.id, officer)
    said = {"decision": options.id, "state": "withdrawn"}
    print_json(said) if options.json else print_table("已撤回 Withdrawn", ["", ""], said.items())
    return 0


def _list(options: argparse.Namespace) -> int:
    with registry(settings_of(options)) as opened:
        waiting = opened.proposals()
        shown = [_shown(opened, one.document) for _, one in waiting]
    if options.json:
        told = zip(waiting, shown, strict=True)
        print_json({"decisions": [{"proposed_by": name, **_needing(one.document), **all} for (name, one), all in told]})
        return 0
    rows = [(one.document.id, one.document.kind, one.document.at, name, _needs(one.document)) for name, one in waiting]
    print_table("待批准 Waiting for a second person", ["id", "kind", "proposed", "by", "to be approved by"], rows)
    return 0


def _needing(document: Document) -> dict[str, str]:
    return {"approver": SIGNERS[document.kind][1]}


def _shown(opened: Registry, document: Document) -> dict[str, Any]:
    """A document as a person must see it: all of it, and of a person the name and by what the key is known."""
    found: dict[str, Any] = msgspec.to_builtins(document)
    if document.kind == "person":
        key = load_public_pem(str(document.body["public_key"]).encode())
        found["body"] |= {"name": opened.name_of(str(document.body["person"])), "key": fingerprint_of(key)}
    for certificate in found["body"].get("certificates", ()):  # by what its bureau can read out, not by its octets
        certificate["sha256"] = sha256(base64.b64decode(certificate.pop("der"))).hex
    return found


def _needs(document: Document) -> str:
    role = SIGNERS[document.kind][1]
    return f"{role} {ROLE_WORDS[role]}"


def _appoint(options: argparse.Namespace) -> int:
    with acting(options) as (opened, officer):
        pem = _public_pem(options)
        id = opened.propose_person(options.name, pem, options.role, options.of, officer)
    return proposed(options, {"decision": id, "person": options.name, "role": options.role})


def _public_pem(options: argparse.Namespace) -> str:
    if options.new_key == bool(options.public_key):
        raise Misconfigured("config.option", "give either --public-key PEM, or --new-key for a trial")
    if options.new_key:
        settings = settings_of(options)
        people = people_of(settings, options.people)
        places.check_key_apart(settings, people)
        officer = new_officer(options.name, people)
        return officer.key.public_pem().decode()
    try:
        pem: bytes = options.public_key.read_bytes()
    except OSError as problem:
        raise Misconfigured("config.file", f"{options.public_key}: {problem.strerror}") from problem
    load_public_pem(pem)
    return pem.decode()


def _dismiss(options: argparse.Namespace) -> int:
    with acting(options) as (opened, officer):
        named = [p.pseudonym for name, p in opened.persons() if options.person in (name, p.pseudonym) and not p.until]
        opened.revoke("person", named[0] if named else options.person, officer)
    said = {"person": options.person, "state": "dismissed"}
    print_json(said) if options.json else print_table("已免职 Dismissed", ["", ""], said.items())
    return 0


def _persons(options: argparse.Namespace) -> int:
    with registry(settings_of(options)) as opened:
        persons = opened.persons()
    if options.json:
        listed = [{"name": name, **msgspec.structs.asdict(person)} for name, person in persons]
        print_json({"persons": listed})
        return 0
    rows = [(name, ROLE_WORDS[p.role], p.role, p.bureau, p.since, p.until, p.pseudonym) for name, p in persons]
    print_table("任职 Persons in office", ["name", "", "role", "of", "since", "until", "pseudonym"], rows)
    return 0
