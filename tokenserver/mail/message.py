"""A letter as a message (RFC 5322): plain text, and headers that nothing can be smuggled into."""

from dataclasses import dataclass
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

from tokenserver.storage.sql import utc_now


@dataclass(frozen=True, slots=True)
class Letter:
    """`link`: the one in the text, where there is one; whoever has it can use it."""

    recipient: str
    subject: str
    text: str
    link: str | None = None


def message_of(letter: Letter, *, sender: str, message_id: str) -> EmailMessage:
    """Raises ValueError for an address that no header can hold."""
    # A line break in a header is an error of the policy, not another header.
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = _address(sender)
    message["To"] = _address(letter.recipient)
    message["Subject"] = letter.subject
    message["Date"] = format_datetime(utc_now())
    message["Message-ID"] = f"<{message_id}@{sender.rpartition('@')[2]}>"
    # RFC 3834 section 5: no holiday replies, please.
    message["Auto-Submitted"] = "auto-generated"
    # A line is left whole, so that a link can be followed wherever it is read.
    message.set_content(letter.text, cte="7bit" if letter.text.isascii() else "base64")
    return message


def _address(text: str) -> Address:
    """In its two parts, which are quoted where they must be; never parsed, so that one address is one."""
    user, _, domain = text.rpartition("@")
    if not user or not domain or not text.isprintable():
        raise ValueError("not an address")
    return Address(username=user, domain=domain)
