"""Retention: what is old leaves, and what stays can still be proven."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import event as sql_event

from tests.audit.conftest import Journal, found
from tokenserver.audit.checkpoint import Stub, parse
from tokenserver.audit.retention import Retention
from tokenserver.storage.sql import utc_now


def ago(days: float):
    return utc_now() - timedelta(days=days)


@pytest.fixture
def aged(journal: Journal) -> Journal:
    """Eight events of ten days ago and four of today, in one chain; three of ten days ago in another one."""
    journal.write_old(10, 8)
    journal.write(4)
    journal.in_another_process(lambda: journal.write_old(10, 3))
    journal.sealer.seal()
    return journal


def ages(journal):
    return sorted(round((utc_now() - each.at) / timedelta(days=1)) for each in journal.events())


def test_old_events_leave_and_the_rest_is_proven(aged):
    assert aged.retention.prune(ago(5)) == 11
    assert ages(aged) == [0, 0, 0, 0]
    report = aged.verify_both()
    assert report.ok, report.findings
    assert (report.events, report.chains, report.pruned, report.unsealed) == (4, 1, 11, 0)
    assert aged.retention.prune(ago(5)) == 0
    assert aged.verify_both() == report


def test_the_stub_says_where_the_chain_begins(aged):
    gone = [each for each in aged.chain() if each.position <= 8]
    aged.retention.prune(ago(5))
    stubs = parse(aged.checkpoints()[-1].jws).pruned
    assert len(stubs) == 2
    last = gone[-1]
    stub = stubs[str(last.chain)]
    assert stub[:2] == (8, last.hash.hex())
    assert abs(stub.at / 1e6 - last.at.timestamp()) < 1e-5


def test_what_is_tampered_with_afterwards_is_found(aged):
    aged.retention.prune(ago(5))
    chain = aged.chain()
    aged.change(chain[0], actor="somebody else")
    assert found(aged.verify_both()) == [("event_changed", 9)]
    aged.change(chain[0], actor=None)
    aged.remove(chain[0])
    assert found(aged.verify_both()) == [("event_missing", 9)]
    aged.remove(*chain)
    assert found(aged.verify_both()) == [("chain_missing", 12)]


def test_an_old_event_put_back_is_found(aged):
    old = aged.chain()[3]
    aged.retention.prune(ago(5))
    aged.insert(old)
    assert found(aged.verify_both()) == [("event_inserted", 4)]


def test_a_chain_that_was_pruned_whole_goes_on(aged):
    assert aged.retention.prune(utc_now()) == 15
    assert aged.events() == []
    report = aged.verify_both()
    assert (report.ok, report.chains, report.pruned) == (True, 0, 15)
    aged.write(2)
    assert [each.position for each in aged.chain()] == [13, 14]
    aged.sealer.seal()
    assert aged.verify_both().ok
    aged.remove(*aged.chain())
    assert found(aged.verify_both()) == [("chain_missing", 14)]


def test_in_batches(aged):
    deleted = []

    def note(_connection, cursor, statement, *_):
        if statement.startswith("DELETE FROM audit_events"):
            deleted.append(cursor.rowcount)

    sql_event.listen(aged.database.engine, "after_cursor_execute", note)
    assert aged.retention.prune(ago(5), limit=2) == 11
    sql_event.remove(aged.database.engine, "after_cursor_execute", note)
    assert sum(deleted) == 11
    assert max(deleted) <= 2
    made = [parse(each.jws) for each in aged.checkpoints()]
    assert sum(bool(each.pruned) for each in made) == 6, "one for each transaction"
    assert aged.verify_both().ok


def test_only_the_beginning_of_a_chain_leaves(journal):
    """An old event after a younger one, as a stream that waited brings it."""
    journal.write_old(10, 2)
    journal.write()
    journal.write_old(10, 2)
    assert journal.retention.prune(ago(5)) == 2
    assert [each.position for each in journal.chain()] == [3, 4, 5]
    assert journal.verify_both().ok


def test_events_that_no_checkpoint_knew_are_sealed_first(journal):
    journal.sealer.seal()
    journal.in_another_process(lambda: journal.write_old(10, 3))
    assert journal.sealer.seal() is None, "they are too late for it"
    assert journal.retention.prune(ago(5)) == 3
    assert journal.verify_both().ok


@pytest.mark.parametrize("backend", ["postgresql"])  # on SQLite nobody writes while somebody else does
def test_events_that_no_checkpoint_knows_stay(journal):
    """They came after pruning had sealed what there was."""
    sign = journal.sealer._sign

    def sign_late(claims):
        if not journal.events()[1:]:
            journal.write_old(10, 3)
        return sign(claims)

    journal.write_old(10)
    journal.sealer._sign = sign_late
    assert journal.retention.prune(ago(5)) == 1
    assert [each.position for each in journal.chain()] == [2, 3, 4]
    assert journal.verify_both().ok


# Deleting by hand


def test_deleted_without_a_stub(aged):
    aged.remove(*aged.chain()[:8])
    assert found(aged.verify_both()) == [("event_missing", 1)]


def test_deleted_with_a_stub_of_ones_own(aged):
    """The stub needs the key."""
    chain = aged.chain()
    aged.remove(*chain[:10])
    newest = parse(aged.checkpoints()[-1].jws)
    key = aged.key
    aged.rotate()
    jws = aged.sign(
        {
            "iss": newest.issuer,
            "number": newest.number,
            "at": newest.at,
            "previous": newest.previous,
            "heads": newest.heads,
            "pruned": {str(chain[0].chain): Stub(10, chain[9].hash.hex(), 1)},
        }
    )
    aged.trusted, aged.key = [key], key
    aged.change_checkpoint(newest.number, jws=jws)
    assert ("checkpoint_unverifiable", newest.number) in found(aged.verify_both())


def test_a_chain_that_was_tampered_with_stays(aged):
    """Or pruning would do away with the evidence; what comes before the fault may go."""
    aged.change(aged.chain()[4], actor="somebody else")
    assert aged.retention.prune(ago(5)) == 7
    assert [each.position for each in aged.chain()] == [5, 6, 7, 8, 9, 10, 11, 12]
    assert found(aged.verify_both()) == [("event_changed", 5)]
    assert aged.retention.prune(ago(5)) == 0


def test_a_gap_stays(aged):
    aged.remove(aged.chain()[4])
    assert aged.retention.prune(ago(5)) == 7
    assert found(aged.verify_both()) == [("event_missing", 5)]


# Events from before there were chains


def test_unchained_events_are_deleted(aged):
    for days in (30, 20, 10, 1):
        aged.write_unchained(ago(days))
    aged.retention.prune(ago(15), limit=1)
    assert aged.verify().unchained == 2


# Checkpoints


def test_old_checkpoints_leave_but_for_the_newest(sealed):
    sealed.retention.prune(utc_now())
    left = [each.number for each in sealed.checkpoints()]
    assert left == [3, 4, 5], "the newest of before, the one with the stubs, the one that says what left"
    newest = parse(sealed.checkpoints()[-1].jws)
    assert newest.pruned_checkpoints == 2
    assert sealed.verify_both().ok
    sealed.remove_checkpoint(3)
    assert found(sealed.verify_both()) == [("checkpoint_missing", 4)]


def test_nothing_is_made_when_nothing_is_old(sealed):
    assert sealed.retention.prune(ago(1)) == 0
    assert len(sealed.checkpoints()) == 3


def test_a_pruned_checkpoint_put_back_is_found(sealed):
    first = sealed.checkpoints()[0]
    sealed.retention.prune(utc_now())
    sealed.database.write(lambda tx: tx.merge(first))
    assert [code for code, _ in found(sealed.verify_both())] == ["checkpoint_missing", "checkpoint_missing"]


def test_stubs_and_heads_survive_the_checkpoints_that_named_them(journal):
    """Again and again, in small batches; the chain of another process has a fault and stays."""
    journal.in_another_process(lambda: journal.write_old(20, 4))
    faulty = journal.events()
    journal.sealer.seal()
    journal.change(faulty[2], actor="somebody else")
    for _ in range(4):
        journal.write_old(10, 3)
        journal.write()
        journal.sealer.seal(everything=True)
        journal.rotate(keep=False)
        journal.retention.prune(utc_now(), limit=3)
        report = journal.verify_both()
        assert found(report) == [("event_changed", 3)]
        assert (report.unsealed, report.events) == (0, 2)
        assert len(journal.checkpoints()) < 12
    assert report.pruned == 16 + 2
    journal.remove(*faulty)
    assert found(journal.verify_both()) == [("chain_missing", 4)]
    journal.write()
    assert found(journal.verify_both()) == [("chain_missing", 4)]


def test_a_head_is_not_carried_past_a_newer_one(sealed):
    sealed.change(sealed.chain()[0], actor="somebody else")  # so that no event leaves
    sealed.retention.prune(utc_now())
    assert sealed.checkpoints()[0].number == 3
    assert found(sealed.verify_both()) == [("event_changed", 1)]


def test_a_tampered_checkpoint_stays(sealed):
    sealed.change_checkpoint(1, jws=sealed.checkpoints()[1].jws)
    before = found(sealed.verify_both())
    sealed.retention.prune(utc_now())
    assert sealed.checkpoints()[0].number == 1
    assert [each for each in found(sealed.verify_both()) if each in before] == before


def test_the_stub_of_a_chain_is_forgotten_when_it_can_not_go_on_any_more(journal):
    for days in (400, 300):
        journal.in_another_process(lambda days=days: journal.write_old(days))
    journal.sealer.seal()
    journal.retention.prune(ago(5))
    assert journal.verify().pruned == 2
    for _ in range(2):  # until the checkpoint that named them has left too
        journal.write()
        journal.sealer.seal()
        journal.retention.prune(utc_now())
    stubs = {chain: stub for each in journal.checkpoints() for chain, stub in parse(each.jws).pruned.items()}
    years = sorted((utc_now().timestamp() - stub.at / 1e6) // 86400 for stub in stubs.values())
    assert years == [0, 300]
    assert journal.verify_both().ok


def test_the_stub_of_a_chain_with_events_is_never_forgotten(journal):
    journal.write_old(400, 2)
    journal.write(2)
    journal.sealer.seal()
    journal.retention.prune(ago(5))
    for each in journal.checkpoints():  # as if it had been long ago
        journal.change_checkpoint(each.number, at=ago(10))
    journal.rotate()
    journal.sealer.seal()
    journal.retention.prune(ago(5))
    assert [each.number for each in journal.checkpoints()] == [3, 4]
    report = journal.verify_both()
    assert (report.ok, report.pruned, report.events) == (True, 2, 2)


# At once


def test_processes_that_prune_seal_and_write_at_the_same_moment(aged):
    barrier = threading.Barrier(4, timeout=30)
    counts = []

    def prune():
        retention = Retention(aged.database, aged.other_sealer())
        barrier.wait()
        counts.append(retention.prune(ago(5), limit=2))

    def write():
        barrier.wait()
        for _ in range(10):
            aged.write()
            aged.sealer.seal()

    threads = [threading.Thread(target=target) for target in (prune, prune, write, write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 11
    report = aged.verify_both()
    assert report.ok, report.findings
    assert (report.events, report.pruned, report.unsealed) == (24, 11, 0)


def test_nothing_leaves_without_its_stub(aged):
    """The process is killed, or the key is away: then nothing has happened."""
    before = len(aged.events())

    def fail(_claims):
        raise RuntimeError

    aged.sealer._sign = fail
    with pytest.raises(RuntimeError):
        aged.retention.prune(ago(5))
    assert len(aged.events()) == before
    assert aged.verify_both().ok
