"""Densities by patient, for comparison with a later study."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "scans",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_sha256", sa.String(length=64), nullable=False),
        sa.Column("taken_on", sa.Date(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_instance_uid"], ["studies.study_instance_uid"], name=op.f("fk_scans_study_instance_uid")
        ),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_scans")),
    )
    op.create_index("ix_scans_patient_sha256", "scans", ["patient_sha256"], unique=False)
