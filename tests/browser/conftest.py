"""What the browser tests share: the built book on a server, under a folder's address, Chromium, and
pages that show a widget."""

import base64
import functools
import http.server
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .widget_page import KERNEL, NOTEBOOK, NOTEBOOK_PAGE, WidgetPage, need_npm

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SUBPATH = "dcgan-book"  # as on GitHub Pages
HTML = Path(os.environ.get("DCGAN_BOOK_HTML", ROOT / "_build" / "html"))
OWN = re.compile(rf"http://127\.0\.0\.1:\d+/|{re.escape(NOTEBOOK)}|file:|data:|blob:")
# Collect the keys that a widget lets through to the page around it.
HEAR_KEYS = """window.heard = [];
document.addEventListener("keydown", (event) => heard.push(event.key));"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static server without a log."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def html() -> Path:
    """Return the folder of the built book, which must hold npm's scripts."""
    if not (HTML / "index.html").exists():
        pytest.skip("the book is not built: run `make book`")
    need_npm()
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
        self.page.on("request", self._check)
        self.page.on("requestfinished", self._weigh)

    def _listen(self, message: object) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text}")

    def _check(self, request: object) -> None:
        if not OWN.match(request.url):
            self.problems.append(f"external: {request.url}")

    def _weigh(self, request: object) -> None:
        if request.url.startswith("http://127.0.0.1:"):
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


@pytest.fixture
def visit(browser) -> Iterator[Callable[..., object]]:
    """Open pages in fresh profiles; each test ends with no error told and nothing asked of other
    places."""
    visits = []

    def new_page(**options) -> object:
        visits.append(Visit(browser, **options))
        visits[-1].context.add_init_script(HEAR_KEYS)
        return visits[-1].page

    yield new_page
    for one in visits:
        one.context.close()
    assert [problem for one in visits for problem in one.problems] == []


@pytest.fixture
def show(visit, widget_page: WidgetPage) -> Callable[..., object]:
    """Open, from the disk, the page that a test file describes in its fixture `widget_page`, and
    wait until a widget is drawn."""

    def open_page(*mounts: str, theme="light", hash="", **options) -> object:
        page = visit(**options)
        page.goto(widget_page.write(*mounts, theme=theme) + hash)
        page.locator(widget_page.ready).first.wait_for()
        return page

    return open_page


@pytest.fixture
def live(visit) -> Callable[..., object]:
    """Show a widget by the state that Jupyter would send. Where it asks Python, `answer` takes its
    message and returns another one and bytes."""

    def open_page(
        state: dict, answer: Callable[[dict], tuple[dict, bytes]] | None = None
    ) -> object:
        def ask_python(request: dict) -> tuple[dict, str]:
            message, content = answer(request)
            return message, base64.b64encode(b"\0" + content).decode()

        page = visit()
        page.route(
            NOTEBOOK, lambda route: route.fulfill(body=NOTEBOOK_PAGE, content_type="text/html")
        )
        page.expose_function("askPython", ask_python)
        page.goto(NOTEBOOK)
        page.evaluate(KERNEL, state)
        return page

    return open_page
