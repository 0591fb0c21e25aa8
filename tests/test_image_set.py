"""ImageSet: what it refuses, how it is cut, and that a folder on disk is whole or not believed."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.paths import atomic_write, exclusive, new_in_place_of


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: None
    )  # power cuts are not what is tested here


def make_set(num=10, channels=3, height=6, width=4, seed=0, **fields) -> ImageSet:
    rng = np.random.default_rng(seed)
    return ImageSet(
        **{
            "name": "sample",
            "images_u8": rng.integers(0, 256, (num, channels, height, width), dtype=np.uint8),
            "labels": np.arange(num) % 2,
            "class_names": ("cat", "dog"),
            "attributes": {
                "age": rng.random(num, dtype=np.float32),
                "smile": rng.random(num) < 0.5,
                "lamp_box": np.full((num, 4), np.nan, np.float32),
            },
            "card": {"source": "drawn for a test", "splits": {"train": [0, num]}},
            **fields,
        }
    )


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*"))


def assert_same(one: ImageSet, other: ImageSet) -> None:
    assert (one.name, one.class_names, list(one.attributes)) == (
        other.name,
        other.class_names,
        list(other.attributes),
    )
    np.testing.assert_array_equal(one.images_u8, other.images_u8)
    np.testing.assert_array_equal(one.labels, other.labels)
    for key, values in one.attributes.items():
        np.testing.assert_array_equal(values, other.attributes[key])
        assert values.dtype == other.attributes[key].dtype


def test_a_sound_set_tells_its_sizes():
    image_set = make_set()
    assert (len(image_set), image_set.num_channels) == (10, 3)
    assert (image_set.image_size, image_set.num_classes) == ((6, 4), 2)
    assert repr(image_set) == (
        "ImageSet(sample: 10 x 3 x 6 x 4 uint8, 2 classes, attributes: age, smile, lamp_box)"
    )
    with pytest.raises(FrozenInstanceError):
        image_set.name = "other"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": ""}, "name"),
        ({"images_u8": np.zeros((10, 3, 6, 4), np.float32)}, "uint8"),
        ({"images_u8": np.zeros((3, 6, 4), np.uint8)}, "n x c x h x w"),
        ({"images_u8": np.zeros((10, 6, 4, 3), np.uint8)}, "1 or 3 channels"),
        ({"images_u8": np.zeros((0, 3, 6, 4), np.uint8)}, "at least one"),
        ({"labels": np.zeros(10, np.int32)}, "int64"),
        ({"labels": np.full(10, 2)}, "0..1"),
        ({"labels": None}, "class names"),
        ({"class_names": ()}, "one per class"),
        ({"attributes": {"age": np.zeros(9, np.float32)}}, "one row per image"),
        ({"attributes": {"age": np.zeros(10, np.float64)}}, "bool, int64 or float32"),
        ({"attributes": {"../age": np.zeros(10, np.float32)}}, "attribute's name"),
    ],
)
def test_wrong_arrays_are_refused_with_a_sentence(wrong, said):
    with pytest.raises(UserError, match=said):
        make_set(**wrong)


def test_images_are_made_contiguous():
    turned = np.zeros((5, 6, 4, 3), np.uint8).transpose(0, 3, 1, 2)
    image_set = ImageSet(name="turned", images_u8=turned)
    assert not turned.flags.c_contiguous and image_set.images_u8.flags.c_contiguous


def test_subset_keeps_rows_together():
    image_set = make_set()
    chosen = image_set.subset([7, 2, 2], name="three")
    np.testing.assert_array_equal(chosen.images_u8, image_set.images_u8[[7, 2, 2]])
    np.testing.assert_array_equal(chosen.labels, [1, 0, 0])
    np.testing.assert_array_equal(chosen.attributes["age"], image_set.attributes["age"][[7, 2, 2]])
    assert (
        chosen.name == "three"
        and "splits" not in chosen.card
        and chosen.card["source"] == "drawn for a test"
    )
    mask = image_set.attributes["smile"]
    assert len(image_set.subset(mask)) == mask.sum()


def test_neighbouring_rows_are_a_view_and_others_a_copy(tmp_path):
    image_set = make_set().save(tmp_path / "s")
    assert isinstance(image_set.subset(slice(2, 8)).images_u8, np.memmap)
    assert np.shares_memory(image_set.subset([3, 4, 5]).images_u8, image_set.images_u8)
    assert not np.shares_memory(image_set.subset([3, 5, 4]).images_u8, image_set.images_u8)


@pytest.mark.parametrize("indices", [[], [10], [-1], [0.5], np.zeros(9, bool), [[0]], slice(0, 0)])
def test_rows_that_do_not_exist_are_refused(indices):
    with pytest.raises(UserError):
        make_set().subset(indices)


@given(num=st.integers(2, 40), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 9))
@settings(max_examples=30)
def test_split_parts_the_set_without_loss(num, fraction, seed):
    image_set = make_set(num, attributes={"row": np.arange(num)})
    rest, held = image_set.split(fraction, seed)
    again = image_set.split(fraction, seed)[1].attributes["row"]
    rows = np.concatenate([rest.attributes["row"], held.attributes["row"]])
    assert sorted(rows) == list(range(num)) and len(rest) and len(held)
    np.testing.assert_array_equal(held.attributes["row"], again)
    assert (np.diff(held.attributes["row"]) > 0).all()


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_split_refuses_an_empty_side(fraction):
    with pytest.raises(UserError, match="fraction"):
        make_set().split(fraction)


@given(
    num=st.integers(1, 9),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    labelled=st.booleans(),
    keys=st.sets(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,8}", fullmatch=True), max_size=3),
)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_saved_set_comes_back_as_it_was(tmp_path, num, channels, height, width, labelled, keys):
    attributes = {key: np.arange(num, dtype=np.float32) for key in sorted(keys)}
    fields = {} if labelled else {"labels": None, "class_names": ()}
    image_set = make_set(num, channels, height, width, attributes=attributes, **fields)
    saved = image_set.save(tmp_path / "set")
    assert_same(image_set, saved)
    assert_same(image_set, ImageSet.load(tmp_path / "set", verify=True))
    assert not saved.images_u8.flags.writeable
    assert saved.card["digest"] == image_set.save(tmp_path / "again").card["digest"]


def test_the_digest_tells_content_apart(tmp_path):
    image_set = make_set()
    other = image_set.images_u8.copy()
    other[0, 0, 0, 0] ^= 1
    digests = {
        image_set.save(tmp_path / "a").card["digest"],
        replace(image_set, images_u8=other).save(tmp_path / "b").card["digest"],
        replace(image_set, labels=1 - image_set.labels).save(tmp_path / "c").card["digest"],
        replace(image_set, class_names=("dog", "cat")).save(tmp_path / "d").card["digest"],
    }
    assert len(digests) == 4


def cut_short(folder: Path) -> None:
    os.truncate(folder / "images.npy", (folder / "images.npy").stat().st_size - 1)


def other_shape(folder: Path) -> None:
    raw = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(raw.replace(b"(10, 3, 6, 4)", b"(10, 3, 4, 6)"))


def no_header(folder: Path) -> None:
    (folder / "images.npy").write_bytes(b"\0" * (folder / "images.npy").stat().st_size)


def bad_zip(folder: Path) -> None:
    (folder / "attributes.npz").write_bytes(b"\0" * (folder / "attributes.npz").stat().st_size)


def edit_card(**changes):
    def edit(folder: Path) -> None:
        record = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps({**record, **changes}))

    return edit


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "card.json").unlink(), "not a prepared image set"),
        (lambda folder: (folder / "card.json").write_text("{"), "card.json cannot be read"),
        (lambda folder: (folder / "card.json").write_text("[]"), "another format"),
        (edit_card(format="something else"), "another format"),
        (edit_card(arrays={"images": {"shape": [10, 3, 6, 4], "dtype": "|u1"}}), "the files hold"),
        (lambda folder: (folder / "labels.npy").unlink(), "No such file"),
        (cut_short, "bytes"),
        (other_shape, "the files hold"),
        (no_header, "damaged"),
        (bad_zip, "damaged"),
    ],
)
def test_a_damaged_folder_is_not_believed(tmp_path, damage, said):
    folder = tmp_path / "set"
    make_set().save(folder)
    ImageSet.load(folder)  # sound before the damage
    damage(folder)
    with pytest.raises(UserError, match=said):
        ImageSet.load(folder)


def test_changed_bytes_are_found_when_asked(tmp_path):
    make_set().save(tmp_path / "set")
    with open(tmp_path / "set" / "images.npy", "rb+") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 255]))
    ImageSet.load(tmp_path / "set")  # sizes and shapes alone do not show it
    with pytest.raises(UserError, match="bytes of images"):
        ImageSet.load(tmp_path / "set", verify=True)


def test_no_pickle_is_ever_read(tmp_path):
    make_set().save(tmp_path / "set")
    size = (tmp_path / "set" / "labels.npy").stat().st_size
    np.save(tmp_path / "set" / "labels.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    files = {path.name: path.stat().st_size for path in (tmp_path / "set").glob("*.np*")}
    edit_card(files=files)(tmp_path / "set")
    assert size
    with pytest.raises(UserError, match="allow_pickle"):
        ImageSet.load(tmp_path / "set")


def test_a_card_that_is_not_json_leaves_nothing_behind(tmp_path):
    with pytest.raises(UserError, match="JSON"):
        make_set(card={"when": object()}).save(tmp_path / "set")
    assert visible(tmp_path) == []


def test_saving_replaces_a_set_but_nothing_else(tmp_path):
    make_set(seed=1).save(tmp_path / "set")
    second = make_set(seed=2)
    assert_same(second, second.save(tmp_path / "set"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    for name in ("photos", "file"):
        with pytest.raises(UserError, match="not an image set"):
            second.save(tmp_path / name)
    assert (
        (tmp_path / "photos" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "keep"
    )
    assert visible(tmp_path) == ["file", "photos", "set"]


def test_a_failed_save_leaves_the_old_set(tmp_path, monkeypatch):
    first = make_set(seed=1)
    first.save(tmp_path / "set")

    def fail(descriptor: int) -> None:
        raise OSError(28, "disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"cannot write .*disk full.*a folder with room"):
        make_set(seed=2).save(tmp_path / "set")
    assert_same(first, ImageSet.load(tmp_path / "set", verify=True))
    assert visible(tmp_path) == ["set"]


def test_an_open_set_survives_its_replacement(tmp_path):
    first = make_set(seed=1)
    opened = first.save(tmp_path / "set")
    make_set(seed=2).save(tmp_path / "set")
    assert_same(first, opened)


def test_a_dead_writers_leftovers_are_cleared(tmp_path):
    left = tmp_path / ".set.part"
    left.mkdir()
    (left / "images.npy").write_bytes(b"half")
    other = tmp_path / ".another.part"  # of another set: not ours to clear
    other.mkdir()
    make_set().save(tmp_path / "set")
    assert not left.exists() and other.exists()


def test_a_reader_never_mixes_two_states(tmp_path):
    one = make_set(seed=1).save(tmp_path / "set")
    two = make_set(seed=2).save(tmp_path / "other")
    digests, stop, seen = {one.card["digest"], two.card["digest"]}, threading.Event(), set()

    def write() -> None:
        try:
            for at in range(60):
                (one, two)[at % 2].save(tmp_path / "set")
        finally:
            stop.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not stop.is_set():
        try:
            seen.add(ImageSet.load(tmp_path / "set", verify=True).card["digest"])
        except UserError as error:  # between two renames there is no set
            assert "not a prepared image set" in str(error)
    thread.join()
    assert seen <= digests and seen


WRITER = """
import sys
from pathlib import Path
import numpy as np
from dcgan_lib.data.image_set import ImageSet
for value in range(25):
    images_u8 = np.full((3, 1, 8, 8), int(sys.argv[2]) + value, np.uint8)
    ImageSet(name="race", images_u8=images_u8).save(sys.argv[1])
"""


def test_processes_that_save_at_once_leave_a_whole_set(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "set")]
    running = [subprocess.Popen([*command, str(start)]) for start in (0, 100)]
    assert [process.wait(300) for process in running] == [0, 0]
    found = ImageSet.load(tmp_path / "set", verify=True)
    assert len(np.unique(found.images_u8)) == 1 and int(found.images_u8[0, 0, 0, 0]) in (24, 124)
    assert visible(tmp_path) == ["set"]


def test_a_second_process_is_told_who_holds_a_folder(tmp_path):
    code = "import sys, pathlib; from dcgan_lib.paths import exclusive\n"
    code += "with exclusive(pathlib.Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    who = f"process {holder.pid} on {socket.gethostname()}"
    with (
        pytest.raises(UserError, match=f"is held by {who}"),
        exclusive(tmp_path / "run", wait=False),
    ):
        pass
    holder.kill()
    holder.wait()
    with exclusive(tmp_path / "run", wait=False):  # however it died, its lock went with it
        pass


def test_where_there_are_no_locks_a_file_stands_for_one(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        exclusive(tmp_path / "run"),
        pytest.raises(UserError, match=f"is held by process {os.getpid()}"),
        exclusive(tmp_path / "run", wait=False),
    ):
        pass
    make_set().save(tmp_path / "set")


def test_atomic_write_keeps_the_old_file_and_the_usual_mode(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file.txt"
    atomic_write(path, "old")
    plain = tmp_path / "plain.txt"
    plain.write_text("x")
    assert path.stat().st_mode == plain.stat().st_mode

    def fail(source, target):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        atomic_write(path, "new")
    assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("stopped_at", [1, 2])
def test_a_replacement_that_is_interrupted_leaves_the_old_folder(tmp_path, monkeypatch, stopped_at):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()
    renamings, rename = [], os.replace

    def interrupted(source, target):
        renamings.append(target)
        if len(renamings) == stopped_at:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), new_in_place_of(folder) as part:
        (part / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]
