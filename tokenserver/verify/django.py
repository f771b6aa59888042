"""Guards the views of a Django project by access tokens (RFC 6750).

`settings.TOKENSERVER_VERIFIER` is the Verifier. Views may be functions or coroutines.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, Final, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.cache import patch_vary_headers

from tokenserver.verify.access_token import Verifier
from tokenserver.verify.authentication import ANY, Authentication
from tokenserver.verify.bearer import credentials, in_query
from tokenserver.verify.claims import Claims
from tokenserver.verify.errors import MissingCredentials, Refusal, check_scopes

FORM: Final = "application/x-www-form-urlencoded"
View = Callable[..., Any]


def requires(*scopes: str, acr_values: Sequence[str] = (), max_age: int | None = None) -> Callable[[View], View]:
    """The view needs a valid token whose scope covers all `scopes`; without any, a valid token is enough. It finds
    the Claims at `request.claims`.

    `acr_values`, `max_age` (s): how, and how lately, its user must have signed in (RFC 9470).
    """
    needed, authentication = check_scopes(scopes), Authentication.of(acr_values, max_age)

    def decorate(view: View) -> View:
        guarded = cast(Any, _guarded(view, lambda request: _admit(request, needed, authentication)))
        # Credentials that no browser sends by itself: nothing to forge, and nobody to send to a sign-in page.
        guarded.csrf_exempt = True
        guarded.login_required = False
        return cast(View, guarded)

    return decorate


def optional() -> Callable[[View], View]:
    """Guests pass, and `request.claims` is None. Whoever sends a token must send a good one."""

    def admit(request: HttpRequest) -> Claims | None:
        try:
            return _admit(request)
        except MissingCredentials:
            return None

    # RFC 9111 section 4.1: a cache must not answer a user with what a guest was shown.
    return lambda view: _guarded(view, admit, vary=True)


class TokenMiddleware:
    """Guards the whole project, but for the paths of `settings.TOKENSERVER_EXEMPT`, which are compared exactly;
    those find None at `request.claims`."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        exempt = frozenset(getattr(settings, "TOKENSERVER_EXEMPT", ()))
        self._answer = _guarded(
            get_response, lambda request: None if request.path_info in exempt else _admit(request)
        )
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self._answer(request)


def _verifier() -> Verifier:
    verifier = getattr(settings, "TOKENSERVER_VERIFIER", None)
    if not isinstance(verifier, Verifier):
        raise ImproperlyConfigured("TOKENSERVER_VERIFIER must be a Verifier")
    return verifier


def _admit(request: HttpRequest, scopes: tuple[str, ...] = (), authentication: Authentication = ANY) -> Claims:
    # RFC 6750 section 2.2: the form parameter exists in this content type alone; other bodies stay unread.
    in_form = request.content_type == FORM and "access_token" in request.POST
    elsewhere = in_form or in_query(request.META.get("QUERY_STRING", ""))
    verifier = _verifier()
    claims = verifier.verify(credentials(request.headers.get("Authorization"), elsewhere=elsewhere))
    claims.require(*scopes)
    verifier.require(claims, authentication)
    return claims


def _refused(refusal: Refusal) -> HttpResponse:
    """RFC 6750 section 3. The realm is the audience: it says which tokens are meant."""
    return JsonResponse(refusal.body(), status=refusal.status, headers=refusal.headers(_verifier().audience))


def _guarded(view: View, admit: Callable[[HttpRequest], Claims | None], *, vary: bool = False) -> View:
    def finished(response: Any) -> Any:
        if vary:
            patch_vary_headers(response, ["Authorization"])
        return response

    async def admitted(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            # In a thread, because keys may have to be fetched.
            request.claims = await asyncio.to_thread(admit, request)
            return finished(await cast(Callable[..., Awaitable[Any]], view)(request, *args, **kwargs))
        except Refusal as refusal:
            return finished(_refused(refusal))

    def admitted_at_once(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            request.claims = admit(request)
            return finished(view(request, *args, **kwargs))
        except Refusal as refusal:
            return finished(_refused(refusal))

    return wraps(view)(admitted if iscoroutinefunction(view) else admitted_at_once)
