"""Several processes: equal to one, stopped together, resumed on another number.

``torchrun`` starts this file itself for what two processes do without the command line.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import StoppedElsewhereError, UserError
from dcgan_lib.training import checkpoints
from dcgan_lib.training.loop import Batches, draw_latents, draw_shifts, fit
from dcgan_lib.training.processes import Processes, find_processes
from dcgan_lib.training.step import make_gan, train_step

MODEL = ModelConfig(image_size=(16, 16), num_channels=1, base_width=4, z_dim=6)
CONFIG = TrainConfig(
    model=MODEL,
    batch_size=8,
    steps=6,
    precision="float32",
    sync_batch_norm=True,
    log_every=3,
    sample_every=100,
    num_samples=4,
    snapshot_every=3,
)
CONDITIONAL = dataclasses.replace(MODEL, num_classes=2)
CASES = {
    "two updates": {"schedule": "same_batch", "d_updates": 2, "g_updates": 2, "mirror": True},
    "classes": {"model": CONDITIONAL, "d_shift": 2, "r1_weight": 1.0, "ema_decay": 0.5},
    "residual": {"model": dataclasses.replace(MODEL, architecture="residual")},
}
WRONG = {"sync_batch_norm": False}
"""What the guard has to catch: each part normalised by itself is another training."""
ROUNDING = 1e-6
"""Most that a weight may differ after 6 steps, in which it moves by about 6 times 0.0002."""


def tiny_set() -> ImageSet:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 1, 16, 16), dtype=np.uint8)
    labels, card = np.arange(40) // 20, {"digest": "tiny"}
    return ImageSet(name="tiny", images_u8=images, labels=labels, class_names=("a", "b"), card=card)


def run(config: TrainConfig, folder: Path, **options):
    return fit(config, tiny_set(), folder, threads=1, progress=False, **options)


def furthest(a: Path, b: Path) -> float:
    """Return the largest difference between two runs' weights and statistics."""
    found = 0.0
    for path in sorted(a.rglob("*.safetensors")):
        if path.name != checkpoints.STATE:
            ours, theirs = load_file(path), load_file(b / path.relative_to(a))
            found = max(found, *(float((ours[k] - theirs[k]).abs().max()) for k in ours))
    return found


def torchrun(*words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *words],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def child(folder: Path) -> None:
    """Train every case, then meet a full disk and Ctrl-C, as one of two processes."""
    import resource

    rank = int(os.environ["RANK"])
    for name, changes in (CASES | {"wrong": WRONG}).items():
        result = run(dataclasses.replace(CONFIG, **changes), folder / name)
    state = checkpoints.state_tensors(result.gan)  # statistics were averaged, not synchronised
    says = {"sum": sum(float(value.double().sum()) for value in state.values())}

    ended = dataclasses.replace(CONFIG, steps=100_000, snapshot_every=0, save_seconds=0.2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    run(dataclasses.replace(ended, steps=3), folder / "full")
    if rank == 0:  # the one that writes
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        run(ended, folder / "full")
    except UserError as error:
        says["full"] = [type(error).__name__, str(error)]
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    if rank == 1:
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    result = run(ended, folder / "full")
    says["interrupted"] = [result.stopped_by, result.step]
    (folder / f"says-{rank}.json").write_text(json.dumps(says))


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """Return the folder in which two processes did what ``child`` says."""
    folder = tmp_path_factory.mktemp("pair")
    started = torchrun(__file__, str(folder))
    errors = started.communicate(timeout=600)[1]
    assert started.returncode == 0, errors
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_does(pair, tmp_path, name):
    run(dataclasses.replace(CONFIG, **CASES[name]), tmp_path / name, device="cpu")
    assert len(list((pair / name).rglob("generator.safetensors"))) >= 4  # three are snapshots
    assert furthest(tmp_path / name, pair / name) < ROUNDING
    ours, theirs = (
        checkpoints.read_metrics(place / name / "metrics.jsonl") for place in (tmp_path, pair)
    )
    for one, two in zip(ours, theirs, strict=True):
        losses = set(one) - {"seconds", "images_per_second"}
        assert {key: two[key] for key in losses} == pytest.approx(
            {key: one[key] for key in losses}, abs=1e-4
        )


def test_parts_that_are_normalised_alone_are_another_training(pair, tmp_path):
    run(dataclasses.replace(CONFIG, **WRONG), tmp_path, device="cpu")
    assert furthest(tmp_path, pair / "wrong") > 10 * ROUNDING
    sums = [json.loads((pair / f"says-{rank}.json").read_text())["sum"] for rank in (0, 1)]
    assert sums[0] == sums[1]  # both processes hold the same, bit for bit


def test_a_full_disk_and_an_interrupt_end_both(pair, tmp_path):
    first, second = (json.loads((pair / f"says-{rank}.json").read_text()) for rank in (0, 1))
    assert first["full"][0] == "UserError" and "the last saved state is kept" in first["full"][1]
    assert second["full"][0] == StoppedElsewhereError.__name__
    assert first["interrupted"] == second["interrupted"]
    stopped_by, step = first["interrupted"]
    assert stopped_by == "interrupt" and 3 < step < 100_000
    longer = dataclasses.replace(CONFIG, steps=step + 2, snapshot_every=0)
    assert run(longer, pair / "full", device="cpu").step == step + 2  # alone


TRAIN = """--set street-digits --num-channels 3 --num-images 64 --base-width 4 --image-size 16 16
    --batch-size 16 --threads 1 --precision float32 --sync-batch-norm --device cpu --num-samples 4
    --log-every 2 --decay-fraction 0"""


def test_the_command_line_under_torchrun(tmp_path, capsys):
    words = ["train", *TRAIN.split(), "--steps", "6", "--run-dir"]
    started = torchrun("-m", "dcgan_lib.cli", *words, str(tmp_path / "two"))
    output, errors = started.communicate(timeout=600)
    assert started.returncode == 0, errors
    assert output.count("6 of 6 steps") == 1 and errors.count("processes: 2") == 1
    assert checkpoints.load_config(tmp_path / "two")[1]["processes"] == 2
    assert cli.main([*words, str(tmp_path / "one")]) == 0
    assert furthest(tmp_path / "one", tmp_path / "two") < ROUNDING


def workers_of(launcher: subprocess.Popen) -> list[int]:
    return [
        int(pid)
        for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_one_is_killed_and_the_other_says_so(tmp_path):
    words = ["train", *TRAIN.split(), "--save-seconds", "0.2", "--run-dir", str(tmp_path)]
    started = torchrun("-m", "dcgan_lib.cli", *words, "--steps", "100000")
    deadline = time.monotonic() + 300
    while len(checkpoints.read_metrics(tmp_path / "metrics.jsonl")) < 2:
        assert time.monotonic() < deadline and started.poll() is None
        time.sleep(0.05)
    os.kill(workers_of(started)[1], signal.SIGKILL)
    errors = started.communicate(timeout=300)[1]
    assert started.returncode != 0
    assert "dcgan: another of the 2 processes ended" in errors
    with safe_open(tmp_path / checkpoints.STATE, framework="pt") as file:
        step = json.loads(file.metadata()["progress"])["step"]
    assert cli.main([*words, "--steps", str(step + 2)]) == 0


def test_the_parts_of_a_batch_are_disjoint_and_make_the_whole():
    config = dataclasses.replace(CONFIG, model=CONDITIONAL, d_shift=3, mirror=True)
    cpu, both = torch.device("cpu"), [Processes(rank=rank, count=2) for rank in (0, 1)]
    whole = Batches(tiny_set(), config, cpu)
    parts = [Batches(tiny_set(), config, cpu, each) for each in both]
    for step in (0, 7):
        x_bchw, labels_b = whole(step)
        z_bd, shifted = draw_latents(config, cpu, step)(1), draw_shifts(config, step)(x_bchw)
        for rank, each in enumerate(both):
            x_part, labels_part = parts[rank](step)
            assert torch.equal(x_part, x_bchw[rank::2])
            assert torch.equal(labels_part, labels_b[rank::2])
            assert torch.equal(draw_latents(config, cpu, step, each)(1), z_bd[rank::2])
            assert torch.equal(draw_shifts(config, step, each)(x_part), shifted[rank::2])


def test_a_batch_read_ahead_is_the_same():
    """In any order of steps, as after a resumption."""
    config = dataclasses.replace(CONFIG, model=CONDITIONAL, mirror=True)
    plain, ahead = (
        Batches(tiny_set(), config, torch.device("cpu"), read_ahead=on) for on in (False, True)
    )
    for step in (0, 4, 5, 6, 0, 1):
        for ours, theirs in zip(plain(step), ahead(step), strict=True):
            assert torch.equal(ours, theirs)


def test_batches_that_cannot_be_shared_are_refused():
    three = Processes(rank=0, count=3)
    with pytest.raises(UserError, match="batch_size must be a multiple of the 3 processes"):
        three.check_batch(CONFIG)
    three.check_batch(dataclasses.replace(CONFIG, batch_size=3))
    with pytest.raises(UserError, match="at least 2 for each"):
        three.check_batch(dataclasses.replace(CONFIG, batch_size=3, sync_batch_norm=False))
    Processes().check_batch(dataclasses.replace(CONFIG, batch_size=3))


def test_a_missing_launcher_package_and_a_wrong_device_are_named(monkeypatch):
    assert find_processes("cpu") == (Processes(), "cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="must be cpu or cuda"):
        find_processes("cuda:1")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UserError, match="pip install accelerate"):
        find_processes("cpu")


GPU_CONFIG = dataclasses.replace(
    CONFIG, model=CONDITIONAL, schedule="same_batch", mirror=True, d_shift=1, r1_weight=1.0
)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("read_ahead", [False, True])
def test_a_step_never_waits_for_the_gpu(precision, read_ahead):
    gpu, config = torch.device("cuda"), dataclasses.replace(GPU_CONFIG, precision=precision)
    gan = make_gan(config, gpu)
    batches = Batches(tiny_set(), config, gpu, read_ahead=read_ahead)

    def step(number: int) -> None:
        latents, augment = draw_latents(config, gpu, number), draw_shifts(config, number)
        train_step(gan, number, *batches(number), latents, augment)

    step(0)  # memory is found, and kernels are chosen
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_a_batch_on_a_gpu_is_that_of_the_cpu():
    sources = [
        Batches(tiny_set(), GPU_CONFIG, torch.device(device), read_ahead=ahead)
        for device, ahead in (("cpu", False), ("cuda", False), ("cuda", True))
    ]
    for step in range(12):
        expected, *found = (source(step) for source in sources)
        for x_bchw, labels_b in found:
            torch.testing.assert_close(x_bchw.cpu(), expected[0])
            assert torch.equal(labels_b.cpu(), expected[1])


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_run_on_a_gpu_goes_on_where_it_was(tmp_path, precision):
    config = dataclasses.replace(GPU_CONFIG, precision=precision, ema_decay=0.5)
    run(dataclasses.replace(config, steps=2), tmp_path, device="cuda")
    assert run(config, tmp_path, device="cuda").step == 6
    assert run(dataclasses.replace(config, steps=7), tmp_path, device="cpu").step == 7


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")
def test_two_gpus_train_one_pair(tmp_path):
    words = TRAIN.replace("--device cpu", "--device cuda").split()
    folder = str(tmp_path / "two")
    started = torchrun("-m", "dcgan_lib.cli", "train", *words, "--steps", "6", "--run-dir", folder)
    errors = started.communicate(timeout=600)[1]
    assert started.returncode == 0, errors
    assert errors.count("processes: 2") == 1


if __name__ == "__main__":
    child(Path(sys.argv[1]))
