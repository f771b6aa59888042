"""Names that people are known by: which are allowed, and which are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api
from tokenserver.identity.names import folded, is_email, is_username

SAME_AS_ANNA = (
    "anna",
    "ANNA",
    "Anna",
    "  anna\t",
    "ａｎｎａ",  # full-width
    "ＡＮＮＡ",
    "ᵃnna",  # superscript
    "𝐚𝐧𝐧𝐚",  # mathematical bold
    "ⓐⓝⓝⓐ",  # circled
)
NOBODY_S_NAME = (
    "аnna",
    "annа",
    "αnna",
    "an\u200bna",  # zero-width space
    "anna\u200d",
    "an\u00adna",  # soft hyphen
    "\u202eanna",  # right-to-left override
    "ann\u0131",  # dotless i
    "İnna",  # folds to i and a combining dot
    "änna",
    "a\u0308nna",
    "anna\u0000",
    "an na",
    "anna@example.org",
    "_anna",
    ".anna",
    "-anna",
    "a",
    "a" * 33,
    "",
    " ",
    "\u2603nna",
    "anna\n",
    "an/na",
    "anna%00",
    "ann\ud800",
)


@pytest.mark.parametrize("spelling", SAME_AS_ANNA)
def test_spellings_of_one_user_name(spelling: str):
    assert folded(spelling) == "anna"
    assert is_username(folded(spelling))


@pytest.mark.parametrize("name", [name for name in NOBODY_S_NAME if name != "anna\n"])
def test_what_is_no_user_name(name: str):
    """Of what folding leaves only ASCII is allowed, so that nothing can look like a name and be another."""
    assert not is_username(folded(name))


@pytest.mark.parametrize("name", ["ab", "a1", "1a", "a.b-c_d", "a" * 32, "007"])
def test_user_names(name: str):
    assert is_username(folded(name))


@pytest.mark.parametrize(
    "address",
    [
        "a@b",
        "ann@example.org",
        "ann+tag@example.org",
        "o'brien@example.org",
        "ann@[x",
        "äöü@exämple.org",
        "a@b.c.d",
    ],
)
def test_addresses(address: str):
    assert is_email(folded(address)) == ("[" not in address)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "",
            "@",
            "a@",
            "@b",
            "ann",
            "a@b@c",
            "a b@c",
            "a@b c",
            "a@b.",
            "a@.b",
            "a@b..c",
            "<a@b>",
            "a,b@c",
            "a@b\u0000",
        ),
        *("a\u200b@b", "a@b\u202e", "a\u00ad@b", "a@b\ud800", "x" * 65 + "@b", "a@" + "b" * 253),
    ],
)
def test_what_is_no_address(address: str):
    assert not is_email(folded(address))


@given(st.text(max_size=40))
def test_folding_again_changes_nothing(name: str):
    assert folded(folded(name)) == folded(name)
    assert folded(name.upper()) == folded(folded(name).upper()) or not is_username(folded(name))


def test_one_account_for_all_spellings_of_a_name(api: Api):
    api.register("anna")
    for number, spelling in enumerate(SAME_AS_ANNA):
        body = {"username": spelling.strip(), "email": f"{number}@example.org", "password": PASSWORD}
        refused(api.http.post("/auth/register", json=body), 409, "username_taken")
        body = {"username": f"other{number}", "email": f"{spelling.strip()}@Example.ORG", "password": PASSWORD}
        refused(api.http.post("/auth/register", json=body), 409, "email_taken")
        granted(api.http.post("/auth/login", json={"login": spelling, "password": PASSWORD}))
    for number, name in enumerate(NOBODY_S_NAME):
        body = {"username": name, "email": f"{number}@example.org", "password": PASSWORD}
        response = api.http.post("/auth/register", json=body)
        assert response.status_code in {400, 422}, ascii(name)


def test_address_is_stored_in_characters_that_mail_can_be_sent_to(api: Api):
    """NFKC makes a full-width @ one; whoever reads the stored address must not meet another one."""
    body = {"username": "anna", "email": "anna＠example．org", "password": PASSWORD}
    assert granted(api.http.post("/auth/register", json=body), 201)["email"] == "anna@example.org"
