"""Every page of the built book in Chromium: complete by itself, light, readable on any
screen and by everyone.

The pages are those of the last `make book`.
"""

import re

import pytest

from .conftest import HTML, Visit
from .widget_page import serious_faults

pytestmark = pytest.mark.browser
PAGES = sorted(path.name for path in HTML.glob("*.html")) or ["index.html"]
WIDTHS = (360, 768, 1024, 1440, 1600)
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
MEGABYTE = 1_000_000

TOO_WIDE = """() => {
  const root = document.documentElement;
  return root.scrollWidth > root.clientWidth ? `${root.scrollWidth} in ${root.clientWidth}` : "";
}"""
# Elements that the Tab key should reach, each marked with a number.
MARK_STOPS = """() => {
  const kinds = "a[href], button, input, select, summary, textarea, [tabindex]";
  const all = [...document.querySelectorAll(kinds)];
  const seen = { checkOpacity: true, checkVisibilityCSS: true };
  const reached = (one) => one.tabIndex >= 0 && !one.disabled && one.checkVisibility(seen);
  const stops = all.filter(reached);
  stops.forEach((one, i) => (one.dataset.stop = i));
  return stops.length;
}"""
FOCUSED = """() => {
  const one = document.activeElement, { outlineStyle, outlineWidth } = getComputedStyle(one);
  const box = one.getBoundingClientRect();
  const ring = outlineStyle !== "none" && parseFloat(outlineWidth) >= 1;
  return [one.dataset.stop ?? "", ring && box.width > 0, one.outerHTML.slice(0, 100)];
}"""


def scroll_through(page: object) -> None:
    """Scroll to the end in steps, so that whatever waits for the reader is loaded."""
    height = page.evaluate("document.documentElement.scrollHeight")
    for y in range(0, height, 800):
        page.evaluate(f"scrollTo(0, {y})")
        page.wait_for_timeout(30)
    page.wait_for_load_state("networkidle")
    if page.locator(f'script[type="{WIDGET_VIEW}"]').count():
        page.locator(".jupyter-widgets").first.wait_for(timeout=120_000)
        page.wait_for_timeout(300)


@pytest.mark.parametrize("name", PAGES)
def test_page_is_complete_and_accessible(name, site, browser):
    with Visit(browser) as visit:
        page = visit.open(site + name)
        scroll_through(page)
        assert visit.problems == []
        for theme in ("light", "dark"):
            page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
            page.wait_for_timeout(300)  # colours that fade
            assert serious_faults(page) == [], theme
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(TOO_WIDE) == "", f"scrolls sideways at {width} px"


@pytest.mark.parametrize("name", PAGES)
def test_page_opens_from_a_disk(name, html, browser):
    with Visit(browser) as visit:
        scroll_through(visit.open((html / name).as_uri()))
        assert visit.problems == []


def test_pages_are_light(site, html, browser):
    for name in PAGES:
        text = (html / name).read_text(encoding="utf-8")
        if name != "index.html" and "dcgan-explorer" in text:
            continue  # a generator weighs what it weighs
        with Visit(browser) as visit:
            visit.open(site + name)
            own = sum(size for url, size in visit.weights.items() if "/_images/" in url)
            limit = 8 if name == "index.html" else 3.5
            assert sum(visit.weights.values()) - own <= limit * MEGABYTE, (name, visit.weights)


def test_second_page_adds_little_script(site, browser):
    with Visit(browser) as visit:
        visit.open(site + "index.html")
        visit.page.wait_for_timeout(500)  # MathJax is fetched ahead
        first = visit.scripts()
        for name in PAGES:
            before = dict(visit.weights)
            visit.open(site + name)
            new = {
                url: size
                for url, size in visit.weights.items()
                if url.endswith(".js") and url not in before
            }
            assert sum(new.values()) <= 0.3 * MEGABYTE or "/models/" in str(new), (name, first, new)


def test_site_has_what_a_static_host_needs(html):
    assert (html / ".nojekyll").exists()
    for name in PAGES:
        text = (html / name).read_text(encoding="utf-8")
        assert not re.search(r'(?:src|href)="/', text), (
            "an address from the server's root breaks below a folder"
        )
        assert not re.search(r'<(?:script|img|link|iframe)[^>]+(?:src|href)="https?:', text), name


def test_search_finds_a_chapter_even_on_a_disk(site, html, browser):
    for start in (site, html.as_uri() + "/"):
        with Visit(browser) as visit:
            page = visit.open(start + "search.html?q=discriminator")
            page.locator("#search-results li a", has_text="Training details").first.wait_for(
                timeout=120_000
            )
            assert visit.problems == []


def test_theme_button_changes_the_colours(site, browser):
    with Visit(browser) as visit:
        page = visit.open(site + "index.html")
        colour = "getComputedStyle(document.body).backgroundColor"
        day, seen = page.evaluate(colour), set()
        for _ in range(3):
            page.locator("button.theme-switch-button:visible").first.click()
            page.wait_for_timeout(300)
            seen.add(page.evaluate(colour))
        assert day in seen and len(seen) == 2


def test_formulae_are_set(site, browser):
    with Visit(browser) as visit:
        page = visit.open(site + "03_training_details.html")
        page.locator("mjx-container").first.wait_for()
        left = "document.querySelectorAll('.math:not(:has(mjx-container))').length"
        page.wait_for_function(f"{left} === 0", timeout=120_000)
        assert page.locator("mjx-merror").count() == 0


def test_linked_slider_moves_its_picture(site, browser):
    with Visit(browser) as visit:
        page = visit.open(site + "03_training_details.html")
        scroll_through(page)
        handle, shown = (
            page.locator(".noUi-handle").first,
            page.locator(".widget-image:visible").first,
        )
        before = shown.get_attribute("src")
        assert handle.get_attribute("aria-label") and shown.get_attribute("alt")
        handle.focus()
        page.keyboard.press("ArrowLeft")
        pictures = "[...document.querySelectorAll('.widget-image')]"
        changed = f"before => {pictures}.find((one) => one.checkVisibility()).src !== before"
        page.wait_for_function(changed, arg=before, timeout=120_000)


@pytest.mark.parametrize("name", ["index.html", "how_to_read.html", "03_training_details.html"])
def test_keyboard_reaches_everything(name, site, browser):
    with Visit(browser) as visit:
        page = visit.open(site + name)
        scroll_through(page)
        page.evaluate("scrollTo(0, 0)")
        num_stops = page.evaluate(MARK_STOPS)
        page.keyboard.press("Tab")
        assert "#main-content" in page.evaluate(FOCUSED)[2], "the first stop skips to the text"
        reached, unseen = set(), []
        for _ in range(2 * num_stops + 20):
            stop, ring, text = page.evaluate(FOCUSED)
            if stop in reached:
                break
            if stop:
                reached.add(stop)
            if stop and not ring:
                unseen.append(text)
            page.keyboard.press("Tab")
        assert unseen == [], "no visible focus"
        missed = sorted(set(map(str, range(num_stops))) - reached, key=int)
        one = "document.querySelector(`[data-stop='${name}']`)?.outerHTML"
        told = f"names => names.map((name) => {one})"
        assert page.evaluate(told, missed) == [], "not reached"


def test_pages_without_scripts_are_readable(site, browser):
    with Visit(browser, java_script_enabled=False) as visit:
        page = visit.open(site + "index.html")
        assert page.locator("article p").first.is_visible()
        for still in page.locator(".dcgan-explorer > img").all():
            assert still.is_visible() and still.get_attribute("alt")
