"""`/admin/console/clients`: registered by kind, looked at, changed; secrets are shown once."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from flask import Response
from werkzeug.exceptions import BadRequest

from tokenserver.pages.admin.api import DRY_RUN, Refused
from tokenserver.pages.admin.console import Fields, Pages, go, show
from tokenserver.pages.admin.effect import Sessions, sentences
from tokenserver.pages.admin.first_token import steps
from tokenserver.pages.admin.kinds import KINDS
from tokenserver.pages.admin.sign_in import HOME, Admin
from tokenserver.pages.forms import Forms
from tokenserver.web.language import marked, translated

SHOWN: Final = 25
# Members of an answer that can't be sent back.
READ_ONLY: Final = frozenset({"client_id", "client_id_issued_at", "created_at", "updated_at"})


PAGES: Final = Pages()


@PAGES.page("/clients", needs="clients:read")
def list_clients(admin: Admin) -> Response:
    query = {name: Forms.query().get(name, "") for name in ("q", "cursor")}
    page = admin.api.get("/clients", limit=SHOWN, **query)
    return show(admin, "clients/list.html", section="clients", page=page, query=query)


@PAGES.page("/new-client", needs="clients:write")
def new_client(admin: Admin) -> Response:
    name = Forms.query().get("kind", "")
    if name not in KINDS:
        return show(admin, "clients/kinds.html", section="clients", kinds=KINDS)
    return _form(admin, name, {"scope": KINDS[name].scope})


@PAGES.action("/clients", needs="clients:write")
def create_client(admin: Admin, fields: Fields) -> Response:
    name = fields.get("kind", "")
    if name not in KINDS:
        raise BadRequest
    try:
        created = admin.api.ask("POST", "/clients", json=KINDS[name].metadata | _metadata(fields)).body
    except Refused as refused:
        if refused.status != 422:
            raise
        return _form(admin, name, fields, refused)
    return _with_secret(admin, created, created.get("client_secret"), 201)


@PAGES.page("/clients/<client_id>", needs="clients:read")
def show_client(admin: Admin, client_id: str) -> Response:
    client = admin.api.get(_path(client_id))
    return show(
        admin, "clients/show.html", section="clients", client=client, steps=steps(client, None, admin.api.origin)
    )


@PAGES.action("/clients/<client_id>", needs="clients:write")
def change_client(admin: Admin, fields: Fields, client_id: str) -> Response:
    seen = admin.api.get(_path(client_id))
    body = {name: value for name, value in seen.items() if name not in READ_ONLY} | _metadata(fields)
    admin.api.ask("PUT", _path(client_id), json=body, match=fields.get("match"))
    return go(_path(client_id), "saved")


@PAGES.page("/clients/<client_id>/change", needs="clients:write")
def edit_client(admin: Admin, client_id: str) -> Response:
    seen = admin.api.ask("GET", _path(client_id))
    return show(admin, "clients/change.html", section="clients", client=seen.body, match=seen.headers["ETag"])


@PAGES.action("/clients/<client_id>/secret", needs="clients:write")
def rotate_secret(admin: Admin, fields: Fields, client_id: str) -> Response:
    if "match" in fields:
        answer = admin.api.ask("POST", f"{_path(client_id)}/secret", match=fields["match"]).body
        return _with_secret(admin, admin.api.get(_path(client_id)), answer["client_secret"])
    admin.api.ask("POST", f"{_path(client_id)}/secret", query=DRY_RUN)
    found = [translated(marked("The old secret fails from the next request on. Sessions and tokens stay."))]
    return _preview(admin, client_id, translated(marked("Make a new secret")), "secret", found)


@PAGES.action("/clients/<client_id>/delete", needs="clients:write")
def delete_client(admin: Admin, fields: Fields, client_id: str) -> Response:
    if "match" in fields:
        admin.api.ask("DELETE", _path(client_id), match=fields["match"])
        return go("/clients", "deleted")
    effect = admin.api.ask("DELETE", _path(client_id), query=DRY_RUN).body
    found = sentences(effect, Sessions.END) or [translated(marked("No live session ends."))]
    return _preview(admin, client_id, translated(marked("Delete the client")), "delete", found)


def _path(client_id: str) -> str:
    return f"/clients/{quote(client_id, safe='')}"


def _form(admin: Admin, kind: str, values: Mapping[str, str], refused: Refused | None = None) -> Response:
    return show(
        admin,
        "clients/new.html",
        422 if refused else 200,
        section="clients",
        name=kind,
        kind=KINDS[kind],
        values=values,
        refused=refused,
    )


def _metadata(fields: Fields) -> dict[str, Any]:
    return {
        "client_name": fields.get("client_name", ""),
        "redirect_uris": fields.get("redirect_uris", "").split(),
        "scope": " ".join(fields.get("scope", "").split()),
    }


def _with_secret(admin: Admin, client: Mapping[str, Any], secret: str | None, status: int = 200) -> Response:
    return show(
        admin,
        "clients/created.html",
        status,
        section="clients",
        client=client,
        secret=secret,
        steps=steps(client, secret, admin.api.origin),
    )


def _preview(admin: Admin, client_id: str, what: str, action: str, found: list[str]) -> Response:
    seen = admin.api.ask("GET", _path(client_id))
    back = f"{HOME}{_path(client_id)}"
    return show(
        admin,
        "preview.html",
        section="clients",
        what=what,
        whom=seen.body["client_name"] or client_id,
        sentences=found,
        action=f"{back}/{action}",
        back=back,
        fields={"match": seen.headers["ETag"]},
        is_danger=True,
    )
