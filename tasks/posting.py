"""The HTTP client that webhooks are told with."""

from __future__ import annotations

import urllib3

OK = range(200, 300)


def post(url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> str:
    """Send it once; returns what went wrong in words, empty when the other side took it (a status of 2xx).

    No redirects: whoever is told signs for the address that the configuration names.
    """
    timeout = urllib3.Timeout(total=timeout_s)
    try:
        with urllib3.PoolManager(num_pools=1) as pool:
            answer = pool.request(
                "POST", url, body=body, headers=headers, timeout=timeout, retries=False, redirect=False
            )
    except urllib3.exceptions.HTTPError as error:
        return f"{type(error).__name__}: {error}"[:300]
    return "" if answer.status in OK else f"it answered {answer.status}"
