"""Errors on the REST side: RFC 9457 problem details, and the one place where any error becomes an answer.

Two other tongues exist, each spoken by who owns it and chosen by path in `register`: RFC 6749 section 5.2 under
/oauth/ (`oauth.errors`) and, in the WWW-Authenticate header, RFC 6750 (`verify.errors`).
"""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from flask import Flask, Response, json, request
from werkzeug.exceptions import HTTPException

from tokenserver import errors
from tokenserver.verify.errors import Refusal
from tokenserver.web.request_context import current

logger = logging.getLogger("tokenserver")

STATUS: Final[tuple[tuple[type[errors.TokenserverError], int], ...]] = (
    (errors.Unavailable, 503),
    (errors.TooManyRequests, 429),
    (errors.Invalid, 422),
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.PreconditionFailed, 412),
    (errors.Refused, 400),
)


class Failure(NamedTuple):
    """Any error, as each tongue needs it. `detail`: a fixed sentence. `private`: for the log alone."""

    status: int
    code: str
    detail: str
    headers: Mapping[str, str] = {}
    private: str = ""
    fields: tuple[errors.FieldError, ...] = ()


Renderer = Callable[[Failure, Exception], Response]


def failure_of(error: Exception) -> Failure:
    if isinstance(error, errors.TokenserverError):
        return _known(error)
    if isinstance(error, Refusal):
        return Failure(
            error.status,
            error.error or "authentication_required",
            error.description,
            error.headers(),
            error.private,
        )
    if isinstance(error, HTTPException) and error.code is not None and error.code >= 400:
        headers = {k: v for k, v in error.get_headers() if k in {"Allow", "Retry-After"}}
        code = HTTP_CODES.get(error.code) or phrase(error.code).lower().replace(" ", "_").replace("-", "_")
        detail = HTTP_DETAILS.get(error.code, HTTPStatus(error.code).description)
        return Failure(error.code, code, detail, headers)
    return Failure(500, "internal_error", errors.TokenserverError.public)


# Python 3.12 and earlier know them by older names.
PHRASES: Final = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
HTTP_CODES: Final = {400: "malformed_request", 413: "body_too_large"}
HTTP_DETAILS: Final = {
    400: "The request is malformed.",
    404: "There is nothing here.",
    405: "This method is not allowed here.",
    413: "The body is larger than 64 KiB.",
    415: "Send application/json.",
}


def phrase(status: int) -> str:
    """RFC 9110 section 15."""
    return PHRASES.get(status) or HTTPStatus(status).phrase


def _known(error: errors.TokenserverError) -> Failure:
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
    headers = {}
    if isinstance(error, errors.Unavailable | errors.TooManyRequests):
        headers["Retry-After"] = str(error.retry_after)
    if status == 401:
        # RFC 6750 section 3: at least one parameter follows the scheme
        suffix = ', error="invalid_token"' if error.code == "invalid_token" else ""
        headers["WWW-Authenticate"] = 'Bearer realm="api"' + suffix
    if status == 403:
        headers["WWW-Authenticate"] = 'Bearer realm="api", error="insufficient_scope"'
    if status == 500:
        return Failure(500, "internal_error", errors.TokenserverError.public)
    fields = tuple(error.errors) if isinstance(error, errors.Invalid) else ()
    return Failure(status, error.code, error.public, headers, error.private, fields)


def render(failure: Failure, _error: Exception) -> Response:
    """RFC 9457 section 3."""
    body: dict[str, Any] = {
        "type": f"urn:tokenserver:problem:{failure.code}",
        "title": phrase(failure.status),
        "status": failure.status,
        "detail": failure.detail,
        "instance": request.path,
        "code": failure.code,
        "request_id": current().request_id,
    }
    if failure.fields:
        body["errors"] = [field._asdict() for field in failure.fields]
    return Response(json.dumps(body), failure.status, dict(failure.headers), mimetype="application/problem+json")


def register(app: Flask, tongues: Mapping[str, Renderer]) -> None:
    """`tongues`: path prefix → who renders the errors below it; problem details everywhere else."""

    @app.errorhandler(Exception)
    def answer(error: Exception) -> Response:
        failure = current().failure = failure_of(error)
        if failure.status >= 500:
            unknown = failure.status == 500
            logger.log(
                logging.ERROR if unknown else logging.WARNING,
                "%s %s id=%s",
                failure.code,
                failure.private,
                current().request_id,
                exc_info=error if unknown else None,
            )
        return speak(tongues, failure, error)


def speak(tongues: Mapping[str, Renderer], failure: Failure, error: Exception) -> Response:
    """The answer in the tongue of the requested path."""
    tongue = next((tongue for prefix, tongue in tongues.items() if request.path.startswith(prefix)), render)
    return tongue(failure, error)
