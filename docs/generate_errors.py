"""The text of docs/errors.md, for `make docs-generated`: every code that the sources can answer, and what to do about it.

Codes, statuses and sentences come from the sources and from the description of the API. What to do is told below: a
code that is in one and not in the other ends the run.
"""

import ast
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final

from api_description import operations

from tokenserver import errors
from tokenserver.identity.login import Refusal as SignInRefusal
from tokenserver.oauth import errors as oauth
from tokenserver.verify import errors as verify
from tokenserver.web.problems import HTTP_CODES, HTTP_DETAILS, STATUS

SOURCES: Final = Path(__file__).resolve().parents[1] / "tokenserver"
# These have no code of REST: what operators see on the command line, and the two other tongues.
ELSEWHERE: Final = ("cli/", "oauth/errors.py", "verify/")
# Bases of the tree: what is raised names a code of its own.
BASES: Final = {errors.ConfigurationError, errors.Refused, errors.Forbidden, errors.Conflict}
# Where the sentence is made of something, or stands in a table.
MEANINGS: Final = {
    "invalid_otp": "The second factor is wrong.",
    "invalid_passkey": "The passkey was not accepted.",
    "next_key_too_young": "Verifiers may not know the next key yet.",
    "second_factor_required": "A second factor is required: send otp too.",
    "unknown_permission": "There is no such permission.",
    "unknown_role": "There is no such role.",
}

REST: Final = {
    "account_disabled": "Ask an admin. Told only after the right password.",
    "authentication_required": "Send `Authorization: Bearer …` with an access token.",
    "body_too_large": "Send less.",
    "builtin_client": "Leave the built-in client as it is; register another one.",
    "builtin_role": "Change its permissions instead, or take it from its users.",
    "client_exists": "Choose another `client_id`, or leave it to the server.",
    "client_not_found": "Look the id up by `GET /clients`.",
    "clock_wrong": "Repeat the request, at another node too. Operators: [the clock](runbooks.md#the-clock-jumped).",
    "consent_not_found": "Nothing to do: there is none to withdraw.",
    "csrf_failed": "Reload the page and send the form again. Browsers must accept the cookies of this host.",
    "device_not_found": "Type the code that the device shows now; codes expire after ten minutes.",
    "email_taken": "Sign in, or use another address.",
    "exceeds_own_permissions": "Somebody who holds the permission has to do it, with a token whose scope covers it.",
    "insufficient_scope": "Get a token with the scope that `WWW-Authenticate` names.",
    "insufficient_user_authentication": "Send the user to the authorization endpoint with the `acr_values` and "
    "`max_age` that `WWW-Authenticate` names ([step-up](second-factors.md#step-up)), or send `current_password` and "
    "`otp` where the route takes them.",
    "interaction_not_found": "Go back to the application and begin again.",
    "internal_error": "Repeat it once. Then report it with the `request_id`: it is a fault of the server.",
    "invalid_credentials": "Ask for the password again. The answer is the same for an unknown user and a wrong "
    "password.",
    "invalid_otp": "Ask for the next code of the app, or a recovery code that wasn't used.",
    "invalid_passkey": "Begin again: a challenge is good once, for five minutes.",
    "invalid_refresh_token": "Sign in again. Don't repeat it with the same token.",
    "invalid_request": "Send the access token once, in the header `Authorization`, and nowhere else.",
    "invalid_token": "Refresh, and repeat the request once. If it fails again: sign in.",
    "invitation_not_found": "Look it up by `tokenserver client invitations`.",
    "last_admin": "Give somebody else who is active the permissions `roles:write` and `roles:assign` first.",
    "link_not_found": "Ask for a new link: each is good once, and for a limited time.",
    "mail_not_configured": "Ask an admin. Operators: `TOKENSERVER_SMTP_URL`.",
    "malformed_request": "Mend the request: it is no JSON, or no HTTP as it should be.",
    "method_not_allowed": "The header `Allow` names the methods.",
    "metrics_token_required": "Operators: send the token of [`TOKENSERVER_METRICS_TOKEN`](metrics.md#who-may-read-them).",
    "next_key_too_young": "Wait until every verifier has seen the next key; the sentence says how long. In an "
    "emergency: `tokenserver keys rotate --emergency`.",
    "no_next_key": "Run `tokenserver init`.",
    "no_second_factor": "Add an app or a passkey first.",
    "no_such_key": "Name an algorithm that `tokenserver keys list` shows.",
    "not_found": "Check path and id. What somebody may not see is not found either.",
    "overloaded": "Repeat it after `Retry-After`.",
    "passkey_exists": "Nothing to do: it is registered already.",
    "passkey_not_found": "Read `GET /users/me/second-factors` again.",
    "passkeys_unavailable": "Give the server a name and https ([passkeys](second-factors.md#for-users)).",
    "password_check_unavailable": "Repeat it after `Retry-After`: the list of breached passwords doesn't answer.",
    "permission_denied": "An admin gives a role with the permission. `GET /admin/explain` tells which one is nearest.",
    "post_not_found": "It is gone, or somebody else's private one.",
    "precondition_failed": "Read the resource again, and send its new `ETag` in `If-Match`.",
    "public_client": "Register a confidential client where a secret is wanted.",
    "reauthentication_required": "Ask the user for the password, and send it as `current_password`.",
    "registration_closed": "Ask an admin for an account.",
    "resource_not_found": "Check the path in `resource`.",
    "role_exists": "Choose another name; upper and lower case don't count.",
    "role_in_use": "Take the role from its users first.",
    "role_not_found": "Look it up by `GET /roles`.",
    "second_factor_required": "Ask for a code of the authenticator app or a recovery code, and send the same request "
    "with it as `otp`.",
    "session_not_found": "Nothing to do: it has ended, or isn't yours.",
    "store_unavailable": "Repeat it after `Retry-After`. A refresh may be repeated with the same token "
    "([what a client should do](refresh-tokens.md#what-a-client-should-do)). Operators: "
    "[Redis](runbooks.md#redis-is-gone), [SQL](runbooks.md#sql-is-gone).",
    "temporarily_unavailable": "Repeat it after `Retry-After`.",
    "too_many_passkeys": "Remove one.",
    "too_many_requests": "Wait for `Retry-After` seconds ([limits](limits.md)).",
    "totp_enrolled": "Remove the app first.",
    "totp_not_enrolled": "Begin with `POST /users/me/second-factors/totp`; the first code has to come within 15 minutes.",
    "unknown_permission": "`GET /permissions` lists them all; `errors` names the wrong ones.",
    "unknown_role": "`GET /roles` lists them all; `errors` names the wrong ones.",
    "unsupported_media_type": "Send `Content-Type: application/json`.",
    "user_not_found": "Look the id up by `GET /users`.",
    "user_required": "Use a token that a user got; a client's own has no account behind it.",
    "username_taken": "Choose another name.",
    "validation_failed": "`errors` names each wrong field or parameter, and why.",
}
OAUTH: Final = {
    "access_denied": "Tell the user that nothing was done. At the registration endpoint: ask for an invitation.",
    "authorization_pending": "Ask again after `interval` seconds.",
    "consent_required": "Send the user once more, without `prompt=none`.",
    "expired_token": "Begin anew at the device authorization endpoint.",
    "insufficient_scope": "Get a token with the scope that `WWW-Authenticate` names.",
    "insufficient_user_authentication": "Send the user to the authorization endpoint with what `WWW-Authenticate` "
    "names ([step-up](second-factors.md#step-up)).",
    "invalid_client": "Check `client_id`, secret or assertion, and that the method is the registered one. The answer "
    "never tells whether the client exists.",
    "invalid_client_metadata": "Mend what the description names ([the members](clients.md#the-members)).",
    "invalid_grant": "Begin anew: sign in, or get a new code. Also the answer to a wrong password and to somebody "
    "else's token. With `A second factor is required: send otp too.` send the same with `otp`.",
    "invalid_redirect_uri": "Register https, or http on the loopback interface, without a fragment.",
    "invalid_request": "Mend what the description names. A `client_id` or `redirect_uri` that isn't registered is "
    "shown to the user and never sent back.",
    "invalid_request_object": "Check `iss`, `aud`, times and signature of the request object.",
    "invalid_request_uri": "Register it in `request_uris`, and serve it without redirects.",
    "invalid_scope": "Ask for less: what the client registered, and what the first token had.",
    "invalid_target": "`resource` or `audience` must be one that the client registered.",
    "invalid_token": "Get a new access token.",
    "login_required": "Send the user once more, without `prompt=none`.",
    "registration_not_supported": "Leave the parameter `registration` out.",
    "server_error": "Repeat it once. Then report it with the `request_id`: it is a fault of the server.",
    "slow_down": "Wait for `Retry-After` seconds. A device adds five seconds to its interval.",
    "temporarily_unavailable": "Repeat it after `Retry-After`; a code, an assertion or a refresh token may be used "
    "again, as nothing was decided.",
    "unapproved_software_statement": "Register without a `software_statement`.",
    "unauthorized_client": "Register the client for this grant.",
    "unmet_authentication_requirements": "Tell the user what is missing, mostly a second factor.",
    "unsupported_grant_type": "`grant_types_supported` in the metadata lists them.",
    "unsupported_response_type": "Ask for a response type that the client registered.",
}

PAGE: Final = """\
# Errors

<!-- Generated by `make docs-generated`. Sentences are changed in the sources, advice in docs/generate_errors.py. -->

Programs read the code or the word; it is stable. Sentences are for people, and change. Input never enters them. Every answer
carries `X-Request-ID`; with it `GET /admin/logs?request_id=…` shows what the server knows of the request.

* Below `/oauth/` errors are those of [OAuth](#oauth): `error`, `error_description`, `request_id` (RFC 6749 section 5.2).
* Pages for people show an HTML page with the same code and request id.
* Everything else answers [problem details](#rest), `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`,
  `instance`, `code`, `request_id`, and with 422 `errors`, a list of `field` and `message`.
* 401 and 403 carry `WWW-Authenticate` (RFC 6750). 429 and 503 carry `Retry-After`, in seconds: nothing was decided, and the same
  request may be sent again. There is no other 5xx but 500, which is a fault of the server.
* The command line prints one line on stderr and ends with 1, or with 2 when it was called in a wrong way.

## REST

| code | status | means | what to do |
| --- | --- | --- | --- |
{rest}

## OAuth

At the token endpoint and its neighbours in the body; from the authorization endpoint in the address of the client's
`redirect_uri`, where there is no status.

| error | status | means | what to do |
| --- | --- | --- | --- |
{oauth}
"""

Found = dict[str, tuple[set[int], list[str]]]


def document() -> str:
    """The text of docs/errors.md. SystemExit for a code without advice, and for advice without a code."""
    return PAGE.format(rest=_table(_rest(), REST), oauth=_table(_oauth(), OAUTH))


def _table(found: Found, advice: dict[str, str]) -> str:
    if found.keys() != advice.keys():
        raise SystemExit(
            f"docs/generate_errors.py says nothing about {sorted(found.keys() - advice.keys())}, "
            f"and too much about {sorted(advice.keys() - found.keys())}"
        )
    rows = ((code, *found[code], advice[code]) for code in sorted(found))
    return "\n".join(
        f"| `{code}` | {', '.join(map(str, sorted(statuses)))} | {' '.join(sentences)} | {what} |"
        for code, statuses, sentences, what in rows
    )


def _add(found: Found, code: str, status: int | None, sentence: str = "") -> None:
    statuses, sentences = found.setdefault(code, (set(), []))
    statuses |= {status} if status else set()
    if sentence and sentence not in sentences:
        sentences.append(sentence)


def _rest() -> Found:
    found: Found = {}
    for code, status, sentence in (*_raised(), *_known(), *_of_http(), *_of_verifier(), *_of_api()):
        _add(found, code, status, sentence)
    for refusal in SignInRefusal:
        _add(found, refusal.value, None)
    for code, sentence in MEANINGS.items():
        _add(found, code, None, sentence)
    return found


def _raised() -> Iterator[tuple[str, int, str]]:
    """Of each `raise Conflict("…", code="…")`, and of pages that name a code."""
    for path in sorted(SOURCES.rglob("*.py")):
        if path.relative_to(SOURCES).as_posix().startswith(ELSEWHERE):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            given = {each.arg: each.value for each in node.keywords}
            if text := _text(given.get("code")):
                yield text, _status_of(node), _sentence_of(node)


def _status_of(call: ast.Call) -> int:
    kind = getattr(errors, getattr(call.func, "id", ""), None)
    if isinstance(kind, type):
        return next(status for base, status in STATUS if issubclass(kind, base))
    # A page: `render("mailed_link_dead.html", 404, code=…)`, or a form that is shown again.
    numbers = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, int)]
    return numbers[0] if numbers else 422


def _sentence_of(call: ast.Call) -> str:
    text = _text(call.args[0]) if call.args else ""
    return text if text.endswith(".") else ""


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _known() -> Iterator[tuple[str, int, str]]:
    """The error tree itself."""
    todo: list[type[errors.TokenserverError]] = [errors.TokenserverError]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.__module__ == errors.__name__ and kind not in BASES:
            status = next((status for base, status in STATUS if issubclass(kind, base)), 500)
            yield kind.code, status, kind.public


def _of_http() -> Iterator[tuple[str, int, str]]:
    for status, sentence in HTTP_DETAILS.items():
        word = HTTPStatus(status).phrase.lower().replace(" ", "_")
        yield HTTP_CODES.get(status, word), status, sentence


def _of_verifier() -> Iterator[tuple[str, int, str]]:
    for kind in _refusals():
        yield kind.error or "authentication_required", kind.status, kind.description


def _refusals() -> list[type[verify.Refusal]]:
    return [*verify.TokenError.__subclasses__(), verify.KeysUnavailable]


def _of_api() -> Iterator[tuple[str, int, str]]:
    for _, _, operation in operations():
        for status, answer in operation["responses"].items():
            name = str(answer.get("$ref", "")).rpartition("/")[2]
            for code in name.split(".")[1:]:
                yield code, int(status), ""


def _oauth() -> Found:
    found: Found = {}
    kinds = [oauth.OAuthError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        if kind is not oauth.OAuthError and kind.__module__ == oauth.__name__:
            _add(found, kind.error, kind.status, kind.description)
    for refusal in _refusals():
        if refusal.error:
            _add(found, refusal.error, refusal.status, refusal.description)
    for status, word in oauth.WORDS.items():
        kind_of_status = next((base for base, its in STATUS if its == status), errors.TokenserverError)
        _add(found, word, status, kind_of_status.public)
    return found
