"""What a PostgreSQL server needs beside the tables: the functions that SQLite has, and texts sorted by octet."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SQL = "LANGUAGE sql IMMUTABLE PARALLEL SAFE"

# A path is `$.member` or `$[number]`.
JSON_EXTRACT = f"""
CREATE FUNCTION json_extract(text, text) RETURNS TEXT {SQL}
RETURN $1::json #>> string_to_array(ltrim(translate($2, '$[]', '..'), '.'), '.')
"""
JSON_EACH = """
CREATE FUNCTION json_each(text) RETURNS TABLE (value TEXT) LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS 'SELECT each FROM json_array_elements_text($1::json) each'
"""
JSON_LIST = f"CREATE FUNCTION json_list(bigint[]) RETURNS TEXT {SQL} RETURN array_to_json($1)::text"
JSON_GROUP_ARRAY = (
    "CREATE AGGREGATE json_group_array(bigint) (SFUNC = array_append, STYPE = bigint[], INITCOND = '{}', "
    "FINALFUNC = json_list)"
)
# The corners of a ring, one after the other. Known when a statement is planned, so read once and not once a row.
CORNERS = f"""
CREATE FUNCTION corners(text) RETURNS float8[] {SQL}
RETURN ARRAY(SELECT each::float8 FROM json_array_elements($1::json) corner, json_array_elements_text(corner) each)
"""
# Degrees as whole numbers, and nothing of them rounded: with these a place is left or right of a side, or on it, as
# surely as by the geometry library that grants are judged by elsewhere.
WHOLE = f"CREATE FUNCTION whole(float8) RETURNS NUMERIC {SQL} RETURN ($1 * 18014398509481984)::bigint::numeric"
# A ring that crosses itself is not asked for here. On a side or in a corner is inside; else an odd number of sides lies
# to the east.
WITHIN = """
CREATE FUNCTION within(ring float8[], x float8, y float8) RETURNS BOOLEAN
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
  corners INTEGER := cardinality(ring) / 2;
  inside BOOLEAN := FALSE;
  x1 float8; y1 float8; x2 float8; y2 float8; turn NUMERIC;
BEGIN
  IF corners < 3 OR x IS NULL OR y IS NULL THEN RETURN FALSE; END IF;
  x2 := ring[2 * corners - 1]; y2 := ring[2 * corners];
  FOR corner IN 1 .. corners LOOP
    x1 := x2; y1 := y2; x2 := ring[2 * corner - 1]; y2 := ring[2 * corner];
    CONTINUE WHEN y < least(y1, y2) OR y > greatest(y1, y2) OR x > greatest(x1, x2);
    IF x < least(x1, x2) THEN
      inside := inside <> ((y1 > y) <> (y2 > y));
      CONTINUE;
    END IF;
    turn := (whole(x2) - whole(x1)) * (whole(y) - whole(y1)) - (whole(y2) - whole(y1)) * (whole(x) - whole(x1));
    IF turn = 0 THEN RETURN TRUE; END IF;
    IF (y1 > y) <> (y2 > y) AND (turn > 0) = (y2 > y1) THEN inside := NOT inside; END IF;
  END LOOP;
  RETURN inside;
END $$
"""
IN_RING = f"CREATE FUNCTION in_ring(text, float8, float8) RETURNS BOOLEAN {SQL} RETURN within(corners($1), $2, $3)"
INSTR = f"CREATE FUNCTION instr(text, text) RETURNS INTEGER {SQL} RETURN strpos($1, $2)"
# The first of so many numbers of a sequence, one after the other. Whoever asks meanwhile waits a moment.
FIRST_OF = """
CREATE FUNCTION first_of(sequence text, how_many bigint) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
  first BIGINT;
BEGIN
  PERFORM pg_advisory_lock(1498371076, sequence::regclass::oid::int);
  first := nextval(sequence::regclass);
  IF how_many > 1 THEN PERFORM setval(sequence::regclass, first + how_many - 1); END IF;
  PERFORM pg_advisory_unlock(1498371076, sequence::regclass::oid::int);
  RETURN first;
END $$
"""
FUNCTIONS = (
    JSON_EXTRACT, JSON_EACH, JSON_LIST, JSON_GROUP_ARRAY, CORNERS, WHOLE, WITHIN, IN_RING, INSTR, FIRST_OF,
)  # fmt: skip


def upgrade() -> None:
    """A file has these functions by its driver, and its texts in this order."""
    bind = op.get_bind()
    if bind.dialect.name != "postgresql":
        return
    for made in FUNCTIONS:
        bind.exec_driver_sql(made)
    texts = (
        "SELECT c.table_name, c.column_name FROM information_schema.columns c JOIN information_schema.tables t "
        "ON t.table_schema = c.table_schema AND t.table_name = c.table_name WHERE c.table_schema = current_schema() "
        "AND t.table_type = 'BASE TABLE' AND c.data_type = 'text'"
    )
    for table, column in bind.execute(sa.text(texts)).fetchall():
        bind.exec_driver_sql(f'ALTER TABLE {table} ALTER COLUMN {column} TYPE TEXT COLLATE "C"')
