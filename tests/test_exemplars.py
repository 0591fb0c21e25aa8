"""Exemplars picked by eye: their file, the widget that makes it, and the probes that read real
faces."""

import json

import numpy as np
import pytest
import torch

from dcgan_lib import cli
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.probes import Head, Panel, Probe, ProbeConfig, load_panel, load_probe
from dcgan_lib.experiments.probes import cut_out, with_attributes
from dcgan_lib.experiments.vector_arithmetic import curve, load_shares, load_turn, yaw_curve
from dcgan_lib.interpretation.arithmetic import (
    COUNTABLE,
    FACE_SUMS,
    SUMS,
    TURN,
    Exemplars,
    countable_sums,
    drawn_turn,
    load_exemplars,
    nine,
    pictures_of,
    shows,
)
from dcgan_lib.paths import checkpoints_root
from dcgan_lib.training.checkpoints import load_generator
from dcgan_lib.widgets.picker import ExemplarPicker

COMMITTED = str(checkpoints_root() / "faces" / "exemplars.json")


@pytest.fixture(scope="module")
def faces():
    return load_generator("faces")


def some(**changes) -> Exemplars:
    kept = {
        "checkpoint": "faces",
        "seed": 1,
        "pool": 10,
        "concepts": {"A": [1, 2], "B": [3, 4], "C": [5, 6]},
    }
    return Exemplars(**{**kept, **changes})


# --- the file ---
def test_committed_exemplars_are_three_a_concept_and_four_a_side(faces):
    own = load_exemplars("faces")
    assert {len(own.concepts[name]) for trio in own.sums.values() for name in trio} == {3}
    assert own.latents(TURN, faces.config).shape == (2, 4, 100)
    assert own == load_exemplars(COMMITTED)


def test_committed_exemplars_show_what_the_probes_can_read_of_their_concept(faces):
    own, panel = load_exemplars("faces"), load_panel(countable_sums("faces").probe)
    for name, numbers in own.concepts.items():
        read = panel.predict(pictures_of(faces, own.pool_latents(faces.config)[list(numbers)]))
        words = name.split()
        if "woman" in words or "man" in words:
            assert shows(read, {"female": "woman" in words}).all(), name
        if "smiling" in words or "neutral" in words:
            assert shows(read, {"smile": "smiling" in words}).all(), name


def test_a_file_comes_back_as_it_was_saved(tmp_path):
    own = some(sums={"sum": ["A", "B", "C"]})
    own.save(tmp_path / "mine.json")
    assert load_exemplars(tmp_path / "mine.json") == own
    assert '"A": [1, 2],' in (tmp_path / "mine.json").read_text(), "a list stands on one line"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"concepts": {"A": [10]}}, "numbered 0 to 9, but 10"),
        ({"concepts": {"A": [True]}}, "but True"),
        ({"concepts": {"A": [1, 1]}}, "comes twice"),
        ({"concepts": {}}, "at least one concept"),
        ({"sums": {"sum": ["A", "B"]}}, "needs the concepts A, B and C"),
        ({"sums": {"sum": ["A", "B", "D"]}}, "no exemplars of D"),
        (
            {"concepts": {"A": [1], "B": [2, 3], "C": [4]}, "sums": {"sum": ["A", "B", "C"]}},
            "equally many",
        ),
    ],
)
def test_wrong_numbers_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        some(**changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "cannot be read"), ("[1]", "holds no exemplars"), ('{"seed": 1}', "holds no exemplars")],
)
def test_damaged_files_are_refused(tmp_path, text, message):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UserError, match=message):
        load_exemplars(tmp_path / "bad.json")


def test_missing_exemplars_are_missed(tmp_path):
    for name in (tmp_path / "nowhere.json", "portraits"):
        with pytest.raises(UserError, match="there are no exemplars at"):
            load_exemplars(name)


# --- the commands ---
def test_file_gives_the_figures_and_always_the_same(tmp_path, monkeypatch, faces):
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two"):
        assert cli.main(["arithmetic", "faces", "--exemplars", COMMITTED, "--out", folder]) == 0
    made = {path.name for path in (tmp_path / "one").iterdir()}
    assert made == {"smile.png", "glasses.png", "glasses-unsmiling.png", "picks.json"}
    assert all(
        (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        for name in made
    )
    picks = json.loads((tmp_path / "one" / "picks.json").read_text())
    assert picks["picked [A, B, C]"]["smile"] == load_exemplars("faces").numbers(
        load_exemplars("faces").sums["smile"]
    )
    assert cli.main(["turn", "faces", "--exemplars", COMMITTED]) == 0
    assert (tmp_path / "turn" / "turn.png").is_file()
    turned = drawn_turn(faces, load_exemplars("faces"), num_faces=2)
    plain = pictures_of(faces, load_exemplars("faces").pool_latents(faces.config)[:2])
    # the face itself stands in the middle; another size of batch may round a value to its neighbour
    np.testing.assert_allclose(turned[[5, 16]].astype(int), plain, rtol=0, atol=1)


@pytest.mark.parametrize(
    "words",
    [
        ["arithmetic", "portraits", "--exemplars", COMMITTED],
        ["arithmetic", "faces", "--exemplars", COMMITTED, "--a", "1", "--b", "2", "--c", "3"],
        ["arithmetic", "faces", "--exemplars", COMMITTED, "--record", "faces64"],
        ["arithmetic", "faces", "--exemplars", "nothing.json"],
        ["arithmetic", "mnist"],
        ["turn", "portraits", "--exemplars", COMMITTED],
        ["turn", "faces", "--exemplars", COMMITTED, "--record", "faces64"],
    ],
)
def test_mistakes_are_answered_in_one_sentence(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# --- the widget ---
def test_ticks_are_kept_by_concept_and_over_pages(tmp_path):
    picker = ExemplarPicker("faces", ("A", "B"), pool=20, first=0, count=8)
    tick(picker, 3)
    tick(picker, 5)
    tick(picker, 5, False)
    choose(picker, "B")
    assert not any(box.value for box in picker._boxes()), "the ticks are those of the concept"
    tick(picker, 0)
    picker.show(8)
    assert [box.description for box in picker._boxes()] == [str(i) for i in range(8, 16)]
    tick(picker, 9)
    picker.show(16)
    assert len(picker._boxes()) == 4, "the last page ends with the pool"
    assert picker.picked == {"A": [3], "B": [0, 9]}
    picker.exemplars().save(tmp_path / "mine.json")
    assert load_exemplars(tmp_path / "mine.json").concepts == {"A": [3], "B": [0, 9]}


def test_pages_end_with_the_pool_and_leave_nothing_behind():
    picker = ExemplarPicker("faces", ("A",), pool=20, first=8, count=8)
    (cell, *_), box = picker._grid.children, picker._boxes()[0]
    picker._on.click()
    assert picker.first == 16 and cell.comm is None and box.comm is None
    picker._on.click()
    assert picker.first == 16 and len(picker._boxes()) == 4, "there is no later page"
    for _ in range(3):
        picker._back.click()
    assert picker.first == 0 and len(picker._boxes()) == 8
    with pytest.raises(UserError, match="numbered 0 to 19, but 20"):
        picker.show(20)


def test_picker_begins_with_what_was_picked_and_refuses_what_cannot_be():
    picker = ExemplarPicker("faces", load_exemplars("faces").concepts, first=135, count=2)
    assert [box.value for box in picker._boxes()] == [True, False]
    assert repr(picker) == "ExemplarPicker('faces', seed=1, first=135)"
    for wrong in ({"first": 8_000}, {"count": 0}, {"concepts": ()}, {"concepts": {"A": [8_000]}}):
        with pytest.raises(UserError):
            ExemplarPicker("faces", **wrong)


def tick(picker, number, value=True):
    next(box for box in picker._boxes() if box.description == str(number)).value = value


def choose(picker, name):
    picker._concept.value = name


# --- what the sums are about ---
def test_each_checkpoint_has_its_own_concepts():
    assert countable_sums("portraits").sums == SUMS and countable_sums("faces").sums == FACE_SUMS
    assert FACE_SUMS["smile"].concepts[0] == {"smile": True, "female": True}
    assert FACE_SUMS["smile"].wanted == {"smile": True, "female": False}
    for entry in COUNTABLE.values():
        panel = load_panel(entry.probe)
        assert all(panel.reads(name) for asked in entry.sums.values() for name in asked.wanted)
    with pytest.raises(UserError, match="but not of mnist"):
        countable_sums("mnist")


def test_sums_by_eye_show_what_they_should(faces):
    own, panel = load_exemplars("faces"), load_panel(countable_sums("faces").probe)
    for name, wanted in (
        ("smile", {"smile": True, "female": False}),
        ("glasses", {"female": True}),
    ):
        a, b, c = own.latents(own.sums[name], faces.config).mean(1)
        assert shows(panel.predict(pictures_of(faces, nine(a - b + c))), wanted).all()
    neutral_man = own.latents(["neutral man"], faces.config)[0].mean(0)
    assert not shows(panel.predict(pictures_of(faces, nine(neutral_man))), {"smile": True}).any(), (
        "C alone"
    )


def test_kept_shares_become_curves():
    found = load_shares("faces64")["smile"]
    assert [point[0] for point in curve(found)] == [1, 2, 3, 4, 5, 6, 8, 10]
    assert (
        curve(found, "pixels")[1] == (3, *found["3 pixels"]["both"])
        and curve(found, "any pose") == []
    )
    assert len(curve(load_shares("portraits")["smile"], "any pose")) == 3
    turned = load_turn("portraits")
    assert yaw_curve(turned, "axis")[5] == (0, *turned["axis"]["yaw"][5])


# --- the probes ---
def test_panel_shows_each_probe_its_own_channels():
    torch.manual_seed(0)
    grey, rgb = (
        Probe(
            ProbeConfig(
                image_size=(16, 16),
                num_channels=c,
                heads=(Head(name=n, kind="boolean"),),
                widths=(4,),
            )
        )
        for c, n in ((1, "light"), (3, "red"))
    )
    pictures = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), np.uint8)
    read = Panel(grey, rgb).predict(pictures)
    luma = np.round(pictures.transpose(0, 2, 3, 1) @ [0.299, 0.587, 0.114]).astype(np.uint8)[
        :, None
    ]
    np.testing.assert_allclose(read["light"], grey.predict(luma)["light"], atol=0.01)
    np.testing.assert_array_equal(read["red"], rgb.predict(pictures)["red"])
    with pytest.raises(UserError, match="different things"):
        Panel(grey, grey)
    with pytest.raises(UserError, match="no head 'yaw': it has light, red"):
        Panel(grey, rgb).head("yaw")


def test_window_is_cut_out_and_enlarged():
    pictures = np.zeros((2, 1, 64, 64), np.uint8)
    pictures[:, :, 8:64, 4:60] = 200
    cut = cut_out(ImageSet(name="squares", images_u8=pictures), (8, 4, 56))
    assert cut.images_u8.shape == (2, 1, 64, 64) and cut.images_u8.min() == 200
    for window in ((9, 4, 56), (8, 4, 0), (-1, 0, 8)):
        with pytest.raises(UserError, match="must lie inside"):
            cut_out(cut, window)


def test_classes_become_attributes():
    labels = np.array([0, 1, 1])
    faces = ImageSet(
        name="s",
        images_u8=np.zeros((3, 1, 8, 8), np.uint8),
        labels=labels,
        class_names=("no", "smiling"),
    )
    assert with_attributes(faces, {"smile": "smiling"}).attributes["smile"].tolist() == [
        False,
        True,
        True,
    ]
    with pytest.raises(UserError, match="no class crying"):
        with_attributes(faces, {"tears": "crying"})


def test_smile_probe_reads_grey_faces():
    probe = load_probe("probe-smiles")
    assert probe.config.num_channels == 1 and probe.facts["report"]["smile"]["n"] >= 1_000
    with pytest.raises(UserError, match="the probe reads"):
        probe.predict(np.zeros((1, 3, 64, 64), np.uint8))
