"""The published sets: what each is, where it is had from, and how it is split."""

import hashlib
import json
import pickle
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from dcgan_lib.data.decode import Decoded, Framing, decode_file, decoding
from dcgan_lib.data.image_set import ImageSet, new_folder
from dcgan_lib.data.listing import list_database
from dcgan_lib.data.prepare import (
    Source,
    fill,
    name_share,
    prepared_root,
    sound_or_none,
    source_of_arrays,
    source_of_files,
)
from dcgan_lib.errors import UserError
from dcgan_lib.paths import data_root

DIGITS = tuple("0123456789")
SVHN10K_PHOTOS = Path(__file__).with_name("svhn10k.toml")
_ANEW = (
    "copy the folder svhn10k again, or move it away so that the digits are read from SVHN's "
    "test_32x32.mat"
)
Spans = dict[str, tuple[int, int | None]]


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """Describe one published set."""

    title: str
    licence: str
    page: str
    files: str
    """What has to lie in the data folder."""
    image_size: tuple[int, int]
    """(height, width) when none is asked for: its own, or the paper's."""
    parts: dict[str, Spans]
    """For each part that is stored apart, its splits as (start, stop)."""
    open_part: Callable[[str, bool], Source]
    """Opens a part by its name; the flag allows a download."""
    can_download: bool = True


def load_public(
    name: str, split: str, framing: Framing, *, download: bool = False, progress: bool = False
) -> ImageSet:
    """Return the part of a published set that holds ``split``, from the cache once it is there."""
    public = PUBLIC_SETS[name]
    wanted = set(split.split("+"))
    holding = [key for key, spans in public.parts.items() if wanted <= spans.keys()]
    if split == "all" and len(public.parts) == 1:
        holding = list(public.parts)
    if not holding:
        offered = " or ".join("+".join(spans) for spans in public.parts.values())
        raise UserError(
            f"{name} has the splits {offered}; those of different parts are loaded apart; "
            f"got {split!r}"
        )
    part_name, splits = holding[0], public.parts[holding[0]]
    card = {"source": f"{public.title}, {public.page}", "licence": public.licence}
    key = json.dumps([framing.as_card(), card, list(splits.items())])
    height, width = framing.image_size
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    folder = prepared_root() / f"{name}-{part_name}.{height}x{width}.{digest}"
    if (found := sound_or_none(folder)) is not None:
        return found
    with new_folder(folder) as part:
        found = sound_or_none(folder)  # another process may have made it meanwhile
        if found is None:
            source = _open_public(name, part_name, framing.image_size, download)
            fill(part, name, replace(source, splits=splits), framing, card, progress=progress)
    return ImageSet.load(folder) if found is None else found


def _open_public(name: str, part_name: str, image_size: tuple[int, int], download: bool) -> Source:
    public = PUBLIC_SETS[name]
    if download and not public.can_download:
        raise UserError(
            f"{public.title} cannot be downloaded for you: get it from {public.page}; "
            f"expect {public.files}"
        )
    # torchvision has no exception of its own: RuntimeError for a missing set, and whatever a
    # half-written file brings, from AssertionError (MNIST) to UnpicklingError (CIFAR-10).
    try:
        source = public.open_part(part_name, download)
    except UserError:
        raise
    except (
        RuntimeError,
        OSError,
        ValueError,
        AssertionError,
        EOFError,
        LookupError,
        pickle.UnpicklingError,
    ) as error:
        code = f"from dcgan_lib import load_image_set; load_image_set('{name}', download=True)"
        how = f'run python -c "{code}"' if public.can_download else f"get it from {public.page}"
        detail = (str(error).splitlines() or ["no detail"])[0]
        raise UserError(
            f"{public.title} was not found, or is damaged, in {data_root()}: "
            f"expected {public.files}; {how} ({type(error).__name__}: {detail})"
        ) from error
    is_padded = name in ("mnist", "fashionmnist") and image_size == (32, 32)
    return _padded(source) if is_padded else source


def _padded(source: Source) -> Source:
    """Return 28x28 images as 32x32, with 2 black pixels on every side: no stroke is resampled."""

    def decode_one(position: int, framing: Framing) -> Decoded:
        image_u8 = source.decode_one(position, replace(framing, image_size=(28, 28))).image_u8
        return Decoded(image_u8=np.pad(image_u8, ((0, 0), (2, 2), (2, 2))))

    return replace(source, decode_one=decode_one)


def _root(folder: str, marker: str) -> Path:
    """Return the data folder where ``marker`` lies in it, and its subfolder otherwise."""
    return data_root() if (data_root() / marker).exists() else data_root() / folder


def open_digits(part_name: str, download: bool) -> Source:
    """Read scikit-learn's 1,797 digits, 8x8, whose 0..16 becomes 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images_u8 = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    return source_of_arrays(images_u8, labels=labels, class_names=DIGITS)


def open_mnist(kind: str, part_name: str, download: bool) -> Source:
    """Open MNIST or FashionMNIST, 28x28 grey."""
    from torchvision import datasets

    dataset = getattr(datasets, kind)(data_root(), train=part_name == "train", download=download)
    class_names = DIGITS if kind == "MNIST" else tuple(dataset.classes)
    labels = dataset.targets.numpy().astype(np.int64)
    return source_of_arrays(dataset.data.numpy()[:, None], labels=labels, class_names=class_names)


def open_cifar10(part_name: str, download: bool) -> Source:
    """Open CIFAR-10, 32x32 RGB; torchvision compares MD5 sums before it unpickles the files."""
    from torchvision.datasets import CIFAR10

    dataset = CIFAR10(data_root(), train=part_name == "train", download=download)
    labels, class_names = np.array(dataset.targets, dtype=np.int64), tuple(dataset.classes)
    images_u8 = dataset.data.transpose(0, 3, 1, 2)
    return source_of_arrays(images_u8, labels=labels, class_names=class_names)


def open_svhn(part_name: str, download: bool) -> Source:
    """Open SVHN's cropped digits, 32x32 RGB; the digit 0 has label 0."""
    from torchvision.datasets import SVHN

    dataset = SVHN(_root("svhn", f"{part_name}_32x32.mat"), split=part_name, download=download)
    labels = np.atleast_1d(dataset.labels)
    return source_of_arrays(dataset.data, labels=labels, class_names=DIGITS)


def open_svhn10k(part_name: str, download: bool) -> Source:
    """Open the first 10,000 of SVHN's test digits, 32x32 RGB, with the number of each one's photo.

    They are read from the folder ``svhn10k``, and where there is none from SVHN's own test file.
    Neighbouring crops of one photo overlap, so whole photos validate; their digits come last.
    """
    spans = PUBLIC_SETS["svhn10k"].parts[part_name]
    num = max(stop for _, stop in spans.values())
    if (folder := data_root() / "svhn10k").is_dir():
        images_u8, labels, photos = _digits_in_folder(folder, part_name, num)
    else:
        images_u8, labels, photos = _digits_in_svhn(part_name, num, download)
    first, end = spans.get("validation", (num, num))
    held = held_out_photos(photos, end - first)
    order = np.argsort(held, kind="stable")
    return source_of_arrays(
        images_u8[order],
        labels=labels[order],
        class_names=DIGITS,
        attributes={"photo": photos[order]},
    )


def held_out_photos(photos: np.ndarray, num: int) -> np.ndarray:
    """Return a mask of ``num`` rows to validate: whole photos, picked by the hash of their numbers.

    ``photos`` is the photo of each row, int64.
    """
    numbers, counts = np.unique(photos, return_counts=True)
    chosen, left = [], num
    for at in sorted(range(len(numbers)), key=lambda at: name_share(f"{numbers[at]}", "photo")):
        if counts[at] <= left:
            chosen.append(numbers[at])
            left -= counts[at]
    if left:
        raise UserError(
            f"no photos of svhn10k hold {num:,} digits together, so none can validate: {_ANEW}"
        )
    return np.isin(photos, chosen)


def _digits_in_folder(
    folder: Path, part_name: str, num: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read a part's images, labels and photos from ``PART/DIGIT/PHOTO_INDEX.png``, by index."""
    rows: dict[str, list[tuple[int, int, int, Path]]] = {"train": [], "test": []}
    for part, found in rows.items():
        for path in (folder / part).glob("[0-9]/*"):
            if match := re.fullmatch(r"(\d+)_(\d+)\.png", path.name):
                found.append((int(match[2]), int(match[1]), int(path.parent.name), path))
    if len(rows[part_name]) != num:
        raise UserError(
            f"{folder / part_name} should hold {num:,} files DIGIT/PHOTO_INDEX.png, but holds "
            f"{len(rows[part_name]):,}: {_ANEW}"
        )
    in_train, in_test = ({photo for _, photo, *_ in found} for found in rows.values())
    if shared := in_train & in_test:
        raise UserError(
            f"photo {min(shared)} has digits in both {folder / 'train'} and test, which would "
            f"test what was learnt: {_ANEW}"
        )
    framing, images_u8 = Framing(image_size=32, min_side=32, max_pixels=32 * 32), []
    _, photos, labels, paths = zip(*sorted(rows[part_name]), strict=True)
    with decoding():
        for path in paths:
            decoded = decode_file(path, framing)
            if decoded.image_u8 is None or len(decoded.image_u8) != 3:
                why = f"{decoded.reason} ({decoded.detail})" if decoded.reason else "grey"
                raise UserError(
                    f"{path} should be a picture of 32 x 32 pixels in RGB, but is {why}: {_ANEW}"
                )
            images_u8.append(decoded.image_u8)
    return np.stack(images_u8), np.array(labels, np.int64), np.array(photos, np.int64)


def _digits_in_svhn(
    part_name: str, num: int, download: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read a part's images, labels and photos from the head of SVHN's test file."""
    from torchvision.datasets import SVHN

    table = tomllib.loads(SVHN10K_PHOTOS.read_text())
    counts = [int(digit) for digit in "".join(table["digits_per_photo"].split())]
    photos = np.repeat(np.arange(1, len(counts) + 1), counts)
    dataset = SVHN(_root("svhn", "test_32x32.mat"), split="test", download=download)
    labels = np.atleast_1d(dataset.labels)[: len(photos)].astype(np.int64)
    if hashlib.sha256(labels.astype(np.uint8)).hexdigest() != table["labels_sha256"]:
        raise UserError(
            f"the first {len(photos):,} labels of test_32x32.mat in {dataset.root} are not those "
            "that svhn10k's photos were counted by: fetch that file again"
        )
    rows = slice(num) if part_name == "train" else slice(len(photos) - num, None)
    return dataset.data[: len(photos)][rows], labels[rows], photos[rows]


def open_celeba(part_name: str, download: bool) -> Source:
    """Open CelebA's aligned faces, 178x218 RGB, with 40 attributes and the person's number."""
    from torchvision.datasets import CelebA

    split = {"validation": "valid"}.get(part_name, part_name)
    dataset = CelebA(data_root(), split=split, download=download)
    folder = Path(dataset.root) / dataset.base_folder / "img_align_celeba"
    names = [name for name in dataset.attr_names if name]  # the list's header ends in a space
    attributes = dict(zip(names, dataset.attr.numpy().astype(bool).T, strict=False))
    attributes["identity"] = dataset.identity.numpy()[:, 0].astype(np.int64)
    return source_of_files([folder / name for name in dataset.filename], attributes=attributes)


def open_imagenet(part_name: str, download: bool) -> Source:
    """Open ImageNet-1k; a class is named by its WordNet id and first word, as words repeat."""
    from torchvision.datasets import ImageNet

    root = _root("imagenet", "ILSVRC2012_devkit_t12.tar.gz")
    dataset = ImageNet(root, split="train" if part_name == "train" else "val")
    class_names = tuple(
        f"{wnid} {names[0]}" for wnid, names in zip(dataset.wnids, dataset.classes, strict=True)
    )
    paths = [Path(path) for path, _ in dataset.samples]
    labels = np.array(dataset.targets, dtype=np.int64)
    return source_of_files(paths, labels=labels, class_names=class_names)


def open_lsun_bedrooms(part_name: str, download: bool) -> Source:
    """Read the LMDB as torchvision's LSUN does, but pickle no keys into the working folder.

    That file is named by the letters of the path alone, so two sets can share one and read wrong
    keys.
    """
    folder_name = f"bedroom_{'val' if part_name == 'validation' else 'train'}_lmdb"
    listing = list_database(_root("lsun", folder_name) / folder_name)
    return Source(names=listing.names, decode_one=listing.decode_one)


def _cut(num_train: int, num_validation: int) -> dict[str, Spans]:
    """Cut the last ``num_validation`` training images off for validation."""
    cut = num_train - num_validation
    return {
        "train": {"train": (0, cut), "validation": (cut, num_train)},
        "test": {"test": (0, None)},
    }


def _apart(*names: str) -> dict[str, Spans]:
    return {name: {name: (0, None)} for name in names}


PUBLIC_SETS: dict[str, PublicSet] = {
    "digits": PublicSet(
        title="Optical recognition of handwritten digits (as scikit-learn ships it)",
        licence="CC BY 4.0",
        page="https://archive.ics.uci.edu/dataset/80",
        files="nothing: it comes with scikit-learn",
        image_size=(8, 8),
        parts={"all": {"train": (0, 1257), "validation": (1257, 1437), "test": (1437, None)}},
        open_part=open_digits,
        can_download=False,
    ),
    "mnist": PublicSet(
        title="MNIST",
        licence="commonly listed as CC BY-SA 3.0 (Y. LeCun, C. Cortes, C. J. C. Burges)",
        page="https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.MNIST.html",
        files="MNIST/raw/*-ubyte",
        image_size=(28, 28),
        parts=_cut(60_000, 10_000),  # [P] a 10,000-image validation split
        open_part=partial(open_mnist, "MNIST"),
    ),
    "fashionmnist": PublicSet(
        title="FashionMNIST",
        licence="MIT (Zalando SE)",
        page="https://github.com/zalandoresearch/fashion-mnist",
        files="FashionMNIST/raw/*-ubyte",
        image_size=(28, 28),
        parts=_cut(60_000, 10_000),
        open_part=partial(open_mnist, "FashionMNIST"),
    ),
    "cifar10": PublicSet(
        title="CIFAR-10",
        licence="no explicit licence; cite A. Krizhevsky (2009)",
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        files="cifar-10-batches-py/",
        image_size=(32, 32),
        parts=_cut(50_000, 5_000),
        open_part=open_cifar10,
    ),
    "svhn": PublicSet(
        title="SVHN (cropped digits)",
        licence="non-commercial use only",
        page="http://ufldl.stanford.edu/housenumbers/",
        files="train_32x32.mat, test_32x32.mat (and extra_32x32.mat), there or in svhn/",
        image_size=(32, 32),
        parts=_cut(73_257, 10_000) | _apart("extra"),  # [P] 10,000 of the training images validate
        open_part=open_svhn,
    ),
    "svhn10k": PublicSet(
        title="svhn10k (the first 10,000 of SVHN's test digits)",
        licence="non-commercial use only",
        page="http://ufldl.stanford.edu/housenumbers/",
        files="svhn10k/{train,test}/DIGIT/PHOTO_INDEX.png, or test_32x32.mat, there or in svhn/",
        image_size=(32, 32),
        # [O] the paper had 10,000 digits to validate and 26,032 to test
        parts={
            "train": {"train": (0, 4_000), "validation": (4_000, 5_000)},
            "test": {"test": (0, 5_000)},
        },
        open_part=open_svhn10k,
    ),
    "celeba": PublicSet(
        title="CelebA (aligned)",
        licence="non-commercial research only; photographs of identifiable people",
        page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        files="celeba/img_align_celeba/ and celeba/*.txt",
        image_size=(64, 64),
        parts=_apart("train", "validation", "test"),
        open_part=open_celeba,
    ),
    "lsun-bedrooms": PublicSet(
        title="LSUN bedrooms",
        licence="no explicit licence; cite F. Yu et al. (2015)",
        page="https://github.com/fyu/lsun",
        files="bedroom_train_lmdb/ and bedroom_val_lmdb/, there or in lsun/",
        image_size=(64, 64),
        parts=_apart("train", "validation"),
        open_part=open_lsun_bedrooms,
        can_download=False,
    ),
    "imagenet": PublicSet(
        title="ImageNet-1k (ILSVRC 2012)",
        licence="non-commercial research and education only",
        page="https://image-net.org/challenges/LSVRC/2012/2012-downloads.php",
        files="the ILSVRC2012_*.tar files, or train/, val/ and meta.bin, in imagenet/",
        image_size=(32, 32),
        parts=_apart("train", "validation"),
        open_part=open_imagenet,
        can_download=False,
    ),
}
