"""An authorization server by Authlib's documentation: Flask, SQLAlchemy, its mixins, JWT access tokens (RFC 9068).

With CACHED_KEY=1 it parses the signing key once; documented is `load_jwks("jwks.json")` in `get_jwks`, each time.
Further settings: DATABASE_URL, KEY_FILE (a private JWK), ISSUER. `python authlib_server.py N`: makes the tables,
two clients and N refresh tokens, and prints them.
"""

import json
import os
import sys
import time
from functools import cache
from pathlib import Path

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.integrations.sqla_oauth2 import (
    OAuth2ClientMixin,
    OAuth2TokenMixin,
    create_query_client_func,
    create_save_token_func,
)
from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from flask import Flask, jsonify
from flask_sqlalchemy import SQLAlchemy
from joserfc.jwk import KeySet

db = SQLAlchemy()


class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    username = db.Column(db.String(40), unique=True)

    def get_user_id(self):
        return self.id


class Client(db.Model, OAuth2ClientMixin):
    __tablename__ = "oauth2_client"
    id = db.Column(db.Integer, primary_key=True)


class Token(db.Model, OAuth2TokenMixin):
    __tablename__ = "oauth2_token"
    # A JWT is longer than the mixin's column.
    access_token = db.Column(db.String(2000), unique=True, nullable=False)
    id = db.Column(db.Integer, primary_key=True)
    user_id = db.Column(db.Integer, db.ForeignKey("user.id", ondelete="CASCADE"))
    user = db.relationship("User")


def read_keys():
    return KeySet.import_key_set({"keys": [json.loads(Path(os.environ["KEY_FILE"]).read_text())]})


load_keys = cache(read_keys) if os.environ.get("CACHED_KEY") == "1" else read_keys


class JWTs(JWTBearerTokenGenerator):
    def get_jwks(self):
        return load_keys()


class RefreshTokenGrant(grants.RefreshTokenGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token):
        item = db.session.execute(db.select(Token).filter_by(refresh_token=refresh_token)).scalar_one_or_none()
        return item if item and not item.is_revoked() else None

    def authenticate_user(self, refresh_token):
        return db.session.get(User, refresh_token.user_id)

    def revoke_old_credential(self, refresh_token):
        refresh_token.refresh_token_revoked_at = refresh_token.access_token_revoked_at = int(time.time())
        db.session.add(refresh_token)
        db.session.commit()


class Introspection(IntrospectionEndpoint):
    def query_token(self, token, token_type_hint):
        if token_type_hint != "refresh_token":
            found = db.session.execute(db.select(Token).filter_by(access_token=token)).scalar_one_or_none()
            if found:
                return found
        return db.session.execute(db.select(Token).filter_by(refresh_token=token)).scalar_one_or_none()

    def introspect_token(self, token):
        return {
            "active": not token.is_revoked() and not token.is_expired(),
            "client_id": token.client_id,
            "token_type": token.token_type,
            "sub": str(token.user_id),
            "scope": token.get_scope(),
            "exp": token.issued_at + token.expires_in,
            "iat": token.issued_at,
        }

    def check_permission(self, token, client, request):
        return True


def create_app():
    app = Flask("authlib_server")
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"].replace(
        "postgresql:", "postgresql+psycopg2:"
    )
    db.init_app(app)
    server = AuthorizationServer(
        app,
        query_client=create_query_client_func(db.session, Client),
        save_token=create_save_token_func(db.session, Token),
    )
    server.register_token_generator(
        "default",
        JWTs(
            os.environ["ISSUER"],
            refresh_token_generator=lambda **_: os.urandom(24).hex(),
            expires_generator=lambda *_: 300,
        ),
    )
    server.register_grant(grants.ClientCredentialsGrant)
    server.register_grant(RefreshTokenGrant)
    server.register_endpoint(Introspection)

    @app.post("/oauth/token")
    def issue_token():
        return server.create_token_response()

    @app.post("/oauth/introspect")
    def introspect_token():
        return server.create_endpoint_response("introspection")

    @app.get("/.well-known/jwks.json")
    def jwks():
        return jsonify(load_keys().as_dict(private=False))

    return app


def seed(count):
    db.create_all()
    user = User(username="person")
    db.session.add(user)
    clients = {}
    for name, grant_type in (("app", "refresh_token"), ("service", "client_credentials")):
        client = Client(client_id=name, client_secret=f"secret-of-the-{name}-of-the-benchmark")
        client.set_client_metadata(
            {
                "grant_types": [grant_type],
                "scope": "posts:create",
                "token_endpoint_auth_method": "client_secret_basic",
            }
        )
        db.session.add(client)
        clients[name] = {"client_id": name, "client_secret": client.client_secret}
    db.session.flush()
    common = {"client_id": "app", "token_type": "Bearer", "scope": "posts:create", "expires_in": 30 * 86400}
    tokens = [os.urandom(24).hex() for _ in range(count)]
    for token in tokens:
        db.session.add(Token(user_id=user.id, access_token=os.urandom(24).hex(), refresh_token=token, **common))
    db.session.commit()
    print(json.dumps({"clients": clients, "refresh_tokens": tokens}))


application = create_app()

if __name__ == "__main__":
    with application.app_context():
        seed(int(sys.argv[1]))
