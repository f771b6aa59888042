"""Where letters are left to be sent: in the transaction of what they tell, so that neither is there without the
other.
"""

from uuid import UUID

from tokenserver.config import Settings
from tokenserver.mail.models import Kind, QueuedMail
from tokenserver.storage.sql import Transaction, new_id, utc_now
from tokenserver.web.language import current_language


class Postbox:
    """`is_open`: whether mail can be sent at all; where it isn't, nothing is queued."""

    def __init__(self, settings: Settings) -> None:
        self.is_open = settings.sends_mail

    def post(
        self, tx: Transaction, kind: Kind, recipient: str, *, user_id: UUID | None = None, **data: str | None
    ) -> None:
        """`data`: what the letter needs to know; never a password, a secret, a token or a code. Beside it the
        language of the request that it comes of."""
        if self.is_open:
            now = utc_now()
            tx.add(
                QueuedMail(
                    id=new_id(),
                    kind=kind.value,
                    user_id=user_id,
                    recipient=recipient,
                    data=data | {"language": current_language()},
                    attempts=0,
                    due_at=now,
                    created_at=now,
                )
            )
