"""Who may see what: one gate before all of Flower's handlers.

Flower asks for the login handler by handler, and some of them (``/metrics``) never do. Here everything is closed that
is not named as open, and a handler that a newer Flower adds is closed as well.
"""

from __future__ import annotations

import hmac
import logging
from base64 import b64decode
from dataclasses import dataclass
from urllib.parse import urlsplit

from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import OutputTransform, RequestHandler

log = logging.getLogger(__name__)

READING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True, repr=False)
class Gate:
    """Decides about a request by its path, its origin and its credentials."""

    credentials: tuple[bytes, ...]
    """``name:password`` each; empty: nobody is asked."""
    open_paths: frozenset[str]
    """What may be read without logging in."""
    names: frozenset[str] | None = None
    """Host names under which it may be addressed; None: any. Without a login, a page elsewhere whose name was made to
    point at this machine would otherwise be let in by the visitor's browser."""

    def admits(self, request: HTTPServerRequest) -> bool:
        """Whether the request may go on to Flower."""
        if self.names is not None and request.host_name not in self.names:
            return False
        if not self.credentials:
            return request.method in READING or is_same_origin(request)
        return request.path in self.open_paths or self._knows(given_credentials(request))

    def _knows(self, given: bytes) -> bool:
        return any(hmac.compare_digest(given, known) for known in self.credentials)


def is_same_origin(request: HTTPServerRequest) -> bool:
    """False when a browser says that another site's page has sent it; other programs say nothing."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    return site in (None, "same-origin") and (origin is None or urlsplit(origin).netloc == request.host)


def given_credentials(request: HTTPServerRequest) -> bytes:
    """``name:password`` as the request has it; empty when it has none that can be read."""
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return b64decode(encoded.strip(), validate=True)
    except ValueError:
        return b""


class Refusal(RequestHandler):
    """What everybody gets whom the gate does not admit, whatever was asked for."""

    def check_xsrf_cookie(self) -> None:
        """Nothing is done here that needs protection."""

    def prepare(self) -> None:
        """Ask for the login, and leave a line for whoever looks for guessed passwords."""
        if "Authorization" in self.request.headers:
            log.warning("login refused: %s %s from %s", self.request.method, self.request.path, self.request.remote_ip)
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        if not self.application.gate.credentials:  # type: ignore[attr-defined]
            self.set_status(403)
            self.finish("without a login only pages of this machine, under the name localhost, may do that\n")
            return
        self.set_status(401)
        self.set_header("WWW-Authenticate", 'Basic realm="vmferry", charset="UTF-8"')
        self.finish("log in first\n")


class NoFrames(OutputTransform):
    """No other site may show these pages inside its own, where a click could be led onto Terminate."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Add the headers."""
        headers["X-Frame-Options"] = "DENY"
        headers["Referrer-Policy"] = "same-origin"
        return super().transform_first_chunk(status_code, headers, chunk, finishing)
