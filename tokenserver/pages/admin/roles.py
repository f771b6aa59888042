"""`/admin/console/roles`: the matrix of roles and permissions, and what a change would do before it is saved."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from flask import Response

from tokenserver.pages.admin.api import DRY_RUN, Refused
from tokenserver.pages.admin.console import Fields, Pages, go, show
from tokenserver.pages.admin.effect import Sessions, sentences
from tokenserver.pages.admin.sign_in import HOME, Admin
from tokenserver.pages.forms import Forms
from tokenserver.web.language import marked, translated

SHOWN: Final = 20
PAGE: Final = 100
# Fields of a form: a box for each role and permission shown, and for each role what it was.
MOST_FIELDS: Final = 3000
# No role's name holds it, and no permission's.
BETWEEN: Final = "/"


@dataclass(frozen=True)
class Change:
    """Of a role. `refused`: why it can't be; `sentences`: what it would do. `match`: the version looked at."""

    role: str
    gains: tuple[str, ...]
    loses: tuple[str, ...]
    match: str = ""
    sentences: tuple[str, ...] = ()
    refused: Refused | None = None


PAGES: Final = Pages()


@PAGES.page("/roles", needs="roles:read")
def matrix(admin: Admin) -> Response:
    query = {name: Forms.query().get(name, "") for name in ("q", "permission", "cursor")}
    page = admin.api.get("/roles", limit=SHOWN, q=query["q"], cursor=query["cursor"])
    permissions = [each for each in _permissions(admin) if query["permission"].lower() in each["name"]]
    return show(admin, "roles/matrix.html", section="roles", page=page, permissions=permissions, query=query)


@PAGES.page("/roles/<role>", needs="roles:read")
def show_role(admin: Admin, role: str) -> Response:
    found = admin.api.get(_path(role))
    return show(admin, "roles/show.html", section="roles", role=found, permissions=list(_permissions(admin)))


@PAGES.action("/roles", needs="roles:write")
def create_role(admin: Admin, fields: Fields) -> Response:
    body = {"name": fields.get("name", ""), "description": fields.get("description", "")}
    created = admin.api.ask("POST", "/roles", json=body).body
    return go(f"/roles/{quote(created['name'])}", "created")


@PAGES.action("/matrix/preview", needs="roles:write", most=MOST_FIELDS)
def preview_matrix(admin: Admin, fields: Fields) -> Response:
    changes = [_rehearsed(admin, change) for change in _wanted(fields)]
    return show(admin, "roles/preview.html", section="roles", changes=changes)


@PAGES.action("/matrix/save", needs="roles:write", most=MOST_FIELDS)
def save_matrix(admin: Admin, fields: Fields) -> Response:
    changes = [_saved(admin, change) for change in _confirmed(fields)]
    if not any(change.refused for change in changes):
        return go("/roles", "saved")
    return show(admin, "roles/saved.html", 409, section="roles", changes=changes)


@PAGES.action("/roles/<role>/delete", needs="roles:write")
def delete_role(admin: Admin, fields: Fields, role: str) -> Response:
    seen = admin.api.ask("GET", _path(role))
    if "match" in fields:
        admin.api.ask("DELETE", _path(role), match=fields["match"])
        return go("/roles", "deleted")
    admin.api.ask("DELETE", _path(role), query=DRY_RUN)
    back = f"{HOME}{_path(role)}"
    return show(
        admin,
        "preview.html",
        section="roles",
        what=translated(marked("Delete the role")),
        whom=seen.body["name"],
        sentences=[translated(marked("Nobody holds it."))],
        action=f"{back}/delete",
        back=back,
        fields={"match": seen.headers["ETag"]},
        is_danger=True,
    )


def _path(role: str) -> str:
    return f"/roles/{quote(role, safe='')}"


def _permissions(admin: Admin) -> Iterator[dict[str, Any]]:
    cursor: str | None = ""
    while cursor is not None:
        page = admin.api.get("/permissions", limit=PAGE, cursor=cursor)
        yield from page["items"]
        cursor = page["next_cursor"]


def _wanted(fields: Fields) -> Iterator[Change]:
    """The roles whose boxes differ from what they were. `was/<role>`: the permissions that were ticked."""
    ticked: dict[str, set[str]] = {}
    for name in fields:
        role, _, permission = name.partition(BETWEEN)
        ticked.setdefault(role, set()).add(permission)
    for role in sorted(ticked.pop("was", set())):
        before, after = set(fields[f"was{BETWEEN}{role}"].split()[1:]), ticked.get(f"r:{role}", set())
        if before != after:
            yield Change(role, tuple(sorted(after - before)), tuple(sorted(before - after)))


def _confirmed(fields: Fields) -> Iterator[Change]:
    for name, match in fields.items():
        kind, _, role = name.partition(BETWEEN)
        if kind == "match":
            gains, loses = (fields.get(f"{each}{BETWEEN}{role}", "").split() for each in ("gain", "lose"))
            yield Change(role, tuple(gains), tuple(loses), match)


def _rehearsed(admin: Admin, change: Change) -> Change:
    try:
        seen = admin.api.ask("GET", _path(change.role))
        effect = _put(admin, change, seen.body["permissions"], query=DRY_RUN).body
    except Refused as refused:
        return Change(change.role, change.gains, change.loses, refused=refused)
    found = sentences(effect, Sessions.TOUCHED) or [translated(marked("Nobody gains or loses anything."))]
    return Change(change.role, change.gains, change.loses, seen.headers["ETag"], tuple(found))


def _saved(admin: Admin, change: Change) -> Change:
    try:
        held = admin.api.get(_path(change.role))["permissions"]
        _put(admin, change, held, match=change.match)
    except Refused as refused:
        return Change(change.role, change.gains, change.loses, refused=refused)
    return change


def _put(admin: Admin, change: Change, held: list[str], **options: Any) -> Any:
    """What isn't shown stays as it is."""
    body = {"permissions": sorted({*held} - {*change.loses} | {*change.gains})}
    return admin.api.ask("PUT", f"{_path(change.role)}/permissions", json=body, **options)
