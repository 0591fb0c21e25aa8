"""Read the published sets, through torchvision's own classes, which check what they read.

Legend: images_u8 is n x c x h x w, uint8, 0..255.
"""

import io
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from dcgan_lib.data.decode import Decoded, Framing, decode, open_image
from dcgan_lib.data.parts import Part, describe_by, part_of_arrays, part_of_files
from dcgan_lib.errors import UserError
from dcgan_lib.paths import data_root

DIGITS = tuple("0123456789")


def _root(folder: str, marker: str) -> Path:
    """Return the data folder itself where ``marker`` lies in it, and its subfolder ``folder`` otherwise."""
    return data_root() if (data_root() / marker).exists() else data_root() / folder


def padded(part: Part) -> Part:
    """Return 28x28 images as 32x32, with 2 black pixels on every side."""

    def decode_one(position: int, framing: Framing) -> Decoded:
        image_u8 = part.decode_one(position, replace(framing, image_size=(28, 28))).image_u8
        return Decoded(image_u8=np.pad(image_u8, ((0, 0), (2, 2), (2, 2))))

    return replace(part, decode_one=decode_one)


def open_digits(part_name: str, download: bool) -> Part:
    """Read scikit-learn's 1,797 digits, 8x8, whose 0..16 becomes 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images_u8 = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return part_of_arrays(images_u8, digits.target.astype(np.int64), DIGITS)


def open_mnist(kind: str, part_name: str, download: bool) -> Part:
    """Open MNIST or FashionMNIST, 28x28 grey."""
    from torchvision import datasets

    dataset = getattr(datasets, kind)(data_root(), train=part_name == "train", download=download)
    class_names = DIGITS if kind == "MNIST" else tuple(dataset.classes)
    labels = dataset.targets.numpy().astype(np.int64)
    return part_of_arrays(dataset.data.numpy()[:, None], labels, class_names=class_names)


def open_cifar10(part_name: str, download: bool) -> Part:
    """Open CIFAR-10, 32x32 RGB; torchvision compares the files' MD5 sums before it unpickles them."""
    from torchvision.datasets import CIFAR10

    dataset = CIFAR10(data_root(), train=part_name == "train", download=download)
    labels = np.array(dataset.targets, dtype=np.int64)
    return part_of_arrays(dataset.data.transpose(0, 3, 1, 2), labels, class_names=tuple(dataset.classes))


def open_svhn(part_name: str, download: bool) -> Part:
    """Open SVHN's cropped digits, 32x32 RGB; the digit 0 has label 0."""
    from torchvision.datasets import SVHN

    dataset = SVHN(_root("svhn", f"{part_name}_32x32.mat"), split=part_name, download=download)
    return part_of_arrays(dataset.data, np.atleast_1d(dataset.labels), class_names=DIGITS)


def open_celeba(part_name: str, download: bool) -> Part:
    """Open CelebA's aligned faces, 178x218 RGB, with 40 bool attributes and the person's number."""
    from torchvision.datasets import CelebA

    split = {"validation": "valid"}.get(part_name, part_name)
    dataset = CelebA(data_root(), split=split, download=download)
    folder = Path(dataset.root) / dataset.base_folder / "img_align_celeba"
    names = [name for name in dataset.attr_names if name]  # the list's header ends in a space
    values = dataset.attr.numpy().astype(bool)
    attributes: dict[str, np.ndarray] = {name: values[:, column] for column, name in enumerate(names)}
    attributes["identity"] = dataset.identity.numpy()[:, 0].astype(np.int64)
    return part_of_files([folder / name for name in dataset.filename], attributes=attributes)


def open_imagenet(part_name: str, download: bool) -> Part:
    """Open ImageNet-1k; class names are the WordNet id and its first word, which alone is not unique."""
    from torchvision.datasets import ImageNet

    dataset = ImageNet(
        _root("imagenet", "ILSVRC2012_devkit_t12.tar.gz"), split="val" if part_name != "train" else "train"
    )
    class_names = tuple(f"{wnid} {names[0]}" for wnid, names in zip(dataset.wnids, dataset.classes, strict=True))
    labels = np.array(dataset.targets, dtype=np.int64)
    return part_of_files([Path(path) for path, _ in dataset.samples], labels, class_names=class_names)


def open_lsun_bedrooms(part_name: str, download: bool) -> Part:
    """Read the LMDB as torchvision's LSUN does, without the pickle of keys it drops in the working directory.

    That file is named by the letters of the path alone, so two sets can share one and read wrong keys.
    """
    try:
        import lmdb
    except ImportError as error:
        raise UserError("LSUN is an LMDB database, which needs the lmdb package: run pip install lmdb") from error
    folder_name = f"bedroom_{'val' if part_name == 'validation' else 'train'}_lmdb"
    folder = _root("lsun", folder_name) / folder_name
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder_name}")
    try:
        database = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
        with database.begin() as reading:
            keys = list(reading.cursor().iternext(keys=True, values=False))
    except lmdb.Error as error:
        raise OSError(str(error)) from error

    def decode_one(position: int, framing: Framing) -> Decoded:
        with database.begin() as reading:
            raw = reading.get(keys[position])
        return decode(partial(open_image, io.BytesIO(raw)), framing)

    names = [key.decode("ascii", "replace") for key in keys]
    return Part(names=names, decode_one=decode_one, describe=describe_by(None))
