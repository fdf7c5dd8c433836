"""The journal as it begins: audit log, inbox, receipts and reports, and the registry of bureaus, keys and grants."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UNFINISHED = sa.text("status = 'waiting'")
WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make all tables."""
    _log()
    _inbox()
    _registry()


def _log() -> None:
    op.create_table(
        "entries",
        sa.Column("idx", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("leaf", sa.LargeBinary, nullable=False),
    )
    # Erasing sets salt and detail to NULL; the row stays, so that a row lost is told from a detail erased.
    op.create_table(
        "details",
        sa.Column("idx", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("salt", sa.LargeBinary),
        sa.Column("detail", sa.LargeBinary),
    )
    op.create_table(
        "nodes",
        sa.Column("level", WHOLE, primary_key=True),
        sa.Column("idx", WHOLE, primary_key=True),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    # One head a size for ever: what is inserted here is the only thing of this size that is ever signed.
    op.create_table(
        "heads",
        sa.Column("origin", sa.Text, primary_key=True),
        sa.Column("size", WHOLE, primary_key=True),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("note", sa.Text),
        sqlite_with_rowid=False,
    )


def _inbox() -> None:
    texts = "sender message_id feed content_type content_digest request_digest signer carrier evidence_class form"
    op.create_table(
        "inbox",
        sa.Column("id", WHOLE, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in texts.split()),
        sa.Column("grant_id", sa.Text, nullable=False),
        sa.Column("content_length", WHOLE, nullable=False),
        sa.Column("received_at", sa.Text, nullable=False),
        sa.Column("signed_at", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("entry_index", WHOLE, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("decision", sa.Text, nullable=False, server_default=""),  # of a person, on a held delivery
        sa.UniqueConstraint("message_id", "sender"),
    )
    op.create_index(
        "inbox_waiting",
        "inbox",
        ["feed", "id"],
        sqlite_where=sa.text("status = 'waiting'"),
        postgresql_where=sa.text("status = 'waiting'"),
    )
    op.create_table(
        "receipts",
        sa.Column("inbox_id", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("octets", sa.LargeBinary, nullable=False),
    )
    # The document is kept with its entry, before it is signed, so that a crash in between loses no report.
    op.create_table(
        "reports",
        sa.Column("entry_index", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("inbox_id", WHOLE, nullable=False, index=True),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.Column("octets", sa.LargeBinary),
    )


def _registry() -> None:
    op.create_table(
        "bureaus",
        sa.Column("code", sa.Text, primary_key=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("title_zh", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
    )
    op.create_table(
        "certificates",
        sa.Column("fingerprint", sa.Text, primary_key=True),
        sa.Column("bureau", sa.Text, nullable=False),
        sa.Column("use", sa.Text, nullable=False),
        sa.Column("der", sa.LargeBinary, nullable=False),
        sa.Column("revoked_at", sa.Text),
    )
    # Names stand here and nowhere in the log: entries carry the pseudonym.
    op.create_table(
        "persons",
        sa.Column("pseudonym", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("bureau", sa.Text, nullable=False),
        sa.UniqueConstraint("name", "bureau"),
    )
    texts = "bureau action target classes valid_from valid_until purpose basis proposed_by"
    op.create_table(
        "grants",
        sa.Column("id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in texts.split()),
        sa.Column("approved_by", sa.Text),
        sa.Column("revoked_at", sa.Text),
    )
    op.create_table(
        "registry_version",
        sa.Column("id", WHOLE, primary_key=True),
        sa.Column("version", WHOLE, nullable=False),
    )
    op.execute("INSERT INTO registry_version VALUES (1, 0)")
