"""Inboxes at `/_sandbox/inbox/<name>`: webhook receivers for notifications on one machine and in tests.

POST delivers a message, GET lists the messages, DELETE empties the inbox, PUT sets its response from now on. Any name is
an inbox. Kept in memory only. Times are wall time, because receivers check a message's timestamp by their own clock.
"""

import json
import re
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from werkzeug.wrappers import Request, Response

WEBHOOK_INBOX_PREFIX = "/_sandbox/inbox/"
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
MESSAGES_KEPT = 500
LONGEST_BODY = 1_000_000

Json = dict[str, Any]


class WebhookInboxError(ValueError):
    """Invalid input. The message names the field."""


@dataclass
class Message:
    """One delivery as received. Header names are in lower case; `answered` is the status of the response."""

    received_at: float
    headers: dict[str, str]
    body: str
    answered: int


@dataclass
class WebhookInbox:
    """Messages, oldest first. Answers `status` after `seconds`, for `times` deliveries or until changed."""

    messages: list[Message] = field(default_factory=list)
    status: int = 200
    seconds: float = 0.0
    times: int | None = None

    def receive(self, headers: dict[str, str], body: str) -> tuple[int, float]:
        """Store a message, and return the status to answer with and the seconds to wait before that."""
        answer = self.status, self.seconds
        self.messages = [*self.messages, Message(time.time(), headers, body, self.status)][-MESSAGES_KEPT:]
        if self.times is not None:
            self.times -= 1
            if self.times <= 0:
                self.status, self.seconds, self.times = 200, 0.0, None
        return answer

    def behave(self, body: Json) -> None:
        """Set the response from JSON; omitted fields get their defaults. Raises InboxError that names the field."""
        for name, value in body.items():
            if name not in ("status", "seconds", "times"):
                raise WebhookInboxError(f"`{name}` is not a known field. Known fields: status, seconds, times.")
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise WebhookInboxError(f"`{name}` must be a number of at least 0, not {value!r}.")
        status, times = body.get("status", 200), body.get("times")
        if not 200 <= status <= 599:
            raise WebhookInboxError(f"`status` must be from 200 to 599, not {status}.")
        if times == 0:
            raise WebhookInboxError("`times` must be at least 1. Omit it for a permanent response.")
        self.status, self.seconds, self.times = int(status), float(body.get("seconds", 0)), times


class WebhookInboxes:
    """All inboxes by name. They have their own lock because deliveries do not touch the state of AWS."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.by_name: dict[str, WebhookInbox] = {}

    def clear(self) -> None:
        with self.lock:
            self.by_name.clear()

    def handle(self, request: Request) -> Response:
        """Answer one call to an inbox."""
        name = request.path.removeprefix(WEBHOOK_INBOX_PREFIX)
        if not NAME.fullmatch(name):
            return answer(404, {"error": "The name of an inbox must consist of 1 to 64 letters, digits, - and _."})
        if request.method == "POST":
            return self._deliver(name, request)
        with self.lock:
            if request.method == "GET":
                return answer(200, asdict(self.by_name.get(name, WebhookInbox())))
            if request.method == "DELETE":
                return answer(200, {"removed": len(self.by_name.pop(name, WebhookInbox()).messages)})
            if request.method == "PUT":
                try:
                    self.by_name.setdefault(name, WebhookInbox()).behave(json_object(request))
                except WebhookInboxError as error:
                    return answer(400, {"error": str(error)})
                return answer(200, {"status": "set"})
        return answer(405, {"error": f"{request.path} takes DELETE, GET, POST, PUT, not {request.method}."})

    def _deliver(self, name: str, request: Request) -> Response:
        """Store a message and answer it. A slow response waits outside the lock."""
        if (request.content_length or 0) > LONGEST_BODY:
            return answer(413, {"error": f"A message must not exceed {LONGEST_BODY} bytes."})
        headers = {key.lower(): value for key, value in request.headers.items()}
        body = request.get_data().decode("utf-8", "replace")
        with self.lock:
            status, seconds = self.by_name.setdefault(name, WebhookInbox()).receive(headers, body)
        time.sleep(seconds)
        moved = {"Location": f"{WEBHOOK_INBOX_PREFIX}{name}-elsewhere"} if 300 <= status < 400 else {}
        return Response("ok" if status < 300 else "not taken", status=status, mimetype="text/plain", headers=moved)


def json_object(request: Request) -> Json:
    try:
        body = json.loads(request.get_data() or b"{}")
    except ValueError as error:
        raise WebhookInboxError("The body must be a JSON object.") from error
    if not isinstance(body, dict):
        raise WebhookInboxError("The body must be a JSON object.")
    return body


def answer(status: int, body: Json) -> Response:
    return Response(json.dumps(body), status=status, mimetype="application/json")
