"""The landing page's generator: it appears, follows a drag, and draws PyTorch's pixels."""

import functools
import http.server
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from dcgan_lib.training.checkpoints import load_generator
from dcgan_lib.widgets.latents import seed_latent

from .conftest import Quiet, Visit
from .test_explorer import EXPLORER, drag_across_the_pad, expected, settle
from .widget_page import pixels

pytestmark = pytest.mark.browser
DRAWN = "document.querySelector('.dcgan-explorer[data-ready]')"


@pytest.fixture
def root_site(html) -> Iterator[str]:
    """Serve the book at a server's root."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(html))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("place", ["root", "sub-path", "disk"])
def test_generator_answers(place, root_site, site, html, browser):
    address = {"root": root_site, "sub-path": site, "disk": (html / "index.html").as_uri()}[place]
    with Visit(browser, width=1440) as visit:
        visit.page.goto(address, wait_until="commit")
        visit.page.wait_for_function(DRAWN, timeout=120_000)
        settle(visit.page)
        before, redraws = pixels(visit.page), drag_across_the_pad(visit.page)
        settle(visit.page)
        assert redraws > 1 and np.abs(pixels(visit.page) - before).max() > 0
        assert visit.problems == []


def test_every_generator_of_the_page_draws_pytorch_s_pixels(html, browser):
    with Visit(browser, width=1440) as visit:
        page = visit.open((html / "index.html").as_uri())
        names = page.evaluate(f"() => {{ const {EXPLORER}; return explorer.state.models }}")
        assert len(names) > 1
        for name in names:
            page.evaluate(f"() => {{ const {EXPLORER}; explorer.set({{ model: '{name}' }}) }}")
            page.wait_for_function(f"window.dcganModels['{name}']")
            settle(page)
            limit = 1 if page.evaluate(f"window.dcganModels['{name}'].precision") == "half" else 6
            config, apart = load_generator(name).config, []
            for seed in range(4):
                page.evaluate(f"() => {{ const {EXPLORER}; explorer.set({{ seed: {seed} }}) }}")
                settle(page)
                apart.append(np.abs(pixels(page) - expected(name, seed_latent(seed, config))))
            print(f"{name}: mean {np.mean(apart):.3f}, maximum {np.max(apart)} of 255 levels")
            assert np.mean(apart) <= 1 and np.max(apart) <= limit, name
        assert visit.problems == []
