"""How a message leaves: to an SMTP server (RFC 5321), or in development to a folder."""

import logging
import os
import re
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from tokenserver.config import Settings

logger = logging.getLogger("tokenserver.mail")

# Of each step; an exchange has about ten.
TIMEOUT_SECONDS: Final = 10.0
PORTS: Final = {"smtp": 587, "smtps": 465}


class NotSent(Exception):
    """`reason`: a word for the log. `is_final`: the server won't take this one later either. `is_outage`: it takes
    none at the moment."""

    def __init__(self, reason: str, *, is_final: bool = False, is_outage: bool = False) -> None:
        self.reason = reason
        self.is_final = is_final
        self.is_outage = is_outage
        super().__init__(reason)


class Transport(Protocol):
    def send(self, message: EmailMessage, link: str | None) -> None:
        """Raises NotSent."""


def transport_of(settings: Settings) -> Transport | None:
    """None: this server sends no mail."""
    if settings.smtp_url:
        return Smtp(settings)
    return Folder(settings.data_dir / "mail") if settings.sends_mail else None


class Smtp:
    """TLS from the first byte (`smtps`, RFC 8314 section 3.3) or by STARTTLS (`smtp`, RFC 3207), the certificate
    checked; without TLS only where the URL says so."""

    def __init__(self, settings: Settings, timeout: float = TIMEOUT_SECONDS) -> None:
        url = urlsplit(settings.smtp_url)
        self._host = url.hostname or ""
        self._port = url.port or PORTS[url.scheme]
        self._is_tls = url.scheme == "smtps"
        self._starts_tls = not self._is_tls and url.query != "starttls=off"
        self._user, self._password = unquote(url.username or ""), unquote(url.password or "")
        self._ca_file = settings.smtp_ca_file
        self._name = _greeting(urlsplit(settings.issuer).hostname or "localhost")
        self._timeout = timeout

    def send(self, message: EmailMessage, link: str | None) -> None:
        del link
        with self._connected() as server:
            server.send_message(message)

    def check(self) -> None:
        """Connects and signs in. Raises NotSent."""
        with self._connected() as server:
            server.noop()

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        try:
            server = self._connect()
            try:
                yield server
            finally:
                with suppress(OSError, smtplib.SMTPException):  # what was taken is taken, whatever QUIT says
                    server.quit()
                server.close()
        except (OSError, smtplib.SMTPException) as error:
            raise _not_sent(error) from None

    def _connect(self) -> smtplib.SMTP:
        host, port, name, timeout = self._host, self._port, self._name, self._timeout
        if self._is_tls:
            tls = self._tls()
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, name, timeout=timeout, context=tls)
        else:
            server = smtplib.SMTP(host, port, name, timeout)
        try:
            if self._starts_tls:
                server.starttls(context=self._tls())  # raises where it isn't offered: nothing goes on in clear
            if self._user:
                server.login(self._user, self._password)
        except smtplib.SMTPNotSupportedError:
            server.close()
            raise NotSent("smtp_not_supported", is_outage=True) from None  # no STARTTLS, or no way to sign in
        except BaseException:
            server.close()
            raise
        return server

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._ca_file:
            context.load_verify_locations(self._ca_file)
        return context


class Folder:
    """For development: each message a file, its link in the log. Both are as good as the mailbox."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def send(self, message: EmailMessage, link: str | None) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            name = re.sub(r"[^0-9a-z.-]", "", str(message["Message-ID"]).partition("@")[0])
            file = self._folder / f"{name}.eml"
            with open(file, "xb", opener=_private) as out:
                out.write(message.as_bytes())
        except OSError as error:
            raise NotSent(f"folder_{type(error).__name__}", is_outage=True) from None
        logger.info("mail to %s in %s: %s", _printable(str(message["To"])), file, link or message["Subject"])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _printable(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def _greeting(host: str) -> str:
    """RFC 5321 section 4.1.3: an address in brackets."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"


def _not_sent(error: Exception) -> NotSent:
    """What the server said is not repeated: it holds the address, and may hold more."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code = min((code for code, _ in error.recipients.values()), default=0)
        return NotSent(f"smtp_{code}", is_final=code >= 500)
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return NotSent("smtp_authentication", is_outage=True)  # the operator can mend it
    if isinstance(error, smtplib.SMTPSenderRefused | smtplib.SMTPDataError):
        return NotSent(f"smtp_{error.smtp_code}", is_final=error.smtp_code >= 500)
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return NotSent("smtp_no_utf8", is_final=True)  # the address needs SMTPUTF8
    if isinstance(error, ssl.SSLError):
        return NotSent("smtp_tls", is_outage=True)
    if isinstance(error, smtplib.SMTPException) and not isinstance(error, smtplib.SMTPServerDisconnected):
        return NotSent("smtp_error", is_outage=True)
    return NotSent("smtp_unreachable", is_outage=True)
