"""Sends requests over kept connections, and returns what came back and when. A process of its own, without Django.

    python -m bench.load < specification      (JSON: port, connections, seconds, request in base64)

A connection sends its next request when the answer to the last one is complete. After `seconds` it sends no more, and the
program ends when all answers are there: nothing is left for the next window.
"""

import base64
import json
import selectors
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

CHUNK = 1 << 18


class BadAnswer(Exception):
    """The server closed the connection in the middle of an answer, or its end cannot be known."""


@dataclass
class Results:
    """What the requests of one window gave: their number by status, their seconds, and the size of the last body."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    body_bytes: int = 0


class Connection:
    """One kept connection. Opens itself again when the server closes it between two requests."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket: socket.socket | None = None
        self.received = bytearray()
        self.began = 0.0

    def open(self) -> socket.socket:
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=120)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.socket

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def send(self, request: bytes) -> socket.socket:
        self.received.clear()
        self.began = time.perf_counter()
        connected = self.open()
        connected.sendall(request)
        return connected

    def read(self) -> tuple[int, bytes, bytes] | None:
        """Read what is there. Return status, head and body of a complete answer, else None."""
        assert self.socket is not None  # noqa: S101
        data = self.socket.recv(CHUNK)
        if not data:
            raise BadAnswer("closed")
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self.received[:end]).lower()
        status = int(head[9:12])
        length = 0 if status in (204, 304) else find_length(head)
        if len(self.received) < end + 4 + length:
            return None
        body = bytes(self.received[end + 4 : end + 4 + length])
        if b"\r\nconnection: close" in head:
            self.close()
        return status, bytes(self.received[:end]), body

    def exchange(self, request: bytes) -> tuple[int, bytes, bytes, float]:
        """Send one request and return status, head, body and seconds. Tries again once if the server had closed."""
        for is_last in (False, True):
            try:
                self.send(request)
                while (answer := self.read()) is None:
                    pass
                return *answer, time.perf_counter() - self.began
            except (BadAnswer, OSError):
                self.close()
                if is_last or self.received:
                    raise
        raise BadAnswer("never answered")


def find_length(head: bytes) -> int:
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise BadAnswer(f"no Content-Length: {head.decode()}")
    return int(head[at + 17 : head.find(b"\r\n", at + 2) if head.find(b"\r\n", at + 2) > 0 else None])


def run(port: int, connections: int, seconds: float, request: bytes) -> Results:
    results, selector = Results(), selectors.DefaultSelector()
    until = time.perf_counter() + seconds
    for _ in range(connections):
        connection = Connection(port)
        selector.register(connection.send(request), selectors.EVENT_READ, connection)
    while selector.get_map():
        for key, _ in selector.select():
            take(selector, key, results, request, until)
    return results


def take(
    selector: selectors.BaseSelector, key: selectors.SelectorKey, results: Results, request: bytes, until: float
) -> None:
    """Read from a connection that has data. When its answer is complete, note it and send the next request.

    A server may close a kept connection at the moment in which the next request arrives: it is sent again.
    """
    connection: Connection = key.data
    try:
        answer = connection.read()
    except (BadAnswer, ConnectionResetError):
        if connection.received:
            raise
        results.statuses["closed"] += 1
        connection.close()
    else:
        if answer is None:
            return
        results.statuses[str(answer[0])] += 1
        results.seconds.append(time.perf_counter() - connection.began)
        results.body_bytes = len(answer[2])
    is_over = time.perf_counter() >= until
    if connection.socket is None or is_over:
        selector.unregister(key.fileobj)
        connection.close()
        if not is_over:
            selector.register(connection.send(request), selectors.EVENT_READ, connection)
        return
    connection.send(request)


def main() -> None:
    asked: dict[str, Any] = json.load(sys.stdin)
    request = base64.b64decode(asked.pop("request"))
    began = time.perf_counter()
    results = run(request=request, **asked)
    json.dump(
        {
            "elapsed": time.perf_counter() - began,
            "statuses": results.statuses,
            "seconds": results.seconds,
            "body_bytes": results.body_bytes,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
