"""The Config plan: what the discovery document says of itself, and that every value in it is so."""

import re
from urllib.parse import urlsplit

from tests.oidc.suite import DISCOVERY, ISSUER

# RFC 5646, in canonical case: language, script, region.
LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Z][a-z]{3})?(?:-[A-Z]{2}|-[0-9]{3})?")


def test_oidcc_discovery_endpoint_verification(provider):
    response = provider.ask(DISCOVERY)
    assert (response.status_code, response.mimetype) == (200, "application/json")
    document = response.json
    issuer = urlsplit(document["issuer"])
    assert document["issuer"] == ISSUER
    assert (issuer.scheme, issuer.query, issuer.fragment, issuer.username) == ("https", "", "", None)
    types = {frozenset(each.split()) for each in document["response_types_supported"]}
    assert {frozenset({"code"}), frozenset({"id_token"}), frozenset({"id_token", "token"})} <= types
    assert set(document["subject_types_supported"]) == {"public", "pairwise"}
    assert "RS256" in document["id_token_signing_alg_values_supported"]
    for name in ("authorization", "token", "userinfo", "registration", "end_session"):
        assert document[f"{name}_endpoint"].startswith("https://")
    for name, value in document.items():
        if name.endswith(("_endpoint", "_uri", "_iframe")):
            assert value.startswith(ISSUER + "/"), name
    assert {"authorization_code", "implicit", "refresh_token"} <= set(document["grant_types_supported"])
    assert "openid" in document["scopes_supported"]
    assert {"sub", "name", "email"} <= set(document["claims_supported"])
    assert "RS256" in document["request_object_signing_alg_values_supported"]
    assert isinstance(document["code_challenge_methods_supported"], list)
    for name, value in document.items():
        # As the schemas of RFC 8414 and OIDC Discovery have it: addresses, flags, lists of words.
        is_address = name.endswith(("issuer", "_endpoint", "_uri", "_iframe"))
        is_list = name.endswith(("_values_supported", "s_supported"))
        assert isinstance(value, str if is_address else list if is_list else bool), name
        if is_list:
            assert value
            assert all(isinstance(each, str) for each in value), name
            assert len(set(value)) == len(value), name
    for name in ("ui_locales_supported", "claims_locales_supported"):
        assert all(LANGUAGE.fullmatch(each) for each in document.get(name, []))
