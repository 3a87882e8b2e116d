"""A job is bound to what its first step was done with; it knows its source, and whether it is urgent.

What a job half-way was begun with is not known: it is bound to nobody's software and begins again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0011"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("software", sa.String(255), nullable=False, server_default=""))
        batch.add_column(sa.Column("configuration_sha256", sa.String(64), nullable=False, server_default=""))
        batch.add_column(sa.Column("begun_again", sa.Text(), nullable=True))
        batch.add_column(sa.Column("avoids", sa.String(255), nullable=False, server_default=""))
        batch.add_column(sa.Column("calling_ae", sa.String(16), nullable=False, server_default=""))
        batch.add_column(sa.Column("urgent", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute("UPDATE jobs SET software = 'an earlier version' WHERE step IN ('segment', 'score', 'report')")
