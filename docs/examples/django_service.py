"""A Django project in one file: ISSUER=… AUDIENCE=… granian --interface wsgi django_service:app.

In a project of the usual shape, TOKENSERVER_VERIFIER stands in settings.py and `requires` in views.py.
"""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from tokenserver.verify import Revocations, Verifier
from tokenserver.verify.django import requires

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
    ROOT_URLCONF=__name__,
    TOKENSERVER_VERIFIER=Verifier.for_issuer(
        os.environ["ISSUER"], os.environ["AUDIENCE"], revocations=Revocations()
    ),
)


@requires()
def me(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"sub": request.claims.sub})


@requires("posts:create")
def create_post(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"author": request.claims.sub}, status=201)


urlpatterns = [path("me", me), path("posts", create_post)]
app = get_wsgi_application()
