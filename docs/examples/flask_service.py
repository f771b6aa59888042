"""A Flask service: ISSUER=… AUDIENCE=… flask --app flask_service run."""

import os

from flask import Flask

from tokenserver.verify import Revocations, Verifier
from tokenserver.verify.flask import Guard, current_claims, requires

app = Flask(__name__)
verifier = Verifier.for_issuer(
    os.environ["ISSUER"],
    os.environ["AUDIENCE"],
    revocations=Revocations(
        max_staleness=float(os.environ.get("MAX_STALENESS", "120")),
        interval=float(os.environ.get("INTERVAL", "5")),
    ),
)
Guard(verifier).init_app(app)


@app.get("/me")
@requires()
def me() -> dict[str, str]:
    return {"sub": current_claims().sub}


@app.post("/posts")
@requires("posts:create")
def create_post() -> tuple[dict[str, str], int]:
    return {"author": current_claims().sub}, 201
