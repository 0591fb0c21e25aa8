"""The explorer in Chromium, on a page of its own from a file: pixels, hands, keys, address, and a
stand-in kernel."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_lib.config import ModelConfig
from dcgan_lib.models.networks import untrained_generator
from dcgan_lib.models.sampling import generate_u8
from dcgan_lib.paths import checkpoints_root
from dcgan_lib.training.checkpoints import load_generator
from dcgan_lib.widgets.explorer import Explorer
from dcgan_lib.widgets.export import export_generator, export_model, names_for_pages, write_script
from dcgan_lib.widgets.latents import seed_latent
from dcgan_lib.widgets.page import MODES, STYLE, explorer_html

from .widget_page import WidgetPage, pixels, serious_faults

pytestmark = pytest.mark.browser
COMMITTED = names_for_pages()
FAST = min(
    COMMITTED, key=lambda name: (checkpoints_root() / name / "generator.safetensors").stat().st_size
)
EXPLORER = "explorer = document.querySelector('.dcgan-explorer').explorer"


@pytest.fixture(scope="module")
def widget_page(tmp_path_factory) -> WidgetPage:
    """A static page's folder with every committed generator and a tiny conditional one."""
    folder = tmp_path_factory.mktemp("page")
    models = folder / "_static" / "models"
    for name in COMMITTED:
        write_script(export_model(name, samples=True), models / f"{name}.js")
        Image.fromarray(Explorer(name).picture).save(models / f"{name}.png")
    tiny = untrained_generator(ModelConfig(image_size=(16, 16), num_classes=4, base_width=2))
    write_script(export_generator(tiny, "tiny"), models / "tiny.js")
    Image.new("RGB", (16, 16)).save(models / "tiny.png")
    return WidgetPage(
        folder=folder,
        widgets=("explorer",),
        style=STYLE,
        mount=explorer_html(FAST),
        ready=".dcgan-explorer[data-ready]",
    )


@pytest.fixture
def show(show):
    """Open a page with explorers and wait until it is drawn."""

    def open_page(*mounts: str, **options) -> object:
        page = show(*mounts, **options)
        settle(page)
        return page

    return open_page


def settle(page) -> None:
    """Wait until nothing is left to draw and the address is written."""
    page.wait_for_function(
        f"() => {{ const {EXPLORER}, {{ jobs, stale, frameNumber }} = explorer; "
        "return !jobs.length && !stale && !frameNumber }"
    )
    page.wait_for_timeout(350)


def expected(name: str, z_d: np.ndarray) -> np.ndarray:
    """Return PyTorch's picture, h x w x c, of the first class where there are classes."""
    generator = load_generator(name)
    labels = torch.zeros(1, dtype=torch.int64) if generator.config.num_classes else None
    return generate_u8(generator, torch.from_numpy(np.float32(z_d))[None], labels)[0].transpose(
        1, 2, 0
    )


def state(page) -> dict:
    return page.evaluate(f"() => {{ const {EXPLORER}; return explorer.state }}")


@pytest.mark.parametrize("name", COMMITTED)
def test_pixels_are_pytorch_s(show, name):
    page = show(explorer_html(name, seed=0))
    limit = 1 if page.evaluate(f"window.dcganModels['{name}'].precision") == "half" else 6
    config, apart = load_generator(name).config, []
    for seed in range(8):
        page.evaluate(f"() => {{ const {EXPLORER}; explorer.set({{ seed: {seed} }}) }}")
        page.wait_for_timeout(120)
        apart.append(np.abs(pixels(page) - expected(name, seed_latent(seed, config))))
    print(f"{name}: mean {np.mean(apart):.3f}, maximum {np.max(apart)} of 255 levels")
    assert np.mean(apart) <= 1 and np.max(apart) <= limit


def test_every_mode_draws_and_fits(show):
    for width, theme in ((320, "light"), (1600, "dark")):
        for mode in MODES:
            page = show(
                explorer_html(FAST, mode, models=[*COMMITTED, "tiny"], modes=list(MODES)),
                width=width,
                theme=theme,
            )
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
                mode,
                width,
            )
            if mode != "steps":
                assert pixels(page, ".dx-view canvas").std() > 5, mode
            assert page.get_attribute(".dx", "aria-label").startswith(
                f"Explorer of the generator {FAST}"
            )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(show, theme):
    for mode in MODES:
        page = show(explorer_html(FAST, mode, modes=list(MODES)), theme=theme)
        assert serious_faults(page) == [], mode


WATCH = f"""() => {{ const {EXPLORER}, draw = explorer.paint; window.redraws = 0;
  explorer.paint = function (...given) {{ draw.apply(this, given); redraws += 1 }} }}"""


def drag_across_the_pad(page) -> int:
    """Drag from a corner of the pad to another; return how often the picture was redrawn."""
    box = page.locator(".dx-pad").bounding_box()
    page.evaluate(WATCH)
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 9, box["y"] + box["height"] - 30, steps=150)
    page.mouse.up()
    return page.evaluate("redraws")


def test_a_drag_redraws_and_stays_true(show):
    name = "faces" if "faces" in COMMITTED else COMMITTED[-1]
    page = show(explorer_html(name, seed=3))
    before, redraws = pixels(page), drag_across_the_pad(page)
    settle(page)
    assert redraws > 1, "the picture follows while the mouse moves"
    assert np.abs(pixels(page) - before).max() > 0
    x, y = state(page)["pad"]
    assert x > 0.8 and y < -0.7
    with_python = Explorer(name, seed=3, pad=[x, y])
    apart = np.abs(pixels(page) - with_python.picture.reshape(*with_python.config.image_size, -1))
    assert apart.mean() <= 1, "Python and the page mean the same place by a pad position"


def test_keys_move_the_pad_and_nothing_else(show):
    page = show(explorer_html(FAST))
    page.focus(".dx-pad")
    before = pixels(page)
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    settle(page)
    assert state(page)["pad"] == [-0.1, 0.05] and np.abs(pixels(page) - before).max() > 0
    assert page.evaluate("heard") == [], "the page around it must not turn over"
    page.keyboard.press("Home")
    settle(page)
    assert state(page)["pad"] == [0, 0] and (pixels(page) == before).all()
    assert (
        page.evaluate("getComputedStyle(document.querySelector('.dx-pad')).outlineStyle") == "solid"
    )
    assert "across 0.00, up 0.00" in page.inner_text(".dx-live")


def test_everything_is_reached_by_tab(show):
    page, names = show(explorer_html(FAST, "maps")), []
    for _ in range(12):
        page.keyboard.press("Tab")
        names.append(
            page.evaluate(
                "document.activeElement.ariaLabel || document.activeElement.innerText.trim()"
            )
        )
    wanted = ["All on", "All off", "Map 0, on", "New z", "Reset", "Copy link", "Save PNG"]
    assert [name for name in names if name in wanted][: len(wanted)] == wanted
    assert sum(name.startswith("Map") for name in names) == 1, "one stop for all maps"


def test_a_finger_moves_the_pad(show):
    page = show(explorer_html(FAST), width=360, has_touch=True, is_mobile=True)
    box = page.locator(".dx-pad").bounding_box()
    page.touchscreen.tap(box["x"] + 0.75 * box["width"], box["y"] + 0.25 * box["height"])
    settle(page)
    assert np.allclose(state(page)["pad"], [0.5, 0.5], atol=0.03)
    touch = "(node) => getComputedStyle(node).touchAction"
    assert (
        page.eval_on_selector(".dx-pad", touch) == "none"
        and page.eval_on_selector(".dx", touch) == "auto"
    )
    driver = page.context.new_cdp_session(page)
    for kind, x in (
        ("touchStart", 0.5),
        ("touchMove", 0.4),
        ("touchMove", 0.1),
        ("touchEnd", None),
    ):
        points = (
            []
            if x is None
            else [{"x": box["x"] + x * box["width"], "y": box["y"] + box["height"] / 2}]
        )
        driver.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    settle(page)
    assert np.allclose(state(page)["pad"], [-0.8, 0], atol=0.03)


def test_the_address_shows_the_same_picture(show):
    mounts = [explorer_html(FAST, seed=1), explorer_html(FAST, "maps", seed=2)]
    page = show(*mounts, hash="#a-section")
    page.fill(".dx-seed >> nth=0", "77")
    page.keyboard.press("Enter")
    page.focus(".dx-pad")
    page.keyboard.press("Shift+ArrowUp")
    page.click(".dx-map >> nth=3")
    page.click(".dx-map >> nth=4")
    scroll = page.evaluate("scrollY")
    settle(page)
    page.wait_for_timeout(400)
    address, seen = page.url, [pixels(page), pixels(page, ".dx-maps figure:last-child canvas")]
    assert address.split("#")[1] == "a-section&x1=seed:77;pad:0,0.2&x2=off:3-4"
    assert page.evaluate("history.length") <= 2 and page.evaluate("scrollY") == scroll
    again = show(*mounts, hash="#" + address.split("#")[1])
    again.wait_for_timeout(600)
    assert (pixels(again) == seen[0]).all() and (
        pixels(again, ".dx-maps figure:last-child canvas") == seen[1]
    ).all()
    again.evaluate("location.hash = '#x1=seed:1'")
    settle(again)
    assert state(again)["seed"] == 1 and state(again)["pad"] == [0, 0]


def test_a_copied_link_shows_the_same_picture(show):
    page = show(explorer_html(FAST, seed=1))
    page.evaluate(
        "() => { navigator.clipboard.writeText = async (text) => { window.copied = text } }"
    )
    page.fill(".dx-seed", "77")
    page.keyboard.press("Enter")
    settle(page)
    page.click("text=Copy link")
    page.wait_for_function("window.copied")
    link, seen = page.evaluate("window.copied"), pixels(page)
    assert "Link copied" in page.inner_text(".dx-live")
    again = show(explorer_html(FAST, seed=1), hash="#" + link.split("#")[1])
    assert state(again)["seed"] == 77 and (pixels(again) == seen).all()


def test_a_shut_clipboard_is_told(show):
    page = show(explorer_html(FAST))
    page.evaluate(
        "() => { navigator.clipboard.writeText = async () => { throw new Error('shut') } }"
    )
    page.click("text=Copy link")
    page.wait_for_function(
        "document.querySelector('.dx-live').textContent.includes('copy the address above')"
    )


def test_a_damaged_address_still_shows_a_picture(show):
    hash = "#x1=model:..%2Fother;mode:fly;seed:1e999;pad:9;label:77;layer:99;off:0-99999999"
    hash += ";values:a~b;%E0%A4%A;axes:no"
    page = show(explorer_html(FAST), hash=hash)
    assert pixels(page).std() > 5 and state(page)["model"] == FAST and state(page)["mode"] == "free"


def test_save_png_keeps_every_pixel(show):
    page = show(explorer_html(FAST, "arithmetic", seed=4))
    with page.expect_download() as download:
        page.click("text=Save PNG")
    assert download.value.suggested_filename == f"{FAST}-arithmetic-4.png"
    saved = np.array(
        Image.open(io.BytesIO(Path(download.value.path()).read_bytes())).convert("RGB")
    )
    middle = pixels(page, ".dx-nine canvas:nth-child(5)")
    height, width = middle.shape[:2]
    assert saved.shape == (3 * 4 * height + 16, 3 * 4 * width + 16, 3)
    top, left = 4 * height + 8, 4 * width + 8
    assert (saved[top : top + 4 * height : 4, left : left + 4 * width : 4] == middle).all()


def test_arithmetic_takes_up_to_three(show):
    page = show(explorer_html(FAST, "arithmetic", seed=4))
    before = pixels(page, ".dx-nine canvas:nth-child(5)")
    for number in (5, 6, 7):
        page.click(f".dx-shelf button >> nth={number}")
    page.click(".dx-slot >> nth=1")
    page.click(".dx-shelf button >> nth=1")  # seed 5 was B's: B is empty now
    settle(page)
    assert state(page)["groups"] == [[9, 10, 11], [], [6]]
    assert page.inner_text(".dx-slot >> nth=0").split("\n")[-1] == "mean of 3"
    assert np.abs(pixels(page, ".dx-nine canvas:nth-child(5)") - before).max() > 0


def test_maps_go_off_one_by_one_and_by_key(show):
    page = show(explorer_html(FAST, "maps", layer=1))
    before = pixels(page, "figure:last-child canvas")
    page.focus(".dx-map >> nth=0")
    for key in ("ArrowRight", "ArrowRight", "Space"):
        page.keyboard.press(key)
    settle(page)
    assert state(page)["off"] == [2] and page.locator(".dx-map[aria-pressed=false]").count() == 1
    page.click("text=All off")
    settle(page)
    flat = pixels(page, "figure:last-child canvas")
    assert flat.std() < before.std() and (pixels(page, "figure:first-child canvas") == before).all()
    page.click("text=All on")
    settle(page)
    assert (pixels(page, "figure:last-child canvas") == before).all()


def test_walk_plays_and_reduced_motion_steps(show):
    page = show(explorer_html(FAST, "walk"))
    page.click("text=Play")
    page.wait_for_timeout(700)
    assert page.inner_text(".dx-play") == "Pause"
    page.click(".dx-play")
    moved = state(page)["t"]
    page.wait_for_timeout(200)
    assert 0.05 < moved == state(page)["t"]
    calm = show(explorer_html(FAST, "walk"), reduced_motion="reduce")
    assert calm.inner_text(".dx-play") == "Next"
    calm.click(".dx-play")
    calm.wait_for_timeout(300)
    assert state(calm)["t"] == 1
    settle(calm)
    config = load_generator(FAST).config
    assert np.abs(pixels(calm) - expected(FAST, seed_latent(2, config))).max() <= 6, (
        "the second anchor is seed 2"
    )


def test_steps_show_what_was_stored(show):
    page = show(explorer_html("mnist", "steps"))  # FAST may keep one grid alone
    last = page.get_attribute(".dx-stage", "aria-label")
    page.focus(".dx-range")
    page.keyboard.press("Home")
    settle(page)
    assert page.get_attribute(".dx-stage", "aria-label") != last and state(page)["step"] == 0
    assert page.eval_on_selector(".dx-grid", "(image) => image.naturalWidth") > 100


def test_a_conditional_generator_draws_the_class(show):
    page = show(explorer_html("tiny", models=["tiny", FAST]))
    before = pixels(page)
    page.select_option("label:has-text('Class') select", "3")
    settle(page)
    assert state(page)["label"] == 3 and np.abs(pixels(page) - before).max() > 0
    page.select_option("label:has-text('Generator') select", FAST)
    page.wait_for_function(f"() => {{ const {EXPLORER}; return explorer.about.name === '{FAST}' }}")
    settle(page)
    assert pixels(page).shape[:2] == load_generator(FAST).config.image_size


# --- the tour ---
def tour(page) -> str:
    return page.inner_text(".dx-tour-text")


def test_tour_leads_by_keyboard_from_control_to_control_and_back(show):
    page = show(explorer_html("mnist", "walk", models=["mnist", FAST], seed=4))
    page.focus("text=Take the tour")
    page.keyboard.press("Enter")
    button = "document.activeElement.innerText"
    assert page.evaluate(button) == "Next" and "Drag the dot" in tour(page)
    assert page.get_attribute("text=Take the tour", "aria-expanded") == "true"
    seen, pointed, modes = [], [], []
    while True:
        settle(page)
        seen.append(tour(page))
        pointed.append(page.locator(".dx-pointed").count())
        modes.append(state(page)["mode"])
        if page.evaluate(button) == "Done":
            break
        page.keyboard.press("Enter")
    assert len(seen) == len(set(seen)) >= 12 and set(pointed) == {1}
    assert set(modes) == set(MODES)
    page.keyboard.press("Enter")
    settle(page)
    assert page.locator(".dx-tour").count() == page.locator(".dx-pointed").count() == 0
    assert state(page)["mode"] == "walk" and page.evaluate(button) == "Take the tour"
    assert page.evaluate("heard") == [], "the page around it must not turn over"


def test_escape_ends_the_tour_from_anywhere_and_nothing_remembers_it(show):
    page = show(explorer_html(FAST, seed=4))
    page.click("text=Take the tour")
    for _ in range(6):
        page.click(".dx-tour >> text=Next")
    settle(page)
    assert state(page)["mode"] != "free"
    page.click("text=Go to it")
    inside = "document.querySelector('.dx-pointed').contains(document.activeElement)"
    assert page.evaluate(inside), "the keyboard is at the control that is marked"
    page.keyboard.press("Escape")
    settle(page)
    assert page.locator(".dx-tour").count() == 0 and state(page)["mode"] == "free"
    assert page.evaluate("document.activeElement.innerText") == "Take the tour"
    assert "#" not in page.url and page.evaluate("sessionStorage.length") == 0
    assert page.evaluate("Object.keys(localStorage).sort().join()") == "mode,theme", (
        "the test's own"
    )
    page.click("text=Take the tour")
    assert "1 of" in tour(page), "it begins again at the beginning"


def test_tour_stays_while_its_controls_are_used(show):
    page = show(explorer_html(FAST, models=[FAST, "tiny"]))
    page.click("text=Take the tour")
    page.click("text=New z")
    page.focus(".dx-pad")
    page.keyboard.press("ArrowRight")
    page.select_option("label:has-text('Generator') select", "tiny")
    page.wait_for_function(f"() => {{ const {EXPLORER}; return explorer.about.name === 'tiny' }}")
    settle(page)
    assert "Drag the dot" in tour(page) and page.locator(".dx-pad.dx-pointed").count() == 1
    back = page.locator(".dx-tour >> text=Back")
    assert back.get_attribute("aria-disabled") == "true"
    back.press("Enter")
    assert "1 of" in tour(page)


def test_tour_leaves_out_what_the_explorer_has_not(show):
    page, titles = show(explorer_html("tiny")), []
    page.click("text=Take the tour")
    while page.locator(".dx-tour >> text=Next").count():
        titles.append(page.inner_text(".dx-tour strong"))
        page.click(".dx-tour >> text=Next")
        settle(page)
    assert not {"Choose another generator", "Watch it learn"} & set(titles) and len(titles) > 8


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_tour_is_accessible_and_in_view(show, theme):
    for width in (390, 1280):
        page = show(explorer_html(FAST), theme=theme, width=width)
        page.click("text=Take the tour")
        while True:
            page.wait_for_timeout(600)  # smooth scrolling
            boxes = [page.locator(f".dx-{name}").bounding_box() for name in ("pointed", "tour")]
            middle = boxes[0]["y"] + min(boxes[0]["height"], 300) / 2
            assert 0 <= middle <= 900 and boxes[1]["y"] + boxes[1]["height"] <= 901, tour(page)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            if page.locator(".dx-tour >> text=Done").count():
                break
            page.click(".dx-tour >> text=Next")
        assert serious_faults(page) == []
        assert page.get_attribute(".dx-tour-text", "aria-live") == "polite"


def test_without_scripts_a_picture_and_a_sentence_stay(visit, widget_page):
    page = visit(java_script_enabled=False)
    page.goto(widget_page.write(explorer_html(FAST)))
    image = page.locator(".dcgan-explorer img")
    assert image.is_visible() and image.get_attribute("alt")
    assert "runs in this page" in page.inner_text(".dcgan-explorer p")


# --- in a notebook ---
def test_python_moves_the_picture_and_the_picture_tells_python(live):
    name = FAST
    exported, widget = export_model(name, "half"), Explorer(name, seed=6)

    def answer(request: dict) -> tuple[dict, bytes]:
        about = {"type": "weights", "model": request["model"], "about": exported.about}
        return about, exported.weights

    page = live(widget.get_state(), answer)
    page.wait_for_selector("[data-ready]")
    page.wait_for_timeout(400)
    assert page.evaluate("kernel.asked") == 1 and page.evaluate("kernel.saved") == 0
    z_d = seed_latent(6, widget.config)
    assert np.abs(pixels(page) - expected(name, z_d)).max() <= 1
    for key, value in (
        ("seed", 9),
        ("pad", [0.5, -0.25]),
        ("axis_seed", 4),
        ("base", [0.5] * len(z_d)),
    ):
        setattr(widget, key, value)
        page.evaluate("([key, value]) => kernel.fromPython(key, value)", [key, value])
        page.wait_for_timeout(250)
        shape = (*widget.config.image_size, -1)
        assert np.abs(pixels(page) - widget.picture.reshape(shape)).max() <= 1, key
    assert page.evaluate("kernel.saved") == 0, "what Python says is not said back"
    page.focus(".dx-pad")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(250)
    assert page.evaluate("kernel.state.pad") == [0.55, -0.25] and page.evaluate("kernel.saved") == 1
    page.evaluate("kernel.fromPython('mode', 'walk')")
    page.wait_for_selector("[data-ready=walk]")
    assert page.evaluate("location.hash") == "" and page.locator("text=Copy link").count() == 0
    page.click("text=Take the tour")
    page.click(".dx-tour >> text=Next")
    assert "2 of" in tour(page)
    page.keyboard.press("Escape")
    assert page.locator(".dx-tour").count() == 0 and page.evaluate("kernel.state.mode") == "walk"
    page.evaluate("kernel.leave()")
