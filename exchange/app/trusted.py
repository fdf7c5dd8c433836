"""What this bus trusts, what is trusted of it, and the heads that others know of its log."""

from contextlib import suppress
from datetime import datetime

import msgspec

from exchange.app import keys_in_force, places
from exchange.journal import Journal
from exchange.known_heads import Gap, gap_of, texts_in
from exchange.own_keys import epoch_number
from exchange.revocation import CityAuthority, Revocations
from exchange.settings import Settings
from security import pki
from security.anchors import Anchors
from security.chain import Chain, check_chain
from security.checkpoint import Checkpoint, open_checkpoint
from security.errors import Misconfigured, Refusal


def anchors_of(settings: Settings) -> Anchors:
    """All that is trusted of this bus, to be handed to partners: what `init` wrote, and what the settings say of
    witnesses, timestamp authorities and the authorities in which bureaus' certificates end.

    Raises Misconfigured where a witness goes by the log's own name, of whichever epoch.
    """
    written = written_anchors(settings)
    said = settings.witnesses
    if any(f"{witness.name}/".startswith(f"{written.origin}/") for witness in said.witness):
        raise Misconfigured("config.setting", f"{settings.source}: a witness is named {written.origin}, as the log is")
    return msgspec.structs.replace(
        written,
        witnesses=said.witness,
        quorum=said.quorum,
        timestamp_certificates=[pki.pem_of(der).decode() for der in timestamp_roots(settings)],
        authorities=[pki.pem_of(der).decode() for der in _known_authorities(settings)],
    )


def written_anchors(settings: Settings) -> Anchors:
    """Of the anchors, what `init` and every change of keys wrote: what heads and receipts are held against."""
    return msgspec.json.decode((places.state_of(settings) / "anchors.json").read_bytes(), type=Anchors)


def timestamp_roots(settings: Settings) -> tuple[bytes, ...]:
    """The roots of the timestamp authorities, DER; none where no timestamps are made. Raises Misconfigured."""
    said = settings.timestamps
    if not said.urls and not said.certificates:
        return ()
    if not said.urls or not said.certificates:
        raise Misconfigured("config.setting", f"{settings.source}: [timestamps] urls and certificates go together")
    return places.certificates_in(settings.at(said.certificates))


def city_authorities(settings: Settings) -> tuple[CityAuthority, ...]:
    """The city's certificate authorities. Raises Misconfigured naming a file that holds no certificates."""
    return tuple(
        CityAuthority(places.certificates_in(settings.at(one.certificates)), tuple(one.crl), one.ocsp, one.every_s)
        for one in settings.authority
    )


def open_revocations(settings: Settings) -> Revocations:
    """What the city's authorities said last of their certificates."""
    return Revocations(places.state_of(settings) / "revocation", city_authorities(settings))


def check_certificate(settings: Settings, certificate_der: bytes, now: datetime) -> Chain:
    """The chain of a bureau's certificate to the bus's own CA or one of the city's, if it holds now.

    Raises Refusal `chain.*`, whose detail names the certificate that is wrong.
    """
    return check_chain(certificate_der, (), _known_authorities(settings), now)


def _known_authorities(settings: Settings) -> tuple[bytes, ...]:
    """Those in which bureaus' certificates end: the bus's own CA, then the city's authorities; DER."""
    own = places.certificates_in(settings.at(settings.keys.folder) / "ca.pem")
    return (*own, *(der for one in city_authorities(settings) for der in one.certificates))


def log_gap(settings: Settings, journal: Journal) -> Gap | None:
    """Whether the log lies behind a head that it signed. Raises Misconfigured for a file that holds no head of it."""
    anchors, heads = written_anchors(settings), list[Checkpoint]()
    open_now = epoch_number(journal.log_name(), anchors.origin) or 1
    for path, text in texts_in(places.heads_folder(settings)).items():
        epoch = epoch_in(anchors.origin, text)
        if epoch is None:
            raise Misconfigured(
                "config.file", f"{path}: a head of another log; take it out of the folder of this one's heads"
            )
        if epoch < open_now:
            continue  # nothing is signed any more under that name
        try:
            heads.append(known_head(settings, anchors, text))
        except Refusal as refusal:
            raise Misconfigured(
                "config.file", f"{path}: not a head that a key of this log signed ({refusal.detail})"
            ) from refusal
    return gap_of(journal, heads)


def known_head(settings: Settings, anchors: Anchors, text: str) -> Checkpoint:
    """A head that somebody shows, signed by the key of the anchors, or by any other in our own keys folder: of keys
    that came after a backup was made, the backup's anchors say nothing. Raises Refusal `audit.checkpoint_invalid`."""
    try:
        return anchors.head(text)
    except Refusal as refusal:
        name = text.partition("\n")[0]
        if epoch_number(name, anchors.origin) is None:
            raise
        for path in sorted(settings.at(settings.keys.folder).glob("log*.key")):
            key = keys_in_force.keyring_of(settings, stems={"log": path.stem}).load("log", certificate=False).public_key
            with suppress(Refusal):
                return open_checkpoint(text, name, key)
        raise Refusal("audit.checkpoint_invalid", refusal.detail) from refusal


def epoch_in(origin: str, text: str) -> int | None:
    """Of which epoch of a log a head is; None where it is another log's."""
    return epoch_number(text.partition("\n")[0], origin)
