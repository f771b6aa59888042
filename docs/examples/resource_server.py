"""A resource server in ten lines: ISSUER=… AUDIENCE=… flask --app resource_server run."""

import os

from flask import Flask

from tokenserver.verify import Verifier
from tokenserver.verify.flask import Guard, current_claims, requires

app = Flask(__name__)
Guard(Verifier.for_issuer(os.environ["ISSUER"], os.environ["AUDIENCE"])).init_app(app)


@app.get("/me")
@requires()
def me() -> dict[str, str]:
    return {"sub": current_claims().sub, "client_id": current_claims().client_id}


@app.post("/posts")
@requires("posts:create")
def create_post() -> tuple[dict[str, str], int]:
    return {"author": current_claims().sub}, 201
