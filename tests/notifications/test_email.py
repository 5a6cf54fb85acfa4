"""E-mail channels, through a real SMTP dialogue with a test mail server."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from email import message_from_string
from typing import Any

import pytest

from portal.models.notifications import Failure, NotificationChannel, NotificationDelivery
from tests.conftest import Cast
from tests.notifications.conftest import deliver_now, deliveries, make_channel, send_notification


class MailServer:
    """A mail server with configurable replies. `mails` are the accepted messages."""

    def __init__(self) -> None:
        self.says: dict[str, str] = {}
        self.recipients: list[str] = []
        self.mails: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, connection.makefile("rw", newline="\r\n") as talk:
                    self._talk(talk)

    def _talk(self, talk: Any) -> None:
        self._say(talk, "220 mail.example")
        for line in talk:
            command = line.split()[0].upper().partition(":")[0]
            if command == "RCPT":
                self.recipients.append(line.partition("<")[2].partition(">")[0])
            if command == "DATA" and "DATA" not in self.says:
                self._say(talk, "354 go on")
                self.mails.append("".join(iter(talk.readline, ".\r\n")))
            self._say(talk, self.says.get(command, "250 fine"))

    def _say(self, talk: Any, words: str) -> None:
        talk.write(f"{words}\r\n")
        talk.flush()


@pytest.fixture
def mail_server(settings: Any) -> Iterator[MailServer]:
    server = MailServer()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "127.0.0.1", server.port, False
    settings.DEFAULT_FROM_EMAIL = "Portal <portal@portal.example>"
    settings.PORTAL_URL = "https://portal.example"
    yield server
    server.stop()


@pytest.fixture
def channel(cast: Cast) -> NotificationChannel:
    return make_channel(cast.acme, by=cast.admin, kind="email")


@pytest.fixture
def message(cast: Cast, channel: NotificationChannel, mail_server: MailServer) -> NotificationDelivery:
    send_notification(
        cast.acme, title="Acme: ended\r\nBcc: all@example.com", text="Agent service advanced.\nOrchestrator did not."
    )
    return deliveries(channel)[0]


def test_one_plain_mail_to_all_addresses(message: NotificationDelivery, mail_server: MailServer) -> None:
    deliver_now(message)

    mail = message_from_string(mail_server.mails[0])
    assert (message.status, message.failure, message.http_status) == ("sent", None, None)
    assert mail["Subject"] == "Acme: ended Bcc: all@example.com"
    assert mail["Bcc"] is None
    assert (mail["To"], mail.get_content_type()) == ("one@example.com, two@example.com", "text/plain")
    assert mail["Message-ID"] == f"<{message.message_id}@portal.example>"
    assert mail_server.recipients == ["one@example.com", "two@example.com"]
    body = mail.get_payload()
    assert "Agent service advanced.\r\nOrchestrator did not.\r\n\r\nhttps://portal.example/o/acme/upgrades/" in body


@pytest.mark.parametrize(
    ("command", "answer", "status", "failure"),
    [
        ("RCPT", "550 secret: no such person", "failed", Failure.MAIL_REJECTED),
        ("RCPT", "451 secret: greylisted", "pending", Failure.MAIL_REJECTED),
        ("DATA", "554 secret: looks like spam", "failed", Failure.MAIL_REJECTED),
        ("DATA", "452 secret: disk full", "pending", Failure.MAIL_REJECTED),
        ("MAIL", "550 secret: who are you", "pending", Failure.MAIL_DOWN),
        ("EHLO", "421 secret: closing", "pending", Failure.MAIL_DOWN),
    ],
)
def test_the_mail_servers_reply_decides(
    message: NotificationDelivery, mail_server: MailServer, command: str, answer: str, status: str, failure: Failure
) -> None:
    mail_server.says = {command: answer, "HELO": answer if command == "EHLO" else "250 fine"}

    deliver_now(message)

    assert (message.status, message.failure) == (status, failure)
    assert "secret" not in str(NotificationDelivery.objects.values().get())


def test_no_mail_server(message: NotificationDelivery, mail_server: MailServer) -> None:
    mail_server.stop()

    deliver_now(message)

    assert (message.status, message.failure) == ("pending", Failure.MAIL_DOWN)
