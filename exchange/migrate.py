"""Bring a database file to today's schema. Two histories: `journal` and `store`, one folder each."""

from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory


def upgrade(engine: sa.Engine, history: str, to: str = "head") -> None:
    """Run what is missing of `exchange/migrations/{history}/versions`, in one transaction.

    history: `journal` or `store`; to: a revision
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations" / history))
    scripts = ScriptDirectory.from_config(config)
    with (
        engine.begin() as connection,
        EnvironmentContext(config, scripts, fn=lambda revision, _: scripts._upgrade_revs(to, revision)) as environment,
    ):
        environment.configure(connection=connection, target_metadata=None)
        environment.run_migrations()
