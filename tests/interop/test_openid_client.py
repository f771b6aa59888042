"""openid-client in Node, from its own registration to the logout."""

import json

import pytest

APP = "https://app.example"
CALLBACK = f"{APP}/cb"
HOME = f"{APP}/home"


@pytest.fixture(scope="module")
def invitation(provider):
    return json.loads(provider.server.run("client", "invite", "--json"))["initial_access_token"]


def test_the_whole_story(provider, story, invitation):
    ann = provider.user("openid-client-ann", name="Ann")
    done = story("openid_client.mjs", ann, invitation=invitation, redirect_uri=CALLBACK, home=HOME)
    assert done["registered"]["client_name"] == "A web site with openid-client"
    claims = done["claims"]
    assert claims["iss"] == provider.issuer
    assert claims["aud"] == done["registered"]["client_id"]
    assert done["userinfo"] == done["userinfo"] | {
        "sub": claims["sub"],
        "name": "Ann",
        "email": "openid-client-ann@example.org",
    }
    assert done["refreshed"]["sub"] == claims["sub"]
    assert done["refreshed"]["auth_time"] == claims["auth_time"]
    assert done["left"] == f"{HOME}?state=at%20home"
    assert done["seenByDevice"]["email"] == "openid-client-ann@example.org"
    assert done["alive"]["active"] is True
    assert done["revoked"] == {"active": False}
    assert done["job"] == {"scope": ""}
