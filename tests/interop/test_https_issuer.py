"""What an https issuer changes, seen from outside."""


def test_browsers_are_told_to_stay_with_https(provider):
    """OWASP ASVS 3.4.1."""
    for path in ("/login", "/.well-known/openid-configuration", "/nowhere"):
        assert provider.http.get(path).headers["Strict-Transport-Security"].startswith("max-age=")


def test_every_address_in_the_metadata_is_https(provider):
    """OpenID Connect Discovery section 3."""
    metadata = provider.http.get("/.well-known/openid-configuration").json()
    assert metadata["issuer"] == provider.issuer
    addresses = {key: value for key, value in metadata.items() if key.endswith(("_endpoint", "_uri", "_iframe"))}
    assert len(addresses) > 8
    assert all(value.startswith(f"{provider.issuer}/") for value in addresses.values()), addresses
