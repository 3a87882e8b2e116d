"""Retention may remove results, too: rows say when, and what was promised to others is left alone."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("artefacts", sa.Column("removed_at", sa.Float(), nullable=True))
    op.add_column("objects", sa.Column("promised_at", sa.Float(), nullable=True))
    op.create_index("ix_artefacts_path", "artefacts", ["path"])
    condition = sa.text("removed_at IS NOT NULL AND path <> ''")
    op.create_index(
        "ix_artefacts_unswept", "artefacts", ["path"], sqlite_where=condition, postgresql_where=condition
    )
