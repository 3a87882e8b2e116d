"""Quarantine tells kinds apart; purged images leave a fingerprint; each generation says why it began."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    with op.batch_alter_table("instances") as batch:
        batch.add_column(sa.Column("purged_at", sa.Float(), nullable=True))
        batch.add_column(sa.Column("image_sha256", sa.String(length=64), nullable=True))
        batch.add_column(sa.Column("identity_sha256", sa.String(length=64), nullable=True))
    with op.batch_alter_table("quarantine") as batch:
        batch.add_column(
            sa.Column("kind", sa.String(length=24), nullable=False, server_default="other content")
        )
        batch.add_column(
            sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False, server_default="")
        )
    with op.batch_alter_table("reports") as batch:
        batch.add_column(sa.Column("predecessor_issued_at", sa.String(length=40), nullable=True))
    op.create_table(
        "generations",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=100), nullable=False),
        sa.Column("began_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_instance_uid"],
            ["studies.study_instance_uid"],
            name=op.f("fk_generations_study_instance_uid"),
        ),
        sa.PrimaryKeyConstraint("study_instance_uid", "generation", "reason", name=op.f("pk_generations")),
    )
