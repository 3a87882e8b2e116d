"""What is asked every minute, or for every look at the page, is found without reading every image's row."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_PARTIAL = {
    "ix_instances_kept": (["study_instance_uid", "received_at"], "purged_at IS NULL"),
    "ix_instances_promised": (["study_instance_uid"], "promised_at IS NOT NULL"),
    "ix_instances_unswept": (["path"], "purged_at IS NOT NULL AND path <> ''"),
}


def upgrade() -> None:
    for name, (columns, where) in _PARTIAL.items():
        condition = sa.text(where)
        op.create_index(name, "instances", columns, sqlite_where=condition, postgresql_where=condition)
    op.create_index("ix_studies_created_at", "studies", ["created_at"])
