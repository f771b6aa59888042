"""What OpenID Connect needs: claims of people, metadata of clients, browser sessions, codes, consents, devices."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    for table, column in (
        ("users", sa.Column("claims", sa.JSON())),
        ("users", sa.Column("email_verified", sa.Boolean())),
        ("users", sa.Column("phone_number_verified", sa.Boolean())),
        ("clients", sa.Column("client_secret_sealed", sa.LargeBinary())),
        ("clients", sa.Column("metadata", sa.JSON())),
        ("clients", sa.Column("registration_access_token_digest", sa.LargeBinary(32))),
        ("sessions", sa.Column("cookie_digest", sa.LargeBinary(32))),
        ("sessions", sa.Column("used_at", TIME)),
        ("refresh_families", sa.Column("authenticated_at", TIME)),
        ("refresh_families", sa.Column("amr", sa.JSON())),
        ("refresh_families", sa.Column("claims", sa.JSON())),
        ("server_state", sa.Column("pairwise_key", sa.LargeBinary(32))),
    ):
        op.add_column(table, column)
    op.create_index("uq_sessions_cookie_digest", "sessions", ["cookie_digest"], unique=True)
    op.create_table(
        "initial_access_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("note", sa.String(255), nullable=False),
        sa.Column("created_by", sa.String(255), nullable=False),
        sa.Column("uses_left", sa.Integer()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_initial_access_tokens"),
        sa.UniqueConstraint("digest", name="uq_initial_access_tokens_digest"),
    )
    op.create_index("ix_initial_access_tokens_expires_at", "initial_access_tokens", ["expires_at"])
    op.create_table(
        "authorization_codes",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("family_id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.String(255), nullable=False),
        sa.Column("redirect_uri", sa.Text()),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("audience", sa.JSON(), nullable=False),
        sa.Column("claims", sa.JSON()),
        sa.Column("nonce", sa.Text()),
        sa.Column("code_challenge", sa.String(43)),
        sa.Column("authenticated_at", TIME, nullable=False),
        sa.Column("amr", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("used_at", TIME),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_authorization_codes_session_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.client_id"], name="fk_authorization_codes_client_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_authorization_codes"),
    )
    for name in ("family_id", "session_id", "client_id", "expires_at"):
        op.create_index(f"ix_authorization_codes_{name}", "authorization_codes", [name])
    op.create_table(
        "session_clients",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.String(255), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_session_clients_session_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.client_id"], name="fk_session_clients_client_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", "client_id", name="pk_session_clients"),
    )
    op.create_index("ix_session_clients_client_id", "session_clients", ["client_id"])
    op.create_table(
        "logout_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.String(255), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.client_id"], name="fk_logout_deliveries_client_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_logout_deliveries"),
    )
    op.create_index("ix_logout_deliveries_client_id", "logout_deliveries", ["client_id"])
    op.create_index("ix_logout_deliveries_due_at", "logout_deliveries", ["due_at"])
    op.create_table(
        "consents",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.String(255), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("claims", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_consents_user_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.client_id"], name="fk_consents_client_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "client_id", name="pk_consents"),
    )
    op.create_index("ix_consents_client_id", "consents", ["client_id"])
    op.create_table(
        "device_codes",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("user_code", sa.String(16), nullable=False),
        sa.Column("client_id", sa.String(255), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("audience", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("interval", sa.Integer(), nullable=False),
        sa.Column("polled_at", TIME),
        sa.Column("family_id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid()),
        sa.Column("user_id", sa.Uuid()),
        sa.Column("authenticated_at", TIME),
        sa.Column("amr", sa.JSON()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.client_id"], name="fk_device_codes_client_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_device_codes"),
        sa.UniqueConstraint("user_code", name="uq_device_codes_user_code"),
    )
    for name in ("client_id", "expires_at"):
        op.create_index(f"ix_device_codes_{name}", "device_codes", [name])
    op.create_table(
        "used_assertions",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_used_assertions"),
    )
    op.create_index("ix_used_assertions_expires_at", "used_assertions", ["expires_at"])
