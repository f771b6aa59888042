"""Whatever is done to the rows of the log, verification says what; from an export with the JWK Set alone too.

`verify_both` verifies the log and its export; both must come to the same report.
"""

import threading
from contextvars import copy_context
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from types import SimpleNamespace

import pytest
from sqlalchemy import delete, text

from tests.audit.conftest import found, new_key
from tokenserver.audit.chain import NAMES, Chains, Entry, link_hash, microseconds
from tokenserver.audit.checkpoint import parse
from tokenserver.audit.events import Event
from tokenserver.audit.models import AuditEvent
from tokenserver.audit.record import record
from tokenserver.audit.verification import LISTED
from tokenserver.storage.sql import new_id
from tokenserver.tokens.access_token import sign_jwt
from tokenserver.web.request_context import act_as

CHANGED = {
    "id": lambda _: new_id(),
    "at": lambda at: at + timedelta(microseconds=1),
    "event": lambda _: "user:created",
    "outcome": lambda _: "denied",
    "details": lambda details: details | {"number": 99},
}


def test_one_event_changed(sealed):
    event = sealed.chain()[4]
    for name in NAMES:
        now = CHANGED.get(name, lambda _: "other")(getattr(event, name))
        sealed.change(event, **{name: now})
        report = sealed.verify_both()
        assert found(report) == [("event_changed", 5)], name
        assert report.findings[0].chain == str(event.chain)
        was = event if name != "id" else SimpleNamespace(id=now)
        sealed.change(was, **{name: getattr(event, name)})
        assert sealed.verify().ok


def test_its_hash_changed(sealed):
    sealed.change(sealed.chain()[4], hash=bytes(32))
    assert found(sealed.verify_both()) == [("event_changed", 5), ("event_changed", 6)]


def test_an_event_changed_and_the_rest_of_the_chain_written_anew(sealed):
    """The hashes need no key; the checkpoints do."""
    chain = sealed.chain()
    before = chain[3].hash
    for event in chain[4:]:
        event.actor = "somebody else"
        covered = Entry(**{name: getattr(event, name) for name in NAMES} | {"at": microseconds(event.at)})
        values = tuple(getattr(covered, name) for name in NAMES)
        before = link_hash(before, event.chain, event.position, values)
        sealed.change(event, actor=event.actor, hash=before)
    assert found(sealed.verify_both()) == [("chain_rewritten", position) for position in (6, 8, 10)]


def test_one_event_removed(sealed):
    for event in sealed.chain()[:9]:
        sealed.remove(event)
        assert found(sealed.verify_both()) == [("event_missing", event.position)]
        sealed.insert(event)


def test_two_events_swapped(sealed):
    chain = sealed.chain()
    sealed.swap(chain[3], chain[4])
    assert found(sealed.verify_both()) == [("event_changed", position) for position in (4, 5, 6)]


def test_an_event_inserted_before_the_first(sealed):
    for position in (0, -3):
        sealed.insert(sealed.chain()[0], id=new_id(), position=position)
    assert [each.code for each in sealed.verify_both().findings] == ["event_inserted"] * 2


def test_an_event_inserted_in_the_middle(sealed):
    chain = sealed.chain()
    for event in reversed(chain[5:]):
        sealed.change(event, position=event.position + 1)
    sealed.insert(chain[4], id=new_id(), position=6)
    codes = {code for code, _ in found(sealed.verify_both())}
    assert codes == {"event_changed", "chain_rewritten"}


def test_the_end_cut_off_after_a_checkpoint(sealed):
    for event in reversed(sealed.chain()[1:]):
        sealed.remove(event)
        assert found(sealed.verify_both()) == [("chain_cut", event.position)]


def test_a_whole_chain_removed(sealed):
    chain = sealed.chain()
    sealed.remove(*chain)
    (finding,) = sealed.verify_both().findings
    assert (finding.code, finding.chain, finding.position) == ("chain_missing", str(chain[0].chain), 10)


def test_a_position_twice(sealed):
    sealed.database.write(lambda tx: tx.execute(text("DROP INDEX uq_audit_events_chain_position")))
    sealed.insert(sealed.chain()[4], id=new_id(), actor="somebody else")
    report = sealed.verify_both()
    # Which of the two comes first is the database's choice.
    assert {each.code for each in report.findings} <= {"event_inserted", "event_changed"}
    assert ("event_inserted", 5) in found(report)


def test_no_position(sealed):
    sealed.change(sealed.chain()[9], position=None)
    codes = [code for code, _ in found(sealed.verify_both())]
    assert sorted(codes) == ["chain_cut", "event_changed"]


def test_events_outside_any_chain(sealed):
    first = min(event.at for event in sealed.events())
    sealed.write_unchained(first - timedelta(days=1))
    report = sealed.verify_both()
    assert (report.ok, report.unchained) == (True, 1)
    sealed.write_unchained(first + timedelta(seconds=1))
    report = sealed.verify_both()
    assert found(report) == [("event_unchained", None)]
    assert report.unchained == 2


def test_what_came_after_the_last_checkpoint_is_chained_but_not_vouched_for(sealed):
    sealed.write(3)
    sealed.write_in_another_process(2)
    report = sealed.verify_both()
    assert (report.ok, report.unsealed) == (True, 5)
    sealed.change(sealed.chain()[11], actor="somebody else")
    assert found(sealed.verify_both()) == [("event_changed", 12)]
    sealed.remove(*sealed.chain()[10:])
    assert sealed.verify_both().ok, "nobody vouched for them"


# Checkpoints


def forged(sealed, number, key=None, **claims):
    """The checkpoint with other claims, signed with another key."""
    checkpoint = parse(sealed.checkpoints()[number - 1].jws)
    before = sealed.key
    sealed.key = key or new_key()
    names = {"iss": checkpoint.issuer} | {
        name: getattr(checkpoint, name) for name in ("number", "at", "previous", "heads")
    }
    jws = sealed.sign(names | claims)
    sealed.key = before
    return jws


def test_the_newest_checkpoint_signed_with_another_key(sealed):
    sealed.change_checkpoint(3, jws=forged(sealed, 3))
    assert found(sealed.verify_both()) == [("checkpoint_unverifiable", 3)]


def test_a_checkpoint_in_the_middle_signed_with_another_key(sealed):
    sealed.change_checkpoint(2, jws=forged(sealed, 2))
    assert found(sealed.verify_both()) == [("checkpoint_link", 3)]


def test_a_checkpoint_with_another_key_under_a_known_kid(sealed):
    impostor = new_key()
    impostor = replace(impostor, signer=replace(impostor.signer, kid=sealed.key.kid))
    for number in (1, 2, 3):
        sealed.change_checkpoint(number, jws=forged(sealed, number, key=impostor))
        assert ("checkpoint_signature", number) in found(sealed.verify_both())


def test_a_checkpoint_changed_by_one_character(sealed):
    for checkpoint in sealed.checkpoints():
        for part, segment in enumerate(checkpoint.jws.split(".")):
            segments = checkpoint.jws.split(".")
            middle = len(segment) // 2
            segments[part] = segment[:middle] + ("A" if segment[middle] != "A" else "B") + segment[middle + 1 :]
            sealed.change_checkpoint(checkpoint.number, jws=".".join(segments))
            assert not sealed.verify_both().ok, (checkpoint.number, part)
        sealed.change_checkpoint(checkpoint.number, jws=checkpoint.jws)
    assert sealed.verify().ok


def test_a_checkpoint_that_is_none(sealed):
    for jws in ("", "a.b", "a.b.c", "é", "..", "e30.e30."):
        sealed.change_checkpoint(3, jws=jws)
        assert ("checkpoint_changed", 3) in found(sealed.verify_both())
    assert sealed.sealer.seal() == 4, "sealing goes on"


def test_another_token_of_the_issuer_is_no_checkpoint(sealed):
    claims = parse(sealed.checkpoints()[2].jws)
    payload = {
        "iss": claims.issuer,
        "number": 3,
        "at": claims.at,
        "previous": claims.previous,
        "heads": claims.heads,
    }
    sealed.change_checkpoint(3, jws=sign_jwt(sealed.key.signer, "at+jwt", payload))
    assert ("checkpoint_changed", 3) in found(sealed.verify_both())


def test_an_algorithm_that_is_not_the_keys(sealed):
    """The signature is good, the header lies about how it was made."""
    liar = replace(sealed.key, signer=replace(sealed.key.signer, alg="ES256"))
    sealed.change_checkpoint(3, jws=forged(sealed, 3, key=liar))
    assert found(sealed.verify_both())[0] == ("checkpoint_signature", 3)


def test_a_checkpoint_removed_from_the_middle(sealed):
    sealed.remove_checkpoint(2)
    assert found(sealed.verify_both()) == [("checkpoint_missing", 3)]


def test_the_first_checkpoint_removed(sealed):
    sealed.remove_checkpoint(1)
    assert found(sealed.verify_both()) == [("checkpoint_missing", 2)]


def test_all_checkpoints_removed(sealed):
    for number in (1, 2, 3):
        sealed.remove_checkpoint(number)
    assert found(sealed.verify_both()) == [("no_checkpoint", None)]


def test_the_newest_checkpoint_removed_is_seen_by_what_it_leaves_unsealed(sealed):
    """Nothing in the log itself proves that there was one; docs/audit.md says so."""
    sealed.remove_checkpoint(3)
    report = sealed.verify_both()
    assert (report.ok, report.unsealed) == (True, 2)


def test_two_checkpoints_swapped(sealed):
    first, second, _ = (each.jws for each in sealed.checkpoints())
    sealed.change_checkpoint(1, jws=second)
    sealed.change_checkpoint(2, jws=first)
    assert [each for each in found(sealed.verify_both()) if each[0] == "checkpoint_changed"] == [
        ("checkpoint_changed", 1),
        ("checkpoint_changed", 2),
    ]


def test_a_checkpoint_of_another_issuer(sealed):
    sealed.change_checkpoint(3, jws=forged(sealed, 3, key=sealed.key, iss="https://other.example"))
    assert found(sealed.verify()) == [("checkpoint_issuer", 3)]


def test_a_signed_checkpoint_that_takes_back_a_head(sealed):
    """Even whoever holds the key can't move a head back while the earlier checkpoints are there."""
    chain = sealed.chain()
    heads = {str(chain[0].chain): (4, chain[3].hash.hex())}
    sealed.change_checkpoint(3, jws=forged(sealed, 3, key=sealed.key, heads=heads))
    sealed.remove(*chain[4:])
    assert found(sealed.verify_both()) == [("checkpoint_conflict", 3), ("chain_cut", 5)]


def test_without_any_of_the_keys(sealed):
    sealed.trusted = []
    assert found(sealed.verify_both()) == [("checkpoint_unverifiable", 3)]


@pytest.mark.parametrize("keep", [True, False])
def test_a_key_rotated_between_checkpoints(sealed, keep):
    """The newest checkpoint vouches for the older ones, whose key is gone."""
    sealed.rotate(keep=keep)
    sealed.write()
    assert sealed.sealer.seal() == 4
    assert sealed.verify_both().ok
    first = sealed.checkpoints()[0].jws
    sealed.change_checkpoint(1, jws=first[:-8] + "AAAAAAAA")
    codes = [("checkpoint_signature", 1)] if keep else []
    assert found(sealed.verify_both()) == [*codes, ("checkpoint_link", 2)]


@pytest.mark.parametrize("backend", ["sqlite"])
def test_every_algorithm(journal):
    journal.trusted = []
    for number, alg in enumerate(("RS256", "PS256", "ES256", "EdDSA"), 1):
        journal.key = new_key(alg)
        journal.trusted.append(journal.key)
        assert journal.sealer.seal() == number
    assert journal.verify_both().ok
    rsa = journal.trusted[0]
    # A key verifies with its own algorithm alone.
    journal.trusted[0] = replace(rsa, jwk=rsa.jwk | {"alg": "PS256"})
    assert found(journal.verify_both()) == [("checkpoint_signature", 1)]


# The report


def test_all_findings_are_counted_and_the_first_are_listed(journal):
    for _ in range(LISTED + 20):
        journal.write_in_another_process()
    journal.sealer.seal()
    report = journal.verify_both()
    assert report.chains >= LISTED + 20
    assert report.events == len(journal.events())
    journal.database.write(lambda tx: tx.execute(text("UPDATE audit_events SET actor = 'x'")))
    report = journal.verify()
    assert report.found == report.events
    assert len(report.findings) == LISTED
    body = report.to_json()
    assert (body["ok"], body["found"], len(body["findings"])) == (False, report.found, LISTED)
    assert body["findings"][0].keys() == {"code", "message", "chain", "position", "checkpoint"}


@pytest.mark.parametrize("backend", ["sqlite"])
def test_rows_that_can_not_be_read_are_findings(sealed):
    """SQLite holds any value in any column."""
    event = sealed.chain()[4]
    for value in ("at = 'yesterday'", "details = '{'", "details = 7", "id = 7", "hash = 'text'", "hash = NULL"):
        statement = f"UPDATE audit_events SET {value} WHERE position = 5 AND chain = '{event.chain.hex}'"
        sealed.database.write(lambda tx, statement=statement: tx.execute(text(statement)))
        assert ("event_changed", 5) in found(sealed.verify_both()), value
        sealed.database.write(lambda tx: tx.execute(delete(AuditEvent).where(AuditEvent.position == 5)))
        sealed.insert(event)


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_member_of_the_details_that_stands_twice(sealed):
    event = sealed.chain()[4]
    statement = text(
        f"""UPDATE audit_events SET details = '{{"number": 9, "number": 4}}' WHERE id = '{event.id}'"""
    )
    sealed.database.write(lambda tx: tx.execute(statement))
    assert event.details == {"number": 4}
    assert found(sealed.verify_both()) == [("event_changed", 5)]


def test_all_kinds_of_values_survive_the_way_through_sql(journal):
    journal.write(text='é "\\\u2028\x1f', nested={"b": [1, None, True], "a": {}}, large=2**53, empty="")
    journal.sealer.seal()
    assert journal.verify_both().ok


def test_the_hash_is_what_is_documented(sealed):
    """By hand, so that nobody changes the form without seeing it."""

    def write():
        act_as("ünknown")
        sealed.write(b=2, a=1)

    copy_context().run(write)
    event = sealed.chain()[10]
    at = microseconds(event.at)
    line = (
        f'["{event.chain}",11,"{event.id}",{at},"user:updated","success",null,"ünknown",null,null,null,null,null,'
        '"u1",{"a":1,"b":2,"number":0}]'
    )
    assert sha256(sealed.chain()[9].hash + line.encode()).digest() == event.hash


# Writers


def test_writers_at_once_leave_chains_that_verify(journal):
    def write():
        for _ in range(10):
            journal.write()
            journal.sealer.seal()

    before = len(journal.events())
    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = journal.verify_both()
    assert report.ok, report.findings
    assert (report.events - before, report.unsealed) == (60, 0)
    numbers = [each.number for each in journal.checkpoints()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_rollback_leaves_no_gap(journal):
    def fail(tx):
        record(tx, Event.USER_UPDATED)
        tx.flush()
        raise ValueError

    journal.write(2)
    with pytest.raises(ValueError):
        journal.database.write(fail)
    journal.write(2)
    journal.sealer.seal()
    assert [event.position for event in journal.chain()] == [1, 2, 3, 4]
    assert journal.verify_both().ok
    assert len(journal.database.info[Chains]._free) == 1
