"""Prepare sets of growing size and read them in shuffled order: images a second, and memory.

usage: python tests/measure_sets.py [--sizes 1000 10000] [--place FOLDER] [--methods exact]

A set is a tar of JPEG files, a thousand drawn digits over and over, 32 x 32 in colour; its
preparation runs with the disk's cache as it comes. Small sets are done again until 50,000 images
have been seen. Each line is measured in a process of its own, and the files are deleted in the end:
about 10 kB an image at the peak. From the largest set near-duplicates are left out, and 20 steps
are trained.

Images a second are given by the clock and by the processor time of all threads, which other work on
the machine disturbs less. Memory is the peak of what the process holds itself (RssAnon of
/proc/self/status, read every 10 ms; about 320 MB of it are Python and PyTorch) and the peak of all
pages that it sees, those of mapped files included (VmHWM), which the system takes back when it
needs them.
"""

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

STATUS = Path("/proc/self/status")
SEEN = 50_000


def status(name: str) -> float:
    return int(re.search(rf"{name}:\s+(\d+)", STATUS.read_text())[1]) / 1e3


class Measured:
    """Take the time and the peak of memory of what runs inside."""

    def __enter__(self) -> "Measured":
        self.peak, self._stop = status("RssAnon"), threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        self._begun = time.perf_counter(), time.process_time()
        return self

    def _look(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, status("RssAnon"))

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self._begun[0]
        self.cpu = time.process_time() - self._begun[1]
        self._stop.set()
        self._watch.join()

    def as_dict(self, images: int) -> dict[str, float]:
        return {
            "wall": images / self.wall,
            "cpu": images / self.cpu,
            "seconds": self.wall,
            "anon": self.peak,
            "all": status("VmHWM"),
        }


def write_tar(path: Path, num: int) -> None:
    from PIL import Image

    from dcgan_lib.data.drawn.street_digits import draw_street_digits

    files = []
    for image_u8 in draw_street_digits(1_000, 0).images_u8:
        file = io.BytesIO()
        Image.fromarray(image_u8.transpose(1, 2, 0)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    with open(path, "wb") as tar:
        for at in range(num):
            content = files[at % len(files)]
            member = tarfile.TarInfo(f"digits/{at // 10_000:03}/{at:07}.jpg")
            member.size = len(content)
            tar.write(member.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
        tar.write(bytes(1024))


def prepare_it(path: Path, deduplicate: str | None = None) -> dict[str, float]:
    from dcgan_lib.data.prepare import prepare

    write_tar(path.with_name("few.tar"), 100)
    prepare(path.with_name("few.tar"), "few", image_size=32)  # so that all is loaded
    times = 1
    with Measured() as measured:
        found = prepare(path, "set", image_size=32, deduplicate=deduplicate, overwrite=True)
        num = found.card["report"]["found"]
        while times * num < SEEN:
            times += 1
            prepare(path, "set", image_size=32, held_out=times * 1e-6, overwrite=True)
    return measured.as_dict(times * num) | {"kept": len(found)}


def read_it() -> dict[str, float]:
    import torch

    from dcgan_lib.config import ModelConfig, TrainConfig
    from dcgan_lib.data.load import load_image_set
    from dcgan_lib.training.loop import Batches

    torch.set_num_threads(1)
    image_set = load_image_set("set", "all")
    config = TrainConfig(model=ModelConfig(image_size=(32, 32), base_width=4), batch_size=128)
    batches = Batches(image_set, config, torch.device("cpu"))
    begun = time.perf_counter()
    batches(0)
    order = time.perf_counter() - begun
    steps = min(max(SEEN // 128, 1), batches.per_epoch - 1)
    with Measured() as measured:
        for number in range(SEEN // 128 + 1):
            batches(1 + number % steps)
    return measured.as_dict((SEEN // 128 + 1) * 128) | {"first": order}


def deduplicate_it(method: str) -> dict[str, float]:
    from dcgan_lib.data.deduplicate import first_of_each
    from dcgan_lib.data.load import load_image_set

    images_u8 = load_image_set("set", "all").images_u8
    with Measured() as measured:
        first = first_of_each(images_u8, method)
    kept = int((first == np.arange(len(first))).sum())
    return measured.as_dict(len(images_u8)) | {"kept": kept}


def train_it() -> dict[str, float]:
    from dcgan_lib import cli

    words = "--recipe mnist --num-channels 3 --base-width 16 --steps 20 --threads 1"
    with Measured() as measured:
        cli.main(["train", *words.split(), "--set", "set", "--run-dir", os.environ["RUN_DIR"]])
    return measured.as_dict(20 * 128)


def apart(what: str, *words: str) -> dict[str, float]:
    """Run one of the functions above in a process of its own."""
    child = [sys.executable, __file__, "--inside", what, *words]
    done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def say(num: int, what: str, found: dict[str, float]) -> None:
    extra = "".join(f", {key} {found[key]:,.4g}" for key in ("kept", "first") if key in found)
    print(
        f"{num:>9,}  {what:22} {found['wall']:>8,.0f} {found['cpu']:>8,.0f} {found['anon']:>6,.0f} "
        f"{found['all']:>6,.0f}   {found['seconds']:,.1f} s{extra}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = [1_000, 10_000, 100_000, 1_000_000, 2_000_000]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes)
    parser.add_argument("--place", type=Path, help="a folder with room")
    parser.add_argument("--methods", nargs="*", default=["exact", "phash"])
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        name, *words = chosen.inside
        words = [Path(word) if "/" in word else word for word in words]
        print(json.dumps(globals()[name](*words)))
        return
    print("   images  what                      /s  /s (CPU)  own MB  all MB")
    for num in chosen.sizes:
        folder = Path(tempfile.mkdtemp(dir=chosen.place))
        os.environ |= {"DCGAN_DATA": str(folder / "data"), "RUN_DIR": str(folder / "run")}
        try:
            write_tar(folder / "set.tar", num)
            say(num, "prepare", apart("prepare_it", str(folder / "set.tar")))
            say(num, "shuffled reading", apart("read_it"))
            if num == max(chosen.sizes):
                for method in chosen.methods:
                    say(num, f"deduplicate ({method})", apart("deduplicate_it", method))
                say(num, "20 steps", apart("train_it"))
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
