"""A web server on this machine that answers as a test says, well or badly."""

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

Answer = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """Answers by path; each path has its answers, given in turn, the last one for ever."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[Answer]] = {}
        self.every: Answer = send(b"", 404)
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.over = Event()

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """Keep quiet: clients of a bad server hang up."""


class Handler(BaseHTTPRequestHandler):
    """Looks the answer up."""

    server: Server

    def do_GET(self) -> None:
        """Give the next answer of this path."""
        self.server.seen.append(self.path)
        self.server.headers.append(dict(self.headers))
        answers = self.server.answers.get(self.path, [self.server.every])
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs while the block does."""
    with Server() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join(5)


def send(body: bytes, status: int = 200, length: int | None = None, **headers: str) -> Answer:
    """An answer with a body, of which the header may tell another length."""

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirect(target: str) -> Answer:
    """An answer that sends elsewhere."""
    return send(b"", 302, Location=target)


def stall(begin: bytes = b"") -> Answer:
    """An answer that stops after a few bytes and holds the line."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(begin)
        handler.server.over.wait(20)

    return answer


def drip(begin: bytes, drop: bytes = b"0", pause: float = 0.05) -> Answer:
    """An answer that comes byte by byte, without an end."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(begin)
        while not handler.server.over.wait(pause):
            handler.wfile.write(drop)

    return answer


def raw(content: bytes) -> Answer:
    """An answer without a head of the server's making."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(content)

    return answer


def reset(begin: bytes = b"") -> Answer:
    """An answer that ends in a reset connection."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(begin)
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        os.close(handler.connection.detach())

    return answer
