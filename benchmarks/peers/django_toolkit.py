"""django-oauth-toolkit in a project of one file, with the settings of its documentation and `DEBUG` off.

PLAIN_SECRETS=1 keeps client secrets as they are instead of hashing them, which is an option of each application; as
shipped, each request costs a password hash. Further settings: DATABASE_URL, KEY_FILE (PEM), ISSUER. `python
django_toolkit.py N`: makes the tables, two applications and N refresh tokens, and prints them.
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.urls import include, path

database = urlsplit(os.environ["DATABASE_URL"])
settings.configure(
    DEBUG=False,
    SECRET_KEY="a key of the benchmark",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": database.path[1:],
            "USER": database.username,
            "HOST": database.hostname,
            "PORT": database.port,
            "CONN_MAX_AGE": None,
        }
    },
    OAUTH2_PROVIDER={
        "OIDC_ENABLED": True,
        "OIDC_ISS_ENDPOINT": os.environ["ISSUER"],
        "OIDC_RSA_PRIVATE_KEY": Path(os.environ["KEY_FILE"]).read_text(),
        "SCOPES": {"openid": "OpenID Connect", "posts:create": "Create posts", "introspection": "Introspect"},
        "ACCESS_TOKEN_EXPIRE_SECONDS": 300,
        "REFRESH_TOKEN_EXPIRE_SECONDS": 30 * 86400,
        "ROTATE_REFRESH_TOKEN": True,
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
        "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": 10,
    },
)
django.setup()
urlpatterns = [path("o/", include("oauth2_provider.urls", namespace="oauth2_provider"))]
application = get_wsgi_application()


def seed(count):
    from django.contrib.auth.models import User
    from django.utils import timezone
    from oauth2_provider.models import AccessToken, Application, RefreshToken

    call_command("migrate", verbosity=0)
    user = User.objects.create_user("person")
    clients = {}
    for name, grant_type in (("app", "authorization-code"), ("service", "client-credentials")):
        secret = f"secret-of-the-{name}-of-the-benchmark"
        made = Application.objects.create(
            client_id=name,
            client_secret=secret,
            hash_client_secret=os.environ.get("PLAIN_SECRETS") != "1",
            client_type="confidential",
            authorization_grant_type=grant_type,
            redirect_uris="https://app.example/cb",
        )
        clients[name] = {"client_id": name, "client_secret": secret, "row": made}
    app, service = (clients[name].pop("row") for name in ("app", "service"))
    later = timezone.now() + timedelta(days=30)
    tokens = [os.urandom(24).hex() for _ in range(count)]
    for token in tokens:
        access = AccessToken.objects.create(
            user=user, application=app, token=os.urandom(24).hex(), expires=later, scope="posts:create"
        )
        RefreshToken.objects.create(user=user, application=app, token=token, access_token=access)
    # Its introspection takes a token with this scope, or the secret of a client.
    bearer = os.urandom(24).hex()
    AccessToken.objects.create(application=service, token=bearer, expires=later, scope="introspection")
    print(json.dumps({"clients": clients, "refresh_tokens": tokens, "introspection_token": bearer}))


if __name__ == "__main__":
    seed(int(sys.argv[1]))
