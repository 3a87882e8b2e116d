"""Studies are looked at in pages, and open associations are found at once."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.drop_index("ix_studies_state", "studies")
    op.create_index("ix_studies_state", "studies", ["state", "created_at", "study_instance_uid"])
    still_open = sa.text("closed_at IS NULL")
    op.create_index(
        "ix_associations_open",
        "associations",
        ["association_id"],
        sqlite_where=still_open,
        postgresql_where=still_open,
    )
