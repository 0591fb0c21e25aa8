"""Figures: what they show is what they were given, and nothing is drawn, or left out, in
silence."""

import io
import math

import matplotlib as mpl
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from PIL import Image

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.distances import Distance
from dcgan_lib.evaluation.ruler import Ladder
from dcgan_lib.plotting import (
    Compared,
    plot_bands,
    plot_compared,
    plot_curves,
    plot_estimates,
    plot_grids,
    plot_ladders,
    tile,
)

ROWS = {"trained": (0.2, 0.1, 0.4), "untrained": (3.0, 2.5, 3.25)}


def images(num, channels=3, height=6, width=4, seed=0):
    return np.random.default_rng(seed).integers(
        0, 255, (num, channels, height, width), dtype=np.uint8
    )


FIGURES = {
    "grids": lambda: plot_grids({"real": images(5), "generated": images(3)}, 2),
    "curves": lambda: plot_curves(
        {"real": [(1_000, 9.0), (50_000, 3.1)], "one": [(2_000, 5.0)]}, "n", "error (%)"
    ),
    "estimates": lambda: plot_estimates(ROWS, "KID", reference=("target", 0.3)),
}


@pytest.fixture(params=FIGURES)
def draw(request):
    return FIGURES[request.param]


def test_the_readers_settings_stay_as_they_were(draw):
    chosen = {"font.size": 23.0, "lines.linewidth": 7.0, "axes.grid": False, "image.cmap": "jet"}
    with mpl.rc_context(chosen):
        before = dict(mpl.rcParams)
        figure = draw()
        figure._repr_png_()
        assert dict(mpl.rcParams) == before
    assert isinstance(figure, Figure)


def test_figures_have_the_books_style_and_not_the_readers(draw):
    with mpl.rc_context({"axes.titlesize": 40.0, "savefig.facecolor": "red"}):
        figure = draw()
        pixels = np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("RGB"))
    assert (pixels[0, 0] == 255).all()
    assert {panel.title.get_fontsize() for panel in figure.axes} == {10.0}


def test_a_notebook_shows_a_figure_as_one_picture(draw):
    """Pyplot, which would register figures with the notebook, is never asked; a plain Figure is the
    wrong twin."""
    shown, _ = DisplayFormatter().format(draw())
    with Image.open(io.BytesIO(shown["image/png"])) as image:
        assert image.format == "PNG" and image.width > 300
    assert "image/png" not in DisplayFormatter().format(Figure())[0]


def test_the_same_figure_twice_is_the_same_picture(draw):
    assert draw()._repr_png_() == draw()._repr_png_()


def test_tiles_hold_every_image_at_its_place():
    pictures = images(5)
    array = tile(pictures, 3)
    assert array.shape == (2 * 8 + 2, 3 * 6 + 2, 3) and array.dtype == np.uint8
    for place, picture in enumerate(pictures):
        row, column = divmod(place, 3)
        top, left = row * 8 + 2, column * 6 + 2
        np.testing.assert_array_equal(
            array[top : top + 6, left : left + 4], picture.transpose(1, 2, 0)
        )
    assert (array[10:16, 14:18] == 255).all(), "the empty place is white"


def test_grey_tiles_are_grey_and_a_read_only_map_is_read():
    pictures = images(2, channels=1)
    pictures.flags.writeable = False
    array = tile(pictures, 2)
    assert (array[..., 0] == array[..., 1]).all() and (array[..., 1] == array[..., 2]).all()
    np.testing.assert_array_equal(array[2:8, 2:6, 0], pictures[0, 0])


def test_grids_show_each_group_under_its_title():
    groups = {"real": images(5), "generated": images(3, seed=1)}
    figure = plot_grids(groups, 2, width=5)
    assert figure.get_figwidth() == 5
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["real", "generated"]
    for panel, pictures in zip(figure.axes, groups.values(), strict=True):
        (shown,) = panel.get_images()
        np.testing.assert_array_equal(shown.get_array(), tile(pictures, 2))
        assert not panel.axison


def test_estimates_show_value_and_interval_from_top_to_bottom():
    figure = plot_estimates(ROWS, "KID (lower is better)", reference=("target", 0.3))
    (panel,) = figure.axes
    assert [text.get_text() for text in panel.get_yticklabels()] == list(ROWS)
    assert panel.get_xlabel() == "KID (lower is better)"
    assert panel.get_ylim() == (1.5, -0.5), "the first row is on top"
    for place, (container, (value, low, high)) in enumerate(
        zip(panel.containers, ROWS.values(), strict=True)
    ):
        point, _, (bar,) = container
        assert (point.get_xdata()[0], point.get_ydata()[0]) == (value, place)
        assert bar.get_segments()[0][:, 0] == pytest.approx([low, high])
    assert panel.lines[-1].get_xdata() == [0.3, 0.3]
    assert [text.get_text() for text in panel.texts] == ["target"]
    assert not plot_estimates(ROWS, "KID").axes[0].texts


REFUSED = {
    "no group": lambda: plot_grids({}),
    "no image": lambda: plot_grids({"none": images(0)}),
    "floats": lambda: plot_grids({"floats": images(2) / 255}),
    "one image": lambda: plot_grids({"one": images(2)[0]}),
    "no column": lambda: tile(images(2), 0),
    "no row": lambda: plot_estimates({}, "x"),
    "outside": lambda: plot_estimates({"outside": (1.0, 2.0, 3.0)}, "x"),
    "not a number": lambda: plot_estimates({"nan": (math.nan, 0, 1)}, "x"),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_shown_is_refused(call):
    with pytest.raises(UserError, match="but"):
        call()


def test_curves_are_drawn_as_given_on_logarithmic_axes():
    curves = {"real": [(1_000, 9.0), (50_000, 3.1)], "one": [(2_000, 5.0)]}
    (panel,) = plot_curves(curves, "n", "error (%)", reference=("paper", 3.0)).axes
    assert panel.get_xscale() == panel.get_yscale() == "log"
    drawn = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in panel.lines}
    assert {name: drawn[name] for name in curves} == curves
    assert [text.get_text() for text in panel.texts] == ["paper"] and "5" in [
        t.get_text() for t in panel.get_yticklabels()
    ]
    for wrong in ({}, {"a": []}, {"a": [(0, 1)]}, {"a": [(1, -1)]}):
        with pytest.raises(UserError, match="positive numbers"):
            plot_curves(wrong, "n", "y")


def test_bands_show_every_panel_and_refuse_a_value_outside_its_interval():
    curve = [(1, 50.0, 45.0, 55.0), (3, 80.0, 75.0, 84.0)]
    figure = plot_bands(
        {"one": {"a": curve}, "other": {"a": curve, "b": curve}}, "count", "share", y_range=(0, 100)
    )
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["one", "other"]
    assert figure.axes[1].lines[0].get_color() == figure.axes[0].lines[0].get_color()
    for wrong in ({}, {"one": {}}, {"one": {"a": [(1, 60.0, 45.0, 55.0)]}}):
        with pytest.raises(UserError, match="each panel"):
            plot_bands(wrong, "count", "share")


COMPARED = {
    "digits": {
        "usual": Compared(points=(0.9, 1.1)),
        "broken": Compared(points=(2.0, 30.0), interval=(-1.0, 40.0), early=1.5, note="worse"),
    },
    "faces": {"usual": Compared(points=(1.0,))},
}
GROUPS = {"first": ["usual"], "second": ["broken", "nowhere"], "third": ["nowhere"]}


def test_rows_stand_in_their_groups_beside_the_reference():
    figure = plot_compared(COMPARED, GROUPS, "multiple")
    left, right = figure.axes
    assert [axis.get_title("left") for axis in (left, right)] == ["digits", "faces"]
    written = [text.get_text() for text in left.texts]
    assert {"first", "usual", "second", "broken", "worse"} <= set(written)
    assert not {"third", "nowhere"} & set(written)
    heights = {text.get_text(): text.xy[1] for text in left.texts if hasattr(text, "xy")}
    assert heights["first"] < heights["usual"] < heights["second"] < heights["broken"]
    high = left.get_xlim()[1]
    marks = [line for line in left.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(marks[0].get_xdata(), (0.9, 1.1))
    np.testing.assert_allclose(marks[1].get_xdata(), (2.0, high))
    assert [line.get_marker() for line in left.lines if line.get_marker() in "<>"] == ["<", ">"]
    assert [line.get_xdata()[0] for line in left.lines if line.get_marker() == "D"] == [1.5]


@pytest.mark.parametrize("last", ["earlier", ""])
def test_a_mark_without_a_label_is_not_explained(last):
    figure = plot_compared(COMPARED, GROUPS, "multiple", labels=("one", "interval", last))
    explained = [text.get_text() for text in figure.legends[0].get_texts()]
    assert explained == ["one", "interval", "earlier"][: 3 if last else 2]


def test_a_comparison_of_nothing_or_below_zero_is_refused():
    for panels, groups in (
        (COMPARED, {}),
        ({}, GROUPS),
        ({"digits": {"usual": Compared(points=(-0.1,))}}, GROUPS),
    ):
        with pytest.raises(UserError, match="a comparison needs"):
            plot_compared(panels, groups, "multiple")


def make_ladder(kind, *values):
    about = {"metric": "KID", "n_real": 9, "n_fake": 9, "features": "mine"}
    distances = tuple(Distance(value=x, low=x - 0.1, high=x + 0.1, **about) for x in values)
    return Ladder(kind=kind, steps=tuple("abc"[: len(values)]), distances=distances)


def test_ladders_stand_beside_their_reference_and_those_not_in_order_are_marked():
    panels = {
        "rooms": [make_ladder("blur", 0.0, 1.0, 2.0), make_ladder("fog", 0.0, 2.0, 1.0)],
        "digits": [make_ladder("colour", 0.0, 3.0)],
    }
    figure = plot_ladders(panels, "KID", words={"colour": "no colour"}, columns=3)
    left, right, unused = figure.axes
    assert not unused.axison and left.get_title("left") == "rooms"
    named = [text.get_text() for text in left.get_yticklabels()]
    assert named == ["blur", "fog", "no colour"]
    marks = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]), line.get_marker())
        for axis in (left, right)
        for line in axis.lines
        if line.get_marker() in "oX"
    }
    assert marks == {(1, 0, "o"), (2, 0, "o"), (2, 1, "X"), (1, 1, "X"), (3, 2, "o")}
    for wrong in ({}, {"rooms": []}, {"rooms": [make_ladder("blur", 0.0)]}):
        with pytest.raises(UserError, match="two steps or more"):
            plot_ladders(wrong, "KID")
