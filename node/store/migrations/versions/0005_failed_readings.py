"""Phantom readings that failed a check, and those of single slices, are kept too."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.batch_alter_table("phantom_readings") as batch:
        batch.alter_column(
            "series_instance_uid", new_column_name="source_uid", existing_type=sa.String(length=64)
        )
        for name in ("slope", "intercept", "water_hu"):
            batch.alter_column(name, existing_type=sa.Float(), nullable=True)
        batch.add_column(sa.Column("equivalent", sa.String(length=16), nullable=True))
        batch.add_column(sa.Column("findings", sa.Text(), nullable=False, server_default="[]"))
        batch.add_column(sa.Column("failed", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch.add_column(sa.Column("alone", sa.Boolean(), nullable=False, server_default=sa.false()))
