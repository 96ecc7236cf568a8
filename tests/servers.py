"""A web server on this machine that gives the answers that a test has prepared."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """A status, the length that the header states, and a body."""

    status: int
    length: int
    body: bytes


class Server(ThreadingHTTPServer):
    """Each path has a list of answers, which are given in turn; the last one is repeated."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers: dict[str, list[Answer]] = {}
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []


class Handler(BaseHTTPRequestHandler):
    """Gives the next answer of a path, or 404."""

    server: Server

    def do_GET(self) -> None:
        """Answer a request."""
        self.server.seen.append(self.path)
        self.server.headers.append(dict(self.headers))
        answers = self.server.answers.get(self.path, [send(b"", 404)])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(answer.status)
        self.send_header("Content-Length", str(answer.length))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: Any) -> None:
        """Write nothing to the terminal."""


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs while the block does."""
    with Server() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def send(body: bytes, status: int = 200, length: int | None = None) -> Answer:
    """An answer with a body, whose header may state a wrong length."""
    return Answer(status, len(body) if length is None else length, body)
