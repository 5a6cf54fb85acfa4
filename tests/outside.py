"""A test server that stands in for external services and sends exactly the bytes a test specifies."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Talk = Callable[[socket.socket, str], None]


class Outside:
    """A server on 127.0.0.1 that answers by path. `requests` holds the complete heads and bodies received."""

    def __init__(self, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.requests: list[str] = []
        self.connections = 0
        self.answers: dict[str, Talk] = {}
        self.otherwise: Talk = raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def answer(self, path: str, body: Any = None, *, status: int = 200, seconds: float = 0) -> None:
        """Let the path (without its query) answer with this JSON after `seconds`."""
        self.answers[path] = as_json(body, status=status, seconds=seconds)

    def stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            request = read_request(connection)
            if request:
                self.requests.append(request)
                path = request.split(" ", 2)[1].partition("?")[0]
                self.answers.get(path, self.otherwise)(connection, request)
            connection.close()


def read_request(connection: socket.socket) -> str:
    """Return head and body, by Content-Length. A TLS client gets a plain HTTP 400, as from real servers."""
    read = b""
    while b"\r\n\r\n" not in read:
        if read.startswith(b"\x16"):
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return ""
        more = connection.recv(65536)
        if not more:
            return ""
        read += more
    head, _, body = read.partition(b"\r\n\r\n")
    lengths = [line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while lengths and len(body) < int(lengths[0]):
        body += connection.recv(65536)
    return (head + b"\r\n\r\n" + body).decode()


def raw(answer: bytes) -> Talk:
    return lambda connection, request: connection.sendall(answer)


def as_json(body: Any, *, status: int = 200, seconds: float = 0) -> Talk:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"

    def talk(connection: socket.socket, request: str) -> None:
        time.sleep(seconds)
        connection.sendall(head.encode() + data)

    return talk


def drip(answer: bytes, *, at_once: bytes = b"", seconds: float = 0.05) -> Talk:
    """Send one byte at a time, so that no single read times out but the whole response does."""

    def talk(connection: socket.socket, request: str) -> None:
        connection.sendall(at_once)
        for number in range(len(answer)):
            connection.sendall(answer[number : number + 1])
            time.sleep(seconds)

    return talk


@contextmanager
def outside(host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> Iterator[Outside]:
    server = Outside(host, tls=tls)
    try:
        yield server
    finally:
        server.stop()
