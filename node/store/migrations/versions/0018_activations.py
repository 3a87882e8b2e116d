"""Activations of models and what workers found of their features: files under the root become tables.

Tables and rows are made in one transaction, so that the files are taken over once and whole. They stay where
they are; `node.store.activations.mark_taken_over` says beside the record that it was taken over.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from alembic import context, op

from node.store.activations import lines_of_earlier_versions

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    activations = op.create_table(
        "activations",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("content", sa.Text(), nullable=False),
    )
    feature_standings = op.create_table(
        "feature_standings",
        sa.Column("host", sa.String(255), primary_key=True),
        sa.Column("drifted", sa.Integer(), nullable=False),
        sa.Column("checked", sa.Integer(), nullable=False),
        sa.Column("example", sa.Text(), nullable=False),
        sa.Column("tried_at", sa.Float(), nullable=False),
    )
    root: Path | None = context.config.attributes.get("root")
    if root is not None:
        lines = lines_of_earlier_versions(root)
        op.bulk_insert(
            activations, [{"number": number, "content": line} for number, line in enumerate(lines, start=1)]
        )
        op.bulk_insert(feature_standings, list(_standings(root)))


def _standings(root: Path) -> Iterator[dict[str, object]]:
    """One that cannot be read is left out: the next start of that machine's worker finds it anew."""
    for path in (root / "workers").glob("features-*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(path.read_text("utf-8"))
            yield {
                "host": path.stem.removeprefix("features-"),
                "drifted": int(known["drifted"]),
                "checked": int(known["checked"]),
                "example": str(known["example"]),
                "tried_at": datetime.fromisoformat(known["tried_at"]).timestamp(),
            }
