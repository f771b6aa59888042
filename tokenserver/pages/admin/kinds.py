"""The kinds of clients, each with defaults that are safe for it, in the words of RFC 7591."""

from dataclasses import dataclass
from typing import Any, Final

from tokenserver.clients.metadata import DEVICE_CODE
from tokenserver.web.language import marked


@dataclass(frozen=True)
class Kind:
    """`metadata`: what every client of the kind has. `scope`: what is suggested. `redirects`: an example of where
    its users come back to; empty where nobody is sent anywhere."""

    title: str
    about: str
    metadata: dict[str, Any]
    scope: str
    redirects: str = ""

    @property
    def has_secret(self) -> bool:
        return bool(self.metadata["token_endpoint_auth_method"] != "none")


_CODE: Final = {"grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"]}
KINDS: Final = {
    "web": Kind(
        marked("Web application"),
        marked("Runs on a server, which keeps a secret. Its users sign in here and come back with a code."),
        _CODE | {"token_endpoint_auth_method": "client_secret_basic"},
        "openid profile email",
        "https://app.example/callback",
    ),
    "spa": Kind(
        marked("Single-page app"),
        marked("Runs in the browser, where no secret is one: a code with PKCE instead."),
        _CODE | {"token_endpoint_auth_method": "none"},
        "openid profile email",
        "https://app.example/",
    ),
    "native": Kind(
        marked("Native or mobile app"),
        marked("Installed on a device: a code with PKCE, and a return by its own scheme or the loopback address."),
        _CODE | {"token_endpoint_auth_method": "none", "application_type": "native"},
        "openid profile email offline_access",
        "com.example.app:/callback",
    ),
    "service": Kind(
        marked("Service"),
        marked("Acts for itself, without any user: a secret, and the permissions that it is given."),
        {"grant_types": ["client_credentials"], "token_endpoint_auth_method": "client_secret_basic"},
        "",
    ),
    "device": Kind(
        marked("Device"),
        marked("Has no browser, such as a television or a command: its user types a code elsewhere."),
        {"grant_types": [DEVICE_CODE, "refresh_token"], "token_endpoint_auth_method": "none"},
        "openid profile offline_access",
    ),
}
