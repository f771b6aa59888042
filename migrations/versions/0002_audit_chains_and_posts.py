"""Chains and checkpoints of the audit log, usage counts, posts, keys of clients, names that are searched."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    for column in (
        sa.Column("method", sa.String(10)),
        sa.Column("path", sa.String(255)),
        sa.Column("chain", sa.Uuid()),
        sa.Column("position", sa.BigInteger()),
        sa.Column("hash", sa.LargeBinary(32)),
    ):
        op.add_column("audit_events", column)
    op.create_index("uq_audit_events_chain_position", "audit_events", ["chain", "position"], unique=True)
    op.create_index("ix_audit_events_event_at", "audit_events", ["event", "at"])
    op.create_index("ix_audit_events_actor_at", "audit_events", ["actor", "at"])
    op.create_index("ix_audit_events_request_id", "audit_events", ["request_id"])
    op.create_table(
        "audit_checkpoints",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("jws", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit_checkpoints"),
    )
    op.create_table(
        "stream_positions",
        sa.Column("stream", sa.String(40), nullable=False),
        sa.Column("position", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("stream", name="pk_stream_positions"),
    )
    op.create_table(
        "usage_counts",
        sa.Column("seconds", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("bucket", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("measure", sa.String(20), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("qualifier", sa.String(255), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seconds", "bucket", "measure", "subject", "qualifier", name="pk_usage_counts"),
    )
    op.create_table(
        "posts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name="fk_posts_author_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_posts"),
    )
    op.create_index("ix_posts_public_created_at_id", "posts", ["public", "created_at", "id"])
    op.create_index("ix_posts_author_id_created_at_id", "posts", ["author_id", "created_at", "id"])
    op.add_column("roles", sa.Column("name_key", sa.String(64)))
    op.create_index("uq_roles_name_key", "roles", ["name_key"], unique=True)
    op.add_column("users", sa.Column("name_key", sa.Text()))
    op.add_column("clients", sa.Column("jwks", sa.JSON()))
