"""Ways out: a real SMTP conversation on loopback, with and without TLS, and the folder of development."""

import logging
import re
import socket
import ssl
import stat
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.smtp_server import SmtpServer
from tokenserver.config import Settings
from tokenserver.mail.message import Letter, message_of
from tokenserver.mail.transport import Folder, NotSent, Smtp, transport_of

LINK = "https://id.example/reset-password?token=" + "t" * 43
TEXT = f"A new password was asked for.\n\n{LINK}\n\n.\n..a line with dots\n"
ISSUER = "https://id.example"


def letter(recipient: str = "ann@example.org") -> EmailMessage:
    return message_of(Letter(recipient, "A subject", TEXT, LINK), sender="no-reply@id.example", message_id="1.1")


def smtp_of(
    server: SmtpServer, ca_file: Path | None = None, user: str = "", query: str = "", **options: str
) -> Smtp:
    scheme = "smtps" if server.is_implicit else "smtp"
    url = f"{scheme}://{user}localhost:{server.port}{query}"
    return Smtp(Settings(issuer=ISSUER, smtp_url=url, smtp_ca_file=str(ca_file or ""), **options), timeout=30)


def failure(transport: Smtp, message: EmailMessage | None = None) -> NotSent:
    with pytest.raises(NotSent) as caught:
        transport.send(message or letter(), None)
    return caught.value


@pytest.mark.parametrize("is_implicit", [False, True])
def test_over_tls_by_starttls_or_from_the_first_byte(
    smtp: Callable[..., SmtpServer], authority: Authority, is_implicit: bool
):
    server = smtp(tls=authority.server("localhost").context(), is_implicit=is_implicit, password="p@ss/w:rd")
    smtp_of(server, authority.ca_file, user="mailer:p%40ss%2Fw%3Ard@").send(letter(), None)
    [received] = server.received
    assert received.is_encrypted
    assert received.user == "mailer"
    assert (received.sender, received.recipients) == ("no-reply@id.example", ["ann@example.org"])
    assert received.greeting == "id.example"
    assert received.text == TEXT
    # RFC 3834 section 5
    assert received.message["Auto-Submitted"] == "auto-generated"
    assert LINK in str(received.message.get_payload())  # in one piece, wherever it is read
    # RFC 3207 section 4.2: what was said in clear is said again.
    assert server.commands.count("EHLO") == (1 if is_implicit else 2)


def test_nothing_is_told_to_who_shows_no_good_certificate(smtp: Callable[..., SmtpServer], authority: Authority):
    other = authority.server("mail.example", file="other").context()
    for is_implicit in (False, True):
        server = smtp(tls=other, is_implicit=is_implicit, password="secret")
        for ca_file in (authority.ca_file, None):
            refusal = failure(smtp_of(server, ca_file, user="mailer:secret@"))
            assert (refusal.reason, refusal.is_outage) == ("smtp_tls", True)
        assert not {"AUTH", "MAIL"} & set(server.commands)


def test_starttls_that_is_not_offered_is_asked_for_in_vain(smtp: Callable[..., SmtpServer]):
    """Somebody on the way may have taken the offer out: nothing goes on in clear."""
    server = smtp(password="secret")
    refusal = failure(smtp_of(server, user="mailer:secret@"))
    assert (refusal.reason, refusal.is_outage) == ("smtp_not_supported", True)
    assert not {"AUTH", "MAIL"} & set(server.commands)
    smtp_of(server, user="mailer:secret@", query="?starttls=off").send(letter(), None)
    assert [(each.is_encrypted, each.user) for each in server.received] == [(False, "mailer")]


@pytest.mark.parametrize(
    ("answers", "reason", "is_final", "is_outage"),
    [
        ({"RCPT": "550 no such user ann@example.org"}, "smtp_550", True, False),
        ({"RCPT": "450 later"}, "smtp_450", False, False),
        ({"MAIL": "553 not you"}, "smtp_553", True, False),
        ({".": "554 spam"}, "smtp_554", True, False),
        ({".": "452 disk full"}, "smtp_452", False, False),
        ({"EHLO": "500 what", "HELO": "500 what"}, "smtp_error", False, True),
        ({"CONNECT": "554 go away"}, "smtp_error", False, True),
        ({"CONNECT": ""}, "smtp_unreachable", False, True),
        ({"DATA": ""}, "smtp_unreachable", False, True),
    ],
)
def test_why_it_failed(
    smtp: Callable[..., SmtpServer], answers: dict[str, str], reason: str, is_final: bool, is_outage: bool
):
    server = smtp()
    server.answers |= answers
    refusal = failure(smtp_of(server, query="?starttls=off"))
    assert (refusal.reason, refusal.is_final, refusal.is_outage) == (reason, is_final, is_outage)
    assert server.received == []


def test_wrong_password_of_the_mail_server(smtp: Callable[..., SmtpServer]):
    server = smtp(password="secret")
    refusal = failure(smtp_of(server, user="mailer:wrong@", query="?starttls=off"))
    assert (refusal.reason, refusal.is_final, refusal.is_outage) == ("smtp_authentication", False, True)
    smtp_of(server, user="mailer:secret@", query="?starttls=off").check()
    assert server.received == []


def test_what_was_taken_is_taken_whatever_comes_after(smtp: Callable[..., SmtpServer]):
    server = smtp()
    server.answers["QUIT"] = ""
    smtp_of(server, query="?starttls=off").send(letter(), None)
    assert len(server.received) == 1


def test_nobody_answers():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"smtp://127.0.0.1:{deaf.getsockname()[1]}"
        refusal = failure(Smtp(Settings(smtp_url=url), timeout=0.2))
        assert (refusal.reason, refusal.is_outage) == ("smtp_unreachable", True)
    assert failure(Smtp(Settings(smtp_url=url), timeout=0.2)).reason == "smtp_unreachable"  # nobody listens


def test_an_address_that_the_server_can_t_take(smtp: Callable[..., SmtpServer]):
    refusal = failure(smtp_of(smtp(), query="?starttls=off"), letter("jürgen@example.org"))
    assert (refusal.reason, refusal.is_final) == ("smtp_no_utf8", True)


def test_folder_of_development(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "tokenserver.mail")
    transport = transport_of(Settings(data_dir=tmp_path))
    assert isinstance(transport, Folder)
    transport.send(letter(), LINK)
    [file] = (tmp_path / "mail").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert file.name == "1.1.eml"
    assert LINK in file.read_text()
    assert LINK in caplog.text


def test_no_folder_and_no_log_in_production():
    assert transport_of(Settings(env="production", issuer=ISSUER)) is None
    with_server = Settings(env="production", issuer=ISSUER, smtp_url="smtp://mail.example")
    assert isinstance(transport_of(with_server), Smtp)


def test_greeting_is_a_name_or_an_address_in_brackets(smtp: Callable[..., SmtpServer]):
    """RFC 5321 section 4.1.3."""
    server = smtp()
    for issuer in ("http://127.0.0.1:8000", "http://[::1]:8000"):
        smtp_of(server, query="?starttls=off").send(letter(), None)
        url = f"smtp://localhost:{server.port}?starttls=off"
        Smtp(Settings(issuer=issuer, smtp_url=url), timeout=30).send(letter(), None)
    assert {each.greeting for each in server.received} == {"id.example", "[127.0.0.1]", "[IPv6:::1]"}


@pytest.mark.parametrize(
    "text", ["ann@example.org\r\nBcc: all@example.org", "ann", "@example.org", "ann@", "a\0@b"]
)
def test_nothing_is_smuggled_into_a_header(text: str):
    try:
        made = letter(text)
    except ValueError:
        return
    head = made.as_bytes().partition(b"\r\n\r\n")[0]
    assert not re.search(rb"(?im)^bcc:", head)
    assert b"\0" not in head


@pytest.mark.parametrize("recipient", ["a,b@example.org", "a b@example.org", "a;b@example.org", "x<y>@example.org"])
def test_one_address_is_one(recipient: str):
    made = letter(recipient)
    assert [address.addr_spec.replace('"', "") for address in made["To"].addresses] == [recipient]


def test_tls_of_today():
    """The context is Python's default one for clients: checked certificates and names, TLS 1.2 and later."""
    context = Smtp(Settings(smtp_url="smtp://mail.example"))._tls()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
