"""Saliency: the gradient it claims to be, on the pixels it claims to see, against controls."""

import json
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.boxes import positions_inside
from dcgan_lib.evaluation.ledger import load_results
from dcgan_lib.experiments import guided_backprop
from dcgan_lib.experiments.guided_backprop import load_pictures, load_saliency, measure
from dcgan_lib.interpretation import saliency as boxes
from dcgan_lib.interpretation.saliency import (
    METHODS,
    BackwardRule,
    Field,
    Maps,
    Peak,
    crop,
    fresh_network,
    image_tiles,
    input_gradients,
    map_tiles,
    outlined,
    randomised,
    rank_correlations,
    read_sheet,
    receptive_field,
    responses,
    saliency_maps,
    shown,
    strongest,
)
from dcgan_lib.models.dcgan import Discriminator
from dcgan_lib.models.networks import check_convolutional, new_discriminator

MODEL = ModelConfig(image_size=(16, 16), base_width=4)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 3, 16, 16), np.uint8)


@pytest.fixture(scope="module")
def network() -> Discriminator:
    return fresh_network(MODEL, IMAGES, seed=1)


# --- the gradient ---
def rectified(method: str, u: list[float], g: list[float], slope: float = 0.2) -> list[float]:
    u_k = torch.tensor(u, requires_grad=True)
    with BackwardRule(method):
        F.leaky_relu(u_k, slope).backward(torch.tensor(g))
    return u_k.grad.tolist()


def test_rules_by_hand():
    """Active and not, gradient positive and not; the leak counts in the plain gradient only."""
    u, g = [2.0, 2.0, -1.0, -1.0], [3.0, -3.0, 3.0, -3.0]
    assert rectified("gradient", u, g) == pytest.approx([3, -3, 0.6, -0.6])
    assert rectified("deconvnet", u, g) == [3, 0, 3, 0]
    assert rectified("guided", u, g) == [3, 0, 0, 0]


def test_two_layers_by_hand():
    """Two units see one pixel; one is not active, and one gets a negative gradient."""
    weights, heads = torch.tensor([1.0, 2.0, -3.0]), torch.tensor([5.0, -7.0, 11.0])
    expected = {"gradient": 5 - 14 - 0.2 * 33, "guided": 5, "deconvnet": 5 - 33}
    for method, value in expected.items():
        x = torch.tensor(1.0, requires_grad=True)
        with BackwardRule(method):
            (F.leaky_relu(weights * x, 0.2) * heads).sum().backward()
        assert x.grad.item() == pytest.approx(value)


def test_forward_pass_and_everything_outside_stay_as_they_were():
    u = torch.linspace(-2, 2, 9)
    with BackwardRule("guided"):
        inside, relu = F.leaky_relu(u, 0.2, inplace=False), F.relu(u)
    torch.testing.assert_close(inside, F.leaky_relu(u, 0.2))
    torch.testing.assert_close(relu, F.relu(u))
    x = torch.tensor([-1.0], requires_grad=True)
    F.leaky_relu(x, 0.2).backward()
    assert x.grad.item() == pytest.approx(0.2)
    with pytest.raises(UserError, match="a method is one of"):
        BackwardRule("grad-cam")


def test_other_threads_notice_nothing():
    seen = []
    with BackwardRule("guided"):
        worker = threading.Thread(target=lambda: seen.append(gradient_of_leak()))
        worker.start()
        worker.join()
    assert seen == [pytest.approx(0.2)]


def gradient_of_leak() -> float:
    x = torch.tensor([-1.0], requires_grad=True)
    F.leaky_relu(x, 0.2).backward()
    return x.grad.item()


def test_plain_gradient_is_the_numerical_one(network):
    double = Discriminator(MODEL).double().eval()
    double.load_state_dict(network.state_dict())
    x = torch.from_numpy(IMAGES[:1]).double() / 127.5 - 1
    found = input_gradients(double, x, [(3, 1, 2)], "gradient")[0]
    step = 1e-6
    for c, i, j in ((0, 3, 9), (1, 8, 8), (2, 5, 12), (0, 0, 0), (2, 15, 15)):
        ends = []
        for sign in (1, -1):
            moved = x.clone()
            moved[0, c, i, j] += sign * step
            with torch.no_grad():
                ends.append(double.features(moved)[-1][0, 3, 1, 2].item())
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(
            found[c, i, j].item(), rel=1e-4, abs=1e-9
        )
    assert found.abs().max() > 0


def test_methods_differ_and_guided_needs_an_active_unit(network):
    answers = responses(network, IMAGES)
    best = strongest(answers, [0], 1)
    maps = {method: saliency_maps(network, IMAGES, best, method).values for method in METHODS}
    assert not np.allclose(maps["guided"], maps["gradient"]) and not np.allclose(
        maps["guided"], maps["deconvnet"]
    )
    image, row, column = (int(k) for k in np.argwhere(answers[:, 0] < 0)[0])
    off = [Peak(0, image, row, column, 0.0)]
    assert not saliency_maps(network, IMAGES, off, "guided").values.any()
    assert saliency_maps(network, IMAGES, off, "gradient").values.any()


def test_maps_repeat_and_do_not_depend_on_the_batch(network):
    peaks = strongest(responses(network, IMAGES), range(4), 5)
    one, two = (saliency_maps(network, IMAGES, peaks, batch_size=size) for size in (3, 64))
    np.testing.assert_allclose(one.values, two.values, atol=1e-6)
    again = saliency_maps(fresh_network(MODEL, IMAGES, seed=1), IMAGES, peaks, batch_size=3)
    np.testing.assert_array_equal(one.values, again.values)
    assert one.strength.shape == (20, 16, 16) and one.strength.min() >= 0


def test_network_is_left_as_it_was(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    try:
        saliency_maps(network, IMAGES, strongest(responses(network, IMAGES), [0], 2))
        assert network.training
        with pytest.raises(UserError, match="call eval"):
            input_gradients(network, torch.zeros(1, 3, 16, 16), [(0, 0, 0)])
    finally:
        network.eval()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


# --- where ---
def test_four_layers_see_61_pixels():
    model = ModelConfig()
    assert [receptive_field(model, layer).size for layer in range(4)] == [5, 13, 29, 61]
    assert receptive_field(model) == Field(61, 16, -30)
    assert receptive_field(model).window(2, 2) == (2, 2, 63, 63), (
        "the one place whose field lies inside 64 pixels"
    )
    assert receptive_field(ModelConfig(kernel_size=4)).size == 46
    with pytest.raises(UserError, match="layers 0 to 3"):
        receptive_field(model, 4)


@pytest.mark.parametrize(
    "options", [{}, {"kernel_size": 4}, {"convs_per_stage": 2, "kernel_size": 3}]
)
@pytest.mark.parametrize("layer", [0, -1])
def test_receptive_field_is_where_the_gradient_is(options, layer):
    """No weight is zero, so the plain gradient reaches every pixel that a unit sees, no other."""
    model = ModelConfig(image_size=(32, 32), num_channels=1, base_width=2, **options)
    network = new_discriminator(model).eval()
    for weights in network.parameters():
        torch.nn.init.constant_(weights, 0.1)
    place = (1, 0) if layer == -1 else (3, 2)
    found = input_gradients(network, torch.zeros(1, 1, 32, 32), [(0, *place)], "gradient", layer)[
        0, 0
    ]
    left, top, right, bottom = receptive_field(model, layer).window(*place)
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[max(top, 0) : bottom, max(left, 0) : right] = True
    assert torch.equal(found != 0, expected)


def test_strongest_takes_an_image_once():
    answers = np.zeros((4, 2, 3, 3), np.float32)
    answers[1, 0, 2, 1], answers[3, 0, 0, 0], answers[3, 0, 1, 1] = 5, 7, 6
    assert strongest(answers, [0], 3) == [
        Peak(0, 3, 0, 0, 7),
        Peak(0, 1, 2, 1, 5),
        Peak(0, 0, 0, 0, 0),
    ]
    for features, num in (([2], 1), ([0], 5), ([0], 0), ([-1], 1)):
        with pytest.raises(UserError):
            strongest(answers, features, num)


def test_crops_at_borders_are_filled():
    picture = np.arange(1, 17, dtype=np.uint8).reshape(1, 4, 4)
    assert crop(picture, (-1, -2, 2, 1), fill=0)[0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 2]]
    assert crop(picture, (3, 2, 6, 5), fill=0)[0].tolist() == [[12, 0, 0], [16, 0, 0], [0, 0, 0]]
    assert crop(picture, (1, 1, 3, 3))[0].tolist() == [[6, 7], [10, 11]]
    assert crop(picture, (-1, -1, 5, 5), fill=0)[0, 1:5, 1:5].tolist() == picture[0].tolist()
    for wrong in ((4, 0, 6, 2), (0, -3, 2, 0), (2, 2, 2, 3)):
        with pytest.raises(UserError, match="shows nothing"):
            crop(picture, wrong)


def test_pictures_are_grey_where_nothing_counts(network):
    values = np.zeros((2, 1, 2, 2), np.float32)
    values[0, 0, 0] = [3, -3]
    assert (
        shown(values)[0, 0].tolist() == [[255, 1], [128, 128]] and (shown(values)[1] == 128).all()
    )
    peaks, field = [Peak(0, 0, 0, 0, 1.0), Peak(1, 2, 3, 3, 1.0)], receptive_field(MODEL)
    maps = saliency_maps(network, IMAGES, peaks)
    assert (
        map_tiles(maps, field).shape
        == image_tiles(IMAGES, peaks, field).shape
        == (2, 3, field.size, field.size)
    )
    framed = outlined(np.full((3, 8, 8), 9, np.uint8), np.array([1, 2, 6, 7], np.float32))
    assert (framed[:, 2, 1:6] == 255).all() and framed[0, 4, 3] == 9
    assert (outlined(framed, np.full(4, np.nan)) == framed).all()


# --- controls ---
def test_fresh_networks_repeat_and_are_normalised():
    one, same, other = (fresh_network(MODEL, IMAGES, seed) for seed in (1, 1, 2))
    assert torch.equal(one.convs[0].weight, same.convs[0].weight)
    assert not torch.equal(one.convs[0].weight, other.convs[0].weight)
    assert not one.training and one.norms[1].running_var.min() > 0
    spread = responses(one, IMAGES).std((0, 2, 3))
    assert 0.3 < spread.mean() < 2, "statistics of its own images bring every feature to one scale"
    with pytest.raises(UserError, match="at least 2 images"):
        fresh_network(MODEL, IMAGES[:1], 1)


def test_fresh_networks_can_keep_batch_norm_as_it_is_made():
    stored, measured = fresh_network(MODEL, None, 1), fresh_network(MODEL, IMAGES, 1)
    assert torch.equal(stored.convs[1].weight, measured.convs[1].weight)
    assert not stored.training and not stored.norms[1].running_mean.any()
    assert (stored.norms[1].running_var == 1).all()
    assert measured.norms[1].running_mean.any()


def test_random_weights_change_maps(network):
    peaks, field = strongest(responses(network, IMAGES), range(8), 4), receptive_field(MODEL)
    for method in METHODS:
        own = saliency_maps(network, IMAGES, peaks, method)
        found = [
            np.nanmean(
                rank_correlations(
                    own,
                    saliency_maps(randomised(network, k, IMAGES, 9), IMAGES, peaks, method),
                    field,
                )
            )
            for k in range(3)
        ]
        assert found[0] == pytest.approx(1) and found[2] < 0.9
    kept = randomised(network, 1, IMAGES, 9)
    assert torch.equal(kept.convs[0].weight, network.convs[0].weight)
    assert not torch.equal(kept.convs[1].weight, network.convs[1].weight)
    with pytest.raises(UserError, match="0 to 2 layers"):
        randomised(network, 3, IMAGES, 9)


def test_correlation_counts_what_the_unit_sees():
    rng, peaks, field = np.random.default_rng(1), (Peak(0, 0, 0, 0, 1.0),) * 2, Field(4, 4, 0)
    values = rng.random((2, 1, 8, 8)).astype(np.float32)
    changed = values.copy()
    changed[:, :, 4:] = 0  # out of sight
    assert rank_correlations(
        Maps(values, peaks), Maps(changed, peaks), field
    ).tolist() == pytest.approx([1, 1])
    changed[1] = 0
    assert np.isnan(
        rank_correlations(Maps(values, peaks), Maps(changed, peaks), field)
    ).tolist() == [False, True]
    with pytest.raises(UserError, match="same positions"):
        rank_correlations(
            Maps(values, peaks), Maps(values, (peaks[0], Peak(0, 1, 0, 0, 1.0))), field
        )


# --- boxes ---
def test_boxes_cover_their_pixels():
    covered = positions_inside(np.array([[1, 0, 3, 2], [np.nan] * 4]), (3, 4), (3, 4))
    assert (
        covered[0].astype(int).tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
        and not covered[1].any()
    )


def test_even_saliency_has_a_lift_of_one_and_absent_objects_none(network, monkeypatch):
    def even(net, images, peaks, method, layer):
        return Maps(np.ones((len(peaks), 3, 16, 16), np.float32), tuple(peaks))

    monkeypatch.setattr(boxes, "saliency_maps", even)
    monkeypatch.setattr(boxes, "receptive_field", lambda config, layer: Field(16, 1, 0))
    peaks = [Peak(0, k, 0, 0, 1.0) for k in range(4)]
    box = np.array([[0, 0, 8, 8], [4, 4, 8, 8], [0, 0, 16, 16], [np.nan] * 4], np.float32)
    shares = boxes.measure_shares(network, IMAGES, {"bed": box}, peaks, 1)
    assert (
        shares.inside["bed"][0].tolist()
        == shares.area["bed"][0].tolist()
        == [0.25, 0.0625, 1.0, 0.0]
    )
    assert shares.lifts("bed").tolist() == [1.0]
    assert boxes.estimate_lift(shares.by_image("bed", 40)).value == 1.0


def test_features_are_chosen_by_lift_where_they_meet_the_object():
    inside, area = np.array([[0.3], [0.2], [0.05], [0.4]]), np.array([[0.2], [0.1], [0.001], [0.4]])
    shares = boxes.Shares({"bed": inside}, {"bed": area}, np.arange(4)[:, None])
    assert boxes.choose_features(shares, "bed", 2) == [1, 0], (
        "50 times the area, but of next to nothing"
    )


def squares(num: int, seed: int, *, boxed: bool = True) -> ImageSet:
    """Return dim noise in which every second image or so has a bright square with its box."""
    rng = np.random.default_rng(seed)
    images, box = (
        rng.integers(90, 110, (num, 3, 16, 16)).astype(np.uint8),
        np.full((num, 4), np.nan, np.float32),
    )
    for index in np.flatnonzero(rng.random(num) < 0.5):
        x, y = rng.integers(2, 9, 2)
        images[index, :, y : y + 5, x : x + 5] = 250
        box[index] = x, y, x + 5, y + 5
    return ImageSet(
        name="squares", images_u8=images, attributes={"square_box": box} if boxed else {}
    )


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """Let a network whose weights are fresh pass for a trained one, on squares."""
    network = fresh_network(MODEL, IMAGES, seed=7)
    about = {"image_set": "rooms"}
    monkeypatch.setattr(
        guided_backprop, "load_config", lambda name: (SimpleNamespace(model=MODEL), about)
    )
    monkeypatch.setattr(guided_backprop, "load_discriminator", lambda name: network)

    def load(name, split, **options):
        split = "test" if split == "held-out" else split
        found = squares(60, len(split), boxed=name != "plain")
        return replace(found, card={"split": split})

    monkeypatch.setattr(guided_backprop, "load_image_set", load)
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)


SMALL = "--images 60 --top 20 --fresh 2 --features 2 --columns 3 --tried 10"


def saliency(words: str) -> int:
    return cli.main(f"saliency x {SMALL} {words}".split())


@pytest.mark.drives("saliency")
def test_a_network_that_learnt_nothing_is_not_called_trained(made_up, tmp_path):
    assert saliency("--objects square --record") == 0
    (row,) = [row for row in load_results() if row.is_measured]
    assert row.id == "saliency.trained-vs-random:squares"
    assert row.verdict in ("partly transfers", "does not transfer")
    assert row.caveat.kind == "at most partly"
    assert row.command.startswith("dcgan saliency x --objects square --features 2")
    kept = load_saliency("squares")
    read = [entry["batch_norm"] for entry in kept["objects"]["square"]]
    assert read == ["trained", "measured", "measured", "stored", "stored"]
    assert "(measured)" in row.notes and "(stored)" in row.notes
    assert len(kept["cascade"]["guided"]) == 3
    assert kept["cascade"]["gradient"][0][0] == 1
    assert kept == json.loads((tmp_path / "saliency" / "numbers.json").read_text())


def test_measurements_repeat_and_choose_on_other_images(made_up):
    how = guided_backprop.Saliency(
        checkpoint="x", objects=("square",), images=60, top=20, fresh=2, tried=10
    )
    network, (report, chosen_on) = fresh_network(MODEL, IMAGES, 7), load_pictures(how)
    assert report.card["split"] == "test" != chosen_on.card["split"]
    assert not np.array_equal(report.images_u8, chosen_on.images_u8)
    fresh = [
        ("measured", fresh_network(MODEL, IMAGES, 0)),
        ("stored", fresh_network(MODEL, None, 0)),
    ]
    one, two = (measure(how, network, fresh, report, chosen_on) for _ in range(2))
    assert one == two


def test_command_writes_what_it_promises(made_up, tmp_path):
    assert saliency("--image-set plain --method deconvnet") == 0
    out = tmp_path / "saliency"
    written = {"saliency.png", "images.png", "numbers.json"}
    assert {path.name for path in out.iterdir()} == written
    side = receptive_field(MODEL).size
    with Image.open(out / "saliency.png") as image:
        assert image.size == (6 * (side + 2) + 2, 2 * (side + 2) + 2)
        pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    fresh, trained = read_sheet(out / "saliency.png", side)
    assert fresh.shape == trained.shape == (6, 3, side, side)
    assert np.array_equal(fresh[0], pixels[:, 2 : side + 2, 2 : side + 2])
    assert np.array_equal(trained[5], pixels[:, -side - 2 : -2, -side - 2 : -2])
    with pytest.raises(UserError, match="no two halves of tiles"):
        read_sheet(out / "saliency.png", side + 1)
    found = json.loads((out / "numbers.json").read_text())
    assert found["objects"] == {}, "no boxes: only the figure and the cascade"


def test_numbers_of_a_set_without_boxes_are_kept_without_a_row(made_up, capsys):
    assert saliency("--image-set plain --record") == 0
    assert "there is no row" in capsys.readouterr().out
    kept = load_saliency("squares")
    assert kept["objects"] == {} and len(kept["cascade"]["guided"]) == 3
    assert not [row for row in load_results() if row.is_measured]


@pytest.mark.parametrize(
    "words", ["--layer 2", "--features 99", "--images 5", "--top 61 --images 70", "--seed -1"]
)
def test_mistakes_get_one_sentence(made_up, words, capsys, tmp_path):
    assert saliency(f"--image-set plain {words}") == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "saliency").exists()


def test_other_networks_and_objects_are_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["saliency", "nothing"]) == 2
    assert cli.main(["saliency", "rooms", "--image-set", "nothing"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    dense = ModelConfig(architecture="dense", image_size=(16, 16), hidden_units=4, num_stages=1)
    with pytest.raises(UserError, match="only fully connected"):
        check_convolutional(new_discriminator(dense))
    with pytest.raises(UserError, match="not told the label"):
        check_convolutional(
            new_discriminator(ModelConfig(image_size=(16, 16), base_width=4, num_classes=3))
        )
    with pytest.raises(UserError, match="boxes of square, but not of bed"):
        boxes.boxes_in(squares(20, 0), ("bed",))
    assert boxes.boxes_in(squares(20, 0, boxed=False), ("bed",)) == {}
    with pytest.raises(UserError, match="was not measured yet"):
        load_saliency("nothing")
    with pytest.raises(UserError, match="method must be one of"):
        guided_backprop.Saliency(method="grad-cam").check()
