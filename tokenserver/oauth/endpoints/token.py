"""RFC 6749 section 3.2."""

from typing import Any

from flask import Response

from tokenserver.oauth.endpoints.request import Server, json_answer, read_form
from tokenserver.oauth.grants.request import TokenRequest


def view(server: Server) -> Response:
    return json_answer(answer(server, read_form()))


def answer(server: Server, form: TokenRequest) -> dict[str, Any]:
    return server.pipeline.token(form)
