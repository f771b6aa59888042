"""Refresh families against a simple model, with Redis losing what it likes.

The promises: the newest acknowledged token always works until its family ends; nothing that SQL's checkpoint has
seen consumed ever works again, but for the last one within the grace; an ended family stays ended; no two tokens of
a family are live at once.
"""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, update

from tests.families import Writer
from tests.redis_access import forget_states, raw_redis
from tokenserver.app import rooms_of
from tokenserver.errors import Refused
from tokenserver.identity.models import User
from tokenserver.oauth.grants.request import TokenRequest
from tokenserver.tokens.models import RefreshFamily
from tokenserver.tokens.refresh_token import rotations_key
from tokenserver.tokens.sessions import EndReason, SignIn


class FamilyMachine(RuleBasedStateMachine):
    all_rooms = ()  # two processes on the same stores

    @initialize()
    def sign_in(self):
        self.rooms = self.all_rooms[0]
        for bucket in self.rooms.store.buckets:  # the loss of another machine may be unseen in this family's
            self.rooms.feed.sync(bucket)
        user_id = self.rooms.database.read(lambda tx: tx.scalar(select(User.id)))

        def start(tx):
            session = self.rooms.sessions.start(tx, SignIn(user_id, "first-party", ("pwd",)))
            return self.rooms.sessions.start_family(
                tx, session, client_id="first-party", scope=None, audience=["a"]
            )

        family, started_at = self.rooms.database.write(start)
        self.family_id = family.id
        self.tokens = {1: self.rooms.refresh_tokens.publish(family, started_at)}
        self.newest = 1  # the newest generation that a client was given
        self.redis = 1  # what Redis holds; None when it lost the family
        self.checkpoint = 1
        self.verified = True  # no loss since Redis was last compared with SQL
        self.in_grace = set()  # the generations that came within the last seconds
        self.ended = False
        self.saved = None
        self.broken = False

    # What clients and operators do

    @rule(back=st.integers(0, 4), process=st.integers(0, 1))
    def refresh(self, back, process):
        presented = max(1, self.newest - back)
        expected = self.predict(presented)
        given = self.present(presented, self.all_rooms[process])
        self.broken = given != expected
        assert not self.broken, (presented, given, expected)
        if given is None:
            self.ended = True
        else:
            self.newest = max(self.newest, given)

    def predict(self, presented):
        """The generation that comes back, or None; and what Redis holds afterwards."""
        if self.ended:
            return None
        live = self.redis
        if live is None or not self.verified or presented > live:
            live = max(live or 0, self.checkpoint)
        self.verified = True
        if presented >= live:
            self.redis = presented + 1
            self.in_grace.add(self.redis)
            return self.redis
        self.redis = live
        return live if presented == live - 1 and live in self.in_grace else None

    def present(self, generation, rooms):
        token = self.tokens.get(generation) or rooms.refresh_tokens.issue(self.family_id, generation)
        try:
            answer = rooms.pipeline.first_party("refresh_token", TokenRequest({"refresh_token": token}))
        except Refused:
            return None
        successor = answer["refresh_token"]
        generation = rooms.refresh_tokens.parse(successor)[1]
        assert self.tokens.setdefault(generation, successor) == successor
        return generation

    @rule()
    def time_passes(self):
        """The grace is over, whoever remembers when it began."""
        self.drain()
        writer = Writer(self.rooms)
        if writer.read(self.family_id).mac:
            writer.age(self.family_id, 60_000)
        at = self.rooms.database.read(lambda tx: tx.get(RefreshFamily, self.family_id)).rotated_at
        statement = (
            update(RefreshFamily)
            .where(RefreshFamily.id == self.family_id)
            .values(rotated_at=at - timedelta(seconds=60))
        )
        self.rooms.database.write(lambda tx: tx.execute(statement))
        self.in_grace.clear()
        self.saved = None  # a copy from before would remember the old time

    @rule()
    def revoke(self):
        self.rooms.feed.change(
            lambda tx, change: self.rooms.sessions.end(
                tx, change, family_id=self.family_id, reason=EndReason.REVOKED
            )
        )
        self.ended = True

    # What happens to the stores

    @rule()
    def drain(self):
        while raw_redis(self.rooms.store).xlen(rotations_key(self.rooms.feed.bucket_of(self.family_id))):
            for rooms in self.all_rooms:  # one of them has the lease
                rooms.checkpoints.drain()
        if self.redis is not None:
            self.checkpoint = max(self.checkpoint, self.drained_up_to())

    def drained_up_to(self):
        return self.rooms.database.read(lambda tx: tx.get(RefreshFamily, self.family_id)).generation

    @rule()
    def redis_is_emptied(self):
        raw_redis(self.rooms.store).flushdb()
        self.redis, self.verified = None, False

    @rule()
    def redis_restarts(self):
        """With all that it held."""
        forget_states(self.rooms.store)
        self.verified = False

    @precondition(lambda self: self.redis is not None and not self.ended)
    @rule()
    def redis_is_copied(self):
        self.saved = Writer(self.rooms).fields(self.family_id), self.redis

    @precondition(lambda self: self.saved is not None and not self.ended)
    @rule()
    def redis_goes_back(self):
        """A failover to a replica that lagged, which its new connections give away."""
        fields, generation = self.saved
        forget_states(self.rooms.store)
        Writer(self.rooms).write(self.family_id, fields)
        self.redis, self.verified = generation, False

    # What must hold whatever happens

    @invariant()
    def the_checkpoint_never_passes_what_was_given_out(self):
        assert self.drained_up_to() <= self.newest

    def teardown(self):
        if self.broken:
            return  # what failed says more than what follows from it
        if not self.ended:
            # the honest client, last of all: its token works, whatever was lost
            assert self.present(self.newest, self.rooms) == self.newest + 1
        assert all(self.ended is False or self.present(g, self.rooms) is None for g in list(self.tokens))


@pytest.mark.parametrize("backend", ["sqlite"])
def test_families_keep_their_promises(apps, backend):
    FamilyMachine.all_rooms = [rooms_of(apps()), rooms_of(apps())]
    run_state_machine_as_test(
        FamilyMachine,
        settings=settings(
            max_examples=100,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


@pytest.mark.parametrize("backend", ["sqlite"])
def test_the_grace_of_a_checkpoint_is_its_own(apps, backend):
    """Redis is lost with a rotation that SQL never saw: the grace that counts is that of the one before."""
    FamilyMachine.all_rooms = [rooms_of(apps()), rooms_of(apps())]
    machine = FamilyMachine()
    machine.sign_in()
    machine.refresh(back=0, process=0)
    machine.time_passes()
    machine.refresh(back=0, process=1)
    machine.redis_is_emptied()
    machine.refresh(back=2, process=0)
    assert machine.ended
    machine.teardown()
