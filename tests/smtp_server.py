"""A mail server on loopback (RFC 5321) that keeps what it is given, and fails as it is told."""

import base64
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest


@dataclass
class Received:
    """`is_encrypted`: by TLS when the message came. `user`: who had signed in."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    is_encrypted: bool
    user: str | None
    greeting: str

    @property
    def text(self) -> str:
        return str(self.message.get_content()).replace("\r\n", "\n")


@dataclass
class SmtpServer:
    """`tls`: what it shows; `is_implicit`: from the first byte, else after STARTTLS. `password`: of "mailer".
    `answers`: by verb ("RCPT", "." for the end of the message), instead of the usual one; "" hangs up.
    `commands`: the verbs that were heard.
    """

    socket: socket.socket
    tls: ssl.SSLContext | None = None
    is_implicit: bool = False
    password: str | None = None
    answers: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    connections: int = 0

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()

    def _serve_one(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(30)
            if self.tls and self.is_implicit:
                connection = self.tls.wrap_socket(connection, server_side=True)
            talk = _Talk(self, connection)
            try:
                talk.run()
            finally:
                talk.file.close()
                talk.connection.close()


class _Talk:
    def __init__(self, server: SmtpServer, connection: socket.socket) -> None:
        self.server = server
        self.connection = connection
        self.file = connection.makefile("rb")
        self.user: str | None = None
        self.greeting = self.sender = ""
        self.recipients: list[str] = []

    def run(self) -> None:
        self.say(self.server.answers.get("CONNECT", "220 mail.example ready"))
        while line := self.file.readline().decode().strip():
            verb = line.split(" ")[0].upper()
            self.server.commands.append(verb)
            told = self.server.answers.get(verb)
            if told is not None:
                self.say(told)
                if not told:
                    return
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                handler = getattr(self, f"on_{verb.lower()}", None)
                if handler is None:
                    self.say("502 not here")
                else:
                    handler(line)

    def say(self, line: str) -> None:
        if not line:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.connection.sendall(f"{line}\r\n".encode())

    @property
    def is_encrypted(self) -> bool:
        return isinstance(self.connection, ssl.SSLSocket)

    def on_ehlo(self, line: str) -> None:
        self.greeting = line.partition(" ")[2]
        offers = ["mail.example", "8BITMIME"]
        if self.server.tls and not self.is_encrypted:
            offers.append("STARTTLS")
        if self.server.password:
            offers.append("AUTH PLAIN")
        self.say("\r\n".join([*(f"250-{offer}" for offer in offers[:-1]), f"250 {offers[-1]}"]))

    def on_starttls(self, _line: str) -> None:
        assert self.server.tls is not None
        self.say("220 go on")
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.file = self.connection.makefile("rb")

    def on_auth(self, line: str) -> None:
        _, user, password = base64.b64decode(line.split(" ")[2]).decode().split("\0")
        if (user, password) == ("mailer", self.server.password):
            self.user = user
            self.say("235 welcome")
        else:
            self.say("535 wrong")

    def on_mail(self, line: str) -> None:
        self.sender, self.recipients = line.partition("<")[2].partition(">")[0], []
        self.say("250 ok")

    def on_rcpt(self, line: str) -> None:
        self.recipients.append(line.partition("<")[2].partition(">")[0])
        self.say("250 ok")

    def on_data(self, _line: str) -> None:
        self.say("354 go on")
        lines = []
        while (line := self.file.readline()) != b".\r\n":
            if not line:
                return
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        message = message_from_bytes(b"".join(lines), policy=policy.SMTP)
        assert isinstance(message, EmailMessage)
        told = self.server.answers.get(".", "250 taken")
        if told.startswith("250") or not told:
            taken = Received(self.sender, self.recipients, message, self.is_encrypted, self.user, self.greeting)
            self.server.received.append(taken)
        self.say(told)

    def on_noop(self, _line: str) -> None:
        self.say("250 ok")

    on_rset = on_noop


@contextmanager
def listening(
    *, tls: ssl.SSLContext | None = None, is_implicit: bool = False, password: str | None = None
) -> Iterator[SmtpServer]:
    server = SmtpServer(socket.create_server(("127.0.0.1", 0)), tls, is_implicit, password)
    threading.Thread(target=server.serve, daemon=True).start()
    try:
        yield server
    finally:
        with suppress(OSError):
            server.socket.shutdown(socket.SHUT_RDWR)
        server.socket.close()


@pytest.fixture
def smtp() -> Iterator[Callable[..., SmtpServer]]:
    with ExitStack() as made:
        yield lambda **options: made.enter_context(listening(**options))
