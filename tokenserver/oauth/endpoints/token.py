"""RFC 6749 section 3.2."""

from flask import Response

from tokenserver.oauth.endpoints.request import Server, json_answer, read_form


def view(server: Server) -> Response:
    return json_answer(server.pipeline.token(read_form()))
