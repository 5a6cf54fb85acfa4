"""The HTTP server's side of a connection. It stays open from call to call, as AWS's connections do.

werkzeug's own handler closes it after each reply. A new connection and its thread cost as much as most calls themselves.
"""

import io
import logging
from collections.abc import Callable
from typing import Any

from werkzeug.http import http_date
from werkzeug.serving import WSGIRequestHandler

from portal.sandbox.clock import Clock

logger = logging.getLogger(__name__)

Headers = list[tuple[str, str]]


def request_handler(clock: Clock) -> type[WSGIRequestHandler]:
    """Return an HTTP handler whose `Date` header shows sandbox time, like all other times in a reply."""

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def run_wsgi(self) -> None:
            """Answer one request. The whole body is read first, so that the next request starts where this one ends."""
            if "Transfer-Encoding" in self.headers:
                super().run_wsgi()
                return
            self.environ = environ = self.make_environ()
            environ["wsgi.input"] = io.BytesIO(self.rfile.read(int(environ.get("CONTENT_LENGTH") or 0)))
            try:
                status, headers, body = self.call_application()
            except ConnectionError:  # closed on purpose, without a reply
                self.close_connection = True
                return
            except Exception:
                logger.exception("%s %s failed inside the local AWS", self.command, self.path)
                status, headers, body = "500 Error", [("Content-Length", "0")], b""
            code, _, reason = status.partition(" ")
            self.send_response(int(code), reason)
            for name, value in headers:
                self.send_header(name, value)
            # Headers and body in one packet.
            self._headers_buffer: list[bytes]
            self._headers_buffer += [b"\r\n", body]
            self.flush_headers()

        def call_application(self) -> tuple[str, Headers, bytes]:
            """Return status, headers and body. Every reply of the local AWS has a Content-Length."""
            captured: list[Any] = []
            parts: list[bytes] = []

            def start_response(status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
                captured[:] = [status, headers]
                return parts.append

            reply = self.server.app(self.environ, start_response)
            try:
                parts += reply
            finally:
                if hasattr(reply, "close"):
                    reply.close()
            return captured[0], captured[1], b"".join(parts)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return http_date(clock.now() if timestamp is None else timestamp)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Log nothing for each request."""

    return Handler
