"""RFC 7517: the public keys, as every verifier fetches and caches them."""

from flask import Response, request

from tokenserver.oauth.endpoints.request import Server


def view(server: Server) -> Response:
    keys = server.keys.published()  # once, so that body and ETag are of the same set
    return cached(Response(keys.jwks_bytes, mimetype="application/json"), keys.etag, server.settings.jwks_max_age)


def cached(response: Response, etag: str, max_age: int) -> Response:
    response.headers["Cache-Control"] = f"public, max-age={max_age}"
    # Verifiers in browsers read it too, and it holds nothing but public keys and addresses.
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    response.set_etag(etag)
    response.make_conditional(request)
    return response
