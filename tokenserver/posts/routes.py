"""`/posts`: public and private posts, as any resource server would serve its own."""

from datetime import datetime
from functools import cache
from typing import Any, Final
from uuid import UUID

from flask import Blueprint
from sqlalchemy import Integer, Select, bindparam, select, tuple_, union
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.errors import NotFound
from tokenserver.identity.models import User
from tokenserver.identity.people import People
from tokenserver.posts.models import Post
from tokenserver.posts.schemas import NewPostSchema, PostPageSchema, PostSchema
from tokenserver.storage.sql import Database, Transaction, utc_now
from tokenserver.verify.errors import InvalidToken
from tokenserver.verify.flask import find_claims, optional, requires
from tokenserver.web.holder import current_holder, current_user_id, demand
from tokenserver.web.pagination import PageQuerySchema, Pages
from tokenserver.web.wire import gives, queries, refuses, takes

CREATE: Final = "posts:create"
DELETE_ANY: Final = "posts:delete:any"


def blueprint(*, database: Database, people: People, pages: Pages) -> Blueprint:
    routes = Blueprint("posts", __name__, url_prefix="/posts")

    @routes.get("")
    @optional()
    @queries(PageQuerySchema)
    @gives(PostPageSchema)
    def list_posts(query: dict[str, Any]) -> dict[str, Any]:
        """List the public posts and one's own, newest first."""
        viewer = _viewer()
        listing = f"posts {viewer}"
        limit, position = query["limit"], pages.position(listing, query)
        values: dict[str, Any] = {"viewer": viewer, "count": limit + 1}
        if position:
            values |= {"at": datetime.fromisoformat(position[0]), "id": UUID(position[1])}
        seen = _seen_by(user=viewer is not None, further=position is not None)
        found = database.read(lambda tx: tx.execute(seen, values).all())
        page = pages.page(listing, found, limit, lambda row: [row[0].created_at.isoformat(), str(row[0].id)])
        page["items"] = [_post_body(post, username) for post, username in page["items"]]
        return page

    @routes.post("")
    @requires(CREATE)
    @takes(NewPostSchema)
    @gives(PostSchema, 201)
    @refuses((403, "user_required"))
    def create_post(body: dict[str, Any]) -> dict[str, Any]:
        """Write a post."""
        author_id = current_user_id()
        author = people.find(author_id)
        if author is None:
            raise InvalidToken("its user is gone")
        post = database.write(lambda tx: _create(tx, author_id, body))
        return _post_body(post, author.username)

    @routes.get("/<uuid:post_id>")
    @optional()
    @gives(PostSchema)
    @refuses((404, "post_not_found"))
    def get_post(post_id: UUID) -> dict[str, Any]:
        """Read a post. Somebody else's private one is not found, whoever asks."""
        query = select(Post, User.username).join(User, User.id == Post.author_id).where(Post.id == post_id)
        row = database.read(lambda tx: tx.execute(query).one_or_none())
        if row is None:
            raise _not_found()
        post, username = row
        if not post.public and post.author_id != _viewer():
            raise _not_found()
        return _post_body(post, username)

    @routes.delete("/<uuid:post_id>")
    @requires()
    @gives(None, 204)
    @refuses((403, "permission_denied"), (404, "post_not_found"))
    def delete_post(post_id: UUID) -> None:
        """Delete one's own post, or with `posts:delete:any` anybody's."""
        post = database.read(lambda tx: tx.get(Post, post_id))
        if post is None:
            raise _not_found()
        # What is decided here holds below: a post changes neither its author nor who may see it.
        holder = current_holder()
        if post.author_id != holder.user_id:
            if not post.public and not holder.may(DELETE_ANY):
                raise _not_found()
            demand(DELETE_ANY)
        database.write(lambda tx: _delete(tx, post_id))

    return routes


def _viewer() -> UUID | None:
    """Whose private posts are shown: None for guests, and for clients, which write none."""
    return None if find_claims() is None else current_holder().user_id


def _create(tx: Transaction, author_id: UUID, body: dict[str, Any]) -> Post:
    post = Post(author_id=author_id, created_at=utc_now(), **body)
    tx.add(post)
    try:
        tx.flush()
    except IntegrityError:
        # The author was removed since the token was looked at; this is what the next request will hear.
        raise InvalidToken("its user is gone") from None
    record(tx, Event.POST_CREATED, target=post.id, public=post.public)
    return post


def _delete(tx: Transaction, post_id: UUID) -> None:
    # Of two at once the second waits here, and finds nothing.
    post = tx.get(Post, post_id, with_for_update=True)
    if post is None:
        raise _not_found()
    tx.delete(post)
    record(tx, Event.POST_DELETED, target=post_id, author=str(post.author_id), public=post.public)


@cache  # composing it takes as long as all the rest of the request
def _seen_by(*, user: bool, further: bool) -> Select[tuple[Post, str]]:
    """The newest `count` posts that are public, or by `viewer` where a user asks; `further`: before `at` and `id`.

    Public or one's own, in one query with OR, would be a scan of all posts. Here each of the two is a walk along
    its index, `count` posts long; a post that is both comes out of their union once."""
    count = bindparam("count", type_=Integer)
    newest = []
    for member in [Post.public, Post.author_id == bindparam("viewer")] if user else [Post.public]:
        query = select(Post).where(member)
        if further:
            position = bindparam("at", type_=Post.created_at.type), bindparam("id", type_=Post.id.type)
            query = query.where(tuple_(Post.created_at, Post.id) < tuple_(*position))
        query = query.order_by(Post.created_at.desc(), Post.id.desc()).limit(count)
        newest.append(select(query.subquery()))
    post = aliased(Post, union(*newest).subquery())
    return (
        select(post, User.username)
        .join(User, User.id == post.author_id)
        .order_by(post.created_at.desc(), post.id.desc())
        .limit(count)
    )


def _post_body(post: Post, username: str) -> dict[str, Any]:
    return {
        "id": post.id,
        "title": post.title,
        "body": post.body,
        "public": post.public,
        "author": {"id": post.author_id, "username": username},
        "created_at": post.created_at,
    }


def _not_found() -> NotFound:
    return NotFound("There is no such post.", code="post_not_found")
