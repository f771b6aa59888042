"""A FastAPI service: ISSUER=… AUDIENCE=… granian --interface asgi fastapi_service:app."""

import os
from typing import Annotated

from fastapi import Depends, FastAPI

from tokenserver.verify import Claims, Revocations, Verifier
from tokenserver.verify.starlette import Guard

app = FastAPI()
guard = Guard(Verifier.for_issuer(os.environ["ISSUER"], os.environ["AUDIENCE"], revocations=Revocations()))
guard.init_app(app)


@app.get("/me")
async def me(claims: Annotated[Claims, Depends(guard.requires())]) -> dict[str, str]:
    return {"sub": claims.sub}


@app.post("/posts", status_code=201)
async def create_post(claims: Annotated[Claims, Depends(guard.requires("posts:create"))]) -> dict[str, str]:
    return {"author": claims.sub}
