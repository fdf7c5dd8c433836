"""What a PostgreSQL server needs beside the tables: turns at writing, reads that were answered, functions of SQLite."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A file has its turns by locks beside it, and these functions by its driver."""
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("CREATE TABLE turns (number BIGINT NOT NULL, holder TEXT NOT NULL)")
    op.execute("INSERT INTO turns VALUES (0, '')")
    op.execute(
        "CREATE TABLE answered_reads (bureau TEXT NOT NULL, digest TEXT NOT NULL, until TEXT NOT NULL, "
        "PRIMARY KEY (bureau, digest))"
    )
    op.execute(
        "CREATE FUNCTION instr(bytea, bytea) RETURNS INTEGER LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE "
        "RETURN position($2 IN $1)"
    )
    op.execute(
        "CREATE FUNCTION said(bytea, text) RETURNS TEXT LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE "
        "RETURN convert_from($1, 'UTF8')::json ->> $2"
    )
