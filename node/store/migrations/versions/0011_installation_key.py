"""Pseudonyms are made with the key of the installation: a plain hash of a Patient ID is soon guessed.

What was kept are hashes, which HMAC is now applied to: no Patient ID is needed for that.
"""

import sqlalchemy as sa
from alembic import context, op

from node.store.installation import Pseudonyms

revision = "0011"
down_revision = "0014"

_AT_ONCE = 10_000  # rows


def upgrade() -> None:
    op.create_table(
        "installation",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_installation")),
    )
    op.drop_index("ix_scans_patient_sha256", "scans")
    for table, key, old, new in (
        ("scans", "study_instance_uid", "patient_sha256", "patient_hmac"),
        ("instances", "sop_instance_uid", "identity_sha256", "identity_hmac"),
    ):
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
        _make_pseudonyms(table, key, new)
    op.create_index("ix_scans_patient_hmac", "scans", ["patient_hmac"])


def _make_pseudonyms(table: str, key: str, column: str) -> None:
    pseudonyms, connection = Pseudonyms(context.config.attributes.get("key", b"")), op.get_bind()
    page = sa.text(
        f"SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL AND {key} > :last"
        f" ORDER BY {key} LIMIT {_AT_ONCE}"
    )
    change = sa.text(f"UPDATE {table} SET {column} = :value WHERE {key} = :key")
    last = ""
    while rows := connection.execute(page, {"last": last}).all():
        connection.execute(change, [{"key": uid, "value": pseudonyms.of(digest)} for uid, digest in rows])
        last = rows[-1][0]
