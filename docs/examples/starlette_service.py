"""A Starlette service: ISSUER=… AUDIENCE=… granian --interface asgi starlette_service:app."""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tokenserver.verify import Revocations, Verifier
from tokenserver.verify.starlette import Guard

guard = Guard(Verifier.for_issuer(os.environ["ISSUER"], os.environ["AUDIENCE"], revocations=Revocations()))
signed_in, may_create = guard.requires(), guard.requires("posts:create")


async def me(request: Request) -> JSONResponse:
    claims = await signed_in(request)
    return JSONResponse({"sub": claims.sub})


async def create_post(request: Request) -> JSONResponse:
    claims = await may_create(request)
    return JSONResponse({"author": claims.sub}, 201)


app = Starlette(routes=[Route("/me", me), Route("/posts", create_post, methods=["POST"])])
guard.init_app(app)
