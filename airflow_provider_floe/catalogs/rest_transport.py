"""How REST catalogs are spoken to: within time limits, and again when they are busy."""

from __future__ import annotations

from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3.exceptions import InvalidHeader, MaxRetryError, ResponseError
from urllib3.response import BaseHTTPResponse
from urllib3.util.retry import Retry

CONNECT_SECONDS, READ_SECONDS = 10, 120
LONGEST_WAIT_SECONDS = 60
"""A server that asks to wait for longer (``Retry-After``) is not asked again, but reported."""

_RETRIES = 3
_TURNED_AWAY = (429, 503)
"""The server did not begin with the request, so that any request may be repeated."""
_UNCLEAR = (502, 504)
"""Something on the way gave up: what only reads may be repeated."""


class Patience(Retry):
    """Repeats what a busy server turned away, commits included, after the time that it asks for.

    A commit may be repeated since it holds the state that it changes: when the first one happened after all, the server
    refuses the second, and whoever commits looks then (``engines/local/commit.py``). Requests whose answer was lost
    are repeated only when they read.
    """

    @classmethod
    def of_catalogs(cls) -> Patience:
        """Three times, after 0.5 to 2 seconds where the server names no time."""
        return cls(
            total=_RETRIES,
            connect=1,
            backoff_factor=0.5,
            status_forcelist=_UNCLEAR,
            allowed_methods=("GET", "HEAD"),
            raise_on_status=False,
        )

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        """Whether an answer of this status is worth another try."""
        if status_code in _TURNED_AWAY:
            return bool(self.total)
        return super().is_retry(method, status_code, has_retry_after)

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        *rest: Any,
        **by: Any,
    ) -> Patience:
        """Count a try; the answer of a server that asks for more patience than we have is given to the caller."""
        if response is not None and (self.get_retry_after(response) or 0) > LONGEST_WAIT_SECONDS:
            raise MaxRetryError(by["_pool"], url or "", ResponseError("asked to wait for too long"))
        return super().increment(method, url, response, *rest, **by)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """Seconds that the server asks to wait; None when it says nothing that can be understood."""
        try:
            return super().get_retry_after(response)
        except InvalidHeader:
            return None


class TimedAdapter(HTTPAdapter):
    """Requests with time limits and :class:`Patience`."""

    def __init__(self) -> None:
        super().__init__(pool_maxsize=32, max_retries=Patience.of_catalogs())

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        """See :meth:`requests.adapters.HTTPAdapter.send`."""
        options["timeout"] = options.get("timeout") or (CONNECT_SECONDS, READ_SECONDS)
        return super().send(request, *args, **options)
