"""What calibration phantoms read on each scanner."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "phantom_readings",
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("device_serial", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("kvp", sa.Float(), nullable=False),
        sa.Column("kernel", sa.String(length=64), nullable=False),
        sa.Column("phantom", sa.String(length=64), nullable=False),
        sa.Column("phantom_serial", sa.String(length=64), nullable=False),
        sa.Column("taken_on", sa.Date(), nullable=False),
        sa.Column("slope", sa.Float(), nullable=False),
        sa.Column("intercept", sa.Float(), nullable=False),
        sa.Column("water_hu", sa.Float(), nullable=False),
        sa.Column("r2", sa.Float(), nullable=True),
        sa.Column("tilt_degrees", sa.Float(), nullable=True),
        sa.Column("kept_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_instance_uid"],
            ["studies.study_instance_uid"],
            name=op.f("fk_phantom_readings_study_instance_uid"),
        ),
        sa.PrimaryKeyConstraint("series_instance_uid", name=op.f("pk_phantom_readings")),
    )
    op.create_index("ix_phantom_readings_device_serial", "phantom_readings", ["device_serial"], unique=False)
