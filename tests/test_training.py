"""Training: the step's maths, the schedules, and runs that resume to the same bits."""

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.prepare import resized
from dcgan_lib.errors import UserError
from dcgan_lib.models.sampling import batch_norms, sample_latents, seeded
from dcgan_lib.paths import exclusive
from dcgan_lib.training import checkpoints, loop
from dcgan_lib.training.checkpoints import read_metrics
from dcgan_lib.training.loop import (
    Batches,
    choose_device,
    draw_latents,
    draw_shifts,
    fit,
    identity,
    probe_speed,
)
from dcgan_lib.training.step import (
    discriminator_loss,
    generate,
    generator_loss,
    make_gan,
    scheduled_learning_rate,
    shift_images,
    train_step,
    update_discriminator,
)

MODEL = ModelConfig(image_size=(8, 8), num_channels=1, base_width=4, z_dim=6)
CONFIG = TrainConfig(
    model=MODEL,
    batch_size=8,
    steps=12,
    precision="float32",
    log_every=4,
    sample_every=6,
    num_samples=9,
    save_seconds=0,
)


def tiny_set(num_images: int = 40, seed: int = 0) -> ImageSet:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (num_images, 1, 8, 8), dtype=np.uint8)
    return ImageSet(name="tiny", images_u8=images, card={"digest": f"tiny-{seed}"})


def run(config: TrainConfig, folder: Path, **options) -> loop.FitResult:
    return fit(config, tiny_set(), folder, device="cpu", threads=1, progress=False, **options)


def all_tensors(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for kind in ("generator", "discriminator"):
        weights = load_file(folder / f"{kind}.safetensors")
        found |= {f"{kind}.{name}": value for name, value in weights.items()}
    return found


def same_bits(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_losses_are_binary_cross_entropy_on_logits():
    real, fake = torch.randn(64), torch.randn(64)
    bce = F.binary_cross_entropy_with_logits
    expected = bce(real, torch.ones(64)) + bce(fake, torch.zeros(64))
    torch.testing.assert_close(discriminator_loss(real, fake), expected)
    torch.testing.assert_close(generator_loss(fake), bce(fake, torch.ones(64)))
    assert torch.isfinite(generator_loss(torch.tensor([-1e4])))


def test_alternate_trains_one_network_a_minibatch_generator_first():
    gan = make_gan(CONFIG)
    batches = Batches(tiny_set(), CONFIG, gan.device)
    for step, (moved, still) in enumerate(
        [("generator", "discriminator"), ("discriminator", "generator")]
    ):
        before = {n: [p.clone() for p in getattr(gan, n).parameters()] for n in (moved, still)}
        train_step(gan, step, *batches(step), draw_latents(CONFIG, gan.device, step))
        changed = {
            n: any(
                not torch.equal(p, q)
                for p, q in zip(before[n], getattr(gan, n).parameters(), strict=True)
            )
            for n in before
        }
        assert changed == {moved: True, still: False}


def test_same_batch_trains_both_and_leaves_the_discriminator_trainable():
    config = dataclasses.replace(CONFIG, schedule="same_batch", d_updates=2, g_updates=2)
    gan = make_gan(config)
    record = train_step(
        gan, 0, *Batches(tiny_set(), config, gan.device)(0), draw_latents(config, gan.device, 0)
    )
    measured = [name for name, value in vars(record).items() if value is not None]
    assert measured == ["d_loss", "g_loss", "d_real", "d_fake"]
    assert all(p.requires_grad for p in gan.discriminator.parameters())


def test_discriminator_update_matches_plain_autograd():
    """The optimised step follows the textbook gradient; doubled learning rate, its wrong twin, does
    not."""
    ours, plain = make_gan(CONFIG), make_gan(dataclasses.replace(CONFIG, channels_last=False))
    wrong = make_gan(dataclasses.replace(CONFIG, learning_rate=2 * CONFIG.learning_rate))
    x_bchw, _ = Batches(tiny_set(), CONFIG, ours.device)(0)
    z_bd = sample_latents(CONFIG.batch_size, MODEL, seeded(3))
    for gan in (ours, wrong):
        update_discriminator(gan, x_bchw, generate(gan, z_bd))
    net = plain.discriminator
    loss = (
        -F.logsigmoid(net(x_bchw)).mean()
        - F.logsigmoid(-net(plain.generator(z_bd).detach())).mean()
    )
    loss.backward()
    plain.d_optimizer.step()
    expected = torch.cat([p.flatten() for p in net.parameters()])
    close = [
        torch.allclose(
            torch.cat([p.flatten() for p in g.discriminator.parameters()]), expected, atol=1e-6
        )
        for g in (ours, wrong)
    ]
    assert close == [True, False]


def test_every_image_once_an_epoch_and_another_order_the_next():
    config = dataclasses.replace(CONFIG, batch_size=10)
    images = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 8, 8), np.uint8)
    batches = Batches(ImageSet(name="numbered", images_u8=images), config, torch.device("cpu"))
    numbers = [
        [round(float(v)) for v in (batches(step)[0][:, 0, 0, 0] + 1) * 127.5] for step in range(8)
    ]
    assert sorted(chain(*numbers[:4])) == list(range(40)) == sorted(chain(*numbers[4:]))
    assert numbers[:4] != numbers[4:]


def test_a_mirrored_batch_shows_about_half_of_its_images_reversed():
    image_set = tiny_set()
    plain, mirrored = (
        Batches(image_set, dataclasses.replace(CONFIG, mirror=on), torch.device("cpu"))
        for on in (False, True)
    )
    reversed_, kept = 0, 0
    for step in range(4 * plain.per_epoch):
        for before, after in zip(plain(step)[0], mirrored(step)[0], strict=True):
            reversed_ += torch.equal(after, before.flip(2))
            kept += torch.equal(after, before)
    assert reversed_ + kept == 4 * plain.per_epoch * CONFIG.batch_size and 60 < reversed_ < 100
    again = Batches(image_set, dataclasses.replace(CONFIG, mirror=True), torch.device("cpu"))
    assert torch.equal(again(7)[0], mirrored(7)[0])


@pytest.mark.parametrize("schedule", ["alternate", "same_batch"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, schedule, precision):
    config = dataclasses.replace(CONFIG, schedule=schedule, precision=precision)
    run(config, tmp_path / "whole")
    for steps in (3, 7, 12):
        run(dataclasses.replace(config, steps=steps), tmp_path / "parts")
    assert same_bits(all_tensors(tmp_path / "whole"), all_tensors(tmp_path / "parts"))
    run(dataclasses.replace(config, seed=1), tmp_path / "other")
    assert not same_bits(all_tensors(tmp_path / "whole"), all_tensors(tmp_path / "other"))
    whole, parts = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts"))
    clock = {"seconds", "images_per_second"}
    assert [line["step"] for line in parts] == [4, 8, 12]
    assert [{k: v for k, v in line.items() if k not in clock} for line in whole] == [
        {k: v for k, v in line.items() if k not in clock} for line in parts
    ]


def test_a_restored_state_lies_in_memory_as_it_did(tmp_path):
    """Two stages of colour: with fewer, every layout of a convolution's weights is the same."""
    config = dataclasses.replace(
        CONFIG, model=ModelConfig(image_size=(16, 16), base_width=4, z_dim=6)
    )
    gan, restored = make_gan(config), make_gan(dataclasses.replace(config, seed=1))
    x_bchw = torch.rand(8, 3, 16, 16, generator=seeded(0)) * 2 - 1

    def step(which, number: int) -> None:
        train_step(
            which,
            number,
            x_bchw,
            None,
            lambda turn: sample_latents(8, config.model, seeded(9 * number + turn)),
        )

    def layouts(which) -> list[tuple[int, ...]]:
        entries = chain(which.g_optimizer.state.values(), which.d_optimizer.state.values())
        return [entry[name].stride() for entry in entries for name in sorted(entry)]

    for number in range(4):
        step(gan, number)
    checkpoints.save_state(tmp_path, gan, {})
    checkpoints.load_state(tmp_path, restored)
    assert layouts(restored) == layouts(gan)
    step(gan, 4)
    step(restored, 4)
    assert same_bits(checkpoints.state_tensors(gan), checkpoints.state_tensors(restored))


CHILD = """
import sys
sys.path[:0] = [sys.argv[2]]
from test_training import CONFIG, run
import dataclasses, pathlib
run(dataclasses.replace(CONFIG, steps=400), pathlib.Path(sys.argv[1]))
"""


def start_child(folder: Path) -> subprocess.Popen:
    here = str(Path(__file__).parent)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), here], stderr=subprocess.PIPE, env=environment
    )


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, kind):
    """One kill of each kind here; tests/kill_and_resume.py does it at 20 random moments."""
    rng = random.Random(int(kind))
    run(dataclasses.replace(CONFIG, steps=400), tmp_path / "whole")
    child = start_child(tmp_path / "killed")
    deadline = time.monotonic() + 300
    while not (tmp_path / "killed" / checkpoints.STATE).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(rng.uniform(0.1, 0.5))
    child.send_signal(kind)
    code = child.wait(300)
    assert code == (-signal.SIGKILL if kind == signal.SIGKILL else 0), child.stderr.read()
    gan = make_gan(CONFIG)
    assert 0 <= checkpoints.load_state(tmp_path / "killed", gan)["step"] < 400
    run(dataclasses.replace(CONFIG, steps=400), tmp_path / "killed")
    assert same_bits(all_tensors(tmp_path / "whole"), all_tensors(tmp_path / "killed"))


def test_snapshots_are_the_discriminator_on_its_way(tmp_path):
    """A snapshot equals the end of a run of so many steps; a run that is stopped and resumed keeps
    the same ones."""
    config = dataclasses.replace(CONFIG, snapshot_every=5)
    run(config, tmp_path / "whole")
    for steps, every in (
        (7, 0),
        (12, 5),
    ):  # asked for only when the run goes on: the first is kept all the same
        run(dataclasses.replace(config, steps=steps, snapshot_every=every), tmp_path / "parts")
    kept = {
        name: [
            int(path.name.removeprefix("step-"))
            for path in sorted((tmp_path / name / "snapshots").iterdir())
        ]
        for name in ("whole", "parts")
    }
    assert kept == {"whole": [0, 5, 10], "parts": [0, 10]}
    run(dataclasses.replace(CONFIG, steps=5), tmp_path / "five")
    assert not (tmp_path / "five" / "snapshots").exists()

    def weights(*folder: str) -> dict[str, torch.Tensor]:
        return checkpoints.load_discriminator(tmp_path.joinpath(*folder)).state_dict()

    fifth, first = (
        weights("whole", "snapshots", "step-0000005"),
        weights("whole", "snapshots", "step-0000000"),
    )
    assert same_bits(fifth, weights("five")) and not same_bits(first, fifth)
    assert same_bits(first, make_gan(config).discriminator.state_dict())
    assert same_bits(first, weights("parts", "snapshots", "step-0000000"))
    for name, step in (("whole", 0), ("whole", 5), ("parts", 0)):
        place = tmp_path / name / "snapshots" / f"step-{step:07d}"
        about = checkpoints.load_config(place)[1]
        assert (about["step"], about["image_set"]) == (step, "tiny")
        assert about["precision"] == "float32"


def test_snapshots_keep_both_networks_and_their_averages(tmp_path):
    run(dataclasses.replace(CONFIG, snapshot_every=6, ema_decay=0.9), tmp_path)
    for folder in ("snapshots/step-0000006", "snapshots/step-0000012", "."):
        for load in (checkpoints.load_generator, checkpoints.load_discriminator):
            weights, averaged = load(tmp_path / folder), load(tmp_path / folder / "ema")
            assert not same_bits(weights.state_dict(), averaged.state_dict())
    last, end = (
        checkpoints.load_generator(tmp_path / place) for place in ("snapshots/step-0000012", ".")
    )
    assert same_bits(last.state_dict(), end.state_dict())


def test_the_average_follows_the_weights_of_every_step():
    config = dataclasses.replace(CONFIG, ema_decay=0.9)
    gan, batches = make_gan(config), Batches(tiny_set(), config, torch.device("cpu"))
    expected = None
    for step in range(20):
        train_step(gan, step, *batches(step), draw_latents(config, gan.device, step))
        weight = gan.generator.project.weight.detach().clone()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = weight if expected is None else decay * expected + (1 - decay) * weight
    torch.testing.assert_close(gan.g_average.module.project.weight, expected)
    assert not torch.allclose(gan.generator.project.weight, expected)


def test_images_are_shifted_by_whole_pixels_and_their_edges_repeated():
    x_bchw = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5).requires_grad_()
    shifted = shift_images(x_bchw, torch.tensor([[1, -2], [0, 0]]))
    torch.testing.assert_close(shifted[0, :, 1:, :3], x_bchw[0, :, :-1, 2:])
    torch.testing.assert_close(shifted[0, :, 0, :3], x_bchw[0, :, 0, 2:])
    torch.testing.assert_close(shifted[0, :, :, 3:], shifted[0, :, :, 2:3].expand(-1, -1, 2))
    torch.testing.assert_close(shifted[1], x_bchw[1])
    shifted.sum().backward()
    assert (
        x_bchw.grad.sum() == shifted.numel() and x_bchw.grad[0, 0, 0, 0] == 0
    )  # pushed out of the picture


def test_both_networks_learn_through_shifted_images():
    """Real and generated images move, by fresh amounts, within the limit; a repeated step moves
    them the same way."""
    config = dataclasses.replace(CONFIG, d_shift=3, schedule="same_batch", g_updates=2)
    batches, seen = Batches(tiny_set(), config, torch.device("cpu")), []
    for repeat in range(2):
        gan = make_gan(config)
        gan.discriminator.register_forward_pre_hook(
            lambda _net, args, repeat=repeat: seen.append((repeat, args[0]))
        )
        train_step(gan, 0, *batches(0), draw_latents(config, gan.device, 0), draw_shifts(config, 0))
    first, again = ([x.detach() for turn, x in seen if turn == repeat] for repeat in range(2))
    assert len(first) == 4 and all(map(torch.equal, first, again))
    real = batches(0)[0]
    moves = [
        (down, right)
        for image, shown in zip(real, first[0], strict=True)
        for down in range(-3, 4)
        for right in range(-3, 4)
        if torch.equal(shift_images(image[None], torch.tensor([[down, right]]))[0], shown)
    ]
    assert len(moves) == len(real) and len(set(moves)) > 3


def test_shifts_averages_and_two_updates_resume_to_the_same_bits(tmp_path):
    config = dataclasses.replace(
        CONFIG, d_shift=2, ema_decay=0.99, schedule="same_batch", g_updates=2
    )
    run(config, tmp_path / "whole")
    for steps in (5, 12):
        run(dataclasses.replace(config, steps=steps), tmp_path / "parts")
    for place in ("", "ema"):
        assert same_bits(
            all_tensors(tmp_path / "whole" / place), all_tensors(tmp_path / "parts" / place)
        )


def test_a_run_starts_from_another_ones_networks(tmp_path):
    run(CONFIG, tmp_path / "first")
    config = dataclasses.replace(
        CONFIG, steps=1, snapshot_every=1, ema_decay=0.9, learning_rate=1e-4
    )
    run(config, tmp_path / "second", start_from=tmp_path / "first")
    start = checkpoints.load_discriminator(tmp_path / "second" / "snapshots" / "step-0000000")
    assert same_bits(
        start.state_dict(), checkpoints.load_discriminator(tmp_path / "first").state_dict()
    )
    run(
        dataclasses.replace(config, steps=3), tmp_path / "second", start_from=tmp_path / "first"
    )  # goes on
    with pytest.raises(UserError, match="--start-from"):
        run(dataclasses.replace(config, steps=4), tmp_path / "second")
    other = dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, base_width=2))
    with pytest.raises(UserError, match="another network"):
        run(other, tmp_path / "third", start_from=tmp_path / "first")
    assert not (tmp_path / "third").exists()


def test_a_run_is_not_resumed_with_other_settings_or_images(tmp_path):
    run(CONFIG, tmp_path)
    with pytest.raises(UserError, match="learning_rate"):
        run(dataclasses.replace(CONFIG, learning_rate=1e-3), tmp_path)
    decaying = dataclasses.replace(CONFIG, decay_fraction=0.5)
    run(decaying, tmp_path / "decaying")
    with pytest.raises(UserError, match=r"falls to 0 .*--start-from"):
        run(dataclasses.replace(decaying, steps=24), tmp_path / "decaying")
    with pytest.raises(UserError, match="another image set"):
        fit(CONFIG, tiny_set(seed=1), tmp_path, device="cpu", threads=1, progress=False)


def test_cuts_of_one_set_are_told_apart():
    whole = tiny_set()
    cuts = [
        {"cut_from": {"digest": "d"}, "split": split, "subset_seed": 0}
        for split in ("train", "validation")
    ]
    names = {identity(dataclasses.replace(whole, card=card)) for card in cuts}
    assert len(names) == 2 and None not in names
    assert identity(whole) == "tiny-0"
    assert identity(resized(whole, (6, 6))) != identity(resized(tiny_set(seed=1), (6, 6)))
    unnamed = dataclasses.replace(whole, card={})
    assert identity(unnamed) != identity(dataclasses.replace(tiny_set(seed=1), card={}))


def test_a_grid_of_one_sample(tmp_path):
    run(dataclasses.replace(CONFIG, num_samples=1, steps=2), tmp_path)
    assert len(list((tmp_path / "samples").iterdir())) == 1


def flip_a_bit(path: Path) -> None:
    """Turn one bit of a weight: the file is as long as before, and still of its format."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["zeros", "a bit"])
def test_a_damaged_state_is_told_and_the_one_before_is_found(tmp_path, damage):
    run(CONFIG, tmp_path / "whole")
    run(dataclasses.replace(CONFIG, steps=5), tmp_path / "run")
    run(dataclasses.replace(CONFIG, steps=8), tmp_path / "run")
    last = tmp_path / "run" / checkpoints.STATE
    if damage == "zeros":
        last.write_bytes(b"\x00" * 100)
    else:
        flip_a_bit(last)
    result = run(CONFIG, tmp_path / "run")
    assert any("the state before the last" in sentence for sentence in result.warnings)
    assert same_bits(all_tensors(tmp_path / "whole"), all_tensors(tmp_path / "run"))
    for name in (checkpoints.STATE, checkpoints.PREVIOUS):
        flip_a_bit(tmp_path / "run" / name)
    with pytest.raises(UserError, match=r"is damaged .*delete the run to begin anew"):
        run(CONFIG, tmp_path / "run")


def test_a_damaged_state_never_takes_the_sound_one_s_place(tmp_path, monkeypatch):
    run(dataclasses.replace(CONFIG, steps=5), tmp_path)
    run(dataclasses.replace(CONFIG, steps=8), tmp_path)
    flip_a_bit(tmp_path / checkpoints.STATE)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left"):
        patch.setattr(checkpoints, "write_tensors", full)
        run(CONFIG, tmp_path)
    assert run(CONFIG, tmp_path).step == 12


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_a_turned_bit_in_the_weights_is_noticed(tmp_path, kind):
    run(CONFIG, tmp_path)
    flip_a_bit(tmp_path / f"{kind}.safetensors")
    with pytest.raises(UserError, match="its bytes have changed since"):
        getattr(checkpoints, f"load_{kind}")(tmp_path)


@pytest.mark.parametrize("steps", [6, 200])
def test_numbers_that_are_not_finite_stop_a_run_and_are_never_saved(tmp_path, steps):
    """Whether they come before a line of metrics, a grid, a saved state or the end."""
    config = dataclasses.replace(CONFIG, weight_decay=1e40, log_every=50, sample_every=3)
    for _ in range(2):  # the same command again meets the same end, from a state that is sound
        result = run(dataclasses.replace(config, steps=steps), tmp_path)
        assert result.stopped_by == "trouble"
        assert re.search(
            r"weight is no longer a finite number: .*weight_decay \(1e\+40\)", result.warnings[-1]
        )
        assert checkpoints.load_state(tmp_path, make_gan(config))["step"] < steps
        saved = load_file(tmp_path / checkpoints.STATE)
        assert all(value.isfinite().all() for value in saved.values())
    assert not (tmp_path / "generator.safetensors").exists()


def test_a_state_that_is_not_finite_is_refused(tmp_path):
    gan = make_gan(CONFIG)
    checkpoints.save_state(tmp_path, gan, {})
    before = (tmp_path / checkpoints.STATE).read_bytes()
    with torch.no_grad():
        next(gan.discriminator.parameters())[0] = float("inf")
    with pytest.raises(UserError, match=r"discriminator\.convs\.0\.weight is no longer finite"):
        checkpoints.save_state(tmp_path, gan, {})
    assert (tmp_path / checkpoints.STATE).read_bytes() == before


@pytest.mark.parametrize("lost", ["everything but the networks", "the state"])
def test_networks_without_a_state_are_not_trained_over(tmp_path, lost):
    run(CONFIG, tmp_path / "first")
    copied = tmp_path / "copied"
    shutil.copytree(tmp_path / "first", copied)
    for name in (checkpoints.STATE, checkpoints.PREVIOUS):
        (copied / name).unlink()
    if lost == "everything but the networks":
        shutil.rmtree(copied / "samples")
        (copied / "metrics.jsonl").unlink()
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"--start-from {copied}"):
        run(CONFIG, copied)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before
    assert run(CONFIG, tmp_path / "next", start_from=copied).step == 12


def test_a_grid_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "samples").write_text("in the way")
    result = run(CONFIG, tmp_path)
    assert (result.stopped_by, result.step) == ("steps", 12)
    assert "cannot write" in result.warnings[0] and "samples" in result.warnings[0]
    assert checkpoints.load_generator(tmp_path)


def test_a_full_disk_stops_a_run_and_keeps_its_last_state(tmp_path):
    """No file may grow beyond a few bytes, as on a full disk: the state does not fit, the line of
    metrics does."""
    resource = pytest.importorskip("resource")
    run(CONFIG, tmp_path / "whole")
    run(dataclasses.replace(CONFIG, steps=5), tmp_path / "run")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        with pytest.raises(UserError, match="the last saved state is kept") as stopped:
            run(CONFIG, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(stopped.value)
    assert checkpoints.load_state(tmp_path / "run", make_gan(CONFIG))["step"] == 5
    run(CONFIG, tmp_path / "run")
    assert same_bits(all_tensors(tmp_path / "whole"), all_tensors(tmp_path / "run"))


def test_a_second_run_in_a_folder_is_told_who_trains_there(tmp_path):
    with (
        exclusive(tmp_path / checkpoints.STATE),
        pytest.raises(UserError, match=rf"is held by process {os.getpid()} on .* since"),
    ):
        run(CONFIG, tmp_path)
    assert run(CONFIG, tmp_path).stopped_by == "steps"


def test_precision_is_found_once_and_kept(tmp_path):
    """Whichever is faster here, a resumed run goes on with it; config.json says that it was left
    open."""
    config = dataclasses.replace(CONFIG, precision="auto")
    first = run(dataclasses.replace(config, steps=5), tmp_path)
    chosen = first.gan.precision
    other = {"float32": "bfloat16", "bfloat16": "float32"}[chosen]
    saved, about = checkpoints.load_config(tmp_path)
    assert (saved.precision, about["precision"]) == ("auto", chosen)
    with pytest.raises(UserError, match="another precision"):
        run(dataclasses.replace(config, precision=other), tmp_path)
    assert run(dataclasses.replace(config, precision=chosen), tmp_path).gan.precision == chosen
    run(dataclasses.replace(CONFIG, precision=other), tmp_path / "fixed")
    longer = dataclasses.replace(config, steps=15)
    assert run(longer, tmp_path / "fixed").gan.precision == other


def test_a_probe_times_only_what_is_left_open_and_changes_nothing():
    gan, batches = make_gan(CONFIG), Batches(tiny_set(), CONFIG, torch.device("cpu"))
    before = {name: value.clone() for name, value in checkpoints.state_tensors(gan).items()}
    threads = torch.get_num_threads()
    never = pytest.fail
    assert probe_speed(gan, never, 1, "bfloat16") == (1, "bfloat16")
    assert probe_speed(gan, batches, 3, "auto")[0] == 3
    assert probe_speed(gan, batches, None, "float32")[1] == "float32"
    assert probe_speed(gan, batches, None, "auto")[1] in ("float32", "bfloat16")
    assert torch.get_num_threads() == threads
    assert same_bits(before, checkpoints.state_tensors(gan))


def test_budget_in_minutes_stops_the_run(tmp_path):
    result = run(dataclasses.replace(CONFIG, minutes=0.0, steps=10_000), tmp_path)
    assert (result.stopped_by, result.step) == ("minutes", 1)


def test_learning_rate_falls_linearly_at_the_end():
    config = dataclasses.replace(CONFIG, steps=100, decay_fraction=0.5)
    rates = [
        scheduled_learning_rate(config, step) / config.learning_rate for step in (0, 49, 50, 75, 99)
    ]
    assert rates == pytest.approx([1, 1, 1, 0.5, 0.02])


def test_wrong_sets_are_refused_with_what_to_do():
    cpu = torch.device("cpu")
    with pytest.raises(UserError, match="prepare the images at that size"):
        Batches(tiny_set(), dataclasses.replace(CONFIG, model=ModelConfig()), cpu)
    with pytest.raises(UserError, match="lower batch_size"):
        Batches(tiny_set(4), CONFIG, cpu)
    with pytest.raises(UserError, match="needs labels"):
        Batches(
            tiny_set(),
            dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, num_classes=10)),
            cpu,
        )
    for name in ("abacus", "cuda:99", "cuda:x"):
        with pytest.raises(UserError, match=f"{name}' is not available here; there is: .*cpu"):
            choose_device(name)
    assert choose_device("cpu").type == "cpu"


def test_a_run_writes_what_the_readme_says(tmp_path):
    run(CONFIG, tmp_path)
    names = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    }
    expected = {
        "config.json",
        "metrics.jsonl",
        "state.safetensors",
        "generator.safetensors",
        "discriminator.safetensors",
    }
    assert expected <= names
    assert {"samples/step-0000006.png", "samples/step-0000012.png"} <= names
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert {
        "step",
        "epoch",
        "seconds",
        "d_loss",
        "g_loss",
        "d_real",
        "d_fake",
        "images_per_second",
    } <= line.keys()
    loaded = checkpoints.load_generator(tmp_path)
    assert not loaded.training
    assert checkpoints.load_config(tmp_path)[0] == CONFIG


def test_the_average_follows_the_batch_norm_statistics_too():
    config = dataclasses.replace(CONFIG, ema_decay=0.9)
    gan, batches = make_gan(config), Batches(tiny_set(), config, torch.device("cpu"))
    expected = None
    for step in range(20):
        train_step(gan, step, *batches(step), draw_latents(config, gan.device, step))
        now = batch_norms(gan.generator)[0].running_var.clone()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = now if expected is None else decay * expected + (1 - decay) * now
    torch.testing.assert_close(batch_norms(gan.g_average.module)[0].running_var, expected)


def test_shifts_reach_both_limits():
    ramp = torch.arange(64.0).view(1, 1, 8, 8).expand(200, -1, -1, -1)
    shift = draw_shifts(dataclasses.replace(CONFIG, d_shift=2), 0)
    middle = shift(ramp)[:, 0, 4, 4]
    for moved in (4 - middle // 8, 4 - middle % 8):
        assert set(moved.tolist()) == {-2, -1, 0, 1, 2}


def test_averages_start_from_another_run_too(tmp_path):
    run(CONFIG, tmp_path)
    gan = make_gan(dataclasses.replace(CONFIG, ema_decay=0.9, seed=7))
    checkpoints.start_from(tmp_path, gan)
    for average, network in ((gan.g_average, gan.generator), (gan.d_average, gan.discriminator)):
        assert same_bits(average.module.state_dict(), network.state_dict())


def test_real_and_generated_images_have_statistics_of_their_own():
    """The networks are deep enough that the discriminator has batch norm."""
    model = dataclasses.replace(MODEL, image_size=(16, 16))
    gan, seen = make_gan(dataclasses.replace(CONFIG, model=model)), []
    batch_norms(gan.discriminator)[0].register_forward_pre_hook(
        lambda _, given: seen.append(len(given[0]))
    )
    update_discriminator(gan, torch.rand(8, 1, 16, 16), -torch.rand(8, 1, 16, 16))
    assert seen == [8, 8]


def test_the_averages_of_a_run_are_published_with_its_metrics(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_CHECKPOINTS", str(tmp_path / "checkpoints"))
    run(dataclasses.replace(CONFIG, ema_decay=0.5), tmp_path / "run")
    plain, average = (
        checkpoints.publish(tmp_path / place, name, command="dcgan train")
        for place, name in (("run", "plain"), ("run/ema", "average"))
    )
    made = checkpoints.load_generator(tmp_path / "run" / "ema").state_dict()
    kept = checkpoints.load_generator("average").state_dict()
    for name, weight in made.items():
        torch.testing.assert_close(kept[name], weight, rtol=1e-3, atol=1e-3)
    weights = [checkpoints.load_generator(name).project.weight for name in ("plain", "average")]
    assert not torch.equal(*weights)
    assert read_metrics(average / "metrics.jsonl") == read_metrics(plain / "metrics.jsonl")
    assert len(list((average / "samples").iterdir())) == 1
    assert "moving averages, decay 0.5" in (average / "card.md").read_text()
    assert "moving averages" not in (plain / "card.md").read_text()


def test_a_checkpoint_is_not_published_onto_itself(tmp_path, monkeypatch):
    """It would lose its grids, which are removed before the new ones are written."""
    monkeypatch.setenv("DCGAN_CHECKPOINTS", str(tmp_path / "checkpoints"))
    run(CONFIG, tmp_path / "run")
    folder = checkpoints.publish(tmp_path / "run", "mine", command="dcgan train")
    before = sorted(path.name for path in (folder / "samples").iterdir())
    with pytest.raises(UserError, match="onto itself"):
        checkpoints.publish("mine", "mine", command="dcgan train")
    assert before and sorted(path.name for path in (folder / "samples").iterdir()) == before
