"""`/admin/console/keys`: the signing keys over time, and their rotation."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from flask import Response

from tokenserver.pages.admin.api import DRY_RUN
from tokenserver.pages.admin.charts import timeline
from tokenserver.pages.admin.console import Fields, Pages, go, show
from tokenserver.pages.admin.sign_in import HOME, Admin
from tokenserver.storage.sql import utc_now
from tokenserver.web.language import day, marked, translated

MOST: Final = 100
ORDER: Final = ("next", "active", "retired")
TIMES: Final = ("created_at", "published_at", "activated_at", "retired_at", "remove_after")


PAGES: Final = Pages()


@PAGES.page("/keys", needs="keys:read")
def list_keys(admin: Admin) -> Response:
    keys = sorted(map(_read, admin.api.get("/admin/keys", limit=MOST)["items"]), key=_place)
    algs = [_alg(alg, keys) for alg in sorted({key["alg"] for key in keys})]
    return show(admin, "keys/list.html", section="keys", algs=algs)


@PAGES.action("/keys/rotate", needs="keys:write")
def rotate_keys(admin: Admin, fields: Fields) -> Response:
    if "confirmed" in fields:
        admin.api.ask("POST", "/admin/keys/rotate")
        return go("/keys", "rotated")
    admin.api.ask("POST", "/admin/keys/rotate", query=DRY_RUN)
    found = [
        translated(marked("The next key of each algorithm signs from then on, and a new next one is published.")),
        translated(
            marked("The old key stays published until the last token that it signed has expired: no token fails.")
        ),
    ]
    return show(
        admin,
        "preview.html",
        section="keys",
        what=translated(marked("Rotate the signing keys")),
        whom=None,
        sentences=found,
        action=f"{HOME}/keys/rotate",
        back=f"{HOME}/keys",
        fields={"confirmed": "1"},
        is_danger=False,
    )


def _read(key: dict[str, Any]) -> dict[str, Any]:
    return key | {name: datetime.fromisoformat(key[name]) if key[name] else None for name in TIMES}


def _place(key: dict[str, Any]) -> tuple[int, float]:
    """Next before active before retired, the newest first."""
    return ORDER.index(key["state"]), -key["published_at"].timestamp()


def _alg(alg: str, keys: Sequence[dict[str, Any]]) -> dict[str, Any]:
    its = [key for key in keys if key["alg"] == alg]
    line = timeline(its, utc_now())
    return {"alg": alg, "keys": its, "timeline": line, "since": day(line.begin)}
