"""The key ring: real folders, threads and processes, a clock that the test moves."""

import base64
import hashlib
import hmac
import json
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jws
from joserfc.jwk import KeySet as JoseKeySet

from tests.answers import refused
from tests.conftest import Api, Apps, bearer
from tokenserver.app import rooms_of
from tokenserver.config import SIGNING_ALGS
from tokenserver.errors import ConfigurationError, Conflict, Unavailable
from tokenserver.rooms import _follow
from tokenserver.storage.aside import Aside
from tokenserver.storage.feed import Entry, Kind
from tokenserver.tokens.key_files import RingUnusable
from tokenserver.tokens.key_ring import LOOK_SECONDS, KeyRing
from tokenserver.tokens.key_set import KeySet
from tokenserver.verify.jwks import StaticKeys

START = 1_800_000_000
JWKS_MAX_AGE = 300
TOKEN_LIFETIME = 600
SKEW = 60
READY = JWKS_MAX_AGE + SKEW
DAY = 86400
# EdDSA is what the ring, RFC 8037 and the clients call it; RFC 9864 has a new name for it.
eddsa_may_be_named = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
pytestmark = pytest.mark.usefixtures("nothing_private_is_shown")


class Clock:
    def __init__(self) -> None:
        self.now: float = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def open_ring(folder: Path, clock: Clock) -> Callable[[], KeyRing]:
    """Another process's view of the same folder."""
    return lambda: KeyRing(folder, jwks_max_age=JWKS_MAX_AGE, token_lifetime=TOKEN_LIFETIME, clock=clock)


@pytest.fixture
def ring(open_ring: Callable[[], KeyRing]) -> KeyRing:
    ring = open_ring()
    ring.ensure("ES256")
    return ring


@pytest.fixture
def nothing_private_is_shown(folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture):
    """Whatever a test does to a ring, no line of a key reaches a log or a terminal."""
    yield
    shown = caplog.text + "".join(capfd.readouterr())
    for path in folder.glob("*.pem") if folder.is_dir() else ():
        lines = [line for line in path.read_bytes().decode(errors="replace").splitlines() if len(line) == 64]
        assert not [line for line in lines if line in shown]


def kids(ring: KeyRing, state: str, alg: str = "ES256") -> list[str]:
    return [entry.kid for entry in ring.entries() if (entry.alg, entry.state) == (alg, state)]


def published(ring: KeyRing) -> set[str]:
    return {jwk["kid"] for jwk in ring.jwks()["keys"]}


def segment(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def make_token(ring: KeyRing, alg: str = "ES256", **claims: Any) -> str:
    signer = ring.signer(alg)
    header = segment(json.dumps({"alg": signer.alg, "kid": signer.kid}).encode())
    signing_input = f"{header}.{segment(json.dumps(claims).encode())}"
    return f"{signing_input}.{segment(signer.sign(signing_input.encode()))}"


def is_accepted(token: str, jwks: dict[str, Any]) -> bool:
    signing_input, _, signature = token.rpartition(".")
    header = json.loads(base64.urlsafe_b64decode(signing_input.split(".")[0] + "=="))
    key = StaticKeys(jwks).find(header["kid"])
    raw = base64.urlsafe_b64decode(signature + "==")
    return key is not None and key.alg == header["alg"] and key.verify(raw, signing_input.encode())


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "ring.json").read_text())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def pem_of(key: Any) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def thumbprint(jwk: dict[str, str]) -> str:
    # RFC 7638 section 3, written out: the required members alone, in this order, without spaces
    required = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}[jwk["kty"]]
    text = "{" + ",".join(f'"{name}":"{jwk[name]}"' for name in required) + "}"
    return segment(hashlib.sha256(text.encode()).digest())


# -- the first start ---------------------------------------------------------------------------------------------


def test_first_start_creates_an_active_and_a_next_key_and_secrets(ring: KeyRing, folder: Path):
    assert [entry.state for entry in ring.entries()] == ["active", "next"]
    assert [entry.state for entry in ring.secret_entries()] == ["active", "next"]
    assert {entry.alg for entry in ring.entries()} == {"ES256"}
    assert ring.signer("ES256").kid == kids(ring, "active")[0]
    assert len(list(folder.glob("ES256-*.pem"))) == 2
    assert len(list(folder.glob("secret-*.bin"))) == 2


def test_ensure_changes_nothing_the_second_time(ring: KeyRing, folder: Path, open_ring: Callable[[], KeyRing]):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    ring.ensure("ES256")
    open_ring().ensure("ES256")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_ensure_of_a_second_algorithm_leaves_the_first_alone(ring: KeyRing):
    before, secrets = ring.signer("ES256").kid, ring.secrets("refresh")
    ring.ensure("EdDSA")
    assert ring.signer("ES256").kid == before
    assert ring.secrets("refresh") == secrets
    assert len(kids(ring, "active", "EdDSA")) == len(kids(ring, "next", "EdDSA")) == 1


def test_folder_and_files_are_for_their_owner_alone(ring: KeyRing, folder: Path):
    ring.reload_if_changed()
    assert mode(folder) == 0o700
    assert {mode(path) for path in folder.iterdir()} == {0o600}


def test_a_folder_that_was_there_is_closed_when_the_ring_begins(folder: Path, open_ring: Callable[[], KeyRing]):
    folder.mkdir(mode=0o755)
    open_ring().ensure("ES256")
    assert mode(folder) == 0o700


def test_times_in_the_manifest_are_rfc3339_utc(ring: KeyRing, folder: Path, clock: Clock):
    clock.now += READY
    ring.rotate()
    times = [
        value
        for entry in manifest(folder)["entries"]
        for name, value in entry.items()
        if name[-3:] in {"_at", "ter"}
    ]
    assert len(times) >= 12
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", time) for time in times)


def test_only_known_algorithms(ring: KeyRing):
    for alg in ("HS256", "none", "RS512", "HKDF-SHA256", "rs256"):
        with pytest.raises(ConfigurationError):
            ring.ensure(alg)
        with pytest.raises(ConfigurationError):
            ring.signer(alg)
        with pytest.raises(Conflict):
            ring.rotate(alg, emergency=True)


# -- signatures --------------------------------------------------------------------------------------------------


@eddsa_may_be_named
@pytest.mark.parametrize("alg", SIGNING_ALGS)
def test_every_algorithm_verifies_by_joserfc_and_pyjwt_and_ours(alg: str, open_ring: Callable[[], KeyRing]):
    ring = open_ring()
    ring.ensure(alg)
    token = make_token(ring, alg, sub="somebody")
    kid = ring.signer(alg).kid

    parsed = jws.deserialize_compact(token, JoseKeySet.import_key_set(ring.jwks()), algorithms=[alg])
    assert json.loads(parsed.payload) == {"sub": "somebody"}
    jwk = next(jwk for jwk in ring.jwks()["keys"] if jwk["kid"] == kid)
    assert jwt.decode(token, jwt.PyJWK(jwk), algorithms=[alg]) == {"sub": "somebody"}
    signing_input, _, signature = token.rpartition(".")
    key = ring.find(kid)
    assert key is not None
    assert key.alg == alg
    raw = base64.urlsafe_b64decode(signature + "==")
    assert key.verify(raw, signing_input.encode())
    assert not key.verify(raw, signing_input.encode() + b"x")


@pytest.mark.parametrize("alg", SIGNING_ALGS)
def test_kid_is_the_thumbprint_and_only_public_members_are_published(alg: str, open_ring: Callable[[], KeyRing]):
    ring = open_ring()
    ring.ensure(alg)
    members = {"RS256": "kty n e", "PS256": "kty n e", "ES256": "kty crv x y", "EdDSA": "kty crv x"}[alg].split()
    assert len(ring.jwks()["keys"]) == 2
    for jwk in ring.jwks()["keys"]:
        assert set(jwk) == {*members, "kid", "use", "alg"}
        assert (jwk["kid"], jwk["use"], jwk["alg"]) == (thumbprint(jwk), "sig", alg)
        # RFC 7518 section 2: base64url without padding
        assert all(re.fullmatch(r"[A-Za-z0-9_-]+", jwk[name]) for name in members if name not in {"kty", "crv"})
        if jwk["kty"] == "RSA":
            assert len(base64.urlsafe_b64decode(jwk["n"] + "==")) == 256


def test_a_key_serves_one_algorithm(open_ring: Callable[[], KeyRing]):
    ring = open_ring()
    ring.ensure("RS256")
    ring.ensure("PS256")
    moduli = [jwk["n"] for jwk in ring.jwks()["keys"]]
    assert len(set(moduli)) == 4


def test_jwks_bytes_and_etag_belong_together_and_change_with_the_keys(ring: KeyRing, clock: Clock):
    assert json.loads(ring.jwks_bytes) == ring.jwks()
    before = ring.etag
    assert re.fullmatch(r"[0-9a-f]{32}", before)
    ring.reload_if_changed()
    assert ring.etag == before
    clock.now += READY
    ring.rotate()
    assert ring.etag != before


def test_a_caller_that_changes_the_jwks_changes_its_copy_alone(ring: KeyRing):
    ring.jwks()["keys"].clear()
    assert len(ring.jwks()["keys"]) == 2


def test_the_active_key_stands_first_in_the_jwks(ring: KeyRing, clock: Clock):
    for _ in range(3):
        clock.now += READY
        ring.rotate()
        assert ring.jwks()["keys"][0]["kid"] == ring.signer("ES256").kid


# -- the life of a key -------------------------------------------------------------------------------------------


def test_next_key_may_not_sign_before_every_cached_jwks_has_it(ring: KeyRing, clock: Clock):
    before = ring.entries()
    clock.now = START + READY - 1
    with pytest.raises(Conflict) as refusal:
        ring.rotate()
    assert refusal.value.code == "next_key_too_young"
    assert "2027-01-15T08:06:00Z" in refusal.value.public  # START + 360 s
    assert "--emergency" in refusal.value.public
    assert ring.entries() == before
    clock.now = START + READY
    ring.rotate()
    assert ring.entries() != before


def test_an_old_enough_next_key_does_not_become_active_by_itself(ring: KeyRing, clock: Clock):
    before = ring.signer("ES256").kid
    clock.now += 365 * DAY
    ring.reload_if_changed()
    ring.prune()
    ring.ensure("ES256")
    assert ring.signer("ES256").kid == before


def test_rotation_moves_each_key_one_state_on(ring: KeyRing, clock: Clock):
    active, following = kids(ring, "active"), kids(ring, "next")
    clock.now += READY + 0.25
    rotation = ring.rotate()
    assert kids(ring, "retired") == active
    assert kids(ring, "active") == following
    assert ring.signer("ES256").kid == following[0]
    assert len(kids(ring, "next")) == 1
    assert set(kids(ring, "next")).isdisjoint(active + following)
    assert [entry.kid for entry in rotation.activated] == following
    assert [entry.kid for entry in rotation.replaced] == active
    assert rotation.at == clock.now
    retired = next(entry for entry in ring.entries() if entry.state == "retired")
    assert retired.to_json() == {
        "kid": active[0],
        "alg": "ES256",
        "state": "retired",
        "created_at": "2027-01-15T08:00:00Z",
        "published_at": "2027-01-15T08:00:00Z",
        "activated_at": "2027-01-15T08:00:00Z",
        "retired_at": "2027-01-15T08:06:01Z",
        "remove_after": "2027-01-15T08:17:01Z",
    }


def test_no_token_fails_through_any_number_of_rotations(ring: KeyRing, clock: Clock):
    """Verifiers that cache the JWKS for as long as they may, tokens used until their last second."""
    cached: list[tuple[float, dict[str, Any]]] = []
    tokens: list[tuple[float, str]] = []
    rotations = 0
    for _ in range(200):
        cached.append((clock.now, ring.jwks()))
        tokens.append((clock.now, make_token(ring, n=len(tokens))))
        cached = [(at, jwks) for at, jwks in cached if clock.now - at <= JWKS_MAX_AGE]
        tokens = [(at, token) for at, token in tokens if clock.now - at <= TOKEN_LIFETIME]
        # a token is younger than the JWKS it is checked against, or older: both happen
        assert all(is_accepted(token, jwks) for _, token in tokens[-30:] for _, jwks in (cached[0], cached[-1]))
        clock.now += 30
        rotations += ring.rotate_if_due(400) is not None
        ring.prune()
    assert rotations >= 10


def test_token_signed_right_after_a_rotation_is_known_to_a_verifier_that_asked_right_before(
    ring: KeyRing, clock: Clock
):
    clock.now += READY
    cached = ring.jwks()
    before = ring.signer("ES256").kid
    ring.rotate()
    assert ring.signer("ES256").kid != before
    assert is_accepted(make_token(ring), cached)


def test_retired_key_is_published_until_its_last_token_expired_and_no_longer(ring: KeyRing, clock: Clock):
    clock.now += READY
    token = make_token(ring)
    old = ring.signer("ES256").kid
    ring.rotate()
    etag = ring.etag
    end = START + READY + TOKEN_LIFETIME + SKEW
    clock.now = end - 0.001
    assert is_accepted(token, ring.jwks())
    assert ring.find(old) is not None
    clock.now = end  # nobody pruned, nobody reloaded
    assert not is_accepted(token, ring.jwks())
    assert ring.find(old) is None
    assert old not in json.dumps(ring.jwks())
    assert ring.etag != etag


def test_prune_deletes_what_is_over_and_nothing_else(ring: KeyRing, clock: Clock, folder: Path):
    old = kids(ring, "active")[0]
    clock.now += READY
    ring.rotate()
    clock.now += TOKEN_LIFETIME + SKEW - 1
    assert ring.prune() == ()
    assert (folder / f"ES256-{old}.pem").exists()
    clock.now += 1
    assert [entry.kid for entry in ring.prune()] == [old]
    assert not (folder / f"ES256-{old}.pem").exists()
    assert old not in {entry.kid for entry in ring.entries()}
    assert len(list(folder.glob("*.pem"))) == 2
    assert ring.prune() == ()


def test_lifetime_shortened_later_does_not_shorten_what_was_promised(ring: KeyRing, clock: Clock, folder: Path):
    clock.now += READY
    token = make_token(ring)
    ring.rotate()
    hasty = KeyRing(folder, jwks_max_age=10, token_lifetime=10, clock=clock)
    clock.now += TOKEN_LIFETIME
    assert hasty.prune() == ()
    assert is_accepted(token, hasty.jwks())


def test_rotate_takes_all_algorithms_or_none(ring: KeyRing, clock: Clock):
    clock.now += READY
    ring.ensure("EdDSA")  # its next key is new
    before = ring.entries()
    with pytest.raises(Conflict):
        ring.rotate()
    assert ring.entries() == before
    ring.rotate("ES256")
    assert len(kids(ring, "retired")) == 1
    assert not kids(ring, "retired", "EdDSA")
    clock.now += READY
    assert {entry.alg for entry in ring.rotate().activated} == {"ES256", "EdDSA"}


def test_rotate_refuses_a_successor_that_can_not_sign(ring: KeyRing, clock: Clock, folder: Path):
    clock.now += READY
    following = kids(ring, "next")[0]
    (folder / f"ES256-{following}.pem").write_bytes(b"spoiled")
    before = (folder / "ring.json").read_bytes()
    with pytest.raises(ConfigurationError, match=following):
        ring.rotate()
    assert (folder / "ring.json").read_bytes() == before
    assert is_accepted(make_token(ring), ring.jwks())


# -- the schedule ------------------------------------------------------------------------------------------------


def test_schedule_rotates_at_the_interval(ring: KeyRing, clock: Clock):
    clock.now = START + DAY - 1
    assert ring.rotate_if_due(DAY) is None
    clock.now = START + DAY
    assert ring.rotate_if_due(0) is None
    assert ring.rotate_if_due(DAY) is not None
    assert ring.rotate_if_due(DAY) is None


def test_schedule_waits_for_the_next_key_without_an_error(ring: KeyRing, clock: Clock):
    clock.now = START + READY - 1
    assert ring.rotate_if_due(1) is None
    clock.now = START + READY
    assert ring.rotate_if_due(1) is not None


def test_schedule_of_a_process_that_is_behind_rotates_nothing(
    ring: KeyRing, open_ring: Callable[[], KeyRing], clock: Clock
):
    behind = open_ring()
    behind.reload_if_changed()
    clock.now += DAY
    assert ring.rotate_if_due(DAY) is not None
    assert behind.rotate_if_due(DAY) is None
    assert behind.entries() == ring.entries()


# -- emergencies -------------------------------------------------------------------------------------------------


def test_emergency_throws_every_exposed_key_away_at_once(ring: KeyRing, clock: Clock, folder: Path):
    clock.now += READY
    ring.rotate()
    clock.now += 5.5  # the new next key is too young for anything else
    exposed = published(ring)
    assert len(exposed) == 3
    token = make_token(ring)
    rotation = ring.rotate(emergency=True)
    assert rotation.at == clock.now
    assert published(ring).isdisjoint(exposed)
    assert not is_accepted(token, ring.jwks())
    assert all(ring.find(kid) is None for kid in exposed)
    assert {entry.kid for entry in rotation.replaced} == exposed
    assert [entry.kid for entry in rotation.activated] == [ring.signer("ES256").kid]
    assert is_accepted(make_token(ring), ring.jwks())
    assert {path.name for path in folder.glob("*.pem")} == {f"ES256-{kid}.pem" for kid in published(ring)}
    assert [entry.state for entry in ring.entries()] == ["active", "next"]


def test_emergency_of_one_algorithm_leaves_the_others(ring: KeyRing):
    ring.ensure("EdDSA")
    before = kids(ring, "active", "EdDSA"), kids(ring, "next", "EdDSA"), ring.secrets("x")
    ring.rotate("ES256", emergency=True)
    assert (kids(ring, "active", "EdDSA"), kids(ring, "next", "EdDSA"), ring.secrets("x")) == before


def test_emergency_repairs_a_ring_whose_keys_are_lost(
    ring: KeyRing, folder: Path, open_ring: Callable[[], KeyRing]
):
    for path in folder.glob("*.pem"):
        path.unlink()
    with pytest.raises(ConfigurationError, match="--emergency"):
        open_ring().signer("ES256")
    open_ring().rotate(emergency=True)
    assert is_accepted(make_token(open_ring()), open_ring().jwks())
    assert open_ring().faults() == []


def test_key_thrown_away_is_not_used_although_another_file_is_broken(
    ring: KeyRing, folder: Path, open_ring: Callable[[], KeyRing]
):
    ring.ensure("EdDSA")
    other = open_ring()
    token, old = make_token(other), other.signer("ES256").kid
    ring.rotate("ES256", emergency=True)
    (folder / f"ES256-{ring.signer('ES256').kid}.pem").unlink()
    with pytest.raises(ConfigurationError):
        other.reload_if_changed()
    assert not is_accepted(token, other.jwks())
    assert other.find(old) is None
    with pytest.raises(ConfigurationError):
        other.signer("ES256")
    assert is_accepted(make_token(other, "EdDSA"), other.jwks())


# -- other processes ---------------------------------------------------------------------------------------------


def test_another_ring_sees_a_rotation_at_its_next_look(
    ring: KeyRing, open_ring: Callable[[], KeyRing], clock: Clock
):
    other = open_ring()
    assert other.reload_if_changed()
    assert not other.reload_if_changed()
    clock.now += READY
    ring.rotate()
    assert other.signer("ES256").kid != ring.signer("ES256").kid
    assert is_accepted(make_token(ring), other.jwks())
    assert other.reload_if_changed()
    assert not other.reload_if_changed()
    assert other.signer("ES256").kid == ring.signer("ES256").kid
    assert other.jwks_bytes == ring.jwks_bytes
    assert other.etag == ring.etag


def test_another_ring_signs_and_verifies_by_a_key_made_after_its_look(
    ring: KeyRing, open_ring: Callable[[], KeyRing], monkeypatch: pytest.MonkeyPatch
):
    verifying, signing = open_ring(), open_ring()
    verifying.reload_if_changed()
    signing.reload_if_changed()
    ring.ensure("EdDSA")
    kid = ring.signer("EdDSA").kid
    assert verifying.find(kid) is not None
    current = signing.current

    def overtaken() -> KeySet:
        """What was known before another thread of the process saw the new key."""
        known = current()
        monkeypatch.setattr(signing, "current", current)
        signing.reload_if_changed()
        return known

    monkeypatch.setattr(signing, "current", overtaken)
    assert signing.signer("EdDSA").kid == kid


def test_unknown_kid_of_a_token_is_unknown_although_the_ring_is_broken(ring: KeyRing, folder: Path):
    (folder / "ring.json").write_text("{")
    assert ring.find("nobody's") is None


def test_who_asks_for_the_key_set_gets_what_another_ring_changed(
    ring: KeyRing, open_ring: Callable[[], KeyRing], clock: Clock, folder: Path
):
    asked = open_ring()
    before = asked.published()
    clock.now += LOOK_SECONDS
    assert asked.published() is before  # nothing changed
    ring.ensure("EdDSA")
    clock.now += LOOK_SECONDS
    assert asked.published().jwks() == ring.jwks() != before.jwks()
    thrown = ring.rotate("EdDSA", emergency=True).replaced
    clock.now -= 3600  # a clock that was set back doesn't end the looking
    assert asked.published().find(thrown[0]) is None
    (folder / "ring.json").write_text("{")
    clock.now += LOOK_SECONDS
    assert asked.published().jwks() == ring.jwks()


def test_looks_at_the_folder_for_who_asks_are_few(ring: KeyRing, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    looks: list[None] = []
    monkeypatch.setattr(ring, "reload_if_changed", lambda: looks.append(None))
    for _ in range(100):
        clock.now += LOOK_SECONDS / 10
        ring.published()
    assert 9 <= len(looks) <= 11


def test_who_asks_for_the_key_set_waits_for_no_folder_that_does_not_answer(
    ring: KeyRing, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    looking, answers = threading.Event(), threading.Event()

    def look() -> bool:
        looking.set()
        return answers.wait(30)

    monkeypatch.setattr(ring, "reload_if_changed", look)
    first = threading.Thread(target=ring.published)
    first.start()
    assert looking.wait(30)
    for _ in range(3):
        clock.now += LOOK_SECONDS
        assert ring.published() is ring.current()
    answers.set()
    first.join()
    looking.clear()
    clock.now += LOOK_SECONDS
    ring.published()
    assert looking.is_set()


def test_a_loop_does_not_look_itself(ring: KeyRing, monkeypatch: pytest.MonkeyPatch):
    """It has others to answer."""

    class Loop:
        given: ClassVar[list[Callable[[], None]]] = []

        def elsewhere(self, work: Callable[[], None]) -> None:
            self.given.append(work)

    looks: list[None] = []
    monkeypatch.setattr(ring, "reload_if_changed", lambda: looks.append(None))
    task = Aside(ring.published)
    task.loop = cast("Any", Loop())
    assert task.switch() is ring.current()
    assert looks == []
    (work,) = Loop.given
    work()
    assert looks == [None]


def test_change_of_keys_while_the_ring_is_broken_is_not_passed_over(ring: KeyRing, folder: Path):
    (folder / "ring.json").write_text("{")
    with pytest.raises(Unavailable, match=r"ring\.json"):  # a key may have been thrown away
        _follow(ring)(Entry(Kind.KEYS_CHANGED, "", START))


def test_reload_reads_new_files_alone(ring: KeyRing, open_ring: Callable[[], KeyRing], clock: Clock, folder: Path):
    other = open_ring()
    kept = other.current()
    clock.now += READY
    ring.rotate()
    for kid in published(other):
        (folder / f"ES256-{kid}.pem").write_bytes(b"would not load")
    assert other.reload_if_changed()
    assert is_accepted(make_token(other), ring.jwks())
    # a thread that still holds the old view is not disturbed
    assert {jwk["kid"] for jwk in kept.jwks()["keys"]} < published(other)


RUN = """
import sys, time
from pathlib import Path
from tokenserver.tokens.key_ring import KeyRing
from tokenserver.tokens.key_set import KeySet

folder, gate, moment, wanted = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
ring = KeyRing(folder, jwks_max_age=300, token_lifetime=600, clock=lambda: moment)
if wanted == ["rotate"]:
    ring.current()
print("ready", flush=True)
while not gate.exists():
    time.sleep(0.001)
if wanted == ["rotate"]:
    print("rotated" if ring.rotate_if_due(86400) else "left alone")
else:
    for alg in wanted:
        ring.ensure(alg)
    print(*[ring.signer(alg).kid for alg in sorted(wanted)], *[secret.hex() for secret in ring.secrets("x")])
"""


def run_at_once(folder: Path, moment: float, commands: list[list[str]]) -> list[str]:
    gate = folder.parent / "gate"
    command = [sys.executable, "-c", RUN, str(folder), str(gate), str(moment)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen([*command, *wanted], **pipes) for wanted in commands]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        gate.touch()
        return [process.communicate(timeout=120)[0].strip() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


def test_eight_processes_start_at_once_and_share_one_ring(folder: Path, open_ring: Callable[[], KeyRing]):
    algs = list(SIGNING_ALGS)
    answers = run_at_once(folder, START, [algs[turn % 4 :] + algs[: turn % 4] for turn in range(8)])
    assert len(set(answers)) == 1
    ring = open_ring()
    found = sorted((entry.alg, entry.state) for entry in (*ring.entries(), *ring.secret_entries()))
    assert found == sorted((alg, state) for alg in (*algs, "HKDF-SHA256") for state in ("active", "next"))
    assert len(list(folder.glob("*.pem"))) == 8
    assert len(list(folder.glob("*.bin"))) == 2
    assert all(ring.signer(alg).kid in answers[0] for alg in algs)
    assert ring.faults() == []


def test_processes_that_rotate_at_once_rotate_once(ring: KeyRing, folder: Path, clock: Clock):
    clock.now += DAY
    answers = run_at_once(folder, clock.now, [["rotate"]] * 4)
    assert sorted(answers) == ["left alone"] * 3 + ["rotated"]
    ring.reload_if_changed()
    assert (len(kids(ring, "retired")), len(kids(ring, "active")), len(kids(ring, "next"))) == (1, 1, 1)


def run_threads(*targets: Callable[[], None]) -> None:
    """All to their end; the first exception of any is raised."""
    failures: list[BaseException] = []

    def guarded(target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_eight_threads_sign_while_keys_rotate(alg: str, open_ring: Callable[[], KeyRing], clock: Clock):
    server, other = open_ring(), open_ring()
    server.ensure(alg)
    used: list[set[str]] = [set() for _ in range(8)]
    done = threading.Event()

    def sign(turn: int) -> None:
        while not done.is_set():
            token = make_token(server, alg, turn=turn)
            used[turn].add(json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"])
            assert is_accepted(token, server.jwks())

    def rotate() -> None:
        try:
            for turn in range(6):
                clock.now += READY
                (server, other)[turn % 2].rotate()  # by this process and by another one
                server.reload_if_changed()
                clock.now += 1
                server.prune()
                other.reload_if_changed()
        finally:
            done.set()

    run_threads(rotate, *(lambda turn=turn: sign(turn) for turn in range(8)))
    assert len(set().union(*used)) >= 4


def test_reload_never_stumbles_over_keys_that_others_prune(open_ring: Callable[[], KeyRing], clock: Clock):
    writer = open_ring()
    writer.ensure("ES256")
    done = threading.Event()

    def write() -> None:
        try:
            for _ in range(40):
                clock.now += TOKEN_LIFETIME + READY
                writer.rotate()
                writer.rotate(emergency=True)
                writer.prune()
        finally:
            done.set()

    def read() -> None:
        while not done.is_set():
            open_ring().signer("ES256")

    run_threads(write, read, read)


# -- MAC secrets -------------------------------------------------------------------------------------------------


def test_secrets_are_separate_per_purpose_and_survive_a_restart(ring: KeyRing, open_ring: Callable[[], KeyRing]):
    refresh, codes = ring.secrets("refresh_token"), ring.secrets("authorization_code")
    assert {len(secret) for secret in refresh + codes} == {32}
    assert set(refresh).isdisjoint(codes)
    assert ring.secrets("refresh_token") == open_ring().secrets("refresh_token") == refresh
    assert open_ring().secrets("authorization_code") == codes


def test_secrets_are_derived_by_hkdf_sha256(ring: KeyRing, folder: Path):
    active = next(entry.kid for entry in ring.secret_entries() if entry.state == "active")
    content = (folder / f"secret-{active}.bin").read_bytes()
    # RFC 5869, written out for one block: extract with a salt of zeros, expand
    extracted = hmac.digest(bytes(32), content, "sha256")
    assert ring.secrets("refresh_token")[0] == hmac.digest(extracted, b"refresh_token\x01", "sha256")
    assert content not in ring.secrets("refresh_token")


def test_rotated_secret_verifies_until_the_last_mac_is_over(ring: KeyRing, clock: Clock, folder: Path):
    active, following = ring.secrets("refresh")
    clock.now += SKEW
    ring.rotate_secret(30 * DAY)
    assert ring.secrets("refresh")[0] == following
    assert active in ring.secrets("refresh")
    assert len(ring.secrets("refresh")) == 3
    clock.now += 30 * DAY + SKEW - 1
    assert active in ring.secrets("refresh")
    clock.now += 1
    assert active not in ring.secrets("refresh")
    assert ring.secrets("refresh")[0] == following
    assert len(ring.prune()) == 1
    assert len(list(folder.glob("*.bin"))) == 2


def test_process_that_is_behind_knows_the_new_secret_already(
    ring: KeyRing, open_ring: Callable[[], KeyRing], clock: Clock
):
    behind = open_ring()
    behind.reload_if_changed()
    clock.now += SKEW
    ring.rotate_secret(DAY)
    assert ring.secrets("refresh")[0] in behind.secrets("refresh")
    assert behind.secrets("refresh")[0] in ring.secrets("refresh")


def test_next_secret_has_to_reach_all_processes_first(ring: KeyRing, clock: Clock):
    clock.now += SKEW - 1
    with pytest.raises(Conflict):
        ring.rotate_secret(DAY)


def test_emergency_ends_every_mac(ring: KeyRing, folder: Path):
    exposed = ring.secrets("refresh")
    keys = ring.entries()
    ring.rotate_secret(DAY, emergency=True)
    assert set(ring.secrets("refresh")).isdisjoint(exposed)
    assert len(ring.secrets("refresh")) == len(list(folder.glob("*.bin"))) == 2
    assert ring.entries() == keys


def test_rotation_of_keys_leaves_the_secrets(ring: KeyRing, clock: Clock):
    before = ring.secrets("refresh")
    clock.now += READY
    ring.rotate()
    ring.rotate(emergency=True)
    assert ring.secrets("refresh") == before


def test_secrets_are_not_in_the_jwks(ring: KeyRing):
    assert published(ring) == {entry.kid for entry in ring.entries()}


# -- what can go wrong -------------------------------------------------------------------------------------------


def broken_manifests() -> dict[str, Callable[[dict[str, Any]], Any]]:
    def with_entry(**changes: str | None) -> Callable[[dict[str, Any]], Any]:
        def change(document: dict[str, Any]) -> Any:
            entry = document["entries"][0] | changes
            document["entries"][0] = {name: value for name, value in entry.items() if value is not None}
            return document

        return change

    moment = "2027-01-15T08:00:00Z"
    retired = {"state": "retired", "retired_at": moment, "remove_after": moment}
    return {
        "empty": lambda _: None,
        "list": lambda d: d["entries"],
        "other version": lambda d: d | {"version": 2},
        "no entries": lambda _: {"version": 1},
        "entries of another type": lambda d: d | {"entries": ["x"]},
        "twice": lambda d: d | {"entries": d["entries"] + d["entries"][:1]},
        "twice, once retired": lambda d: d | {"entries": [*d["entries"], d["entries"][0] | retired]},
        "two active": lambda d: (
            d | {"entries": [e | {"kid": "A" * 40 + f"{i:03}"} for i in range(2) for e in d["entries"][:1]]}
        ),
        "path in kid": with_entry(kid="../../../../../../../../../../../etc/passwd"),
        "unknown alg": with_entry(alg="HS256"),
        "unknown state": with_entry(state="revoked"),
        "no kid": with_entry(kid=None),
        "no time": with_entry(activated_at=None),
        "time too many": with_entry(retired_at="2027-01-15T08:00:00Z"),
        "time without zone": with_entry(created_at="2027-01-15T08:00:00"),
        "no time at all": with_entry(created_at="yesterday"),
        "number": with_entry(created_at=5),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("what", [*broken_manifests(), "cut off", "nested"])
def test_broken_manifest_refuses_the_start_and_is_left_as_it_is(
    what: str, ring: KeyRing, folder: Path, open_ring: Callable[[], KeyRing], clock: Clock
):
    path = folder / "ring.json"
    if what == "cut off":
        text = path.read_bytes()[:-20]
    elif what == "nested":
        text = b"[" * 100_000
    else:
        text = json.dumps(broken_manifests()[what](manifest(folder))).encode()
    path.write_bytes(text)
    clock.now += DAY
    for attempt in (
        lambda: open_ring().ensure("ES256"),
        lambda: open_ring().signer("ES256"),
        lambda: open_ring().rotate(emergency=True),
        lambda: open_ring().rotate_if_due(1),
        lambda: open_ring().prune(),
    ):
        with pytest.raises(ConfigurationError) as refusal:
            attempt()
        assert str(path) in str(refusal.value)
        assert "backup" in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert str(folder) not in refusal.value.public
    assert path.read_bytes() == text
    # who runs already goes on, and says so at every look
    for _ in range(2):
        with pytest.raises(ConfigurationError):
            ring.reload_if_changed()
    assert is_accepted(make_token(ring), ring.jwks())
    assert ring.find(kids(ring, "next")[0]) is not None


def test_lost_manifest_is_not_taken_for_a_first_start(
    ring: KeyRing, folder: Path, open_ring: Callable[[], KeyRing]
):
    (folder / "ring.json").unlink()
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(ConfigurationError, match=r"ring\.json is missing, but keys are there"):
        open_ring().ensure("ES256")
    assert sorted(path.name for path in folder.iterdir()) == before


def test_first_start_that_was_cut_off_is_taken_up_again(folder: Path, open_ring: Callable[[], KeyRing]):
    folder.mkdir()
    (folder / "ring.json").write_text('{"version": 1, "entries": []}')
    (folder / f"ES256-{'A' * 43}.pem").write_bytes(b"-----BEGIN PRIV")
    ring = open_ring()
    ring.ensure("ES256")
    assert is_accepted(make_token(ring), ring.jwks())
    assert [what for what, _ in ring.faults() if "not in the manifest" in what]


def test_change_that_can_not_be_written_leaves_everything_as_it_was(ring: KeyRing, folder: Path, clock: Clock):
    (folder / ".ring.json.tmp").mkdir()  # in the way of the next manifest
    before = sorted(folder.rglob("*"))
    clock.now += READY
    for attempt in (ring.rotate, lambda: ring.rotate(emergency=True), lambda: ring.rotate_secret(DAY)):
        with pytest.raises(ConfigurationError):
            attempt()
        assert sorted(folder.rglob("*")) == before
    assert is_accepted(make_token(ring), ring.jwks())
    (folder / ".ring.json.tmp").rmdir()
    ring.rotate()
    assert ring.faults() == []


def test_no_ring_yet(open_ring: Callable[[], KeyRing], folder: Path):
    for attempt in (open_ring().reload_if_changed, open_ring().jwks, open_ring().rotate):
        with pytest.raises(ConfigurationError, match="tokenserver init"):
            attempt()
    assert not folder.exists()


def spoil(path: Path, what: str) -> None:
    if what == "missing":
        path.unlink()
    elif what == "weak":
        path.write_bytes(pem_of(rsa.generate_private_key(public_exponent=65537, key_size=1024)))
    elif what == "other curve":
        path.write_bytes(pem_of(ec.generate_private_key(ec.SECP384R1())))
    elif what == "other key":
        path.write_bytes(pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
    elif what == "public":
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        path.write_bytes(key.public_key().public_bytes(encoding, form))
    elif what == "encrypted":
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        encryption = serialization.BestAvailableEncryption(b"password")
        path.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
    elif what == "inconsistent":
        numbers = serialization.load_pem_private_key(path.read_bytes(), None).private_numbers()
        bad = rsa.RSAPrivateNumbers(
            p=numbers.p, q=numbers.q, d=numbers.d, dmp1=numbers.dmp1 + 2, dmq1=numbers.dmq1, iqmp=numbers.iqmp,
            public_numbers=numbers.public_numbers,
        )  # fmt: skip
        path.write_bytes(pem_of(bad.private_key(unsafe_skip_rsa_key_validation=True)))
    else:
        path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


KEY_FAULTS = {
    "missing": "No such file",
    "weak": "1024 bits",
    "other curve": "not a key for RS256",
    "other key": "holds another key",
    "public": "not an unencrypted PEM private key",
    "encrypted": "not an unencrypted PEM private key",
    "inconsistent": "not an unencrypted PEM private key",
    "spoiled": "not an unencrypted PEM private key",
}


@pytest.mark.parametrize("what", KEY_FAULTS)
def test_unusable_key_refuses_the_start(what: str, folder: Path, open_ring: Callable[[], KeyRing]):
    running = open_ring()
    running.ensure("RS256")
    path = folder / f"RS256-{kids(running, 'next', 'RS256')[0]}.pem"
    spoil(path, what)
    for attempt in (lambda: open_ring().ensure("RS256"), lambda: open_ring().jwks()):
        with pytest.raises(ConfigurationError) as refusal:
            attempt()
        assert str(path) in str(refusal.value)
        assert KEY_FAULTS[what] in str(refusal.value)
        assert "backup" in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert refusal.value.__cause__ is None
    assert [what for what, _ in open_ring().faults() if str(path) in what]
    assert is_accepted(make_token(running, "RS256"), running.jwks())


def test_unusable_secret_refuses_the_start(ring: KeyRing, folder: Path, open_ring: Callable[[], KeyRing]):
    path = next(folder.glob("secret-*.bin"))
    for content in (path.read_bytes()[:-1], bytes(32), b""):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=path.name):
            open_ring().secrets("refresh")
    assert len(ring.secrets("refresh")) == 2


def test_nothing_private_in_repr(ring: KeyRing, folder: Path):
    ring.secrets("refresh")
    keys = ring.current()
    shown = repr(
        (ring, vars(ring), keys, vars(keys)["_signers"], ring.signer("ES256"), ring.entries(), keys.jwks())
    )
    shown += repr([key for key in keys.material.values() if not isinstance(key, bytes)]) + ring.jwks_bytes.decode()
    for path in folder.glob("*.pem"):
        private = serialization.load_pem_private_key(path.read_bytes(), None).private_numbers().private_value
        assert str(private) not in shown
        assert f"{private:x}" not in shown
        assert segment(private.to_bytes(32)) not in shown
    for path in folder.glob("*.bin"):
        assert path.read_bytes().hex() not in shown
        assert repr(path.read_bytes()) not in shown


# -- doctor ------------------------------------------------------------------------------------------------------


def test_sound_ring_has_no_faults(ring: KeyRing, clock: Clock):
    assert ring.faults() == []
    clock.now += READY
    ring.rotate()
    assert ring.faults(DAY) == []


def test_no_ring_is_a_fault(open_ring: Callable[[], KeyRing], folder: Path):
    assert [(str(folder) in what, "tokenserver init" in remedy) for what, remedy in open_ring().faults()] == [
        (True, True)
    ]
    folder.mkdir(mode=0o700)
    assert [("ring.json" in what, "tokenserver init" in remedy) for what, remedy in open_ring().faults()] == [
        (True, True)
    ]


def test_open_modes_are_faults(ring: KeyRing, folder: Path):
    paths = [folder, folder / "ring.json", next(folder.glob("*.pem")), next(folder.glob("*.bin"))]
    for path, bad, good in zip(paths, (0o750, 0o640, 0o604, 0o660), (0o700, 0o600, 0o600, 0o600), strict=True):
        path.chmod(bad)
        assert ring.faults() == [(f"{path} has mode {bad:04o}", f"chmod {good:o} {path}")]
        path.chmod(good)
    # a deployment may mount the ring read-only
    paths[2].chmod(0o400)
    assert ring.faults() == []


def test_missing_and_strange_files_are_faults(ring: KeyRing, folder: Path):
    missing = next(folder.glob("*.pem"))
    stranger = folder / "ES256-stranger.pem"
    missing.rename(stranger)
    faults = ring.faults()
    assert len(faults) == 2
    assert str(missing) in faults[0][0]
    assert "backup" in faults[0][1]
    assert faults[1][0] == f"{stranger} is not in the manifest"


def test_old_key_is_a_fault(ring: KeyRing, clock: Clock):
    clock.now += DAY - 1
    assert ring.faults(DAY) == []
    clock.now += 1
    assert ring.faults(0) == []
    assert len(ring.faults(DAY)) == 1
    assert "ES256" in ring.faults(DAY)[0][0]
    assert "keys rotate" in ring.faults(DAY)[0][1]


@pytest.mark.parametrize("state", ["active", "next"])
@pytest.mark.parametrize("alg", ["ES256", "HKDF-SHA256"])
def test_lack_of_a_key_is_a_fault_that_the_next_start_mends(
    state: str, alg: str, ring: KeyRing, folder: Path, clock: Clock, open_ring: Callable[[], KeyRing]
):
    document = manifest(folder)
    gone = next(e for e in document["entries"] if (e["alg"], e["state"]) == (alg, state))
    document["entries"].remove(gone)
    (folder / "ring.json").write_text(json.dumps(document))
    next(folder.glob(f"*{gone['kid']}*")).unlink()
    assert ring.faults() == [(f"there is no {state} key for {alg}", "`tokenserver init` creates it")]
    clock.now += READY
    if state == "next":
        with pytest.raises(Conflict) as refusal:
            ring.rotate() if alg == "ES256" else ring.rotate_secret(DAY)
        assert refusal.value.code == "no_next_key"
        if alg == "ES256":
            assert ring.rotate_if_due(1) is None
    other = open_ring()
    other.ensure("ES256")
    assert other.faults() == []
    assert is_accepted(make_token(other), other.jwks())


def test_broken_manifest_is_a_fault(ring: KeyRing, folder: Path):
    (folder / "ring.json").write_text("{")
    assert ring.faults() == [(f"{folder / 'ring.json'} is not JSON", "restore it from a backup")]


def test_error_carries_what_and_remedy(open_ring: Callable[[], KeyRing]):
    with pytest.raises(RingUnusable) as refusal:
        open_ring().jwks()
    what, remedy = refusal.value.fault
    assert str(refusal.value) == f"{what}: {remedy}"
    assert refusal.value.code == "key_ring_unusable"


def test_requests_are_refused_while_nobody_can_read_which_keys_are_left(
    apps: Apps, api_of: Callable[..., Api], keys_dir: Path, tmp_path: Path
):
    folder = Path(shutil.copytree(keys_dir, tmp_path / "keys"))
    app = apps(keys_dir=folder)
    api, manifest = api_of(app), folder / "ring.json"
    mine = bearer(api.signed_in()["access_token"])
    kept = manifest.read_text()
    manifest.write_text("{")
    rooms_of(apps()).feed.change(lambda _tx, change: change.note(Kind.KEYS_CHANGED))  # who can read it
    for _ in range(2):
        answer = api.http.get("/users/me", headers=mine)
        assert refused(answer, 503, "temporarily_unavailable")
        assert answer.headers["Retry-After"]
    manifest.write_text(kept)
    assert api.http.get("/users/me", headers=mine).status_code == 200
