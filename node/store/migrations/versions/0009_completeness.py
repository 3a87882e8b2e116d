"""What showed that a study was whole is kept with the job that began then."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("closed_by", sa.String(16), nullable=False, server_default=""))
        batch.add_column(sa.Column("completeness", sa.Text(), nullable=True))
