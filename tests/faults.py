"""Kill commands at random moments, and let them meet full disks: nothing may be lost or believed.

usage: python tests/faults.py [--kills 200] [--full-disks 50] [--seed 0] [--only train ...]

Each command first runs undisturbed, on small files in a folder of its own. Then it is killed once,
twice or three times, begun again and left alone; in the end its folder must hold what the
undisturbed one's does, but for times. A full disk is a real one, of too few bytes: there a command
must end in one line that says so, and must come to the same end once there is room.

Commands run in forks of this process, so a kill costs the work alone and no start of Python. Disks
are tmpfs mounts, which need root on Linux; elsewhere they are left out, and the last line says so.
"""

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data import prepare as preparation
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.experiments import architecture, memorisation, supervised_search  # noqa: F401
from dcgan_lib.training.checkpoints import save_networks, write_metrics
from dcgan_lib.training.step import make_gan

# ---------------------------------------------------------------- the commands


def draw_photos(place: Path) -> None:
    rng = np.random.default_rng(0)
    (place / "photos").mkdir()
    for number in range(150):
        pixels = rng.integers(0, 255, (48, 40, 3), dtype=np.uint8)
        path = place / "photos" / f"{number}.png"
        Image.fromarray(pixels).save(path)
        os.utime(path, (0, 0))  # a set's card tells by dates, too, whether photographs changed


def draw_blobs(place: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (120, 3, 32, 32), dtype=np.uint8)
    card = {"splits": {"train": [0, 20], "validation": [20, 120]}}
    whole = ImageSet(name="blobs", images_u8=pixels, card=card)
    whole.save(place / "data" / "prepared" / "blobs")


def give_run(place: Path) -> None:
    """Write a trained run, as far as publishing asks, and an earlier checkpoint of its name."""
    model = ModelConfig(image_size=(16, 16), base_width=16, z_dim=6)
    about = {"image_set": "six", "images": 6, "command": "dcgan train"}
    gan = make_gan(TrainConfig(model=model), torch.device("cpu"))
    for folder in (place / "given", place / "checkpoints" / "six"):
        save_networks(folder, gan, about)
        line = {"step": 1, "epoch": 0.5, "seconds": 1.0, "d_loss": 1.0}
        write_metrics(folder / "metrics.jsonl", [line])


@dataclass(frozen=True)
class Job:
    """A command on small files; ``{place}`` in its words is its folder."""

    words: str
    give: Callable[[Path], None] = lambda place: None
    keeps: Callable[[Path], None] = lambda place: None
    """What must hold at any time, however the command ended; raises where it does not."""
    passing: str = r"$^"
    """Files that a full disk may leave out."""


def loads_checkpoint(place: Path) -> None:
    """The published name always loads: the earlier checkpoint, or the new one."""
    from dcgan_lib.training.checkpoints import load_generator

    load_generator(place / "checkpoints" / "six")


JOBS = {
    "prepare": Job("prepare {place}/photos --name photos --image-size 32 32", draw_photos),
    "train": Job(
        "train --recipe mnist --set blobs --num-channels 3 --base-width 4 --batch-size 16 "
        "--steps 60 --log-every 10 --save-seconds 0 --sample-every 20 --snapshot-every 30 "
        "--ema-decay 0.9 --threads 1 --precision float32 --run-dir {place}/run",
        draw_blobs,
        passing=r"samples/",
    ),
    "publish": Job("publish {place}/given six", give_run, loads_checkpoint),
    "search": Job(
        "search --set digits --trials 3 --base-width 2 --num-labels 100 --draws 2 "
        "--run-dir {place}/search"
    ),
    "ablate": Job(
        "ablate --set blobs --rules d-relu --seeds 1 --steps 18 --base-width 4 --batch-size 8 "
        "--num-images 60 --out {place}/out",
        draw_blobs,
    ),
    "memorisation": Job(
        "memorisation --numbers 200 100 --seeds 1 --steps 2 --image-size 16 --base-width 2 "
        "--batch-size 8 --num-held-out 120 --num-samples 120 --threads 1 --out {place}/runs"
    ),
}


# ---------------------------------------------------------------- running them


def start(job: Job, place: Path, log: Path) -> int:
    """Run a command in a fork, its words in ``log``; return the fork's number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        for name in ("data", "results", "checkpoints"):
            os.environ[f"DCGAN_{name.upper()}"] = str(place / name)
        with open(log, "wb", buffering=0) as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        supervised_search.SPACE["epochs"] = [1]
        preparation.AHEAD_IMAGES = 16
        status = cli.main(job.words.format(place=place).split())
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def finish(child: int) -> int:
    """Wait for a fork, and return its status; negative: the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


CLOCK = re.compile(r"seconds|_per_second|date|hardware|created|time")


def without_times(value: Any) -> Any:
    """Return JSON without what a clock wrote, and without where the folder lay."""
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if not CLOCK.search(key)}
    if isinstance(value, list):
        return [without_times(each) for each in value]
    return re.sub(r"\S*/tmp\S*/", "", value) if isinstance(value, str) else value


def content(path: Path) -> Any:
    """Return what a file says, in a form that two runs share."""
    if path.suffix == ".json":
        return without_times(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [without_times(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        return {name: hashlib.sha256(tensors[name].numpy()).hexdigest() for name in sorted(tensors)}
    return hashlib.sha256(path.read_bytes()).hexdigest()


def answer(place: Path) -> dict[str, Any]:
    """Return everything that lies in a folder, by its path.

    Locks and leftovers are hidden, and the state before the last, which is of any moment.
    """
    files = sorted(path for path in place.rglob("*") if path.is_file())
    names = {path: path.relative_to(place).as_posix() for path in files}
    return {
        name: content(path)
        for path, name in names.items()
        if not any(part.startswith(".") for part in name.split("/")) and ".previous." not in name
    }


def differences(found: dict[str, Any], wanted: dict[str, Any], passing: str) -> list[str]:
    names = found.keys() | wanted.keys()
    return sorted(
        name
        for name in names
        if found.get(name) != wanted.get(name) and not re.search(passing, name)
    )


class Campaign:
    """Count what was tried, and note each thing that went wrong."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.rng = root, random.Random(seed)
        self.kills = self.full_disks = 0
        self.wrong: list[str] = []

    def fail(self, what: str, log: Path) -> None:
        self.wrong.append(f"{what}\n    {log.read_text(errors='replace')[-2000:]}")

    def undisturbed(self, name: str) -> tuple[dict[str, Any], float, int]:
        """Return what a command leaves, its seconds, and the bytes of the files that it wrote."""
        job, place, log = JOBS[name], self.root / f"{name}-whole", self.root / "log"
        place.mkdir()
        job.give(place)
        given, begun = time.time_ns(), time.monotonic()
        if finish(start(job, place, log)):
            raise SystemExit(f"{name} fails undisturbed: {log.read_text()}")
        return answer(place), time.monotonic() - begun, bytes_since(place, given)

    def kill(self, name: str, number: int, wanted: dict[str, Any], seconds: float) -> None:
        """Kill a command up to three times, then let it end, and compare."""
        job, place, log = JOBS[name], self.root / f"{name}-kill-{number}", self.root / "log"
        place.mkdir()
        job.give(place)
        for _ in range(self.rng.randint(1, 3)):
            child = start(job, place, log)
            time.sleep(self.rng.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            finish(child)
            self.kills += 1
            self.check(name, place, log, "after a kill")
        self.end(name, place, log, wanted, "after its kills", r"$^")

    def fill_disk(self, name: str, number: int, wanted: dict[str, Any], added: int) -> None:
        """Run a command on a disk with too little room, then make room, and compare."""
        job, place, log = JOBS[name], self.root / f"{name}-disk-{number}", self.root / "log"
        with small_disk(place) as resize:
            job.give(place)
            resize(taken(place) + int(self.rng.uniform(0, added)))
            status = finish(start(job, place, log))
            self.full_disks += 1
            words = log.read_text(errors="replace")
            if status not in (0, 2) or "Traceback" in words:
                self.fail(f"{name}: status {status} on a full disk", log)
            elif status == 2 and len([line for line in words.splitlines() if "dcgan" in line]) != 1:
                self.fail(f"{name}: not one line of its own about a full disk", log)
            self.check(name, place, log, "on a full disk")
            resize(None)
            self.end(name, place, log, wanted, "once there is room", job.passing)

    def check(self, name: str, place: Path, log: Path, when: str) -> None:
        try:
            JOBS[name].keeps(place)
        except Exception as error:
            self.fail(f"{name}: {error} {when}", log)

    def end(
        self, name: str, place: Path, log: Path, wanted: dict[str, Any], when: str, passing: str
    ) -> None:
        if status := finish(start(JOBS[name], place, log)):
            self.fail(f"{name}: status {status} {when}", log)
        elif differing := differences(answer(place), wanted, passing):
            self.fail(f"{name}: {', '.join(differing)} differ {when}", log)


def bytes_since(place: Path, begun: int) -> int:
    """Return what the files written since then fill, in whole pages of a tmpfs."""
    page = os.sysconf("SC_PAGESIZE")
    written = [path.stat() for path in place.rglob("*") if path.is_file()]
    return sum(-(-each.st_size // page) * page for each in written if each.st_mtime_ns >= begun)


def taken(disk: Path) -> int:
    """Return how many bytes of a disk are taken."""
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@contextmanager
def small_disk(place: Path) -> Iterator[Callable[[int | None], None]]:
    """Mount a disk whose size can be changed; None is room enough."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    subprocess.run(mount, check=True, capture_output=True)

    def resize(size: int | None) -> None:
        new = f"remount,size={64 << 20 if size is None else size + 8192}"
        subprocess.run(["mount", "-o", new, str(place)], check=True, capture_output=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def can_mount(root: Path) -> bool:
    try:
        with small_disk(root / "try"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def main() -> int:
    """Run the campaign; status 1 where anything went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--full-disks", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=JOBS, default=[*JOBS])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), chosen.seed)
        disks = chosen.full_disks if can_mount(campaign.root) else 0
        whole = {name: campaign.undisturbed(name) for name in chosen.only}
        number = 0
        while campaign.kills < chosen.kills or campaign.full_disks < disks:
            name = chosen.only[number % len(chosen.only)]
            wanted, seconds, added = whole[name]
            if campaign.kills < chosen.kills:
                campaign.kill(name, number, wanted, seconds)
            if campaign.full_disks < disks:
                campaign.fill_disk(name, number, wanted, added)
            number += 1
    for what in campaign.wrong:
        print(what)
    left_out = "" if disks == chosen.full_disks else " (disks need root on Linux)"
    print(
        f"{campaign.kills} kills and {campaign.full_disks} full disks{left_out} of "
        f"{', '.join(chosen.only)}: {len(campaign.wrong)} went wrong"
    )
    return 1 if campaign.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
