"""Boxes drawn by hand: the file that keeps them, the widget's Python half, and the arithmetic of
its page."""

import json
import re

import numpy as np
import pytest
from node import needs_node, run_js

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.boxes import HandBoxes, check_boxes, load_boxes, outlined, save_boxes
from dcgan_lib.interpretation.forgetting import positions_inside
from dcgan_lib.training.checkpoints import draw
from dcgan_lib.widgets.box_drawer import BoxDrawer
from dcgan_lib.widgets.page import EXPORT, script

SIZE = (48, 64)
DRAWN = HandBoxes(
    checkpoint="rooms", seed=0, boxes=((1, 2, 3, 10, 9), (1, 0, 0, 64, 48), (3, 5, 5, 6, 6))
)


@pytest.fixture
def drawer(tmp_path):
    made = []

    def make(*words, **settings) -> BoxDrawer:
        made.append(BoxDrawer(*words, path=tmp_path / "windows.json", **settings))
        return made[-1]

    yield make
    for widget in made:
        widget.close()


# --- the file ---
def test_boxes_come_back_from_their_file(tmp_path):
    path = tmp_path / "boxes.json"
    for drawn in (DRAWN, HandBoxes(checkpoint="rooms", seed=0)):
        save_boxes(path, drawn)
        assert (
            load_boxes(path, SIZE)
            == load_boxes(path, SIZE, checkpoint="rooms", seed=0, object="window")
            == drawn
        )
    save_boxes(path, DRAWN)
    assert json.loads(path.read_text()) == {
        "checkpoint": "rooms",
        "seed": 0,
        "object": "window",
        "boxes": [list(box) for box in DRAWN.boxes],
    }
    assert len(path.read_text().splitlines()) == 10, "one box a line, for a readable diff"


def test_pictures_hold_any_number_of_boxes():
    boxes = DRAWN.padded(5)
    assert boxes.shape == (5, 2, 4) and DRAWN.pictures == [1, 3]
    np.testing.assert_array_equal(boxes[1], [[2, 3, 10, 9], [0, 0, 64, 48]])
    assert np.isnan(boxes[[0, 2, 4]]).all() and np.isnan(boxes[3, 1]).all()
    inside = positions_inside(boxes, SIZE, SIZE)
    assert (
        inside[1].all() and inside[3].sum() == 1 and inside[3, 5, 5] and not inside[[0, 2, 4]].any()
    )
    assert outlined(np.full((5, 3, *SIZE), 9, np.uint8), boxes)[3, :, 5, 5].tolist() == [
        255,
        221,
        0,
    ]
    with pytest.raises(UserError, match="a box in picture 3, but only 0 to 2"):
        DRAWN.padded(3)


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ([0, 1, 1, 65, 9], "outside its 64 x 48 pixels"),
        ([0, -1, 1, 5, 9], "outside"),
        ([0, 1, 1, 9, 49], "outside"),
        ([0, 5, 1, 5, 9], "is empty"),
        ([150, 1, 1, 5, 9], "0 to 149, but there is a box in picture 150"),
        ([-1, 1, 1, 5, 9], "picture -1"),
        ([0, 1, 1, 5], "five whole numbers"),
        ([0, 1.5, 1, 5, 9], "five whole"),
        ([True, 1, 1, 5, 9], "five whole"),
    ],
)
def test_impossible_boxes_are_refused_in_a_sentence(box, told):
    assert check_boxes([[149, 0, 0, 64, 48], [0, 1, 1, 2, 2]], 150, SIZE)[0] == (0, 1, 1, 2, 2)
    with pytest.raises(UserError, match=re.escape(told)) as found:
        check_boxes([box], 150, SIZE)
    assert "\n" not in str(found.value)


def test_files_of_something_else_are_refused_in_a_sentence(tmp_path):
    path = tmp_path / "boxes.json"
    with pytest.raises(UserError, match="no file of boxes"):
        load_boxes(path, SIZE)
    save_boxes(path, DRAWN)
    for key, value in (("checkpoint", "bedrooms"), ("seed", 1), ("object", "bed")):
        with pytest.raises(UserError, match=f"boxes for {key} .*, but {value!r} was asked for"):
            load_boxes(path, SIZE, **{key: value})
    with pytest.raises(UserError, match="outside its 32 x 32"):
        load_boxes(path, (32, 32))
    for text in (
        "",
        "[]",
        '{"seed": 0}',
        '{"checkpoint": "a", "seed": 0, "object": "b", "boxes": [3]}',
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=r"not a file of boxes|cannot be read"):
            load_boxes(path, SIZE)


# --- the widget ---
def test_each_change_is_saved_and_found_again(drawer, tmp_path):
    widget = drawer("rooms", num_images=4)
    assert widget.boxes == [] and not (tmp_path / "windows.json").exists(), (
        "nothing is written before a box is drawn"
    )
    widget.boxes = [[2, 1, 1, 9, 9], [0, 4, 4, 20, 30]]
    assert (
        widget.boxes == drawer("rooms", num_images=4).boxes == [[0, 4, 4, 20, 30], [2, 1, 1, 9, 9]]
    )
    widget.boxes = widget.boxes[:1]
    assert load_boxes(tmp_path / "windows.json", (64, 64)) == widget.drawn
    assert drawer("rooms", num_images=4, boxes=[[3, 0, 0, 5, 5]]).boxes == widget.boxes, (
        "the file comes first"
    )


def test_mistakes_are_told_in_a_sentence(drawer, tmp_path):
    widget = drawer("rooms", num_images=4, boxes=[[3, 0, 0, 5, 5]])
    for name, value in (
        ("boxes", [[4, 0, 0, 5, 5]]),
        ("boxes", [[0, 0, 0, 65, 5]]),
        ("index", 4),
        ("index", -1),
    ):
        with pytest.raises(UserError):
            setattr(widget, name, value)
    assert (widget.boxes, widget.index) == ([[3, 0, 0, 5, 5]], 0) and not (
        tmp_path / "windows.json"
    ).exists()
    widget.save()
    for settings, told in (
        ({"seed": 1}, "boxes for seed 0, but 1"),
        ({"generator_name": "portraits"}, "boxes for checkpoint 'rooms'"),
        ({"object": "bed"}, "boxes for object"),
        ({"num_images": 3}, "a box in picture 3"),
        ({"generator_name": "mnist-conditional"}, "without classes"),
        ({"generator_name": "nothing"}, "no checkpoint"),
    ):
        with pytest.raises(UserError, match=told):
            drawer(**{"generator_name": "rooms", "num_images": 4} | settings)


def test_pictures_are_sent_when_the_page_asks(drawer, monkeypatch):
    widget, sent = drawer("rooms", num_images=3, seed=5), []
    monkeypatch.setattr(
        widget, "send", lambda content, buffers=None: sent.append((content, buffers))
    )
    for content in (
        {"type": "need picture", "index": 1},
        {"type": "need picture", "index": 3},
        {"type": "else"},
    ):
        widget._handle_custom_msg(content, [])
    (content, (pixels,)), *others = sent
    shown = np.frombuffer(pixels, np.uint8).reshape(64, 64, 4)
    assert (
        content == {"type": "picture", "index": 1} and not others and (shown[..., 3] == 255).all()
    )
    np.testing.assert_array_equal(shown[..., :3].transpose(2, 0, 1), draw("rooms", 3, seed=5)[1])
    assert drawer("mnist", num_images=2).picture(0).shape == (32, 32, 4)


def test_what_a_notebook_stores_is_the_same_everywhere(drawer):
    widget = drawer("rooms", num_images=3)
    data, _ = widget._repr_mimebundle_()
    assert data["text/plain"] == repr(widget) == "BoxDrawer('rooms', num_images=3, seed=0)"
    assert (
        "application/vnd.jupyter.widget-view+json" in data and "run this cell" in data["text/html"]
    )


# --- the page ---
@needs_node
def test_boxes_of_the_page_stay_inside_the_picture(tmp_path):
    code = """
      const size = { width: 64, height: 48 }, box = [10, 10, 20, 20];
      const walk = (key, resize, n) =>
        Array.from({ length: n }).reduce((old) => nudge(old, key, resize, size), box);
      const boxes = [[0, 0, 40, 40], [10, 10, 20, 20]];
      answer({
        drags: [[3.2, 4.9, 10.1, 9], [10.1, 9, 3.2, 4.9], [-9, -9, 99, 99], [70, 50, 80, 60],
          [5, 5, 5, 5]]
          .map(([x0, y0, x1, y1]) => between([x0, y0], [x1, y1], size)),
        hits: [[1, 1], [15, 15], [12, 12], [60, 40], [20, 15]].map((p) => hit(boxes, p)),
        moved: [walk("ArrowLeft", false, 30), walk("ArrowDown", false, 60),
          walk("ArrowRight", true, 99), walk("ArrowUp", true, 99)],
        fresh: [fresh(size), fresh({ width: 2, height: 2 })],
      });
    """
    seen = run_js(tmp_path, code, script="box_drawer.js")
    assert seen["drags"][:2] == [[3, 4, 11, 9]] * 2 and seen["drags"][2] == [0, 0, 64, 48]
    assert seen["hits"] == [0, 1, 1, -1, 0], "the smallest box under the point"
    assert seen["moved"] == [[0, 10, 10, 20], [10, 38, 20, 48], [10, 10, 64, 20], [10, 10, 20, 11]]
    boxes = [[0, *box] for box in (*seen["drags"], *seen["moved"], seen["fresh"][0])]
    assert len(check_boxes(boxes, 1, SIZE)) == 10
    check_boxes([[0, *seen["fresh"][1]]], 1, (2, 2))


def test_script_asks_no_other_place():
    source = script("box_drawer.js")
    assert source.endswith(EXPORT) and len(re.findall(r"^export\b", source, re.MULTILINE)) == 1
    assert "fetch(" not in source and not re.search(r"https?://", source)
