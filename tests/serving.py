"""Serves the application over real HTTP on a port of its own, within the test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application
from django.db import connections


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing: requests are no part of a test's report."""


@contextmanager
def serve_application() -> Iterator[str]:
    """Serve until the block ends; give the address."""
    application = StaticFilesHandler(get_wsgi_application())
    server: WSGIServer = make_server("127.0.0.1", 0, application, handler_class=QuietHandler)

    def serve() -> None:
        server.serve_forever(poll_interval=0.05)
        connections.close_all()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(timeout=20)
    server.server_close()
    assert not thread.is_alive()
