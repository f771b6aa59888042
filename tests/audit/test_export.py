"""Exports: what stands in them, that they are of one moment, and a changed file is found by the JWK Set alone."""

import json
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from tests.audit.conftest import found
from tokenserver.audit.chain import microseconds
from tokenserver.audit.export import LISTED, write_export
from tokenserver.audit.log import Log
from tokenserver.errors import Invalid

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"])  # the file is the same


def is_found(journal, text):
    """Whether anything is wrong with such a file."""
    try:
        return not journal.verify_export(text).ok
    except Invalid:
        return True


def test_the_form(sealed):
    sealed.write_unchained(sealed.chain()[0].at - timedelta(days=1))
    text = sealed.export()
    lines = [json.loads(line) for line in text.split(b"\n")[:-1]]
    header, checkpoints, events, unchained, end = lines[0], lines[1:4], lines[4:16], lines[16], lines[17]
    assert {name: header[name] for name in ("format", "version", "issuer")} == {
        "format": "tokenserver-audit",
        "version": 1,
        "issuer": sealed.rooms.settings.issuer,
    }
    assert datetime.fromisoformat(header["exported_at"]).utcoffset() == timedelta(0)
    assert checkpoints == [{"checkpoint": each.number, "jws": each.jws} for each in sealed.checkpoints()]
    assert [(each["chain"], each["position"]) for each in events] == [
        (str(each.chain), each.position) for each in sealed.events()
    ]
    first = sealed.events()[0]
    assert events[0] == {
        "chain": str(first.chain),
        "position": 1,
        "hash": first.hash.hex(),
        "id": str(first.id),
        "at": microseconds(first.at),
        "event": "user:updated",
        "outcome": "success",
        "reason": None,
        "actor": None,
        "client_id": None,
        "address": None,
        "request_id": None,
        "method": None,
        "path": None,
        "target": "u1",
        "details": {"number": 0},
    }
    assert [unchained[name] for name in ("chain", "position", "hash", "event")] == [
        None,
        None,
        None,
        "user:created",
    ]
    assert end == {"end": {"checkpoints": 3, "events": 13}}
    assert len(lines) == 18
    assert text.isascii()
    assert sealed.verify_export(text).ok


def test_an_export_is_of_one_moment(sealed):
    """What happens meanwhile is not in it, neither its events nor its checkpoints."""
    lines = []

    def write(line):
        lines.append(line)
        if len(lines) > 1:  # the first reading has begun
            sealed.write()
            sealed.write_in_another_process()
        if len(lines) in {2, 3, 7}:
            sealed.sealer.seal()

    counts = sealed.database.read(lambda tx: write_export(Log(tx), sealed.rooms.settings.issuer, write))
    assert counts == {"checkpoints": 3, "events": 12}
    report = sealed.verify_export("".join(lines).encode())
    assert (report.ok, report.events, report.unsealed) == (True, 12, 0)


# Tampered with


@on_sqlite
def test_every_line_removed_repeated_or_swapped(sealed):
    sealed.write(2)  # not vouched for yet
    lines = sealed.export().splitlines(keepends=True)
    assert len(lines) == 19
    for index in range(len(lines)):
        assert is_found(sealed, b"".join([*lines[:index], *lines[index + 1 :]])), index
        assert is_found(sealed, b"".join([*lines[: index + 1], *lines[index:]])), index
        swapped = [*lines[:index], *lines[index : index + 2][::-1], *lines[index + 2 :]]
        assert is_found(sealed, b"".join(swapped)) == (swapped != lines), index


@on_sqlite
def test_a_whole_chain_out_of_its_place_or_twice(sealed):
    """With a count that was mended."""
    lines = sealed.export().splitlines(keepends=True)
    before, first, second, end = lines[:4], lines[4:14], lines[14:16], lines[16:]
    if len({json.loads(line)["chain"] for line in first}) > 1:  # the shorter chain comes first
        first, second = lines[4:6], lines[6:16]
    report = sealed.verify_export(b"".join([*before, *second, *first, *end]))
    assert [code for code, _ in found(report)] == ["chain_misplaced"]
    mended = json.dumps({"end": {"checkpoints": 3, "events": 12 + len(first)}}).encode() + b"\n"
    report = sealed.verify_export(b"".join([*before, *first, *second, *first, mended]))
    assert "chain_misplaced" in [code for code, _ in found(report)]


@on_sqlite
def test_a_member_that_no_checkpoint_has(sealed):
    lines = sealed.export().splitlines(keepends=True)
    lines[1] = json.dumps(json.loads(lines[1]) | {"note": "signed by nobody"}).encode() + b"\n"
    assert is_found(sealed, b"".join(lines))


@on_sqlite
def test_every_way_to_cut_it_off(sealed):
    text = sealed.export()
    for length in [*range(0, len(text) - 1, 97), *range(len(text) - 90, len(text))]:
        assert is_found(sealed, text[:length]), length


@on_sqlite
def test_every_member_of_an_event(sealed):
    lines = sealed.export().splitlines(keepends=True)
    event = json.loads(lines[8])

    def found_in(text):
        changed = [*lines[:8], text.encode() + b"\n", *lines[9:]]
        return is_found(sealed, b"".join(changed))

    assert not found_in(json.dumps(event)), "the same, spelled with spaces"
    for name in event:
        for value in ("other", 7, True, None, 1.5, [], {"number": 99}, {"x": "\ud800"}):
            assert found_in(json.dumps(event | {name: value})) == (value != event[name]), (name, value)
        assert found_in(json.dumps({other: event[other] for other in event if other != name})), name
        # One reader takes the first, another the last.
        assert found_in(json.dumps(event)[:-1] + f', "{name}": {json.dumps(event[name])}}}'), name
    assert found_in(json.dumps(event | {"note": "not covered by the hash"}))
    assert found_in(json.dumps(event | {"details": {"number": 4.0}}))


@on_sqlite
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=strategies.data())
def test_any_byte(sealed, data):
    """After the header, whose `exported_at` nobody vouches for, a byte can't be changed so that the content is."""
    text = sealed.export()
    place = data.draw(strategies.integers(text.index(b"\n") + 1, len(text) - 1))
    changed = text[:place] + bytes([data.draw(strategies.integers(0, 255))]) + text[place + 1 :]
    if content(changed) != content(text):
        assert is_found(sealed, changed)


def content(text):
    """What a reader would take it for; a hash may be in capitals."""
    try:
        lines = [json.loads(line) for line in text.split(b"\n")[1:-1]]
        return [
            line | {"hash": line["hash"].lower()} if isinstance(line.get("hash"), str) else line for line in lines
        ]
    except (ValueError, AttributeError):
        return text


@on_sqlite
def test_what_is_no_export(sealed):
    header, rest = sealed.export().split(b"\n", 1)
    for text in (
        b"",
        b"\n",
        b"[]\n",
        b"{}\n",
        b"\xff\xfe\n",
        b"PK\x03\x04",
        header.replace(b"audit", b"other"),
        rest,
    ):
        with pytest.raises(Invalid) as refused:
            sealed.verify_export(text)
        assert [fault.message for fault in refused.value.errors] == ["is not an export of the audit log"]
    with pytest.raises(Invalid) as refused:
        sealed.verify_export(header.replace(b'"version":1', b'"version":2') + b"\n" + rest)
    assert refused.value.errors[0].message == "is an export of another version"


@on_sqlite
def test_garbage_between_the_lines(sealed):
    header, rest = sealed.export().split(b"\n", 1)
    for garbage in (
        *(b"x", b"\xff", b"[]", b"null", b"7", b'"x"', b"{}", b'{"chain": 7}', b'{"chain": "x"}', b'{"end": {}}'),
        *(b'{"checkpoint": "1"}', b'{"checkpoint": 1, "jws": 2}', b'{"checkpoint": 1, "jws": "", "x": 1}'),
        *(b"[" * 100_000, b'{"chain":' * 100_000, b'{"checkpoint":' + b"9" * 5000 + b', "jws": ""}', b"\x00"),
    ):
        for text in (header + b"\n" + garbage + b"\n" + rest, header + b"\n" + rest + garbage + b"\n"):
            assert not sealed.verify_export(text).ok, garbage[:30]


@on_sqlite
def test_all_faults_of_a_file_are_counted(sealed):
    text = sealed.export() + b"garbage\n" * (LISTED + 50)
    report = sealed.verify_export(text)
    assert report.found == LISTED + 50
    assert report.findings[0].message == "Line 18 can't be read."


@on_sqlite
def test_an_export_of_another_deployment(sealed):
    """Its own keys say nothing here; with the right keys, its name does."""
    text = sealed.export()
    other = text.replace(sealed.rooms.settings.issuer.encode(), b"https://other.example", 1)
    assert found(sealed.verify_export(other)) == [("checkpoint_issuer", 3)]
    sealed.rotate(keep=False)
    assert found(sealed.verify_export(text)) == [("checkpoint_unverifiable", 3)]
