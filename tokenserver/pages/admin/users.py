"""`/admin/console/users`: found, looked at; their roles, status, sessions, password and second factors."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from flask import Response
from werkzeug.exceptions import BadRequest

from tokenserver.pages.admin.api import DRY_RUN
from tokenserver.pages.admin.console import Fields, Pages, go, show
from tokenserver.pages.admin.effect import Sessions, sentences
from tokenserver.pages.admin.sign_in import HOME, Admin
from tokenserver.pages.forms import Forms
from tokenserver.web.language import marked, marked_plural, number, plural, translated

SHOWN: Final = 25
# Of the roles of a user, and of those that are suggested.
MOST_ROLES: Final = 100
PASSKEYS: Final = marked_plural("{count} passkey is removed.", "{count} passkeys are removed.")


PAGES: Final = Pages()


@PAGES.page("/users", needs="users:list")
def list_users(admin: Admin) -> Response:
    query = {name: Forms.query().get(name, "") for name in ("q", "status", "cursor")}
    page = admin.api.get("/users", limit=SHOWN, **query)
    return show(admin, "users/list.html", section="users", page=page, query=query)


@PAGES.page("/users/<uuid:user_id>", needs="users:read")
def show_user(admin: Admin, user_id: UUID) -> Response:
    path = f"/users/{user_id}"
    cursor = Forms.query().get("cursor", "")
    may_write = admin.may("users:write")
    return show(
        admin,
        "users/show.html",
        section="users",
        user=admin.api.get(path),
        sessions=admin.api.get(f"{path}/sessions", limit=SHOWN, cursor=cursor) if may_write else None,
        suggested=_suggested(admin),
        most_roles=MOST_ROLES,
    )


@PAGES.action("/users/<uuid:user_id>/roles", needs="roles:assign")
def change_roles(admin: Admin, fields: Fields, user_id: UUID) -> Response:
    seen = admin.api.ask("GET", f"/users/{user_id}")
    body = {"roles": _changed(seen.body["roles"], fields)}
    path = f"/users/{user_id}/roles"
    if "match" in fields:
        admin.api.ask("PUT", path, json=body, match=fields["match"])
        return go(f"/users/{user_id}", "saved")
    effect = admin.api.ask("PUT", path, query=DRY_RUN, json=body).body
    words = marked("Give {role}") if "add" in fields else marked("Take {role} away")
    what = translated(words).format(role=fields.get("add") or fields["remove"])
    return _preview(admin, seen.body, what, "roles", sentences(effect, Sessions.TOUCHED), seen.headers, fields)


@PAGES.action("/users/<uuid:user_id>/status", needs="users:write")
def change_status(admin: Admin, fields: Fields, user_id: UUID) -> Response:
    path, body = f"/users/{user_id}/status", {"status": fields.get("status", "")}
    if "match" in fields:
        admin.api.ask("PUT", path, json=body, match=fields["match"])
        return go(f"/users/{user_id}", "enabled" if body["status"] == "active" else "disabled")
    effect = admin.api.ask("PUT", path, query=DRY_RUN, json=body).body
    seen = admin.api.ask("GET", f"/users/{user_id}")
    what = marked("Enable the account") if body["status"] == "active" else marked("Disable the account")
    found = sentences(effect, Sessions.END)
    return _preview(admin, seen.body, translated(what), "status", found, seen.headers, fields)


@PAGES.action("/users/<uuid:user_id>/sessions", needs="users:write")
def end_sessions(admin: Admin, fields: Fields, user_id: UUID) -> Response:
    path = f"/users/{user_id}/sessions"
    if "session" in fields:
        admin.api.ask("DELETE", f"{path}/{_uuid(fields['session'])}")
    elif "match" in fields:
        admin.api.ask("DELETE", path)
    else:
        effect = admin.api.ask("DELETE", path, query=DRY_RUN).body
        seen = admin.api.ask("GET", f"/users/{user_id}")
        what, found = translated(marked("End all sessions")), sentences(effect, Sessions.END)
        return _preview(admin, seen.body, what, "sessions", found, seen.headers, fields)
    return go(f"/users/{user_id}", "ended")


@PAGES.action("/users/<uuid:user_id>/second-factors", needs="users:write")
def remove_factors(admin: Admin, fields: Fields, user_id: UUID) -> Response:
    if "match" in fields:
        admin.api.ask("DELETE", f"/users/{user_id}/second-factors")
        return go(f"/users/{user_id}", "factors-removed")
    effect = admin.api.ask("DELETE", f"/users/{user_id}/second-factors", query=DRY_RUN).body
    seen = admin.api.ask("GET", f"/users/{user_id}")
    what, found = translated(marked("Remove all second factors")), _removed(effect["second_factors"])
    return _preview(admin, seen.body, what, "second-factors", found, seen.headers, fields)


@PAGES.action("/users/<uuid:user_id>/password", needs="users:read")
def mail_password_link(admin: Admin, fields: Fields, user_id: UUID) -> Response:
    del fields
    email = admin.api.get(f"/users/{user_id}")["email"]
    admin.api.ask("POST", "/auth/password/forgot", json={"email": email})
    return go(f"/users/{user_id}", "mailed")


def _removed(factors: Mapping[str, int]) -> list[str]:
    found = [translated(marked("The authenticator app is removed."))] if factors["totp"] else []
    if count := factors["passkeys"]:
        found.append(plural(*PASSKEYS, count).format(count=number(count)))
    rest = marked("The password alone is enough to sign in from then on. Live sessions stay.")
    return [*found, translated(rest)] if found else [translated(marked("There is no second factor."))]


def _suggested(admin: Admin) -> list[str]:
    if not admin.may("roles:assign", "roles:read"):
        return []
    return [role["name"] for role in admin.api.get("/roles", limit=MOST_ROLES)["items"]]


def _changed(roles: list[str], fields: Fields) -> list[str]:
    if ("add" in fields) == ("remove" in fields):
        raise BadRequest
    return sorted({*roles, fields["add"]}) if "add" in fields else sorted({*roles} - {fields["remove"]})


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise BadRequest from None


def _preview(
    admin: Admin,
    user: Mapping[str, Any],
    what: str,
    action: str,
    found: list[str],
    headers: Mapping[str, str],
    fields: Fields,
) -> Response:
    """`headers`: with the version that was looked at, and is insisted on."""
    back = f"{HOME}/users/{user['id']}"
    kept = {name: fields[name] for name in ("add", "remove", "status") if name in fields}
    return show(
        admin,
        "preview.html",
        section="users",
        what=what,
        whom=user["username"],
        sentences=found,
        action=f"{back}/{action}",
        back=back,
        fields=kept | {"match": headers["ETag"]},
        is_danger="add" not in fields and fields.get("status") != "active",
    )
