"""The REST endpoints, asked within the process as anybody asks them: whole requests, through the same door."""

from collections.abc import Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from json import dumps
from typing import Any, Final, NamedTuple, cast

from flask import Flask, request
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response

from tokenserver.web.language import current_language
from tokenserver.web.request_context import current

# Of a dry run's answer, as of a real one's.
DRY_RUN: Final = {"dry_run": "true"}


class Answer(NamedTuple):
    """`body`: the JSON of it, None where there is none."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass
class Refused(Exception):
    """An answer of 400 and above. `body`: problem details (RFC 9457), or an OAuth error (RFC 6749 section 5.2)."""

    answer: Answer

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def code(self) -> str:
        body = self.answer.body if isinstance(self.answer.body, dict) else {}
        return str(body.get("code") or body.get("error") or "internal_error")

    @property
    def detail(self) -> str:
        body = self.answer.body if isinstance(self.answer.body, dict) else {}
        return str(body.get("detail") or body.get("error_description") or "The server met an unexpected condition.")

    @property
    def fields(self) -> list[dict[str, str]]:
        """What is wrong with which member of the body."""
        body = self.answer.body if isinstance(self.answer.body, dict) else {}
        return cast("list[dict[str, str]]", body.get("errors", []))


@dataclass(frozen=True)
class Api:
    """`token`: the access token that goes with each request, if any."""

    app: Flask
    origin: str
    token: str | None = field(default=None, repr=False)

    def get(self, path: str, /, **query: object) -> Any:
        """The body. Raises Refused."""
        return self.ask("GET", path, query=query).body

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        json: object = None,
        form: Mapping[str, str] | None = None,
        match: str | None = None,
    ) -> Answer:
        """`match`: the version that a write may replace (RFC 9110 section 13.1.1). Raises Refused."""
        headers = {"X-Request-ID": current().request_id or "", "User-Agent": request.headers.get("User-Agent", "")}
        headers["Accept-Language"] = current_language()  # of a mail that comes of it
        headers |= {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= {"If-Match": match} if match else {}
        sent = {name: str(value) for name, value in (query or {}).items() if value not in {None, ""}}
        builder = EnvironBuilder(
            path=path,
            base_url=self.origin,
            query_string=sent or None,
            method=method,
            headers=list(headers.items()),
            data=form if json is None else dumps(json),
            content_type=None if json is None else "application/json",
            environ_base={"REMOTE_ADDR": request.remote_addr or ""},
        )
        try:
            # A context of its own: what this request knows of itself stays as it is.
            response = copy_context().run(
                Response.from_app, self.app.wsgi_app, builder.get_environ(), buffered=True
            )
        finally:
            builder.close()
        answer = Answer(response.status_code, dict(response.headers), _body(response))
        if answer.status >= 400:
            raise Refused(answer)
        return answer


def _body(response: Response) -> Any:
    return response.get_json(silent=True) if response.is_json else None
