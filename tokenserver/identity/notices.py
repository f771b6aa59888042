"""What people are told by mail about their account, in the transaction of what happened.

To the address of the account; of a changed address, to the one before.
"""

from tokenserver.identity.models import User
from tokenserver.mail.models import Kind
from tokenserver.mail.postbox import Postbox
from tokenserver.storage.sql import Transaction
from tokenserver.web.language import marked, translated

# Every header that a browser sends can be made up, and the mail is ours: so a word of this list, or none.
PROGRAMS = ("Firefox", "Edg", "OPR", "Chrome", "Safari", "curl", "python")
SYSTEMS = ("Android", "iPhone", "iPad", "Windows", "Mac OS", "Linux")
SHOWN = {"Edg": "Edge", "OPR": "Opera", "Mac OS": "macOS", "python": "Python"}


class Notices:
    def __init__(self, postbox: Postbox) -> None:
        self._postbox = postbox

    def new_device(self, tx: Transaction, user: User, address: str | None, user_agent: str | None) -> None:
        """Somebody signed in from where nobody did before."""
        device = device_of(user_agent)
        self._postbox.post(tx, Kind.NEW_DEVICE, user.email, user_id=user.id, address=address, device=device)

    def password_changed(self, tx: Transaction, user: User) -> None:
        self._postbox.post(tx, Kind.PASSWORD_CHANGED, user.email, user_id=user.id)

    def email_changed(self, tx: Transaction, user: User, old: str) -> None:
        """To the address that it was, and to the new one the question whether it is theirs."""
        self._postbox.post(tx, Kind.EMAIL_CHANGED, old, user_id=user.id)
        self.ask_to_verify(tx, user)

    def ask_to_verify(self, tx: Transaction, user: User) -> None:
        self._postbox.post(tx, Kind.EMAIL_VERIFICATION, user.email, user_id=user.id)

    def second_factor_added(self, tx: Transaction, user: User, factor: str) -> None:
        """`factor`: in words of ours, such as "an authenticator app"; never a name that the user gave it."""
        self._postbox.post(tx, Kind.SECOND_FACTOR_ADDED, user.email, user_id=user.id, factor=factor)

    def second_factor_removed(self, tx: Transaction, user: User, factor: str) -> None:
        self._postbox.post(tx, Kind.SECOND_FACTOR_REMOVED, user.email, user_id=user.id, factor=factor)


def device_of(user_agent: str | None) -> str:
    """ "Firefox on Linux", as far as it can be told; in the language of the request."""
    given = user_agent or ""
    program = next((each for each in PROGRAMS if each in given), None)
    system = next((each for each in SYSTEMS if each in given), None)
    words = {"program": SHOWN.get(program or "", program), "system": SHOWN.get(system or "", system)}
    if program:
        pattern = marked("{program} on {system}") if system else "{program}"
    else:
        pattern = marked("a program on {system}") if system else marked("an unknown program")
    return translated(pattern).format(**words)
