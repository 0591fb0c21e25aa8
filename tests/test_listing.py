"""What images a folder, a tar and an LMDB hold: the same set from each, and no way out of any."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from test_prepare import SIZE, encoded, noise, report_of, write

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.listing import Packed, in_order, list_images, natural_key
from dcgan_lib.data.prepare import prepare
from dcgan_lib.errors import UserError


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    return tmp_path / "data"


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def add_link(path: Path, name: str, target: str, kind: bytes) -> None:
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)


# ---------------------------------------------------------------- names without memory


@pytest.mark.parametrize("num", [0, 1, 127, 128, 129, 700])
def test_packed_values_come_back(num):
    values = [[f"{at}\udcff\0", at, "猫"] for at in range(num)]
    packed = Packed()
    for value in values:
        packed.append(value)
    assert list(packed) == values and len(packed) == num
    for wrong in (-1, num):
        with pytest.raises(IndexError):
            packed[wrong]


def test_names_are_sorted_piece_by_piece(monkeypatch):
    monkeypatch.setattr("dcgan_lib.data.listing.SORTED_AT_ONCE", 7)
    names = [f"{at % 13}/{at * 37 % 101}.png" for at in range(200)]
    rows = in_order(names, natural_key)
    assert [names[row] for row in rows] == sorted(names, key=natural_key)
    assert rows.dtype == np.int32 and sorted(rows) == list(range(200))


# ---------------------------------------------------------------- archives


@pytest.mark.parametrize("root", ["", "./", "photos/"])
@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_a_tar_gives_the_set_that_its_folder_gives(tmp_path, data_folder, root, ending):
    folder = tmp_path / "photos"
    for at in range(40):
        write(folder / "ab"[at % 2] / f"{at}.png", noise(at))
    (folder / "notes.txt").write_text("no image")
    whole = prepare(folder, "whole", image_size=SIZE, held_out=0.3)
    path = tmp_path / f"photos.{ending}"
    with tarfile.open(path, "w:gz" if ending == "tar.gz" else "w") as tar:
        for file in sorted(folder.rglob("*.*"), reverse=True):
            tar.add(file, root + file.relative_to(folder).as_posix())
    found = prepare(path, "tar", image_size=SIZE, held_out=0.3)
    np.testing.assert_array_equal(found.images_u8, whole.images_u8)
    np.testing.assert_array_equal(found.labels, whole.labels)
    assert found.class_names == ("a", "b") and found.card["splits"] == whole.card["splits"]
    assert report_of("tar", data_folder)["kept"] == report_of("whole", data_folder)["kept"]
    assert sum(found.card["report"]["ignored"].values()) == 1
    assert found.card["source"] == f"the archive 'photos.{ending}'"


def test_the_split_folders_of_a_tar_are_splits(tmp_path):
    files = {f"set/{at}/x.png": encoded("PNG", 0) for at in ("train", "val")}
    found = prepare(write_tar(tmp_path / "a.tar", files), image_size=SIZE)
    assert found.card["splits"] == {"train": [0, 1], "validation": [1, 2]}


def test_no_member_leads_out_of_a_tar(tmp_path, data_folder):
    image = encoded("PNG", 1)
    files = {
        "good.png": image,
        "../up.png": image,
        "a/../../../b.png": image,
        "/root.png": image,
        "bad.png": b"no image at all",
        "empty.png": b"",
        "nameless": image,
        "text": b"words",
        ".hidden.png": image,
    }
    path = write_tar(tmp_path / "a.tar", files)
    add_link(path, "link.png", "/etc/passwd", tarfile.SYMTYPE)
    add_link(path, "hard.png", "good.png", tarfile.LNKTYPE)
    add_link(path, "pipe.png", "", tarfile.FIFOTYPE)
    before = sorted(tmp_path.iterdir())
    prepare(path, "a", image_size=SIZE, held_out=0.0)
    report = report_of("a", data_folder)
    assert report["kept"] == ["good.png", "nameless", "root.png"]
    assert {each["file"]: each["reason"] for each in report["refused"]} == {
        "bad.png": "not an image",
        "empty.png": "empty file",
    }
    assert report["ignored"] == {
        "hidden": ["../up.png", "a/../../../b.png", ".hidden.png"],
        "not an image by name or content": ["text"],
        "link, device or sparse file": ["link.png", "hard.png", "pipe.png"],
    }
    assert sorted(tmp_path.iterdir()) == [*before, data_folder]
    assert not list(tmp_path.rglob("up.png")) + list(tmp_path.rglob("good.png"))


def spoilt(whole: bytes, way: str) -> bytes:
    return {
        "cut in a member": whole[:2000],
        "cut between members": whole[: 512 + 1024 * 3],
        "a header changed": whole[: 1024 * 4] + b"x" * 512 + whole[1024 * 4 + 512 :],
        "no tar": b"PK\3\4" + bytes(600),
        "empty": b"",
    }[way]


@pytest.mark.parametrize(
    "way", ["cut in a member", "cut between members", "a header changed", "no tar", "empty"]
)
def test_a_damaged_tar_is_one_sentence(tmp_path, way):
    content = encoded("PNG", 1, 8)
    assert 512 > len(content) - 512 > -512
    files = {f"{at}.png": content[:500].ljust(512) for at in range(9)}
    whole = write_tar(tmp_path / "a.tar", files).read_bytes()
    assert len(list_images(tmp_path / "a.tar").names) == 9
    (tmp_path / "a.tar").write_bytes(spoilt(whole, way))
    with pytest.raises(UserError, match=r"a\.tar is a file, but no sound tar archive") as caught:
        prepare(tmp_path / "a.tar")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [5, 100, -6])
def test_a_damaged_gzip_is_one_sentence(tmp_path, data_folder, keep):
    whole = write_tar(tmp_path / "a.tar", {"1.png": encoded("PNG", 1)}).read_bytes()
    (tmp_path / "a.tgz").write_bytes(gzip.compress(whole)[:keep])
    with pytest.raises(UserError, match="cannot be unpacked"):
        prepare(tmp_path / "a.tgz")
    assert not list(data_folder.iterdir())


def test_a_tar_without_images_says_what_it_holds(tmp_path):
    with pytest.raises(UserError, match=r"found 0 images in .*\(2 x \.txt\)"):
        prepare(write_tar(tmp_path / "a.tar", {"a.txt": b"a", "b/c.txt": b"b"}))


def test_crops_need_files(tmp_path):
    from dcgan_lib.data.faces import FaceCrops

    path = write_tar(tmp_path / "a.tar", {"1.png": encoded("PNG", 1)})
    with pytest.raises(UserError, match="unpack it first"):
        prepare(path, crop=FaceCrops())


# ---------------------------------------------------------------- databases


def test_an_lmdb_gives_its_values_in_the_order_of_its_keys(tmp_path, data_folder):
    lmdb = pytest.importorskip("lmdb")
    with (
        lmdb.open(str(tmp_path / "rooms_lmdb"), map_size=1 << 24) as database,
        database.begin(write=True) as writing,
    ):
        for at in range(300):
            writing.put(f"{at:03}".encode(), encoded("PNG", at, SIZE))
        writing.put(b"\xff", b"damaged")
    found = prepare(tmp_path / "rooms_lmdb", "rooms", image_size=SIZE, held_out=0.0)
    assert len(found) == 300 and found.card["source"] == "the database 'rooms_lmdb'"
    for at in (0, 7, 299):
        np.testing.assert_array_equal(found.images_u8[at], noise(at).transpose(2, 0, 1))
    assert [each["file"] for each in report_of("rooms", data_folder)["refused"]] == ["\udcff"]


def test_an_lmdb_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    pytest.importorskip("lmdb")
    (tmp_path / "data.mdb").write_bytes(bytes(10_000))
    with pytest.raises(UserError, match="is no sound LMDB"):
        prepare(tmp_path)
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match="pip install lmdb"):
        prepare(tmp_path)


# ---------------------------------------------------------------- going on after a kill

COUNTS = """
import sys, time
from dcgan_lib.data import listing, prepare
prepare.AHEAD_IMAGES = 16
plain, seen = listing.decode_bytes, []
def counted(raw, framing, suffix):
    seen.append(1)
    time.sleep(float(sys.argv[2]))
    return plain(raw, framing, suffix=suffix)
listing.decode_bytes = counted
prepare.prepare(sys.argv[1], "x", image_size=16, deduplicate="exact", num_workers=1)
print(len(seen))
"""


def kill_after(blocks: int, path: Path, progress: Path) -> None:
    """Start a slow preparation, and kill it once so many blocks are written."""
    process = subprocess.Popen([sys.executable, "-c", COUNTS, path, "0.02"])
    while not progress.is_file() or len(progress.read_bytes().splitlines()) <= blocks:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")
def test_a_killed_preparation_goes_on_where_it_was(tmp_path, data_folder):
    files = {f"{at}.png": encoded("PNG", at % 150) for at in range(200)}
    files |= {"9.jpg": b"damaged", "160.jpg": b"damaged", "120.gif": encoded("PNG", 777)}
    path = write_tar(tmp_path / "a.tar", files)
    progress = data_folder / "prepared" / ".x.part" / ".progress.jsonl"
    for blocks in (3, 6):
        kill_after(blocks, path, progress)
    with open(progress, "a") as file:
        file.write('{"done": 1')  # a line that was cut off
    for name in ("card.json", "part.npy", ".card.json.12345678.part"):
        (progress.parent / name).write_text("left by a run that was killed at its end")
    done = json.loads(progress.read_text().splitlines()[-2])["done"]
    assert done >= 96
    again = subprocess.run([sys.executable, "-c", COUNTS, path, "0"], capture_output=True)
    assert int(again.stdout) == 203 - done, again.stderr
    prepare(path, "whole", image_size=SIZE, deduplicate="exact")
    found, whole = (ImageSet.load(data_folder / "prepared" / name) for name in ("x", "whole"))
    assert {**found.card, "name": "whole"} == whole.card and len(found) == 151
    assert report_of("x", data_folder) == report_of("whole", data_folder)
    assert not progress.parent.exists()
    assert not list((data_folder / "prepared" / "x").glob(".*"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")
@pytest.mark.parametrize("change", ["settings", "source", "images"])
def test_what_was_begun_otherwise_is_begun_anew(tmp_path, data_folder, change):
    path = write_tar(tmp_path / "a.tar", {f"{at}.png": encoded("PNG", at) for at in range(60)})
    part = data_folder / "prepared" / ".x.part"
    kill_after(2, path, part / ".progress.jsonl")
    settings = {"image_size": 8 if change == "settings" else SIZE, "deduplicate": "exact"}
    if change == "source":
        write_tar(path, {f"{at}.png": encoded("PNG", at + 99) for at in range(60)})
    if change == "images":
        os.truncate(part / "images.npy", 3000)
    found = prepare(path, "x", **settings)
    whole = prepare(path, "whole", **settings)
    assert found.card["digest"] == whole.card["digest"] and len(found) == 60
