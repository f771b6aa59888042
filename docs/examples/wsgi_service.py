"""Any WSGI application behind the verifier: ISSUER=… AUDIENCE=… granian --interface wsgi wsgi_service:app."""

import json
import os
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from tokenserver.verify import Refusal, Revocations, Verifier
from tokenserver.verify.wsgi import CLAIMS, WSGIVerifier

verifier = Verifier.for_issuer(os.environ["ISSUER"], os.environ["AUDIENCE"], revocations=Revocations())


def service(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    claims, status, headers = environ[CLAIMS], "200 OK", {}
    body = {"sub": claims.sub}
    if environ["REQUEST_METHOD"] == "POST":
        try:
            claims.require("posts:create")
            status, body = "201 Created", {"author": claims.sub}
        except Refusal as refusal:
            status, body, headers = f"{refusal.status} Refused", refusal.body(), refusal.headers(verifier.audience)
    start_response(status, [("Content-Type", "application/json"), *headers.items()])
    return [json.dumps(body).encode()]


app = WSGIVerifier(service, verifier)
