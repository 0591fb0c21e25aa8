"""Every set through the one door; what cannot be had here is made, small, in its own format."""

import hashlib
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from dcgan_lib.data import published as public
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import choose_split, held_out_split, load_image_set, set_names
from dcgan_lib.data.prepare import prepare, resized
from dcgan_lib.errors import UserError

REAL = os.environ.get("DCGAN_DATA", "")


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("DCGAN_DATA", str(folder))
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: None
    )  # power cuts are not what is tested here
    return folder


def shorten(monkeypatch, name: str, **parts) -> None:
    """Give a set the splits of its small copy."""
    for part, splits in parts.items():
        monkeypatch.setitem(public.PUBLIC_SETS[name].parts, part, splits)


def accept_any_sum(monkeypatch, module: str) -> None:
    """Let a torchvision module accept files with other MD5 sums than the published, as ours.

    Only the comparison is replaced, and only here: the library runs torchvision's own.
    """
    monkeypatch.setattr(
        f"torchvision.datasets.{module}.check_integrity",
        lambda path, md5=None: os.path.isfile(path),
    )


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


# ---- MNIST, FashionMNIST: IDX files ----


def write_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()
    )


def make_mnist(folder: Path, num_train: int = 30, num_test: int = 10) -> np.ndarray:
    images = noise(num_train + num_test, 28, 28)
    labels = np.arange(num_train + num_test, dtype=np.uint8) % 10
    for kind, rows in (("train", slice(num_train)), ("t10k", slice(num_train, None))):
        write_idx(folder / f"{kind}-images-idx3-ubyte", images[rows])
        write_idx(folder / f"{kind}-labels-idx1-ubyte", labels[rows])
    return images


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashionmnist", "FashionMNIST")])
def test_mnist_and_its_splits(root, monkeypatch, name, folder):
    images = make_mnist(root / folder / "raw")
    shorten(monkeypatch, name, train={"train": (0, 20), "validation": (20, 30)})
    train, validation, test = (
        load_image_set(name, split) for split in ("train", "validation", "test")
    )
    for found, rows in ((train, slice(20)), (validation, slice(20, 30)), (test, slice(30, None))):
        np.testing.assert_array_equal(found.images_u8[:, 0], images[rows])
        np.testing.assert_array_equal(found.labels, np.arange(40)[rows] % 10)
    both = load_image_set(name, "train+validation")
    assert len(both) == 30 and isinstance(both.images_u8, np.memmap) and both.num_classes == 10
    assert validation.card["split"] == "validation" and validation.card["cut_from"]["images"] == 30
    with pytest.raises(UserError, match=r"train\+validation or test"):
        load_image_set(name, "train+test")


def test_published_splits_have_the_published_sizes():
    sizes = {
        name: {split: span for part in s.parts.values() for split, span in part.items()}
        for name, s in public.PUBLIC_SETS.items()
    }
    assert sizes["mnist"] == {
        "train": (0, 50_000),
        "validation": (50_000, 60_000),
        "test": (0, None),
    }
    assert sizes["cifar10"] == {
        "train": (0, 45_000),
        "validation": (45_000, 50_000),
        "test": (0, None),
    }
    assert sizes["svhn"]["validation"] == (63_257, 73_257) and "extra" in sizes["svhn"]
    assert sizes["digits"]["test"] == (1437, None)


def test_mnist_at_32_is_padded_and_at_16_resampled(root):
    images = make_mnist(root / "MNIST" / "raw")
    found = load_image_set("mnist", "test", image_size=32).images_u8[:, 0]
    np.testing.assert_array_equal(found[:, 2:30, 2:30], images[30:])
    assert found.sum() == images[30:].astype(np.int64).sum()  # nothing outside
    assert load_image_set("mnist", "test", image_size=16).image_size == (16, 16)
    assert load_image_set("mnist", "test", channels=3).num_channels == 3


def test_the_second_load_does_not_touch_the_source(root):
    make_mnist(root / "MNIST" / "raw")
    first = load_image_set("mnist", "test")
    for path in (root / "MNIST" / "raw").iterdir():
        path.unlink()
    assert load_image_set("mnist", "test").card == first.card
    with pytest.raises(UserError, match="MNIST was not found"):
        load_image_set("mnist", "train")


def test_damaged_mnist_is_told(root):
    make_mnist(root / "MNIST" / "raw")
    os.truncate(root / "MNIST" / "raw" / "t10k-images-idx3-ubyte", 500)
    with pytest.raises(UserError, match="MNIST was not found, or is damaged"):
        load_image_set("mnist", "test")


def test_a_damaged_copy_in_the_cache_is_made_anew(root):
    make_mnist(root / "MNIST" / "raw")
    first = load_image_set("mnist", "test")
    (folder,) = (root / "prepared").glob("[!.]*")
    os.truncate(folder / "images.npy", 100)
    assert load_image_set("mnist", "test").card == first.card


# ---- CIFAR-10: Python batches ----


def make_cifar10(root: Path) -> tuple[np.ndarray, np.ndarray]:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    images, labels = noise(60, 3, 32, 32), np.arange(60) % 10
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for at, name in enumerate(names):
        rows = slice(10 * at, 10 * at + 10)
        entry = {"data": images[rows].reshape(10, 3072), "labels": labels[rows].tolist()}
        (folder / name).write_bytes(pickle.dumps(entry))
    meta = {"label_names": [f"class{label}" for label in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))
    return images, labels


def test_cifar10(root, monkeypatch):
    images, labels = make_cifar10(root)
    with pytest.raises(UserError, match="CIFAR-10 was not found, or is damaged"):
        load_image_set("cifar10")  # torchvision's own MD5 check, at work
    accept_any_sum(monkeypatch, "cifar")
    shorten(monkeypatch, "cifar10", train={"train": (0, 45), "validation": (45, 50)})
    train, test = load_image_set("cifar10"), load_image_set("cifar10", "test")
    np.testing.assert_array_equal(train.images_u8, images[:45])
    np.testing.assert_array_equal(train.labels, labels[:45])
    np.testing.assert_array_equal(test.images_u8, images[50:])
    assert train.class_names[3] == "class3" and train.card["licence"]


# ---- SVHN: MATLAB files ----


@pytest.mark.parametrize("place", ["", "svhn"])
def test_svhn(root, monkeypatch, place):
    scipy_io = pytest.importorskip("scipy.io")
    images, labels = noise(24, 32, 32, 3), np.arange(24) % 10
    folder = root / place
    folder.mkdir(exist_ok=True)
    for part, rows in (("train", slice(12)), ("test", slice(12, 20)), ("extra", slice(20, None))):
        stored = {
            "X": images[rows].transpose(1, 2, 3, 0),
            "y": np.where(labels[rows] == 0, 10, labels[rows])[:, None],
        }
        scipy_io.savemat(folder / f"{part}_32x32.mat", stored)
    with pytest.raises(UserError, match=r"SVHN.*was not found, or is damaged"):
        load_image_set("svhn")
    accept_any_sum(monkeypatch, "svhn")
    shorten(monkeypatch, "svhn", train={"train": (0, 8), "validation": (8, 12)})
    for split, rows in (
        *(("train", slice(8)), ("validation", slice(8, 12)), ("test", slice(12, 20))),
        ("extra", slice(20, None)),
    ):
        found = load_image_set("svhn", split)
        np.testing.assert_array_equal(found.images_u8, images[rows].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(found.labels, labels[rows])  # the file's 10 is the digit 0


# ---- svhn10k: a part of SVHN, by folder or by file ----

# digits of each photo; the first 14 train or validate, and the 10th and 11th are of one photo
PER_PHOTO = "21321322322"


@pytest.fixture
def digits(root, monkeypatch):
    """Return a small svhn10k, not written yet: images h x w x c, labels and photos, 23 of each."""
    shorten(
        monkeypatch,
        "svhn10k",
        train={"train": (0, 10), "validation": (10, 14)},
        test={"test": (0, 9)},
    )
    accept_any_sum(monkeypatch, "svhn")
    labels, photos = np.arange(23) % 10, np.repeat(np.arange(1, 12), list(map(int, PER_PHOTO)))
    digest = hashlib.sha256(labels.astype(np.uint8)).hexdigest()
    table = root.parent / "photos.toml"
    table.write_text(f'digits_per_photo = "{PER_PHOTO}"\nlabels_sha256 = "{digest}"\n')
    monkeypatch.setattr(public, "SVHN10K_PHOTOS", table)
    return noise(23, 32, 32, 3), labels, photos


def digit_path(root: Path, at: int, label: int, photo: int) -> Path:
    part = "train" if at < 14 else "test"
    return root / "svhn10k" / part / str(label) / f"{photo:05}_{at:05}.png"


def write_folder(root: Path, images, labels, photos) -> None:
    for at, (image, label, photo) in enumerate(zip(images, labels, photos, strict=True)):
        path = digit_path(root, at, label, photo)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image))


def write_mat(root: Path, images, labels, photos) -> None:
    """Write SVHN's whole test file, of which the set is the head."""
    scipy_io = pytest.importorskip("scipy.io")
    pixels = np.concatenate([images, noise(7, 32, 32, 3, seed=1)]).transpose(1, 2, 3, 0)
    labels = np.append(labels, [5] * 7)
    stored = {"X": pixels, "y": np.where(labels == 0, 10, labels)[:, None]}
    scipy_io.savemat(root / "test_32x32.mat", stored)


@pytest.mark.parametrize("write", [write_folder, write_mat])
def test_svhn10k_is_split_by_photo(root, digits, write):
    images, labels, photos = digits
    write(root, images, labels, photos)
    place, held = {image.tobytes(): at for at, image in enumerate(images)}, {}
    for split, num in (("train", 10), ("validation", 4), ("test", 9)):
        found = load_image_set("svhn10k", split)
        rows = [place[image.tobytes()] for image in found.images_u8.transpose(0, 2, 3, 1)]
        assert len(rows) == num and rows == sorted(rows)  # in SVHN's order
        np.testing.assert_array_equal(found.labels, labels[rows])
        np.testing.assert_array_equal(found.attributes["photo"], photos[rows])
        held[split] = set(photos[rows].tolist())
    assert held["train"] | held["validation"] == set(range(1, 8)) and held["test"] == {8, 9, 10, 11}
    assert not held["train"] & held["validation"]
    assert load_image_set("svhn10k", "held-out").card["split"] == "validation"


def test_the_folder_and_the_file_give_the_same_svhn10k(root, digits, tmp_path, monkeypatch):
    write_folder(root, *digits)
    first = [load_image_set("SVHN10k", split).card["cut_from"] for split in ("train", "test")]
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path))
    write_mat(tmp_path, *digits)
    assert [load_image_set("svhn10k", split).card["cut_from"] for split in ("train", "test")] == (
        first
    )


def remove(path: Path) -> None:
    path.unlink()


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1_000])


def enlarge(path: Path) -> None:
    path.write_bytes(encoded(noise(40, 40, 3)))


def narrow(path: Path) -> None:
    path.write_bytes(encoded(noise(32, 31, 3)))


def turn_grey(path: Path) -> None:
    path.write_bytes(encoded(noise(32, 32)))


def give_to_a_test_photo(path: Path) -> None:
    path.rename(path.with_name("00008_00003.png"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove, r"train should hold 14 files DIGIT/PHOTO_INDEX.png, but holds 13"),
        (cut_off, r"00002_00002.png should be .* in RGB, but is truncated"),
        (enlarge, r"00002_00002.png should be a picture of 32 x 32 pixels .* too many pixels"),
        (narrow, r"00002_00002.png should be a picture of 32 x 32 pixels .* too small"),
        (turn_grey, r"00002_00002.png should be .* in RGB, but is grey"),
        (give_to_a_test_photo, r"photo 8 has digits in both .*train and test"),
    ],
)
def test_a_damaged_svhn10k_is_refused_and_says_what_to_do(root, digits, damage, message):
    write_folder(root, *digits)
    damage(digit_path(root, 2, 2, 2))
    with pytest.raises(UserError, match=message) as told:
        load_image_set("svhn10k")
    assert "copy the folder svhn10k again" in str(told.value) and "\n" not in str(told.value)


def test_photos_that_cannot_be_kept_apart_are_refused(root, digits):
    images, labels, photos = digits
    write_folder(root, images, labels, np.where(photos < 8, 1, photos))  # 14 digits of one photo
    with pytest.raises(UserError, match="no photos of svhn10k hold 4 digits together"):
        load_image_set("svhn10k", "validation")
    assert len(load_image_set("svhn10k", "test")) == 9


def test_photos_are_counted_for_one_file_alone(root, digits):
    images, labels, photos = digits
    write_mat(root, images, np.roll(labels, 1), photos)
    with pytest.raises(UserError, match=r"first 23 labels of test_32x32.mat .* fetch that file"):
        load_image_set("svhn10k")


# ---- CelebA: a folder and lists ----


def make_celeba(root: Path) -> list[np.ndarray]:
    folder, names = root / "celeba", [f"{at:06d}.jpg" for at in range(1, 10)]
    (folder / "img_align_celeba").mkdir(parents=True)
    pictures = []
    for at, name in enumerate(names):
        flat = np.zeros((218, 178, 3), np.uint8) + np.array([25 * at, 200, 10], np.uint8)
        pictures.append(flat)
        Image.fromarray(flat).save(folder / "img_align_celeba" / name, quality=95)
    attributes = ["Smiling", "Eyeglasses", "Male"]
    rows = [[1 if (at >> bit) & 1 else -1 for bit in range(3)] for at in range(9)]

    def table(rows: list, header: str = "") -> str:
        return header + "".join(
            f"{name}  {' '.join(map(str, row))}\n" for name, row in zip(names, rows, strict=True)
        )

    (folder / "list_attr_celeba.txt").write_text(table(rows, f"9\n{' '.join(attributes)} \n"))
    (folder / "identity_CelebA.txt").write_text(table([[100 + at] for at in range(9)]))
    (folder / "list_bbox_celeba.txt").write_text(
        table([[1, 2, 3, 4]] * 9, "9\nimage_id x_1 y_1 width height\n")
    )
    points = " ".join(
        f"{part}_{axis}"
        for part in ("lefteye", "righteye", "nose", "left", "right")
        for axis in "xy"
    )
    (folder / "list_landmarks_align_celeba.txt").write_text(table([[5] * 10] * 9, f"9\n{points}\n"))
    (folder / "list_eval_partition.txt").write_text(table([[0]] * 5 + [[1]] * 2 + [[2]] * 2))
    return pictures


def test_celeba(root, monkeypatch):
    pictures = make_celeba(root)
    with pytest.raises(UserError, match=r"CelebA.*was not found, or is damaged"):
        load_image_set("celeba")
    accept_any_sum(monkeypatch, "celeba")
    found = {
        split: load_image_set("celeba", split, image_size=32)
        for split in ("train", "validation", "test")
    }
    assert {split: len(image_set) for split, image_set in found.items()} == {
        "train": 5,
        "validation": 2,
        "test": 2,
    }
    for at in range(5):
        colour = found["train"].images_u8[at].reshape(3, -1).mean(axis=1)
        assert np.abs(colour - pictures[at][0, 0]).max() <= 3
    assert found["train"].attributes["Eyeglasses"].tolist() == [False, False, True, True, False]
    assert found["validation"].attributes["identity"].tolist() == [105, 106]
    assert list(found["test"].attributes) == ["Smiling", "Eyeglasses", "Male", "identity"]


def test_a_broken_picture_of_a_published_set_costs_itself_alone(root, monkeypatch):
    make_celeba(root)
    accept_any_sum(monkeypatch, "celeba")
    (root / "celeba" / "img_align_celeba" / "000002.jpg").write_bytes(b"")
    found = load_image_set("celeba", image_size=32)
    assert found.attributes["identity"].tolist() == [100, 102, 103, 104]
    assert found.card["report"]["refused"] == {"empty file": 1}


# ---- LSUN: LMDB ----


def make_lsun(folder: Path, num: int, seed: int) -> list[np.ndarray]:
    lmdb = pytest.importorskip("lmdb")
    pictures = [noise(40, 56, 3, seed=seed + at) for at in range(num)]
    with (
        lmdb.open(str(folder), map_size=1 << 24) as database,
        database.begin(write=True) as writing,
    ):
        for at, picture in enumerate(pictures):
            writing.put(f"{at:08x}".encode(), encoded(picture, "WEBP", lossless=True))
    return pictures


@pytest.mark.parametrize("place", ["", "lsun"])
def test_lsun_bedrooms_as_torchvision_reads_them(root, tmp_path, monkeypatch, place):
    (root / place).mkdir(exist_ok=True)
    pictures = make_lsun(root / place / "bedroom_train_lmdb", 7, seed=0)
    make_lsun(root / place / "bedroom_val_lmdb", 3, seed=50)
    monkeypatch.chdir(tmp_path)
    found = load_image_set("lsun-bedrooms", image_size=40)
    assert (
        not list(tmp_path.glob("_cache_*"))
        and len(load_image_set("lsun-bedrooms", "validation")) == 3
    )
    from torchvision.datasets import LSUN

    theirs = LSUN(str(root / place), classes=["bedroom_train"])
    assert list(tmp_path.glob("_cache_*")), (
        "torchvision no longer drops its keys here: read through it again"
    )
    assert len(theirs) == len(found) == 7
    for at, picture in enumerate(pictures):
        np.testing.assert_array_equal(np.asarray(theirs[at][0]), picture)
        np.testing.assert_array_equal(found.images_u8[at], picture[:, 8:48].transpose(2, 0, 1))


def test_lsun_without_its_package_says_what_to_install(root, monkeypatch):
    (root / "bedroom_train_lmdb").mkdir()
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match="pip install lmdb"):
        load_image_set("lsun-bedrooms")


def test_an_lsun_folder_without_a_database_is_told(root):
    pytest.importorskip("lmdb")
    (root / "bedroom_train_lmdb").mkdir()
    with pytest.raises(UserError, match="LSUN bedrooms was not found, or is damaged"):
        load_image_set("lsun-bedrooms")


# ---- ImageNet: folders and the development kit ----


def make_imagenet(folder: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    wnids, words = ["n02", "n01"], ["crane, machine", "crane, bird"]
    kind = [
        ("ILSVRC2012_ID", "O"),
        ("WNID", "O"),
        ("words", "O"),
        ("gloss", "O"),
        ("num_children", "O"),
    ]
    synsets = np.array(
        [(at + 1, wnids[at], words[at], "", 0) for at in range(2)] + [(3, "n9", "all", "", 2)],
        dtype=kind,
    )
    kit, meta = io.BytesIO(), io.BytesIO()
    scipy_io.savemat(meta, {"synsets": synsets})
    with tarfile.open(fileobj=kit, mode="w:gz") as archive:
        for name, raw in (
            ("meta.mat", meta.getvalue()),
            ("ILSVRC2012_validation_ground_truth.txt", b"2\n1\n"),
        ):
            member = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    folder.mkdir()
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(kit.getvalue())
    for split, num in (("train", 4), ("val", 2)):
        for label, wnid in enumerate(sorted(wnids)):
            (folder / split / wnid).mkdir(parents=True)
            for at in range(num):
                flat = np.full((50 + at, 70, 3), 40 * at + 100 * label, np.uint8)
                Image.fromarray(flat).save(folder / split / wnid / f"{wnid}_{at}.JPEG")


def test_imagenet(root, monkeypatch):
    make_imagenet(root / "imagenet")
    with pytest.raises(UserError, match=r"ImageNet-1k.*was not found, or is damaged"):
        load_image_set("imagenet")
    accept_any_sum(monkeypatch, "imagenet")
    train, validation = load_image_set("imagenet"), load_image_set("imagenet", "validation")
    assert (
        train.class_names == ("n01 crane", "n02 crane")
        and train.labels.tolist() == [0] * 4 + [1] * 4
    )
    assert train.image_size == (32, 32) and len(validation) == 4
    means = train.images_u8.reshape(8, -1).mean(axis=1)
    np.testing.assert_allclose(means, [0, 40, 80, 120, 100, 140, 180, 220], atol=2)


# ---- what is missing, and how to get it ----


@pytest.mark.parametrize("name", [name for name in public.PUBLIC_SETS if name != "digits"])
def test_a_missing_set_says_how_to_get_it(root, name):
    if name == "lsun-bedrooms":
        pytest.importorskip("lmdb")
    how = (
        public.PUBLIC_SETS[name].page
        if not public.PUBLIC_SETS[name].can_download
        else f"'{name}', download=True"
    )
    with pytest.raises(UserError) as told:
        load_image_set(name)
    assert how in str(told.value) and str(root) in str(told.value) and "\n" not in str(told.value)


def test_nothing_is_downloaded_unasked(root, monkeypatch):
    asked = []

    def fetch(name):
        def download(self):
            asked.append(name)
            raise RuntimeError("no network")

        return download

    monkeypatch.setattr("torchvision.datasets.SVHN.download", fetch("svhn"))
    for download in (False, True):
        with pytest.raises(UserError, match="SVHN"):
            load_image_set("svhn", download=download)
    assert asked == ["svhn"]
    with pytest.raises(UserError, match="cannot be downloaded"):
        load_image_set("imagenet", download=True)


def test_an_unknown_name_lists_what_there_is(root):
    (root / "holidays").mkdir()
    with pytest.raises(UserError, match=r"known are .*mnist.*rooms.*faces64.*lie holidays"):
        load_image_set("celebra")
    assert len(set(set_names())) == len(set_names())


def test_names_are_known_in_any_case(root, drawn):
    make_mnist(root / "MNIST" / "raw")
    assert load_image_set("MNIST", "test").name == load_image_set("mnist", "test").name == "mnist"
    with pytest.raises(UserError, match=r"SVHN"):
        load_image_set("Svhn")


def test_a_cache_that_cannot_be_written_is_told(root):
    make_mnist(root / "MNIST" / "raw")
    (root / "prepared").write_text("a file where the cache should be")
    with pytest.raises(UserError, match=r"cannot write .*; set DCGAN_DATA to a folder with room"):
        load_image_set("mnist", "test")


# ---- scikit-learn's digits ----


def test_digits_come_with_scikit_learn(root):
    from sklearn.datasets import load_digits

    found = load_image_set("digits", "all")
    digits = load_digits()
    np.testing.assert_array_equal(found.images_u8[:, 0], np.rint(digits.images * 15.9375))
    np.testing.assert_array_equal(found.labels, digits.target)
    parts = [load_image_set("digits", split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [1257, 180, 360]
    assert found.images_u8.max() == 255 and load_image_set(
        "digits", image_size=16, num_images=9
    ).image_size == (16, 16)


# ---- folders ----


def make_folder(
    folder: Path, num: int = 40, side: int = 20, classes: tuple[str, ...] = ("cat", "dog")
) -> Path:
    for at in range(num):
        path = folder / classes[at % len(classes)] / f"{at}_age{18 + at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(noise(side, side, 3, seed=at)))
    return folder


def test_a_folder_by_name_and_by_path(root, tmp_path):
    make_folder(root / "pets")
    make_folder(tmp_path / "elsewhere" / "pets", num=25)
    named, by_path = (
        load_image_set("pets", image_size=20),
        load_image_set(tmp_path / "elsewhere" / "pets", image_size=20),
    )
    held = load_image_set("pets", "validation", image_size=20)
    assert named.name == by_path.name == "pets" and named.class_names == ("cat", "dog")
    assert len(named) + len(held) == 40 and len(held) and len(by_path) < 25 + 1
    assert (
        isinstance(named.images_u8, np.memmap)
        and len(load_image_set("pets", "all", image_size=20)) == 40
    )
    assert str(tmp_path) not in str(
        by_path.card
    )  # a card may be published; a machine's paths may not
    with pytest.raises(UserError, match="has the splits train, validation, all"):
        load_image_set("pets", "test", image_size=20)


def test_a_folder_that_changes_is_prepared_again_and_sizes_live_side_by_side(root):
    make_folder(root / "pets")
    assert len(load_image_set("pets", "all", image_size=20)) == 40
    assert load_image_set("pets", "all", image_size=10).image_size == (10, 10)
    make_folder(root / "pets", num=50)
    assert len(load_image_set("pets", "all", image_size=20)) == 50
    sizes = {len(load_image_set("pets", "all", image_size=side)) for side in (10, 20)}
    assert sizes == {50} and len(list((root / "prepared").glob("[!.]*"))) == 2


def test_the_cache_moves_with_the_data_folder(root, tmp_path, monkeypatch):
    make_folder(root / "pets")
    load_image_set("pets", image_size=20)
    root.rename(tmp_path / "moved")
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "moved"))
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded again"))
    load_image_set("pets", image_size=20)


def test_ages_and_sexes_of_faces64(root):
    make_folder(root / "faces64", classes=("female", "male"), side=64)
    found = load_image_set("faces64", "all")
    assert found.image_size == (64, 64) and "UTKFace" in found.card["source"]
    np.testing.assert_array_equal(found.attributes["female"], found.labels == 0)
    assert sorted(found.attributes["age"]) == list(range(18, 58))


def test_train_and_test_folders_are_splits(root):
    make_folder(root / "pets" / "train", num=10)
    make_folder(root / "pets" / "test", num=3, classes=("dog", "owl"))
    train, test = (load_image_set("pets", split, image_size=20) for split in ("train", "test"))
    assert (len(train), len(test)) == (10, 3) and isinstance(train.images_u8, np.memmap)
    assert train.class_names == test.class_names == ("cat", "dog", "owl")
    assert test.labels.tolist() == [1, 1, 2]  # one number for a class in every split
    np.testing.assert_array_equal(test.images_u8[2], noise(20, 20, 3, seed=1).transpose(2, 0, 1))
    with pytest.raises(UserError, match="has the splits train, test"):
        load_image_set("pets", "validation", image_size=20)
    # a class that happens to be called train
    make_folder(root / "rails", num=10, classes=("train", "tram"))
    assert load_image_set("rails", "all", image_size=20).class_names == ("train", "tram")


def test_a_prepared_set_by_name_and_by_path(root, tmp_path):
    made = prepare(make_folder(tmp_path / "photos"), "mine", image_size=20)
    for name in ("mine", root / "prepared" / "mine"):
        assert load_image_set(name, "all").card["cut_from"]["digest"] == made.card["digest"]
        with pytest.raises(UserError, match=r"prepared at \(20, 20\)"):
            load_image_set(name, image_size=10)
    make_folder(root / "mine", num=12)  # now there is a folder of that name to prepare from
    assert load_image_set("mine", "all", image_size=10).image_size == (10, 10)
    plain = ImageSet(name="bare", images_u8=noise(5, 1, 4, 4)).save(tmp_path / "bare")
    assert len(load_image_set(tmp_path / "bare", "all")) == len(plain)


# ---- splits and random subsets ----


def test_splits_are_views_where_they_touch(tmp_path):
    spans = {"train": [0, 5], "validation": [5, 8], "test": [8, 10]}
    whole = ImageSet(name="s", images_u8=noise(10, 1, 2, 2), card={"splits": spans}).save(
        tmp_path / "s"
    )
    assert np.shares_memory(choose_split(whole, "train+validation").images_u8, whole.images_u8)
    far = choose_split(whole, "train+test")
    np.testing.assert_array_equal(far.images_u8, whole.images_u8[[0, 1, 2, 3, 4, 8, 9]])
    assert far.card["cut_from"] == {"digest": whole.card["digest"], "images": 10}
    for wrong in ("extra", "train+train", "", "train+", "all+train"):
        with pytest.raises(UserError, match="has the splits"):
            choose_split(whole, wrong)


@pytest.mark.parametrize(
    ("name", "splits", "expected"),
    [
        ("cifar10", ("train", "validation", "test"), "validation"),
        ("svhn10k", ("train", "validation", "test"), "validation"),
        ("mnist", ("train", "validation", "test"), "test"),
        ("rooms", ("train", "validation", "test"), "test"),
        ("faces64", ("train", "validation"), "validation"),
        ("mine", ("train", "test"), "test"),
        ("mnist", ("train", "validation"), "validation"),
        ("bare", (), "validation"),  # which the one who loads it refuses
    ],
)
def test_generators_are_compared_with_one_split_of_a_set(name, splits, expected):
    assert held_out_split(name, splits) == expected


def test_the_held_out_split_is_found_for_every_kind_of_set(root, drawn, tmp_path):
    make_mnist(root / "MNIST" / "raw")
    make_folder(root / "pets")
    make_folder(root / "split" / "train")
    make_folder(root / "split" / "test", num=6)
    for name, split in (("mnist", "test"), ("pets", "validation"), ("split", "test")):
        assert load_image_set(name, "held-out", image_size=20).card["split"] == split
    assert load_image_set("rooms", "held-out", num_images=2).card["split"] == "test"
    ImageSet(name="bare", images_u8=noise(5, 1, 4, 4)).save(tmp_path / "bare")
    with pytest.raises(UserError, match="bare has the splits all"):
        load_image_set(tmp_path / "bare", "held-out")


def test_random_subsets_are_stable_and_differ_by_seed(root):
    first, again, other = (
        load_image_set("digits", num_images=100, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.images_u8, again.images_u8)
    assert not np.array_equal(first.images_u8, other.images_u8)
    assert set(first.labels) == set(range(10)) and first.card["cut_from"]["images"] == 1797
    for wrong in (0, -5, 1258):
        with pytest.raises(UserError):
            load_image_set("digits", num_images=wrong)


# ---- drawn sets ----


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Put a drawing module in the place of the rooms', which says how often it drew."""
    module = ModuleType("dcgan_lib.data.drawn.rooms")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "rooms.py").write_text("one")
    module.__file__, module.calls = str(tmp_path / "code" / "rooms.py"), []

    def draw_rooms(num_images, seed=0, *, progress=False):
        module.calls.append((num_images, seed))
        boxes = np.tile(np.array([8, 16, 24, 32], np.float32), (num_images, 1))
        boxes[0] = np.nan
        images_u8 = noise(num_images, 3, 64, 64, seed=seed)
        return ImageSet(name="rooms", images_u8=images_u8, attributes={"lamp_box": boxes})

    module.draw_rooms = draw_rooms
    monkeypatch.setitem(sys.modules, "dcgan_lib.data.drawn.rooms", module)
    return module


def test_drawn_sets_are_drawn_once(drawn, root):
    first, again = load_image_set("rooms", num_images=5), load_image_set("rooms", num_images=5)
    assert drawn.calls == [(5, 0)] and isinstance(again.images_u8, np.memmap)
    np.testing.assert_array_equal(first.images_u8, again.images_u8)
    Path(drawn.__file__).write_text("two")  # other code draws other pictures
    load_image_set("rooms", num_images=5)
    assert len(drawn.calls) == 2


def test_drawn_splits_never_share_a_seed(drawn):
    for split in ("train", "validation", "test"):
        for seed in (0, 7):
            load_image_set("rooms", split, num_images=2, seed=seed)
    assert len({seed for _, seed in drawn.calls}) == 6 and drawn.calls[0] == (2, 0)
    for wrong in ({"split": "extra"}, {"seed": 1_000_000}, {"seed": -1}, {"channels": 1}):
        with pytest.raises(UserError, match="rooms is drawn in RGB"):
            load_image_set("rooms", **wrong)


def test_drawn_sets_need_no_writable_cache(drawn, root):
    (root / "prepared").write_text("a file where the cache should be")
    assert len(load_image_set("rooms", num_images=3)) == 3


def test_boxes_follow_the_pixels(drawn):
    boxes = load_image_set("rooms", num_images=3, image_size=32).attributes["lamp_box"]
    np.testing.assert_array_equal(boxes[1], [4, 8, 12, 16])
    assert np.isnan(boxes[0]).all()
    whole = load_image_set("rooms", num_images=3)
    np.testing.assert_array_equal(
        resized(whole, (32, 64)).attributes["lamp_box"][1], [8, 0, 24, 16]
    )


@pytest.mark.parametrize("name", ["rooms", "portraits", "street-digits"])
def test_the_real_drawn_sets_come_through_the_door(name):
    found = load_image_set(name, "validation", num_images=8)
    assert len(found) == 8 and found.num_channels == 3 and found.card["split"] == "validation"
    assert not np.array_equal(found.images_u8, load_image_set(name, num_images=8).images_u8)


# ---- the real sets, where they lie ----


@pytest.mark.real_data("MNIST")
def test_real_mnist(root):
    (root / "MNIST").symlink_to(Path(REAL).resolve() / "MNIST")
    found = load_image_set("mnist", "test")
    assert len(found) == 10_000 and found.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert round(float(found.images_u8.mean()) / 255, 4) == 0.1325


@pytest.mark.real_data("cifar-10-batches-py")
def test_real_cifar10(root):
    (root / "cifar-10-batches-py").symlink_to(Path(REAL).resolve() / "cifar-10-batches-py")
    found = load_image_set("cifar10", "test")
    assert len(found) == 10_000 and found.class_names[found.labels[0]] == "cat"
    assert np.bincount(found.labels).tolist() == [1000] * 10


@pytest.mark.real_data("svhn10k")
def test_real_svhn10k(root):
    (root / "svhn10k").symlink_to(Path(REAL).resolve() / "svhn10k")
    parts = {split: load_image_set("svhn10k", split) for split in ("train", "validation", "test")}
    counts = {split: np.bincount(part.labels).tolist() for split, part in parts.items()}
    assert counts == {
        "train": [276, 777, 632, 450, 401, 356, 302, 302, 252, 252],
        "validation": [63, 211, 143, 111, 95, 94, 79, 74, 64, 66],
        "test": [345, 980, 815, 543, 468, 459, 392, 391, 305, 302],
    }
    photos = {split: part.attributes["photo"].tolist() for split, part in parts.items()}
    assert [len(set(each)) for each in photos.values()] == [2_026, 496, 2_511]
    assert len(set().union(*photos.values())) == 2_026 + 496 + 2_511, "no photo is in two splits"
    digests = [parts[split].card["cut_from"]["digest"][:16] for split in ("train", "test")]
    assert digests == ["04a92b938bc964a6", "a128dc234ba5bb5d"]
    # the table for SVHN's own file says the same of every photo, and of every label
    table = tomllib.loads(public.SVHN10K_PHOTOS.read_text())
    per_photo = np.bincount(np.concatenate(list(photos.values())))[1:].tolist()
    assert list(map(int, "".join(table["digits_per_photo"].split()))) == per_photo
    digits = sorted(Path(REAL, "svhn10k").glob("*/*/*.png"), key=lambda path: path.name)
    labels = bytes(int(path.parent.name) for path in digits)
    assert hashlib.sha256(labels).hexdigest() == table["labels_sha256"]


@pytest.mark.real_data("faces64")
def test_real_faces_are_kept_bit_for_bit(root):
    source = Path(REAL).resolve() / "faces64"
    found = prepare(source, "some", limit=200)
    assert (
        len(found) == 200
        and found.attributes["age"].min() >= 18
        and found.card["report"]["refused"] == {}
    )
    kept = json.loads((root / "prepared" / "some" / "report.json").read_text())["kept"]
    for name, image_u8 in zip(kept, found.images_u8, strict=True):
        np.testing.assert_array_equal(
            image_u8, np.asarray(Image.open(source / name)).transpose(2, 0, 1)
        )


@pytest.mark.real_data("smiles64")
def test_real_smiles_stay_grey(root):
    found = prepare(Path(REAL).resolve() / "smiles64", "some", limit=200)
    assert found.num_channels == 1 and found.class_names == ("neutral", "smiling")
