"""oauth4webapi in Node, which validates every answer to the letter."""

from joserfc.jwk import ECKey

CALLBACK = "https://app.example/cb"


def test_the_whole_story(provider, story):
    key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256", "kid": "of-the-client"})
    registered = provider.client(
        client_name="A site that validates all",
        grant_types=["authorization_code", "implicit", "refresh_token"],
        response_types=["code", "code id_token"],
        redirect_uris=[CALLBACK],
        token_endpoint_auth_method="private_key_jwt",
        jwks={"keys": [key.as_dict(private=False)]},
        userinfo_signed_response_alg="RS256",
        introspection_signed_response_alg="RS256",
        scope="openid profile email tokens:introspect",
    )
    ann = provider.user("oauth4webapi-ann", name="Ann")
    done = story(
        "oauth4webapi.mjs",
        ann,
        client_id=registered["client_id"],
        key=key.as_dict(private=True, key_ops=["sign"]),
        redirect_uri=CALLBACK,
    )
    # RFC 9207 section 2
    assert done["iss"] == provider.issuer
    assert done["hybrid"]["sub"] == done["claims"]["sub"] == done["ofResource"]["sub"]
    assert done["hybrid"]["auth_time"] == done["claims"]["auth_time"], "the second time nobody was asked"
    assert done["userinfo"]["email"] == "oauth4webapi-ann@example.org"
    assert done["introspection"]["active"] is True
    assert done["introspection"]["client_id"] == registered["client_id"]
    assert done["types"] == ["application/jwt", "application/token-introspection+jwt"]
