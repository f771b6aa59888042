"""`/admin/console/explain`: why somebody may do something, or what is missing."""

from typing import Final

from flask import Response

from tokenserver.access.permissions import PERMISSIONS
from tokenserver.pages.admin.api import Refused
from tokenserver.pages.admin.console import Pages, show
from tokenserver.pages.admin.sign_in import Admin
from tokenserver.pages.forms import Forms

ASKED: Final = ("user", "permission", "resource")
UNANSWERABLE: Final = frozenset({404, 422})


PAGES: Final = Pages()


@PAGES.page("/explain", needs="roles:read")
def explain(admin: Admin) -> Response:
    given = Forms.query()
    query = {name: given.get(name, "") for name in ASKED}
    found, refused = None, None
    if query["user"] and query["permission"]:
        try:
            found = admin.api.get("/admin/explain", **query)
        except Refused as error:
            if error.status not in UNANSWERABLE:
                raise
            refused = error
    return show(
        admin,
        "explain/show.html",
        refused.status if refused else 200,
        section="explain",
        query=query,
        found=found,
        refused=refused,
        permissions=PERMISSIONS,
    )
