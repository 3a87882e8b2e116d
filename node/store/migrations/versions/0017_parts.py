"""The parts of `serve`: when each finished a round of its work last, and which ended unexpectedly."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "parts",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("beats", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("heard_at", sa.Float(), nullable=False),
        sa.Column("ended", sa.Boolean(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("died_at", sa.Float(), nullable=True),
    )
