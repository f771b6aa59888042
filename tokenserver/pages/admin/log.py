"""`/admin/console/log`: the events by filters, those that happen meanwhile, and how far the log is vouched for."""

from typing import Any, Final

from flask import Response

from tokenserver.audit.events import Event
from tokenserver.pages.admin.console import Pages, show
from tokenserver.pages.admin.sign_in import Admin
from tokenserver.pages.forms import Forms

SHOWN: Final = 50
FILTERS: Final = ("action", "outcome", "actor", "path", "request_id", "since", "until", "cursor")
OUTCOMES: Final = ("success", "denied", "failed")
# Every look at a page of the console is one; they would hide the rest.
READS: Final = Event.ACCESS_ALLOWED.value


PAGES: Final = Pages()


def events(admin: Admin, query: dict[str, str]) -> Any:
    asked: dict[str, str] = {name: query[name] for name in FILTERS if query[name]}
    if not query["reads"] and query["action"] != READS:
        asked["without"] = READS
    return admin.api.get("/admin/logs", limit=SHOWN, **asked)


def asked() -> dict[str, str]:
    given = Forms.query()
    return {name: given.get(name, "") for name in (*FILTERS, "reads")}


@PAGES.page("/log", needs="logs:read")
def show_log(admin: Admin) -> Response:
    query = asked()
    page, seal = events(admin, query), admin.api.get("/admin/logs/checkpoint")
    return show(
        admin,
        "log/list.html",
        section="log",
        is_live=True,
        page=page,
        query=query,
        seal=seal,
        actions=sorted(event.value for event in Event),
        outcomes=OUTCOMES,
    )


# What the script asks for every few seconds: a poll, since a stream would hold one of few threads.
@PAGES.part("/log/rows", needs="logs:read")
def show_rows(admin: Admin) -> Response:
    query = asked()
    return show(admin, "log/rows.html", page=events(admin, query), query=query)
