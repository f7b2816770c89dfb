"""Chromium without a window, driven as a person would use it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
WIDTH, HEIGHT = 1280, 620


@contextmanager
def browser() -> Iterator[Chrome]:
    """A fresh profile; in the network namespace of the calling thread."""
    with tempfile.TemporaryDirectory(prefix="vmferry-chromium-") as profile:
        options = ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for word in (
            "--headless=new",
            "--no-sandbox",  # tests run as root
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--force-color-profile=srgb",
            f"--window-size={WIDTH},{HEIGHT}",
            f"--user-data-dir={profile}",
        ):
            options.add_argument(word)
        driver = Chrome(options=options, service=Service(str(DRIVER)))
        try:
            driver.set_page_load_timeout(60)
            yield driver
        finally:
            driver.quit()


def log_in(driver: Chrome, port: int, credentials: str) -> str:
    """Say who we are, once; the browser remembers. Returns the address of the pages."""
    driver.get(f"http://{credentials}@127.0.0.1:{port}/workers")
    return f"http://127.0.0.1:{port}"
