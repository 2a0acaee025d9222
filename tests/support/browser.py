"""A headless Chromium driven by selenium, offline, at a given width."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSER, DRIVER = "chromium", "chromedriver"
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
    *("--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run"),
)


def find_browser() -> tuple[str, str]:
    """Return the paths of browser and driver; skip the test if one is not installed."""
    found = shutil.which(BROWSER), shutil.which(DRIVER)
    for name, path in zip((BROWSER, DRIVER), found, strict=True):
        if path is None:
            pytest.skip(f"{name} is not installed")
    return str(found[0]), str(found[1])


@contextmanager
def open_browser() -> Iterator[Any]:
    """Open a browser that records its console and its requests."""
    pytest.importorskip("selenium", reason="selenium is not installed")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    binary, driver = find_browser()
    options = ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options, Service(driver))
    try:
        yield browser
    finally:
        browser.quit()


def show(browser: Any, page: Path, width: int, *, dark: bool = False) -> None:
    """Open a local page at `width` CSS pixels; below 500 as on a phone."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.get(page.absolute().as_uri())


def console(browser: Any) -> list[str]:
    """Return the messages of the console since the last call."""
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser: Any) -> list[str]:
    """Return the addresses requested since the last call."""
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    sent = (event for event in events if event["method"] == "Network.requestWillBeSent")
    return [event["params"]["request"]["url"] for event in sent]


def screenshot(browser: Any, file: Path) -> None:
    """Write a picture of the whole page."""
    import base64

    picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    file.write_bytes(base64.b64decode(picture["data"]))
