"""What the browser tests share: the built book on a server, under a folder's address, and
Chromium."""

import functools
import http.server
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
AXE = Path(sys.prefix) / "node_modules" / "axe-core" / "axe.min.js"
SUBPATH = "dcgan-book"  # as on GitHub Pages
HTML = Path(os.environ.get("DCGAN_BOOK_HTML", ROOT / "_build" / "html"))


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static server without a log."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def html() -> Path:
    """Return the folder of the built book, which must hold npm's scripts."""
    if not (HTML / "index.html").exists():
        pytest.skip("the book is not built: run `make book`")
    if not AXE.exists() and not os.environ.get("CI"):
        pytest.skip("npm's scripts are missing: install npm and run `make book`")
    return HTML


@pytest.fixture(scope="session")
def site(html: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the book below a folder and return its address, which ends in a slash."""
    top = tmp_path_factory.mktemp("server")
    (top / SUBPATH).symlink_to(html, target_is_directory=True)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(top))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{SUBPATH}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """Return a headless Chromium, one for the tests of a module."""
    from playwright.sync_api import (
        sync_playwright,
    )  # only here: most machines collect these tests without it

    with sync_playwright() as driver:
        path = next(filter(None, map(shutil.which, BROWSERS)))
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """One page in a fresh profile: what it asked for, what it weighed and what it complained
    about."""

    def __init__(
        self, browser: object, width: int = 1280, theme: str = "light", **options: object
    ) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.context.add_init_script(
            f"for (const key of ['mode', 'theme']) localStorage.setItem(key, '{theme}')"
        )
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.weights: dict[str, int] = {}
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("console", self._listen)
        self.page.on(
            "requestfailed", lambda request: self.problems.append(f"failed: {request.url}")
        )
        self.page.on("requestfinished", self._weigh)

    def _listen(self, message: object) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text}")

    def _weigh(self, request: object) -> None:
        local = re.match(r"(http://127\.0\.0\.1:\d+/|file:|data:|blob:)", request.url)
        if not local:
            self.problems.append(f"external: {request.url}")
        elif request.url.startswith("http"):
            self.weights[request.url.split("?")[0]] = request.sizes()["responseBodySize"]

    def open(self, address: str) -> object:
        """Open an address and wait until nothing more is loaded."""
        self.page.goto(address, wait_until="networkidle")
        return self.page

    def scripts(self) -> int:
        """Return the bytes of script that were fetched."""
        return sum(size for url, size in self.weights.items() if url.endswith(".js"))

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()
