"""Checkpoints: when one is made, what it says, and that any number of processes may make them."""

import base64
import json
import threading
from datetime import timedelta
from hashlib import sha256

import pytest
import sqlalchemy as sa

from tests.audit.conftest import Journal, new_key
from tokenserver.audit.chain import microseconds
from tokenserver.audit.checkpoint import MARGIN, TYP, Sealer, parse
from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.storage.sql import utc_now
from tokenserver.tokens.access_token import sign_jwt


def claims(jws):
    return json.loads(base64.urlsafe_b64decode(jws.split(".")[1] + "=="))


def said(journal):
    """What the newest checkpoint says."""
    return claims(journal.checkpoints()[-1].jws)


def test_what_a_checkpoint_says(journal):
    journal.write(3)
    assert journal.sealer.seal() == 1
    (first,) = journal.checkpoints()
    header = json.loads(base64.urlsafe_b64decode(first.jws.split(".")[0] + "=="))
    assert header == {"typ": "audit-checkpoint+jwt", "alg": "EdDSA", "kid": journal.key.kid}
    head = journal.chain()[-1]
    assert claims(first.jws) == {
        "iss": journal.rooms.settings.issuer,
        "number": 1,
        "at": microseconds(first.at),
        "previous": None,
        "heads": {str(head.chain): [3, head.hash.hex()]},
    }
    journal.write()
    assert journal.sealer.seal() == 2
    assert said(journal)["previous"] == sha256(first.jws.encode()).hexdigest()


def test_one_names_the_chains_that_advanced(journal):
    journal.write(2)
    journal.write_in_another_process()
    journal.sealer.seal()
    assert len(said(journal)["heads"]) == 2
    journal.write(2)
    journal.sealer.seal()
    assert [position for position, _ in said(journal)["heads"].values()] == [4]


def test_one_is_made_when_something_happened(journal):
    assert journal.sealer.seal() == 1, "of an empty log, so that there is one"
    for _ in range(3):
        assert journal.sealer.seal() is None
        assert journal.other_sealer().seal() is None
    journal.write()
    assert journal.sealer.seal() == 2
    assert journal.sealer.seal() is None


def test_one_is_made_when_key_or_issuer_changed(journal):
    journal.sealer.seal()
    journal.rotate()
    assert journal.sealer.seal() == 2
    assert parse(journal.checkpoints()[-1].jws).kid == journal.key.kid
    moved = Sealer(journal.database, journal.sign, lambda: journal.key.kid, "https://moved.example")
    assert moved.seal() == 3
    assert moved.seal() is None


@pytest.mark.parametrize("backend", ["postgresql"])  # on SQLite writers take turns
def test_a_transaction_that_has_not_ended_is_not_sealed(journal):
    ready, go = threading.Event(), threading.Event()

    def work(tx):
        record(tx, Event.USER_UPDATED)
        tx.flush()
        ready.set()
        assert go.wait(30)

    journal.write()
    writer = threading.Thread(target=journal.database.write, args=(work,))
    writer.start()
    assert ready.wait(30)
    journal.sealer.seal()
    assert [position for position, _ in said(journal)["heads"].values()] == [1]
    go.set()
    writer.join()
    journal.sealer.seal()
    assert [position for position, _ in said(journal)["heads"].values()] == [2]


def test_processes_that_seal_at_the_same_moment(journal):
    sealers = [journal.other_sealer() for _ in range(4)]
    made = []
    barrier = threading.Barrier(4, timeout=30)

    def seal(sealer):
        for _ in range(5):
            barrier.wait()
            journal.write()
            made.append(sealer.seal())

    threads = [threading.Thread(target=seal, args=(sealer,)) for sealer in sealers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [number for number in made if number is not None]
    assert sorted(numbers) == [each.number for each in journal.checkpoints()] == list(range(1, len(numbers) + 1))
    report = journal.verify_both()
    assert report.ok, report.findings
    assert (report.events, report.unsealed) == (20, 0)
    # Nothing was said twice.
    heads = [(chain, head) for each in journal.checkpoints() for chain, head in parse(each.jws).heads.items()]
    assert len(set(heads)) == len(heads)


# Which chains it looks at


def test_late_events_are_found_within_the_margin(journal):
    journal.sealer.seal()
    journal.write_old((MARGIN - timedelta(seconds=30)) / timedelta(days=1))
    assert journal.sealer.seal() == 2
    assert journal.verify().unsealed == 0


def test_events_that_came_later_still_are_found_by_the_next_look_at_all_chains(journal):
    """A stream may wait for days before it is carried into the log."""
    journal.sealer.seal()
    journal.write_old(2)
    assert journal.sealer.seal() is None
    assert journal.verify().unsealed == 1
    assert journal.sealer.seal(everything=True) == 2
    assert journal.verify().unsealed == 0
    journal.write_old(1)
    assert journal.other_sealer().seal() == 3, "the first call looks at all"


def test_a_checkpoint_of_retention_is_no_look(journal):
    """It was made without looking for chains that advanced, so the next look begins before it."""
    journal.sealer.seal()
    journal.change_checkpoint(1, at=utc_now() - timedelta(minutes=10))
    journal.write_old(timedelta(minutes=5) / timedelta(days=1))
    sealer = journal.other_sealer()
    sealer._seen_all = True
    assert sealer.add(lambda _tx, _ledger: {"pruned_checkpoints": 1}) == 2
    assert sealer.seal() == 3


@pytest.mark.parametrize("backend", ["sqlite"])
def test_looking_reads_no_more_than_it_must(journal):
    """The whole log is never walked through: neither by its table nor by an index."""
    journal.write(5)
    statements = []

    def note(_connection, _cursor, statement, parameters, *_):
        if "audit_events" in statement and statement.startswith(("SELECT", "WITH")):
            statements.append((statement, parameters))

    sa.event.listen(journal.database.engine, "before_cursor_execute", note)
    journal.sealer.seal(everything=True)
    journal.sealer.seal()
    sa.event.remove(journal.database.engine, "before_cursor_execute", note)
    assert len(statements) == 2
    for statement, parameters in statements:
        with journal.database.engine.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
        steps = [step[3] for step in plan if "audit_events" in step[3]]
        assert steps
        assert not [step for step in steps if step.startswith("SCAN")], steps
    assert "ix_audit_events_at_id" in str(plan)


# A database that is not the one it was


def test_a_database_restored_from_a_backup(sealed: Journal):
    """The process goes on from what is there, not from what it remembers."""
    sealed.remove_checkpoint(3)
    assert sealed.sealer.seal(everything=True) == 3
    assert sealed.verify_both().ok
    sealed.remove_checkpoint(3)
    sealed.remove_checkpoint(2)
    sealed.remove(*sealed.chain()[6:])
    sealed.write_in_another_process()
    assert sealed.sealer.seal(everything=True) == 2
    report = sealed.verify_both()
    assert report.ok, report.findings
    assert report.unsealed == 0


# Reading one


@pytest.mark.parametrize(
    "change",
    [
        {"number": 0},
        {"number": True},
        {"number": 1.0},
        {"number": 2**63},
        {"at": "now"},
        {"previous": "abc"},
        {"previous": 1},
        {"iss": ""},
        {"heads": []},
        {"heads": {"not a chain": [1, "0" * 64]}},
        {"heads": {"00000000-0000-0000-0000-000000000000": [0, "0" * 64]}},
        {"heads": {"00000000-0000-0000-0000-000000000000": [1, "0" * 63]}},
        {"heads": {"00000000-0000-0000-0000-000000000000": [1]}},
        {"pruned": {"00000000-0000-0000-0000-000000000000": [1, "0" * 64]}},
        {"pruned_checkpoints": -1},
        *({name: None} for name in ("iss", "number", "at", "heads")),
    ],
    ids=str,
)
def test_what_is_not_of_this_form_is_no_checkpoint(change):
    good = {"iss": "https://id.example", "number": 1, "at": 1, "previous": None, "heads": {}}
    key = new_key()
    assert parse(sign_jwt(key.signer, TYP, good)).number == 1
    with pytest.raises(ValueError):
        parse(sign_jwt(key.signer, TYP, good | change))
