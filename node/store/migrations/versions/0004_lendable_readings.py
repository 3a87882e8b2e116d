"""What a phantom reading needs to calibrate a later study without a phantom."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("phantom_readings") as batch:
        batch.add_column(sa.Column("taken_at", sa.String(length=16), nullable=False, server_default=""))
        batch.add_column(sa.Column("technique", sa.Text(), nullable=True))
        batch.add_column(sa.Column("calibration", sa.Text(), nullable=True))
