"""Passwords: what is accepted, how they are compared, what hashing may cost (NIST SP 800-63B-4, OWASP ASVS 6.2)."""

import unicodedata
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters
from sqlalchemy import func, select

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api
from tokenserver.audit.models import AuditEvent
from tokenserver.errors import Overloaded
from tokenserver.identity import passwords as passwords_module
from tokenserver.identity.hash_places import HashPlaces
from tokenserver.identity.models import User
from tokenserver.identity.passwords import Passwords, weakness
from tokenserver.rooms import Rooms

pytestmark = pytest.mark.usefixtures("hard_hashes")
ALL_ASCII = "".join(map(chr, range(32, 127)))


def register(api: Api, username: str, password: str) -> Any:
    body = {"username": username, "email": f"{username}@example.org", "password": password}
    return api.http.post("/auth/register", json=body)


@pytest.mark.parametrize(
    "password",
    [
        "12 34 ab",
        "correct horse",
        "nodigitsnouppercase",
        "my TokenServer 7 login",
        "        spaces   ",
        "пароль из слов",
        "密码密码一二三四",
        "🐎🔋🧷✅ 7 a b",
        ALL_ASCII,
        "x" * 60 + "yz",
        "ab1" * 42,
        "x" * 40,
        "abababababababababababab",
        "a" * 127 + "\U0001f40e",
    ],
)
def test_no_rules_of_composition(password: str):
    """ASVS 6.2.5, 6.2.9: any characters, spaces too, and 64 of them at least."""
    assert weakness(password, "ann", "ann@example.org") is None


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("", "at least"),
        ("1234567", "at least"),
        ("a\u0308" * 7, "at least"),  # seven letters of two code points each
        ("x1y" * 43, "at most"),
        ("aaaaaaaaaaaa", "most common"),
        ("abababab", "most common"),
        ("1q2w3e4r", "most common"),
        ("password1", "most common"),
        ("PassWord1", "most common"),
        ("ＰａｓｓＷｏｒｄ１", "most common"),
        ("  password1 ", "most common"),
        ("my name is anna", "name"),
        ("MY NAME IS ＡＮＮＡ", "name"),
        ("xx archer.a@example.org", "name"),
        ("his Archer.A of old", "name"),
        ("TokenServer 2026", "service"),
    ],
)
def test_weak_ones_are_refused_with_the_reason(password: str, why: str):
    """ASVS 6.2.1, 6.2.11."""
    assert why in str(weakness(password, "anna", "archer.a@example.org", "bob"))


def test_weak_ones_are_refused_at_the_door(api: Api):
    for password in ("", "1234567", "aaaaaaaaaa", "Password1", "x1y" * 43):
        errors = refused(register(api, "ann", password), 422, "validation_failed").json["errors"]
        assert [error["field"] for error in errors] == ["password"]
        assert password not in errors[0]["message"] or not password


def test_all_of_it_is_compared(api: Api):
    """ASVS 6.2.8: case, spaces and the last of 128 characters; nothing is cut off or trimmed."""
    long = ("x1 " * 43)[:127]
    for username, password, wrong in (
        ("ann", long + "a", (long + "b", long, (long + "a")[:72], long + "aa")),
        ("bob", " Horse Battery 7 ", ("Horse Battery 7", " horse battery 7 ", " Horse Battery 7")),
        ("cid", ALL_ASCII, (ALL_ASCII[:-1], ALL_ASCII[1:], ALL_ASCII.strip())),
        ("dan", "ﬁve ｗords ① of ²", ("five words 1 of 2",)),
    ):
        granted(register(api, username, password), 201)
        api.login(username, password)
        for other in wrong:
            body = {"login": username, "password": other}
            refused(api.http.post("/auth/login", json=body), 401, "invalid_credentials")


def test_composed_and_decomposed_typing_are_one(api: Api):
    """NIST SP 800-63B-4 section 3.1.1.2: normalised before hashing, as another keyboard sends other code points."""
    password = "Ångström été 7"
    composed, decomposed = (unicodedata.normalize(form, password) for form in ("NFC", "NFD"))
    assert composed != decomposed
    granted(register(api, "ann", decomposed), 201)
    for typed in (composed, decomposed):
        api.login("ann", typed)


def test_stored_as_argon2id_with_a_salt_of_its_own(api: Api, rooms: Rooms):
    for username in ("ann", "bob"):
        granted(register(api, username, PASSWORD), 201)
    query = select(User.password_hash).where(User.username.in_(("ann", "bob")))
    hashes = rooms.database.read(lambda tx: tx.scalars(query).all())
    assert len(set(hashes)) == 2
    for stored in hashes:
        parameters = extract_parameters(stored)
        assert stored.startswith("$argon2id$")
        assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19456, 2, 1)


def test_weaker_hash_is_replaced_at_the_next_sign_in(api: Api, rooms: Rooms):
    user = api.register()
    weak = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    rooms.database.write(
        lambda tx: setattr(tx.scalar(select(User).where(User.username == "ann")), "password_hash", weak)
    )
    wrong = {"login": "ann", "password": "wrong horse"}
    refused(api.http.post("/auth/login", json=wrong), 401, "invalid_credentials")

    def stored() -> str:
        query = select(User.password_hash).where(User.username == user["username"])
        return str(rooms.database.read(lambda tx: tx.scalar(query)))

    assert stored() == weak
    granted(api.me(api.login()["access_token"]))
    assert extract_parameters(stored()).memory_cost == 19456
    api.login()


def test_too_large_ones_are_refused_before_they_are_hashed(api: Api, rooms: Rooms):
    """Nothing is even looked up: no failed sign-in is recorded."""
    api.register()
    huge = "x" * (64 * 1024)
    refused(api.http.post("/auth/login", json={"login": "ann", "password": huge}), 413, "body_too_large")
    form = {"grant_type": "password", "username": "ann", "password": huge, "client_id": "first-party"}
    refused(api.token(None, **form), 413, "invalid_request")
    refused(register(api, "bob", huge), 413, "body_too_large")
    body = {"login": "ann", "password": "x" * 1025}
    refused(api.http.post("/auth/login", json=body), 422, "validation_failed")
    query = select(func.count()).where(AuditEvent.event == "login:failed")
    assert rooms.database.read(lambda tx: tx.scalar(query)) == 0


def test_queue_of_hashes_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """A storm of sign-ins is told to come again; the threads of refreshes stay free."""
    monkeypatch.setattr(passwords_module, "WAIT_SECONDS", 60)
    passwords = Passwords(slots=1, queue=3, places=HashPlaces(None, 1))

    def verify(_: int) -> bool | None:
        try:
            return passwords.verify(None, PASSWORD)
        except Overloaded:
            return None

    with ThreadPoolExecutor(12) as pool:
        with passwords._running:
            asked = [pool.submit(verify, number) for number in range(12)]
            turned_away = [each.result() for each in islice(as_completed(asked, timeout=60), 9)]
        assert turned_away == [None] * 9
        assert [each.result() for each in asked].count(False) == 3
    assert passwords.verify(None, PASSWORD) is False  # every place was given back
    assert passwords.verify("not a hash", PASSWORD) is False
    assert passwords.verify(passwords.hash(PASSWORD), PASSWORD) is True
