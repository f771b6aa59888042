"""How often a sign-in may fail (NIST SP 800-63B-4 section 3.2.2), so that nobody can lock somebody else out.

Failures are counted by account and network, by network over all accounts, and by account over all networks. The
last count is one that strangers can fill: it is passed by who comes from where the owner signs in, and by who
proves a second factor.

An account is counted by the name that was typed. Were its user name and its e-mail address to share a count, one
would tell that the other belongs to it.
"""

from typing import NamedTuple

from tokenserver.config import Settings
from tokenserver.errors import TooManyRequests
from tokenserver.web.rate_limit import Limit, RateLimits, network_of
from tokenserver.web.request_context import current

Counted = tuple[Limit, str]


class Attempt(NamedTuple):
    """`forgiven`: counts that a success ends. `others`: counts that it only leaves as they were. `wait`: seconds
    until the account may be tried from anywhere; until then only who is known may."""

    forgiven: tuple[Counted, ...]
    others: tuple[Counted, ...] = ()
    wait: int = 0


class Throttle:
    def __init__(self, limits: RateLimits, settings: Settings) -> None:
        self._limits = limits
        self._login = Limit.of("login", settings.limit_login)
        # What others do isn't told.
        self._network = Limit.of("login-network", settings.limit_login_network, is_shown=False)
        self._account = Limit.of("login-account", settings.limit_login_account, is_shown=False)
        self._known = Limit.of("login-known", settings.limit_login_known, is_shown=False)

    def begin(self, name: str, known: str | None) -> Attempt:
        """Counts a try before the password is looked at, so that any number at once is counted exactly.

        `name`: folded. `known`: what the account's owner has used before, such as a device; it has a count of its
        own, and only when that is full the others matter. Raises TooManyRequests: then nothing was counted.
        """
        if known is not None:
            own = (self._known, known)
            if not self._limits.ask(own).wait:
                return Attempt((own,))
        network = network_of(current().address)
        login, over_all_accounts = (self._login, f"{network} {name}"), (self._network, network)
        self._limits.take(login, over_all_accounts)
        over_all_networks = (self._account, name)
        wait = self._limits.ask(over_all_networks).wait
        if not wait:
            return Attempt((login,), (over_all_accounts, over_all_networks))
        # For every network alike: whether it is a known one must not show.
        own = (self._known, f"{network} {name}")
        refusal = self._limits.ask(own).wait
        if refusal:
            self._limits.give_back(login, over_all_accounts)
            raise TooManyRequests(refusal)
        return Attempt((login, own), (over_all_accounts,), wait)

    def give_back(self, attempt: Attempt) -> None:
        """It was none."""
        self._limits.give_back(*attempt.forgiven, *attempt.others)

    def refused(self, attempt: Attempt) -> None:
        """Whatever was tried, the answer told nothing of it. Only `login-known` and the network keep their count:
        an owner who tries again and again enters when strangers have stopped."""
        login, *_ = attempt.forgiven
        self._limits.give_back(login)

    def succeeded(self, attempt: Attempt) -> None:
        """Earlier failures of this account from here are forgotten; not those of other accounts, which somebody
        with an account of their own could end, nor those from other networks."""
        self._limits.give_back(*attempt.others, forget=attempt.forgiven)

    def forgive(self, *names: str) -> None:
        """Forget the failures of an account, from this network and over all of them. `names`: folded. For who
        proved in another way to be its owner, and for operators."""
        network = network_of(current().address)
        counts = [
            count
            for name in names
            for count in (
                (self._account, name),
                (self._login, f"{network} {name}"),
                (self._known, f"{network} {name}"),
            )
        ]
        self._limits.give_back(forget=counts)
