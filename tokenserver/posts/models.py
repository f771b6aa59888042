from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text, select
from sqlalchemy.orm import Mapped, mapped_column

from tokenserver.storage.sql import Base, Transaction, new_id


class Post(Base):
    __tablename__ = "posts"
    __table_args__ = (
        Index("ix_posts_public_created_at_id", "public", "created_at", "id"),
        Index("ix_posts_author_id_created_at_id", "author_id", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    author_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(Text)
    public: Mapped[bool]
    created_at: Mapped[datetime]


def author_of(tx: Transaction, post_id: UUID) -> UUID | None:
    """Who owns a post, for explanations of what may be done with it."""
    return tx.scalar(select(Post.author_id).where(Post.id == post_id))
