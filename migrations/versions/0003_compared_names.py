"""The compared forms of names that were there before."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute(sa.text("UPDATE roles SET name_key = lower(name) WHERE name_key IS NULL"))
    op.execute(sa.text("UPDATE users SET name_key = lower(name) WHERE name IS NOT NULL AND name_key IS NULL"))
