"""Who takes part and what they may do: `bureau` and `grant`."""

import argparse
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final, get_args

import msgspec

from connectors.partner.folder import PartnerFolder
from exchange import access
from exchange.app import keys_in_force, places, trusted
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, add_group, count, day, settings_of
from exchange.cli.people import acting, add_person_options, approve_decision, proposed, registry
from exchange.entry import CITY_TIME
from exchange.registry import Bureau, check_code
from exchange.settings import Settings
from mappings.load import load_feeds
from security import pki
from security.csr import certificate_from_csr
from security.errors import Misconfigured, Refusal
from security.keys import Kind, SigningKey, der_of_pem, generate
from security.message import Action, Area, EnrolledCertificate, Use

TRIAL_DAYS = 365
USE_WORDS: Final[dict[Use, str]] = {
    "signing": "signing key",
    "front": "front node (前置机), a signing key of its own",
    "connection": "TLS client key",
    "encryption": "encryption key, the other one of double certificates (签名/加密)",
}
TARGETS = (
    "a feed to push into; ownership, components or changes to pull; changes or cascade to subscribe to; "
    "a bureau to carry for"
)


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """bureau enrol|list|revoke, grant propose|approve|list|revoke."""
    bureau = add_group(commands, "bureau", says="partner organisations and their certificates")
    enrol = add_command(
        bureau,
        common,
        "enrol",
        _enrol,
        says="enter a bureau with its two certificates, or make a trial bureau's keys here",
        example='yongtong bureau enrol water --title "Water bureau" --title-zh 水务局 --new-keys partners --by 张三',
    )
    enrol.add_argument("code", metavar="BUREAU", help="lower-case letters, digits, -")
    enrol.add_argument("--title", required=True)
    enrol.add_argument("--title-zh", required=True)
    enrol.add_argument("--role", help="supplier, case-system, officer … (as it is; of a new bureau supplier)")
    for use, says in USE_WORDS.items():
        enrol.add_argument(f"--{use}", type=Path, metavar="PEM", help=f"certificate of the bureau's {says}")
        if use != "encryption":  # its key is made by the authority, which keeps a copy: nobody asks us for one
            enrol.add_argument(f"--{use}-csr", type=Path, metavar="FILE", help="or a request (PKCS#10) for one")
    enrol.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where those made here go")
    enrol.add_argument(
        "--new-keys", type=Path, metavar="DIR", help="make keys and certificates in DIR/BUREAU (a trial)"
    )
    enrol.add_argument(
        "--suite", choices=get_args(Kind), default="ES256", help="of the new signing key; TLS keeps to ES256 (ES256)"
    )
    _list = add_command(bureau, common, "list", _bureaus, says="who is enrolled", example="yongtong bureau list")
    revoke = add_command(
        bureau,
        common,
        "revoke",
        _revoke_certificate,
        says="end a certificate now; its bureau stays",
        example="yongtong bureau revoke 3f1c… --by 李四",
    )
    revoke.add_argument("fingerprint", help="SHA-256 of the certificate, hex")

    grant = add_group(commands, "grant", says="who may push or pull what; default is no")
    propose = add_command(
        grant,
        common,
        "propose",
        _propose,
        says="put a grant before a second person",
        example="yongtong grant propose water push water-register --purpose 部件更新 --basis 1号文 --by 张三",
    )
    propose.add_argument("bureau", metavar="BUREAU")
    propose.add_argument("action", choices=list(get_args(Action)))
    propose.add_argument("target", metavar="TARGET", help=TARGETS)
    propose.add_argument("--class", dest="classes", action="append", default=[], metavar="C", help="class code; repeat")
    propose.add_argument(
        "--district", dest="districts", action="append", default=[], metavar="CODE", help="only there; repeat"
    )
    propose.add_argument("--cell", dest="cells", action="append", default=[], metavar="CODE", help="unit grid; repeat")
    propose.add_argument("--polygon", type=Path, metavar="FILE", help="GeoJSON polygon, degrees of CGCS2000")
    propose.add_argument(
        "--attribute",
        dest="attributes",
        action="append",
        default=[],
        metavar="NAME",
        help="only these, of the shared schema; repeat",
    )
    propose.add_argument(
        "--map-area", type=count, default=0, metavar="KM2", help="exported in one piece (as the settings allow)"
    )
    propose.add_argument("--from", dest="valid_from", type=day, help="first day (today)")
    propose.add_argument("--until", dest="valid_until", type=day, help="last day (a year from now)")
    propose.add_argument("--purpose", required=True)
    propose.add_argument("--basis", required=True, help="the rule or paper it rests on")
    approve = add_command(
        grant,
        common,
        "approve",
        approve_decision,
        says="put a proposed grant in force; not by who proposed it",
        example="yongtong grant approve g-1f2e3d --by 李四",
    )
    end = add_command(
        grant, common, "revoke", _revoke, says="end a grant now", example="yongtong grant revoke g-1f2e3d --by 李四"
    )
    simulated = add_command(
        grant,
        common,
        "simulate",
        _simulate,
        says="whose calls of the last days would change, if a proposed grant were approved or one in force revoked",
        example="yongtong grant simulate g-1f2e3d4c5b6a --days 30 --by 张三",
    )
    simulated.add_argument("--days", type=count, default=30, metavar="N", help="how far back calls are looked at (30)")
    for parser in (approve, end, simulated):
        parser.add_argument("id", metavar="GRANT")
    add_command(
        grant, common, "list", _grants, says="all grants and how far they have come", example="yongtong grant list"
    )
    for parser in (enrol, revoke, propose, approve, end, simulated):
        add_person_options(parser)


def make_partner(
    settings: Settings, code: str, folder: Path, signing: Kind = "ES256"
) -> tuple[PartnerFolder, list[EnrolledCertificate]]:
    """Keys and certificates of a bureau, issued by the bus's own CA, in a folder of its own: for trials, the demo.

    Raises Refusal `registry.code_invalid`, Misconfigured where the folder holds keys already.
    """
    check_code(code)  # first: the code becomes a path
    places.check_key_apart(settings, folder)
    now, ca = places.utc_now(), keys_in_force.authority(settings)
    until = now + timedelta(days=TRIAL_DAYS)
    keys: dict[Use, SigningKey] = {}
    for use in ("signing", "connection"):
        key = generate(signing if use == "signing" else "ES256")  # TLS asks for a key of the standard's
        # A broker of the city's takes the connection's common name for the account: it is the bureau's code.
        name = code if use == "connection" else f"{code} signing"
        der = pki.issue(ca, name, key.public_key, use, now - timedelta(hours=1), until)
        keys[use] = key.with_certificate(der)
    made = PartnerFolder.make(
        folder / code,
        signing=keys["signing"],
        connection=keys["connection"],
        ca_pem=pki.pem_of(ca.certificate_der),
        anchors_json=msgspec.json.encode(trusted.anchors_of(settings)),
    )
    return made, [pki.enrolled(key.certificate_der or b"", code, use) for use, key in keys.items()]


def _enrol(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    with acting(options):  # first: nothing is made for somebody whose office it is not
        check_code(options.code)
    if options.new_keys:
        _, certificates = make_partner(settings, options.code, options.new_keys, options.suite)
    else:
        certificates = [pki.enrolled(der, options.code, use) for use, der in _brought(options, settings)]
    if not certificates:
        raise Misconfigured(
            "config.option", "give certificates or requests (--signing, --signing-csr …), or --new-keys DIR for a trial"
        )
    with acting(options) as (opened, officer):
        standing = {one.code: one.role for one in opened.bureaus()}
        role = options.role or standing.get(options.code, "supplier")
        bureau = Bureau(options.code, options.title, options.title_zh, role)
        decision = opened.propose_enrolment(bureau, certificates, officer)
    fingerprints = {c.use: c.fingerprint for c in certificates}
    if not options.json:
        rows = [(c.use, c.fingerprint, c.not_after.date()) for c in certificates]
        print_table(f"{options.code} {options.title_zh}", ["use", "certificate SHA-256", "until"], rows)
    return proposed(options, {"bureau": options.code, "decision": decision, "certificates": fingerprints})


def _brought(options: argparse.Namespace, settings: Settings) -> Iterator[tuple[Use, bytes]]:
    """The certificates that the bureau brought, and those made here for its requests, each written out."""
    now = places.utc_now()
    for use in get_args(Use):
        certificate, request = getattr(options, use), getattr(options, f"{use}_csr", None)
        if certificate:
            der = _der(certificate)
            if use == "connection":  # in the handshake only what a known authority issued is let in
                trusted.check_certificate(settings, der, now)
            yield use, der
        if request:
            until = now + timedelta(days=TRIAL_DAYS)
            der = certificate_from_csr(
                keys_in_force.authority(settings), _octets(request), options.code, use, now, until
            )
            path = options.out / f"{options.code}-{use}.pem"
            try:
                path.write_bytes(pki.pem_of(der))
            except OSError as problem:
                raise Misconfigured("config.file", f"{path}: {problem.strerror}") from problem
            say(f"证书已签发 certificate: {path}")
            yield use, der


def _octets(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise Misconfigured("config.file", f"{path}: {problem.strerror}") from problem


def _der(path: Path) -> bytes:
    try:
        return der_of_pem(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise Misconfigured("config.file", f"{path}: not a certificate in PEM: {problem}") from problem


def _bureaus(options: argparse.Namespace) -> int:
    with registry(settings_of(options)) as opened:
        bureaus, certificates = opened.bureaus(), opened.certificates()
    if options.json:
        without_der = [{n: getattr(c, n) for n in c.__struct_fields__ if n != "der"} for c in certificates]
        print_json({"bureaus": bureaus, "certificates": without_der})
        return 0
    print_table("单位 Bureaus", ["code", "title", "", "role"], [(b.code, b.title_zh, b.title, b.role) for b in bureaus])
    rows = [(c.bureau, c.use, c.fingerprint, c.not_after.date(), c.revoked_at) for c in certificates]
    print_table("证书 Certificates", ["bureau", "use", "SHA-256", "until", "revoked"], rows)
    return 0


def _revoke_certificate(options: argparse.Namespace) -> int:
    with acting(options) as (opened, officer):
        opened.revoke_certificate(options.fingerprint, officer)
    return _done(options, {"certificate": options.fingerprint, "state": "revoked"})


def _propose(options: argparse.Namespace) -> int:
    today = places.utc_now().date()
    with acting(options) as (opened, officer):
        grant = opened.propose_grant(
            bureau=options.bureau,
            action=options.action,
            target=options.target,
            classes=options.classes,
            valid_from=(options.valid_from or today).isoformat(),
            valid_until=(options.valid_until or today + timedelta(days=TRIAL_DAYS)).isoformat(),
            purpose=options.purpose,
            basis=options.basis,
            area=_area(options),
            attributes=options.attributes,
            map_area_km2=options.map_area,
            by=officer,
        )
    return proposed(options, {"grant": grant})


def _area(options: argparse.Namespace) -> Area:
    return Area(tuple(options.districts), tuple(options.cells), _ring(options.polygon) if options.polygon else ())


def _ring(path: Path) -> tuple[tuple[float, float], ...]:
    """The outer ring of the one polygon in a GeoJSON file. Raises Misconfigured."""
    try:
        document = msgspec.json.decode(path.read_bytes())
        features = document.get("features", [document])
        (shape,) = (feature.get("geometry", feature) for feature in features)
        (ring,) = shape["coordinates"]
        return tuple((float(longitude), float(latitude)) for longitude, latitude, *_ in ring[:-1])
    except (OSError, msgspec.MsgspecError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise Misconfigured("config.file", f"{path}: not a GeoJSON polygon of one ring: {problem}") from problem


def _revoke(options: argparse.Namespace) -> int:
    with acting(options) as (opened, officer):
        opened.revoke_grant(options.id, officer)
    return _done(options, {"grant": options.id, "state": "revoked"})


def _simulate(options: argparse.Namespace) -> int:
    settings, now = settings_of(options), places.utc_now()
    with acting(options) as (opened, _):
        standing = tuple(one.grant for one in opened.granted() if not one.revoked_at)
        added, ended = opened.proposed_grant(options.id), [g for g in standing if g.id == options.id]
        if added is None and not ended:
            raise Refusal("grant.unknown", options.id)
        after = (*standing, added) if added else tuple(g for g in standing if g.id != options.id)
        today = now.astimezone(CITY_TIME).date().isoformat()
        feeds = load_feeds(settings.at(path) for path in settings.feeds.folders)
        owners = {feed.id: feed.bureau for feed in feeds.values()}
        entries = opened.journal.since(now - timedelta(days=options.days))
        on = max(today, added.valid_from) if added else today
        changed = access.simulate(entries, standing, after, owners, opened.bureaus_by_certificate(), on)
    what = "approve" if added else "revoke"
    if options.json:
        print_json({"grant": options.id, "if": what, "days": options.days, "calls": changed})
        return 0
    names = ("bureau", "does", "calls", "before", "after", "change")
    rows = [(c.bureau, f"{c.action} {c.target}", c.calls, c.before, c.after, c.change) for c in changed]
    print_table(f"若{'批准' if added else '撤销'} If {what}d: {options.id}, {options.days} days", names, rows)
    if not rows:
        say("没有调用会改变 No call of these days would change")
    return 0


def _grants(options: argparse.Namespace) -> int:
    with registry(settings_of(options)) as opened:
        rows = opened.all_grants()
    if options.json:
        print_json({"grants": rows})
        return 0
    told = []
    for row in rows:
        g = row.grant
        signed = ", ".join(filter(None, (g.proposed_by, g.approved_by)))
        told.append((g.id, g.bureau, f"{g.action} {g.target}", g.valid_until, signed, row.state))
    print_table("授权 Grants", ["id", "bureau", "may", "until", "signed by", "state"], told)
    return 0


def _done(options: argparse.Namespace, said: dict[str, str]) -> int:
    print_json(said) if options.json else print_table("", ["", ""], said.items())
    return 0
