"""What a client's metadata may be: RFC 7591 section 2, RFC 6749 section 3.1.2, RFC 8252 section 7."""

import pytest

from tokenserver.clients.metadata import RESPONSE_TYPES, Metadata, faults

SCOPES = frozenset({"openid", "posts:create"})


def fields(**metadata: object) -> list[str]:
    wanted = Metadata(**{"grant_types": ["password"], **metadata})  # type: ignore[arg-type]
    return [fault.field for fault in faults(wanted, SCOPES)]


WEB = (
    "https://app.example",
    "https://app.example/",
    "https://app.example:8443/callback?a=b%2Fc&d=(e)",
    "https://my_app.example/cb",
    "https://xn--bcher-kva.example/",
    "https://[2001:db8::1]/cb",
    "https://192.0.2.1/cb",
    "http://localhost",
    "http://localhost:3000/cb",
    "http://127.0.0.1:65535/cb?x",
    "http://[::1]:1/",
    "https://app.example/a@b",
    "https://app.example/" + "a" * 1980,
)
NATIVE = ("com.example.app:/oauth2redirect", "com.example.app://callback", "com.example-x.a1+b:/?a=b", "a.b:/")
NEVER = (
    *("", "/cb", "//app.example/cb", "app.example/cb", "cb", "?a=b", "https", "https:", "https:/", "https://"),
    *(
        "https:///cb",
        "https:app.example",
        "https://?a",
        "https://:443/",
        "https://a..b/",
        "https://.a/",
        "https://a./",
    ),
    *("https://app.example/#", "https://app.example/#frag", "com.example.app:/cb#x"),
    *("https://u@app.example", "https://u:p@app.example", "https://@app.example", "com.example.app://u@host/"),
    *("http://localhost:80@evil", "http://localhost:80@evil.example/", "http://127.0.0.1\\@evil.example/"),
    *("http://[", "http://]", "http://[]", "http://[::1", "http://::1/", "http://[::g]/", "http://[127.0.0.1]/"),
    *("https://[::1]x/", "https://[::1]:/", "https://app.example:/", "https://app.example:0/", "https://a:65536/"),
    *("https://a:99999999999/", "https://a:８０/", "https://a:-1/", "https://a:+80/"),
    *("http://app.example/", "http://127.0.0.2/", "http://127.1/", "http://0x7f000001/", "http://0.0.0.0/"),
    *("http://localhost.evil.example/", "http://localhost./", "http://LOCALHOST/", "http://[::ffff:127.0.0.1]/"),
    *("HTTPS://app.example/", "ftp://app.example/", "ws://app.example/", "file:///etc/passwd"),
    *("javascript:alert(1)", "javascript://app.example/%0aalert(1)", "data:text/html,x", "vbscript:x", "blob:x"),
    *("JavaScript:alert(1)", " javascript:alert(1)", "about:blank", "urn:ietf:wg:oauth:2.0:oob", "myapp:/cb"),
    *("com.example.app:cb", "com.example.app:", "com..app:/cb", ".com:/cb", "com.:/cb", "1com.example:/cb"),
    *("Com.Example:/cb", "com.example.app://h:p@q/"),
    *("https://app.example/ cb", "https://app.example/\tcb", "https://app.example/cb\n", "\nhttps://app.example/"),
    *("https://app.example/\0", "https://app.example/\x7f", "https://app.example/é", "https://bücher.example/"),
    *(
        "https://app.example/\ud800",
        "https://app。example/",
        "https://app.example\\cb",
        "https://a/<b>",
        'https://a/"',
    ),
    *(
        "https://app.example/%",
        "https://app.example/%2",
        "https://app.example/%zz",
        "https://a/?b[]=c",
        "https://a%2Eb/",
    ),
    "https://app.example/" + "a" * 1981,
)


@pytest.mark.parametrize("uri", WEB)
def test_redirect_uri_of_the_web(uri: str):
    assert fields(redirect_uris=[uri]) == []
    assert fields(redirect_uris=[uri], token_endpoint_auth_method="none") == []


@pytest.mark.parametrize("uri", NATIVE)
def test_redirect_uri_of_an_installed_app_needs_a_public_client(uri: str):
    assert fields(redirect_uris=[uri], token_endpoint_auth_method="none") == []
    assert fields(redirect_uris=[uri]) == ["redirect_uris.0"]


@pytest.mark.parametrize("uri", NEVER)
def test_what_is_no_redirect_uri(uri: str):
    found = fields(redirect_uris=["https://app.example/", uri], token_endpoint_auth_method="none")
    assert found == ["redirect_uris.1"]


def test_how_many_redirect_uris():
    uris = [f"https://app.example/{n}" for n in range(21)]
    assert fields(redirect_uris=uris[:20]) == []
    assert fields(redirect_uris=uris) == ["redirect_uris"]
    assert fields(redirect_uris=[uris[0], uris[0]]) == ["redirect_uris"]


def test_response_types_need_their_grant_type():
    """RFC 7591 section 2.1, OIDC Registration section 2."""
    for response_types in (["code"], ["none"], ["token"], ["id_token"], ["code token"], ["code", ""]):
        assert fields(response_types=response_types) == ["response_types"]
    web = {"redirect_uris": ["https://app.example/cb"]}
    for name, grant_types in RESPONSE_TYPES.items():
        wanted = {"response_types": [name], **web}
        assert fields(grant_types=sorted(grant_types), **wanted) == []
        for one in grant_types if len(grant_types) > 1 else ():
            assert fields(grant_types=[one], **wanted) == ["response_types"]
    assert fields(response_types=[]) == []
    assert fields(grant_types=["implicit"], **web) == ["response_types"]


def test_everything_wrong_is_named_at_once():
    found = fields(
        client_name="two\nlines",
        redirect_uris=["x"],
        grant_types=[],
        response_types=["code"],
        scope=["posts:create openid"],
        token_endpoint_auth_method="tls",
        audience=["a b"],
    )
    assert sorted(found) == [
        *("audience", "client_name", "grant_types", "redirect_uris.0", "response_types", "scope"),
        "token_endpoint_auth_method",
    ]


@pytest.mark.parametrize("name", ["", "A name", "Bücher & Söhne", "株式会社", "x" * 255])
def test_names_are_one_printable_line(name: str):
    assert fields(client_name=name) == []


@pytest.mark.parametrize("name", ["x" * 256, "a\nb", "a\rb", "a\u2028b", "a\tb", "\x1b[2J", "\u202eevil", "\ue000"])
def test_names_that_would_mislead(name: str):
    assert fields(client_name=name) == ["client_name"]
