"""`/admin/console`: what there is, for who is there."""

from typing import Final

from flask import Response

from tokenserver.pages.admin.console import Pages, show
from tokenserver.pages.admin.sign_in import Admin

PAGES: Final = Pages()


@PAGES.page("")
def home(admin: Admin) -> Response:
    return show(admin, "home.html")
