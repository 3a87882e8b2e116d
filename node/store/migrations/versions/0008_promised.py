"""Images that this node has promised to keep are marked: retention leaves them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    with op.batch_alter_table("instances") as batch:
        batch.add_column(sa.Column("promised_at", sa.Float(), nullable=True))
