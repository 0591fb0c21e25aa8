"""Kill a training run at random moments, resume it each time, and compare with one left alone.

usage: python tests/kill_and_resume.py [--kills 20] [--seed 0] [-- OPTIONS OF dcgan train]

Both runs use the command line, drawn street digits and one thread. The script ends with status 1
unless every weight, batch-norm statistic and line of metrics agrees bit for bit.
"""

import argparse
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from dcgan_lib.training.checkpoints import read_metrics

OPTIONS = """
    --recipe mnist --set street-digits --num-channels 3 --num-images 2000 --base-width 8 --steps 1500
    --log-every 10 --save-seconds 0.3 --sample-every 500 --threads 1 --precision float32
"""
TRAIN = [sys.executable, "-m", "dcgan_lib.cli", "train", *shlex.split(OPTIONS)]


def start(folder: Path, options: list[str]) -> subprocess.Popen:
    """Start or resume a run."""
    return subprocess.Popen(
        [*TRAIN, "--run-dir", str(folder), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def saved_step(folder: Path) -> int:
    """Return the last step that metrics.jsonl knows of."""
    return next((line["step"] for line in reversed(read_metrics(folder / "metrics.jsonl"))), 0)


def last_save(folder: Path) -> int:
    """Return when the state was last written, in nanoseconds; 0 before the first time."""
    path = folder / "state.safetensors"
    return path.stat().st_mtime_ns if path.exists() else 0


def kill_at_random(folder: Path, kills: int, rng: random.Random, options: list[str]) -> list[int]:
    """Kill the run so many times; return the step seen at each kill."""
    steps: list[int] = []
    while len(steps) < kills:
        before = last_save(folder)
        child = start(folder, options)
        while last_save(folder) == before and child.poll() is None:
            time.sleep(0.02)  # it saves once as soon as it is ready to train
        time.sleep(rng.uniform(0, 6))
        if child.poll() is not None:
            raise SystemExit(
                f"the run ended after {len(steps)} of {kills} kills: ask for more --steps"
            )
        child.send_signal(signal.SIGKILL)
        child.wait()
        steps.append(saved_step(folder))
        print(f"kill {len(steps):2} near step {steps[-1]}", flush=True)
    return steps


def timeless(folder: Path) -> list[dict]:
    """Return the metrics without what a clock wrote."""
    clock = {"seconds", "images_per_second"}
    lines = read_metrics(folder / "metrics.jsonl")
    return [{name: line[name] for name in line.keys() - clock} for line in lines]


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*", help="options of dcgan train, after --")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        whole, killed = Path(place, "whole"), Path(place, "killed")
        if start(whole, chosen.options).wait():
            raise SystemExit("the run that nobody kills failed: try its command by hand")
        kill_at_random(killed, chosen.kills, random.Random(chosen.seed), chosen.options)
        if start(killed, chosen.options).wait():
            raise SystemExit("the last resumption failed")
        differing, total = [], 0
        for file in ("generator.safetensors", "discriminator.safetensors"):
            ours, theirs = load_file(whole / file), load_file(killed / file)
            differing += [
                f"{file}:{name}" for name in ours if not torch.equal(ours[name], theirs[name])
            ]
            total += len(ours)
        same_metrics = timeless(whole) == timeless(killed)
    print(
        f"{chosen.kills} kills; {total - len(differing)} of {total} tensors bit-equal; "
        f"metrics equal: {same_metrics}"
    )
    return 1 if differing or not same_metrics else 0


if __name__ == "__main__":
    sys.exit(main())
