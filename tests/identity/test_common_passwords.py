"""The carried list: what is on it, and that it is what its description says."""

import hashlib
import mmap
import re

from tokenserver.identity import common_passwords
from tokenserver.identity.common_passwords import FILE, RECORD, is_common

CONTENT = FILE.read_bytes()


def test_list_is_the_one_that_is_described():
    text = FILE.with_suffix(".md").read_text("utf-8")
    described = re.search(r"\| SHA-256 \| `([0-9a-f]{64})`", text)
    assert described is not None
    assert hashlib.sha256(CONTENT).hexdigest() == described[1]


def test_hundred_thousand_records_in_order():
    records = [CONTENT[at : at + RECORD] for at in range(0, len(CONTENT), RECORD)]
    assert len(records) == 100_000
    assert records == sorted(set(records))


def test_what_is_on_it():
    # first, last and somewhere of those of eight characters in the list's order
    for password in ("password", "12345678", "qwertyuiop", "iloveyou1", "QWERTY123456", "1111111111111111"):
        assert is_common(password), password
    for password in (
        "correct horse 7 battery",
        "password horse",
        "",
        "passwort 7 horse",
        "\ud800 lonely surrogate",
    ):
        assert not is_common(password), password


def test_ends_of_the_list_are_found(monkeypatch):
    """Bisecting finds the first and the last record, and nothing beside them."""
    records = {CONTENT[:RECORD], CONTENT[-RECORD:]}
    beyond = {(int.from_bytes(each, "big") + step).to_bytes(RECORD, "big") for each in records for step in (-1, 1)}
    for record in records | beyond:
        monkeypatch.setattr(common_passwords, "record_of", lambda _password, record=record: record)
        assert is_common("") is (record in records)


def test_processes_share_it():
    assert isinstance(common_passwords._records(), mmap.mmap)
