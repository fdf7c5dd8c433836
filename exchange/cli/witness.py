"""The witness's side: `yongtong witness` signs the log's heads as they grow, from a machine that is not the bus's."""

import argparse
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from connectors.partner.folder import PartnerFolder
from connectors.partner.log import Log
from connectors.partner.witness import LogWitness, Signed
from exchange.app import places
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, count
from exchange.cli.partner import add_partner_options, folder_of, https_url_of
from security import tokens
from security.checkpoint import note_name
from security.errors import Misconfigured, Unavailable
from security.keyring import Keyring, a_person
from security.keys import SigningKey, generate

KEY = "witness"


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """witness."""
    witness = add_command(
        commands,
        common,
        "witness",
        _witness,
        says="sign the newest head of the log, if it continues the one signed last; exit 1 where it does not",
        example="yongtong witness --as water --url https://bus.example:8443 --every 600",
    )
    what = witness.add_mutually_exclusive_group()
    what.add_argument("--once", action="store_true", help="one head (this is what it does when nothing is said)")
    what.add_argument("--every", type=count, metavar="SECONDS", help="go on, until a head does not continue the last")
    what.add_argument("--new-key", action="store_true", help="make the witness's key, and say what the bus needs of it")
    witness.add_argument("--name", help="of the witness, as the bus's settings have it (BUREAU.ORIGIN)")
    witness.add_argument("--key", metavar="REF", help="the witness's Ed25519 key (witness.key in the bureau's folder)")
    add_partner_options(witness, required=True)


def _witness(options: argparse.Namespace) -> int:
    folder = PartnerFolder(folder_of(options))
    name = note_name(options.name or f"{folder.bureau}.{folder.anchors.origin}")
    if options.new_key:
        return _new_key(options, folder, name)
    witness = LogWitness(folder, Log(folder, https_url_of(options)), name, _key_of(options, folder), places.utc_now)
    if options.every:
        _go_on(witness, options.every)
    signed = witness.look()
    if options.json:
        print_json({"witness": name, "before": signed.before, "line": signed.line, **_said(signed)})
    else:
        print_table("已见证 Cosigned: it continues all that was signed before", ["", ""], _said(signed).items())
    return 0


def _go_on(witness: LogWitness, seconds: int) -> None:
    """Look again and again. Ends only by what a person must see: then it raises, and signs nothing more."""
    while True:
        try:
            signed = witness.look()
            say(f"已见证 cosigned: {signed.head.size} entries")
        except Unavailable as problem:
            say(f"稍后再试 later: {problem}")
        time.sleep(seconds)


def _said(signed: Signed) -> dict[str, object]:
    head, kept = signed.head, signed.kept
    return {"size": head.size, "root": head.root.hex(), "witnesses": list(kept.witnesses), "quorum": kept.quorum}


def _key_of(options: argparse.Namespace, folder: PartnerFolder) -> SigningKey:
    """The witness's key: a file, under a passphrase or not, or in a token. Raises Misconfigured."""
    reference = options.key or str((folder.path / f"{KEY}.key").resolve())
    if not reference.startswith(tokens.SCHEME) and not Path(reference).is_file():
        raise Misconfigured(
            "config.option", f"{reference}: no witness's key here; make one with --new-key, or name it with --key"
        )
    return Keyring(folder.path, {KEY: reference}, ask=a_person()).load(KEY, certificate=False)


def _new_key(options: argparse.Namespace, folder: PartnerFolder, name: str) -> int:
    if options.key and options.key.startswith(tokens.SCHEME):
        raise Misconfigured(
            "config.option", "--new-key writes a file; a key in a token is made with the token's own program"
        )
    key = generate("EdDSA")
    path = Path(options.key) if options.key else folder.path / f"{KEY}.key"
    places.write_secret(path, key.pem())
    assert isinstance(key.public_key, Ed25519PublicKey)
    public = key.public_key.public_bytes_raw().hex()
    if options.json:
        print_json({"witness": name, "key": public, "file": str(path)})
        return 0
    print_table("见证密钥 The witness's key", ["", ""], [("name", name), ("key", public), ("file", path)])
    say("next: 交平台运行单位写入设置 the operator puts into the bus's settings.toml, and starts it again:")
    print(f'[[witnesses.witness]]\nname = "{name}"\nkey = "{public}"')
    return 0
