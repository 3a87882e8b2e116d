"""A report may amend one that only an archive knew, in whichever SR class that is there."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("reports", sa.Column("predecessor_class_uid", sa.String(length=64), nullable=True))
