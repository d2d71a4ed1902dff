"""The HTTP server of `wsss.serve.label_studio`: limits, and refusals in plain words.

Label Studio shows the reason that stands in the status line and drops the body, so a refusal says it in both.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from wsss.errors import MachineError
from wsss.serve.images import Refused, short
from wsss.serve.label_studio import LabelStudio
from wsss.stopping import StopRequest

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOCAL_NAMES = (*LOOPBACK, "host.docker.internal")
"""Names of this machine in the Host line of a request; another one may be a web page that lets a browser ask."""
MAX_BODY = 2**25
"""Bytes of a request; tasks carry their annotations."""
MAX_DROPPED = 2**28
"""Bytes of a request that is too large that are read and forgotten before it is refused."""
MAX_CONNECTIONS = 32
SOCKET_SECONDS = 30
"""How long a client may be silent."""
POLL_SECONDS = 0.2
"""How often a signal is looked for."""


class Server(ThreadingHTTPServer):
    """Listens as soon as it is made.

    Args:
        backend: gives the answers.
        host: address to listen on.
        port: 0 takes a free one.
        say: gets one line a request that is worth it.
        max_body: bytes of a request.

    Raises:
        MachineError: it cannot listen there.
    """

    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(
        self,
        backend: LabelStudio,
        host: str,
        port: int,
        say: Callable[[str], None] = lambda text: None,
        *,
        max_body: int = MAX_BODY,
    ) -> None:
        self.backend, self.say, self.max_body = backend, say, max_body
        self.is_local = host in LOOPBACK
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.timeout = POLL_SECONDS
        self._free = threading.Semaphore(MAX_CONNECTIONS)
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            what = f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}"
            raise MachineError(what, "--port 0  # takes a free port") from error

    @property
    def url(self) -> str:
        """Its address."""
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if self.address_family == socket.AF_INET6 else f"http://{host!s}:{port}"

    def serve_until(self, stop: StopRequest) -> None:
        """Answer requests until a signal has arrived."""
        while not stop.asked:
            self.handle_request()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own; with too many of them, drop the connection."""
        if not self._free.acquire(blocking=False):
            self.say(f"dropped a connection: {MAX_CONNECTIONS} are open")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In that thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke."""
        self.say("a connection broke before its answer was sent")


class Handler(BaseHTTPRequestHandler):
    """Reads one request, and sends one answer."""

    server: Server
    timeout = SOCKET_SECONDS
    server_version, sys_version = "wsss", ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Health and versions."""
        self._answer({"/health": self.server.backend.health, "/": self.server.backend.health,
                      "/versions": self.server.backend.versions})  # fmt: skip

    def do_POST(self) -> None:
        """Setup, predictions and notices."""
        backend = self.server.backend
        answers = {"/setup": backend.setup, "/predict": backend.predict, "/webhook": backend.webhook}
        self._answer({path: lambda answer=answer: answer(self._body()) for path, answer in answers.items()})  # type: ignore[misc]

    def _answer(self, answers: dict[str, Callable[[], dict[str, Any]]]) -> None:
        """Send the answer of a path, or why there is none."""
        began, path = time.monotonic(), urlsplit(self.path).path
        self.close_connection = True
        try:
            self._check_host()
            if path not in answers:
                raise Refused(404, f"{short(path)} with {self.command} is not answered here")
            made = answers[path]()
        except Refused as error:
            self.server.say(f"refused {error.status} {self.command} {short(path)}: {error.reason}")
            self._send(error.status, {"error": error.reason}, error.reason)
            return
        except Exception as error:
            self.server.say(f"failed {self.command} {short(path)}: {type(error).__name__}: {error}")
            self._send(500, {"error": "wsss failed; its log says why"}, "wsss failed; its log says why")
            return
        if "results" in made:
            count = sum(bool(one) for one in made["results"])
            self.server.say(f"predicted {count} of {len(made['results'])} tasks in {time.monotonic() - began:.1f} s")
        self._send(200, made)

    def _check_host(self) -> None:
        """Refuse requests that were addressed to another name, where this machine alone is served."""
        try:
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        except ValueError:
            name = None
        if self.server.is_local and name not in LOCAL_NAMES:
            raise Refused(403, f"Host {short(name)} is not this machine")

    def _body(self) -> dict[str, Any]:
        """The JSON object of a request."""
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "the body of a request is application/json")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            raise Refused(411, "the request does not say its Content-Length")
        if len(length) > 12 or int(length) > self.server.max_body:
            self._drop(int(length[:12]))
            raise Refused(413, f"the request has more than {self.server.max_body} bytes")
        content = self.rfile.read(int(length))
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            raise Refused(400, "the body of the request is no JSON") from None
        if not isinstance(body, dict):
            raise Refused(400, "the body of the request is no JSON object")
        return body

    def _drop(self, length: int) -> None:
        """Read a body that is too large, up to ``MAX_DROPPED``, without keeping it: a client that still writes would
        not read the answer.
        """
        left = min(length, MAX_DROPPED)
        while left > 0 and (some := self.rfile.read(min(left, 2**16))):
            left -= len(some)

    def _send(self, status: int, answer: dict[str, Any], reason: str | None = None) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status, None if reason is None else reason.encode("ascii", "replace").decode()[:200])
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests have lines of their own."""
