"""`/admin/console/stats`: how rights are spread and how often they were used, drawn on the server."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from flask import Response

from tokenserver.pages.admin.charts import Bars, bars
from tokenserver.pages.admin.console import Pages, show
from tokenserver.pages.admin.sign_in import Admin
from tokenserver.pages.forms import Forms
from tokenserver.web.language import marked, translated

WINDOWS: Final = {
    "1h": marked("the last hour"),
    "24h": marked("24 hours"),
    "7d": marked("7 days"),
    "30d": marked("30 days"),
}
# Of each chart; the table below it has the same rows, and REST has all of them.
MOST: Final = 12


PAGES: Final = Pages()


@PAGES.page("/stats", needs="stats:read")
def show_stats(admin: Admin) -> Response:
    window = Forms.query().get("window", "24h")
    found = admin.api.get("/admin/stats", window=window)
    return show(
        admin,
        "stats/show.html",
        section="stats",
        found=found,
        window=window,
        windows=WINDOWS,
        charts=_charts(found),
        most=MOST,
    )


def _charts(found: Mapping[str, Any]) -> list[Bars]:
    nowhere = translated(marked("no endpoint"))
    return [
        bars(
            marked("Requests by permission"),
            (marked("allowed"), marked("denied")),
            _most([(each["permission"], each["allowed"], each["denied"]) for each in found["permissions"]]),
        ),
        bars(
            marked("Tokens by grant and client"),
            (marked("tokens"),),
            _most(
                [(f"{_short(each['grant_type'])} · {each['client_id']}", each["count"]) for each in found["tokens"]]
            ),
        ),
        bars(
            marked("Denials by endpoint"),
            (marked("denied"),),
            _most(
                [(f"{each['endpoint'] or nowhere} · {each['reason']}", each["count"]) for each in found["denials"]]
            ),
        ),
        bars(
            marked("Users by role"),
            (marked("users"),),
            _most([(each["role"], each["user_count"]) for each in found["roles"]]),
        ),
        bars(
            marked("Users by permission"),
            (marked("users"),),
            _most([(each["permission"], each["holder_count"]) for each in found["permissions"]]),
        ),
    ]


def _most(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The largest first; what never happened isn't drawn."""
    counted = [row for row in rows if sum(row[1:])]
    return sorted(counted, key=lambda row: (-sum(row[1:]), row[0]))[:MOST]


def _short(grant_type: str) -> str:
    return grant_type.rpartition(":")[2]
