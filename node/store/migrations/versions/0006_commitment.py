"""What shows that a destination holds an object, and storage commitment in both directions."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    with op.batch_alter_table("deliveries") as batch:
        batch.add_column(sa.Column("sent_at", sa.Float(), nullable=True))
        batch.add_column(sa.Column("proof", sa.String(length=16), nullable=False, server_default=""))
        batch.add_column(sa.Column("proven_at", sa.Float(), nullable=True))
        batch.add_column(sa.Column("asked", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("resent", sa.Integer(), nullable=False, server_default="0"))
    # What was sent before had no other proof than its status, and nobody asks for more in hindsight.
    op.execute("UPDATE deliveries SET sent_at = updated_at, proof = 'status' WHERE state = 'sent'")
    op.create_table(
        "transactions",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("requested_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("transaction_uid", name=op.f("pk_transactions")),
    )
    op.create_table(
        "transaction_items",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["transaction_uid"],
            ["transactions.transaction_uid"],
            name=op.f("fk_transaction_items_transaction_uid"),
        ),
        sa.PrimaryKeyConstraint("transaction_uid", "sop_instance_uid", name=op.f("pk_transaction_items")),
    )
    op.create_index("ix_transaction_items_sop_instance_uid", "transaction_items", ["sop_instance_uid"])
    op.create_table(
        "promises",
        sa.Column("promise_id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("asked_sha256", sa.String(length=64), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("promise_id", name=op.f("pk_promises")),
        sa.UniqueConstraint("transaction_uid", "calling_ae", name=op.f("uq_promises_transaction_uid")),
    )
    op.create_index("ix_promises_state", "promises", ["state", "not_before"])
