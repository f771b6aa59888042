"""RFC 8707: resource indicators at the token endpoint. Those of the authorization request are tested with it."""

from typing import Any

import jwt
import pytest

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api
from tokenserver.rooms import Rooms

POSTS, FILMS = "https://posts.example", "https://films.example"
ANN = {"grant_type": "password", "username": "ann", "password": PASSWORD}


@pytest.fixture(autouse=True)
def service(rooms: Rooms) -> tuple[str, str]:
    _, secret = rooms.clients.create(
        client_id="service",
        client_name="A service",
        grant_types=["client_credentials", "password", "refresh_token"],
        scope=["posts:create"],
        audience=[POSTS, FILMS],
    )
    return "service", str(secret)


def audience_of(answer: dict[str, Any]) -> Any:
    return jwt.decode(answer["access_token"], options={"verify_signature": False})["aud"]


def narrowed(api: Api, service: tuple[str, str], **form: Any) -> Any:
    """The audience that each choice of resources leads to."""
    for resource in ("https://else.example", f"{POSTS}/", POSTS.upper(), "posts", f"{POSTS} {FILMS}", "/", "#"):
        for chosen in (resource, [resource, POSTS]):
            expected = "invalid_request" if " " in resource else "invalid_target"
            refused(api.token(service, **form, resource=chosen), 400, expected)
    return granted(api.token(service, **form, resource=FILMS))


def test_a_client_s_own_token(api: Api, service: tuple[str, str]):
    """Section 2: one of its resources, several, or all; nothing unknown."""
    form: dict[str, Any] = {"grant_type": "client_credentials"}
    assert audience_of(narrowed(api, service, **form)) == FILMS
    assert audience_of(granted(api.token(service, **form))) == [POSTS, FILMS]
    for both in ([FILMS, POSTS], [FILMS, POSTS, FILMS]):
        assert audience_of(granted(api.token(service, **form, resource=both))) == [FILMS, POSTS]  # type: ignore[arg-type]
    assert audience_of(granted(api.token(service, **form, resource=""))) == [POSTS, FILMS]


def test_a_user_s_token_and_those_that_follow_it(api: Api, service: tuple[str, str]):
    """Section 2.2: within what was granted, for this access token alone; a refusal spends nothing."""
    api.register()
    answer = narrowed(api, service, **ANN)
    assert audience_of(answer) == FILMS
    form = {"grant_type": "refresh_token", "refresh_token": answer["refresh_token"]}
    answer = narrowed(api, service, **form)
    assert audience_of(answer) == FILMS
    answer = granted(api.token(service, **form | {"refresh_token": answer["refresh_token"]}, resource=POSTS))
    assert audience_of(answer) == POSTS
    answer = granted(api.token(service, **form | {"refresh_token": answer["refresh_token"]}))
    assert audience_of(answer) == [POSTS, FILMS]


def test_this_server_is_the_resource_of_who_registered_none(api: Api):
    api.register()
    form = ANN | {"client_id": "first-party"}
    assert audience_of(granted(api.token(**form, resource="http://127.0.0.1:8000"))) == "http://127.0.0.1:8000"
    refused(api.token(**form, resource=POSTS), 400, "invalid_target")
