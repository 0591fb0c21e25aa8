"""Read a folder of images once: find, decode, crop, resize, report, and keep an ImageSet.

Legend: images_u8 is n x c x h x w, uint8, 0..255.
"""

import csv
import glob
import hashlib
import json
import math
import os
import re
import shutil
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from dcgan_lib.data.decode import (
    MAX_PIXELS,
    Decoded,
    Fit,
    Framing,
    decode,
    decode_file,
    decoding,
    holds_image,
    named_like_image,
    with_channels,
)
from dcgan_lib.data.deduplicate import Method, first_of_each
from dcgan_lib.data.image_set import (
    CARD_FILE,
    IMAGES_FILE,
    ImageSet,
    is_plain_name,
    new_folder,
    seal,
)
from dcgan_lib.errors import UserError, require
from dcgan_lib.paths import atomic_write, data_root

REPORT_FILE = "report.json"
HELD_OUT = 0.1
AHEAD_BYTES = 2**27  # of pictures that are decoded before they are written
BATCH = 8  # images that a thread takes at a time
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}


def prepared_root() -> Path:
    """Return the folder of prepared sets, ``data_root()/"prepared"``."""
    return data_root() / "prepared"


def prepare(
    source: str | Path,
    name: str | None = None,
    *,
    image_size: int | tuple[int, int] = 64,
    channels: str | int = "auto",
    fit: Fit = "crop",
    min_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
    limit: int | None = None,
    held_out: float = HELD_OUT,
    deduplicate: Method | None = None,
    num_workers: int | None = None,
    overwrite: bool = False,
    about: dict[str, str] | None = None,
    crop: "Crop | None" = None,
    attributes: Path | None = None,
    progress: bool = False,
) -> ImageSet:
    """Prepare the images of a folder as ``prepared_root()/name``, or open what is already there.

    The set is memory-mapped, one split after the other. Its card counts the files refused and
    noted, by reason; report.json beside it names every file. Of two processes that prepare the same
    set, the second waits for the first.

    Parameters
    ----------
    source
        With two or more class folders and no image beside them, the first folder of a path is the
        image's class. Folders called train, val or test (or training, valid, validation, testing,
        in any case) are splits.
    name
        By default made of the folder's name, the settings and the state of its files; what was kept
        of an earlier state is then removed.
    image_size, channels, fit, min_side, max_pixels
        See `dcgan_lib.data.decode.Framing`.
    limit
        Use at most this many files, spread over the folder by the hash of their paths.
    held_out
        Share for validation, in [0, 1), of a folder without split folders. A file's side depends on
        its path alone, so it stays there when others come or go.
    deduplicate
        Keep the first of images that look the same, the training split's before another's; how:
        see `dcgan_lib.data.deduplicate.first_of_each`. The report names what was left out.
    overwrite
        Replace a set of the same name that was prepared otherwise, instead of refusing.
    about
        ``source`` and ``licence`` for the card, where they are known.
    crop
        Cut images out of the files, such as `dcgan_lib.data.faces.FaceCrops`, in place of taking
        each file whole. What it found is kept while it works: a run that was stopped goes on.
    attributes
        A CSV table, ``file,smiling,glasses`` say, with a row of 0 and 1 for every image file, which
        is named by its path in the folder.
    """
    source = Path(source).expanduser()
    framing = Framing(
        image_size=image_size,
        channels=channels,
        fit=fit,
        min_side=min_side,
        max_pixels=max_pixels,
    )
    plainly = "letters, digits, '_', '-' and '.'"
    require(name is None or is_plain_name(name), "a prepared set's name", name, plainly)
    require(limit is None or limit >= 1, "limit", limit, "at least 1")
    require(0.0 <= held_out < 1.0, "held_out", held_out, "in [0, 1)")
    if attributes is not None and crop is not None:
        raise UserError("attributes are of whole files: give either attributes or a crop")
    listing = list_images(source)
    table = None if attributes is None else _text_of(attributes)
    wanted = {
        "fingerprint": listing.fingerprint,
        "limit": limit,
        "held_out": held_out,
        "preparation": framing.as_card(),
        "crop": crop and crop.as_card(),
        "deduplicate": deduplicate,
        "attributes": table and hashlib.sha256(table.encode()).hexdigest(),
    }
    plain = source.resolve().name or "folder"
    stem = None if name else _kept_name(source, wanted)
    crop_log = prepared_root() / f".{name or stem}.crops.jsonl"
    folder = prepared_root() / (name or f"{stem}.{listing.fingerprint[:8]}")
    overwrite |= name is None  # so that a damaged one is made anew
    if (found := _find(folder, wanted, overwrite)) is not None:
        return found
    with new_folder(folder) as part:
        found = _find(folder, wanted, overwrite)  # another process may have made it meanwhile
        if found is None:
            origin = {"source": f"the folder {plain!r}", "licence": "that of the folder's images"}
            card = {**origin, **(about or {}), **wanted}
            files = _source_of_folder(source, listing, limit, held_out)
            if table is not None:
                files = replace(files, attributes=read_attributes(table, files.names))
            if crop is not None:
                files = crop.cut(files, source, crop_log, framing, num_workers, progress)
            fill(part, name or plain, files, framing, card, num_workers, progress, deduplicate)
    if crop is not None:
        crop_log.unlink(missing_ok=True)
    if stem:
        for earlier in prepared_root().glob(f"{glob.escape(stem)}.*"):
            if earlier != folder:
                shutil.rmtree(earlier, ignore_errors=True)
    return ImageSet.load(folder) if found is None else found


def _find(folder: Path, wanted: dict[str, Any], overwrite: bool) -> ImageSet | None:
    """Return the set in ``folder`` if it is the wanted one, None if it has to be made."""
    if not (folder / CARD_FILE).is_file():
        return None
    found = sound_or_none(folder) if overwrite else ImageSet.load(folder)
    if found is None:
        return None
    came = {key: found.card.get(key) for key in wanted}
    if came == wanted:
        return found
    if overwrite:
        return None
    before, now = _flat(came), _flat(wanted)
    changes = [
        f"{key} {before.get(key)!r}, now {now.get(key)!r}"
        for key in now | before
        if before.get(key) != now.get(key) and key != "fingerprint"
    ]
    what = "; ".join(changes) or "the folder's files have come, gone or changed since"
    raise UserError(
        f"{folder} was prepared otherwise ({what}); "
        "allow it to be overwritten or choose another name"
    )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with those of the framing and of the crop beside the others."""
    flat = {}
    for key, value in settings.items():
        flat |= value if isinstance(value, dict) else {key: value}
    return flat


def name_of_folder(folder: Path) -> str:
    """Return the name that a set gets from its folder; "" where no letter can stand in one."""
    # a decomposed letter, as some systems store it, is typed as one
    name = unicodedata.normalize("NFC", folder.resolve().name)
    plain = "".join(letter if is_plain_name(f"_{letter}") else "-" for letter in name)
    return re.sub("-+", "-", plain).strip("-.")


def sound_or_none(folder: Path) -> ImageSet | None:
    """Open a kept set; None where there is none, or a damaged one, so that it is made anew."""
    try:
        return ImageSet.load(folder)
    except UserError:
        return None


def _kept_name(source: Path, wanted: dict[str, Any]) -> str:
    """Name a set by its folder and settings; a place inside the data folder may move with it."""
    place, root = source.resolve(), data_root().resolve()
    place = place.relative_to(root) if place.is_relative_to(root) else place
    settings = {**wanted, "fingerprint": None}
    for name in ("crop", "deduplicate", "attributes"):  # came later, and renamed no set
        if settings[name] is None:
            del settings[name]
    digest = hashlib.sha256(json.dumps([settings, place.as_posix()]).encode()).hexdigest()[:8]
    height, width = wanted["preparation"]["image_size"]
    return f"{name_of_folder(source) or 'folder'}.{height}x{width}.{digest}"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Hold what was found in a folder."""

    files: tuple[str, ...]
    """Paths of image files relative to the folder, with ``/``, in the order of their bytes."""
    ignored: dict[str, list[str]]
    fingerprint: str
    """SHA-256 of every image file's path, size and time of change."""


def list_images(folder: Path) -> Listing:
    """List the image files under ``folder``, any depth, links followed.

    A file counts when its name ends, or its content begins, as an image's does. Names that begin
    with a dot, and ``__MACOSX``, are left out.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(
            f"expected a folder of images, but {folder} {what}; "
            "give the folder that holds the files"
        )
    stats: dict[str, tuple[int, int]] = {}
    ignored: dict[str, list[str]] = defaultdict(list)
    seen: set[tuple[int, int]] = set()

    def inside(path: str) -> str:
        return os.path.relpath(path, folder).replace(os.sep, "/")

    def cannot_read(error: OSError) -> None:
        ignored[f"folder cannot be read ({error.strerror})"].append(inside(error.filename))

    with decoding():
        for place, folders, names in os.walk(folder, followlinks=True, onerror=cannot_read):
            prefix = "" if Path(place) == folder else inside(place) + "/"
            found = os.stat(place)
            if (found.st_dev, found.st_ino) in seen:
                ignored["folder seen before, through a link"].append(prefix)
                folders.clear()
                continue
            seen.add((found.st_dev, found.st_ino))
            for name in sorted(folders + names):
                path = Path(place, name)
                if name.startswith(".") or name == "__MACOSX":
                    ignored["hidden"].append(prefix + name)
                elif name in folders:
                    if named_like_image(name):
                        ignored["folder named like an image"].append(prefix + name)
                elif named_like_image(name) or (path.is_file() and holds_image(path)):
                    stats[prefix + name] = file_state(path)
                else:
                    ignored["not an image by name or content"].append(prefix + name)
            folders[:] = sorted(n for n in folders if n[0] != "." and n != "__MACOSX")
    if not stats:
        raise UserError(
            _nothing_found(folder, [name for kind in ignored.values() for name in kind])
        )
    entries = sorted(stats.items(), key=lambda entry: entry[0].split("/"))
    fingerprint = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
    files = tuple(name for name, _ in entries)
    return Listing(files=files, ignored=dict(ignored), fingerprint=fingerprint)


def file_state(path: Path) -> tuple[int, int]:
    """Return a file's size and time of change, -1 for a broken link: decoding will name it."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _nothing_found(folder: Path, others: list[str]) -> str:
    seen = "it is empty"
    if others:
        endings = Counter(os.path.splitext(name)[1].lower() or "no ending" for name in others)
        kinds = ", ".join(f"{count} x {ending}" for ending, count in endings.most_common(5))
        seen = f"it holds {len(others)} other files or folders ({kinds}), such as "
        seen += ", ".join(others[:3])
    return (
        f"found 0 images in {folder}: {seen}; "
        "expected files such as .jpg, .png or .webp, in subfolders or not"
    )


def natural_key(name: str) -> tuple:
    """Return a sorting key that puts ``2.png`` before ``10.png``, folder by folder."""
    pieces = (re.split("([0-9]+)", part.casefold()) for part in name.split("/"))
    key = [[int(p) if at % 2 else p for at, p in enumerate(part)] for part in pieces]
    return key, name


def name_share(name: str, salt: str) -> float:
    """Return a number in [0, 1) that depends on ``name`` and ``salt`` alone."""
    digest = hashlib.sha256(f"{salt}\n{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6]) / 2**48


def find_splits(files: Sequence[str]) -> tuple[int, dict[str, str]] | None:
    """Return how deep in the paths the split folders lie, and the split of each file in one.

    Split folders lie side by side at the top, below folders that hold everything, or inside every
    class folder. At the top, train beside validation or test is enough, and what lies beside them
    belongs to no split; further down, every path must name one. None when there are no splits.
    """
    split_of_folder = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}
    at_top = True
    for depth in range(max(name.count("/") for name in files)):
        folders = [(*name.split("/")[:-1], *[""] * (depth + 1))[depth] for name in files]
        splits = [split_of_folder.get(folder.casefold()) for folder in folders]
        found = {split for split in splits if split}
        if len(found) > 1 and (all(splits) or (at_top and "train" in found)):
            return depth, {name: split for name, split in zip(files, splits, strict=True) if split}
        at_top &= len(set(folders)) == 1
    return None


def classes_of(names: Sequence[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return labels (n, int64) and class names by the first folder of each path.

    (None, ()) when an image lies outside every folder or all lie in the same one.
    """
    folders = [name.split("/")[0] if "/" in name else "" for name in names]
    class_names = tuple(sorted(set(folders), key=lambda name: (name.casefold(), name)))
    if "" in class_names or len(class_names) < 2:
        return None, ()
    index = {name: label for label, name in enumerate(class_names)}
    return np.array([index[folder] for folder in folders], dtype=np.int64), class_names


def attributes_from_names(names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return ``age`` (n, float32, years) and ``female`` (n, bool) where every path states both.

    The form is ``female/ANYTHING_age31.png`` and ``male/...``; {} for any other folder.
    """
    found = [re.fullmatch(r"(female|male)/.*_age(\d{1,3})\.\w+", name) for name in names]
    if not names or not all(found):
        return {}
    return {
        "age": np.array([float(match[2]) for match in found], dtype=np.float32),
        "female": np.array([match[1] == "female" for match in found]),
    }


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"{path} cannot be read as a table of attributes ({error}): give a CSV file"
        ) from error


def read_attributes(table: str, files: Sequence[str]) -> dict[str, np.ndarray]:
    """Return what a CSV table says of each file, as bools: 1 is yes, 0 and -1 are no.

    Raises
    ------
    UserError
        If a file has no row, or a row another number of values or other ones.
    """
    first, *rows = [row for row in csv.reader(table.splitlines()) if row] or [[]]
    names = [name.strip() for name in first[1:]]
    values = {"1": True, "0": False, "-1": False}
    plain = all(is_plain_name(name) and name != "file" for name in names)
    if not names or len(set(names)) < len(names) or not plain:
        raise UserError(
            "the first row of a table of attributes is file,NAME,NAME with different names of "
            f"letters, digits, '_', '-' and '.', but got {','.join(first)!r}"
        )
    known = {file.strip(): [value.strip() for value in flags] for file, *flags in rows}
    for file, flags in known.items():
        if len(flags) != len(names) or not set(flags) <= set(values):
            raise UserError(
                f"the table of attributes gives {file} the values {', '.join(flags) or 'none'}: "
                f"write a 0 or 1 for each of {', '.join(names)}"
            )
    missing = [file for file in files if file not in known]
    if missing:
        raise UserError(
            f"the table of attributes has no row for {len(missing)} of {len(files)} images, such "
            f"as {missing[0]}: add them, by their paths in the folder"
        )
    return {
        name: np.array([values[known[file][column]] for file in files])
        for column, name in enumerate(names)
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Hold n images that can be decoded one by one, and what is known of each."""

    names: Sequence[str]
    """What each image is called in the report."""
    decode_one: Callable[[int, Framing], Decoded]
    """From a position and the framing; called from several threads."""
    splits: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """First position of each split, and the one after its last (None: the end)."""
    labels: np.ndarray | None = None
    """n, int64, into ``class_names``; None: by the folders of ``paths``."""
    class_names: tuple[str, ...] = ()
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    """Of n rows each; where there are none, by ``paths``."""
    paths: Sequence[str] = ()
    """Paths that name a class, and an age and a sex, where they have the form that says so."""
    report: dict[str, Any] = field(default_factory=dict)
    ignored: dict[str, list[str]] = field(default_factory=dict)

    def spans(self, positions: np.ndarray) -> dict[str, list[int]]:
        """Return where each split begins and ends among some positions, which ascend."""
        return {
            split: np.searchsorted(
                positions, [start, len(self.names) if stop is None else stop]
            ).tolist()
            for split, (start, stop) in self.splits.items()
        }


class Crop(Protocol):
    """What `prepare` asks of something that cuts images out of files."""

    def as_card(self) -> dict[str, Any]:
        """Return what decides the crops, as JSON holds it."""

    def cut(
        self,
        files: Source,
        root: Path,
        log: Path,
        framing: Framing,
        num_workers: int | None,
        progress: bool,
    ) -> Source:
        """Return a source of crops of the files, whose names are paths below ``root``.

        ``log`` is a file to keep what was found in; one that a stopped run left may lie there.
        """


def source_of_arrays(images_u8: np.ndarray, **known: Any) -> Source:
    """Return a source whose images lie in memory."""

    def decode_one(position: int, framing: Framing) -> Decoded:
        image_u8 = images_u8[position]
        if image_u8.shape[1:] == framing.image_size:
            return Decoded(image_u8=image_u8)
        pixels = image_u8[0] if len(image_u8) == 1 else image_u8.transpose(1, 2, 0)
        return decode(lambda: Image.fromarray(np.ascontiguousarray(pixels)), framing)

    names = [str(position) for position in range(len(images_u8))]
    return Source(names=names, decode_one=decode_one, **known)


def source_of_files(paths: Sequence[Path], **known: Any) -> Source:
    """Return a source whose images lie in files."""
    return Source(
        names=[f"{path.parent.name}/{path.name}" for path in paths],
        decode_one=lambda position, framing: decode_file(paths[position], framing),
        **known,
    )


def _source_of_folder(root: Path, listing: Listing, limit: int | None, held_out: float) -> Source:
    """Return the files to use, one split after the other, in natural order."""
    files, ignored = sorted(listing.files, key=natural_key), dict(listing.ignored)
    splits, depth = ["train", "validation"], None
    split_by = f"{held_out:.0%} of the files held out, by the hash of their paths"
    if found := find_splits(files):
        depth, split_of = found
        splits = [split for split in SPLIT_FOLDERS if split in split_of.values()]
        folders = sorted({name.split("/")[depth] for name in split_of})
        split_by = f"as the folders say: {', '.join(folders)}"
        if outside := [name for name in files if name not in split_of]:
            ignored["outside the folders of the splits"] = outside
        files = list(filter(split_of.get, files))
    if limit is not None:
        chosen = set(sorted(files, key=partial(name_share, salt="limit"))[:limit])
        files = [name for name in files if name in chosen]
    if not found:
        held = {name for name in files if name_share(name, "held out") < held_out}
        held = held if len(held) < len(files) else set()  # of one or two files: train on them
        split_of = {name: "validation" if name in held else "train" for name in files}
    ordered, spans = [], {}
    for split in splits:
        start = len(ordered)
        ordered += [name for name in files if split_of[name] == split]
        spans[split] = (start, len(ordered))
    return Source(
        names=ordered,
        decode_one=lambda position, framing: decode_file(root / ordered[position], framing),
        splits=spans,
        paths=ordered if depth is None else [_without_folder(name, depth) for name in ordered],
        report={"splits": split_by},
        ignored=ignored,
    )


def _without_folder(name: str, depth: int) -> str:
    parts = name.split("/")
    return "/".join(parts[:depth] + parts[depth + 1 :])


def fill(
    part: Path,
    name: str,
    source: Source,
    framing: Framing,
    card: dict[str, Any],
    num_workers: int | None = None,
    progress: bool = False,
    deduplicate: Method | None = None,
) -> None:
    """Decode a source into the folder ``part``: images, report, labels and, last, the card.

    When no image can be used, the report that names each lies beside the folder.
    """
    path = part / IMAGES_FILE
    stored = _decode_all(path, name, source, framing, num_workers, progress)
    if len(stored.grey_bits) > 1:  # one scale for all, or a dark image would come out bright
        framing = replace(framing, grey_bits=max(stored.grey_bits))
        stored = _decode_all(path, name, source, framing, num_workers, progress)
    duplicates: list[dict[str, str]] = []
    if deduplicate is not None and stored.kept:
        duplicates = _drop_duplicates(path, source.names, stored, deduplicate)
    report = {
        **source.report,
        "kept": [source.names[at] for at in stored.kept],
        "refused": stored.refused,
        "noted": dict(sorted(stored.noted.items())),
        "ignored": source.ignored,
    }
    counts = {
        "refused": Counter(entry["reason"] for entry in stored.refused),
        "noted": {note: len(files) for note, files in stored.noted.items()},
        "ignored": {reason: len(files) for reason, files in source.ignored.items()},
    }
    counts = {kind: dict(sorted(reasons.items())) for kind, reasons in counts.items()}
    if deduplicate is not None:
        report["duplicates"] = duplicates
        counts["duplicates"] = len(duplicates)
    spare = part.parent / f"{name}.{REPORT_FILE}"
    spare.unlink(missing_ok=True)
    atomic_write(part / REPORT_FILE if stored.kept else spare, json.dumps(report, indent=0))
    if not stored.kept:
        reasons = "; ".join(f"{num:,} x {reason}" for reason, num in counts["refused"].items())
        raise UserError(
            f"none of the {len(source.names):,} images of {name} could be used: {reasons} "
            f"(every file by name: {spare})"
        )
    if framing.channels == "auto" and stored.all_grey:
        _rewrite(path, range(len(stored.kept)), 1)
    kept = np.array(stored.kept)
    spans = source.spans(kept)
    card = {
        **card,
        "counts": {"images": len(kept)} | {key: end - start for key, (start, end) in spans.items()},
        "splits": spans,
        "preparation": framing.as_card(),
        "report": {**source.report, "found": len(source.names), "kept": len(kept), **counts},
    }
    paths = [source.paths[at] for at in kept] if source.paths else []
    labels, class_names = classes_of(paths)
    if source.labels is not None:
        labels, class_names = source.labels[kept], source.class_names
    attributes = {key: values[kept] for key, values in source.attributes.items()}
    seal(part, name, class_names, labels, attributes or attributes_from_names(paths), card)


def _drop_duplicates(
    path: Path, names: Sequence[str], stored: "_Stored", method: Method
) -> list[dict[str, str]]:
    """Leave the first of images that look the same in the .npy file; name the others."""
    first = first_of_each(np.load(path, mmap_mode="r", allow_pickle=False), method)
    is_first = first == np.arange(len(first))
    _rewrite(path, np.flatnonzero(is_first))
    kept = np.array(stored.kept)
    stored.kept = kept[is_first].tolist()
    others = zip(kept[~is_first], kept[first[~is_first]], strict=True)
    return [{"file": names[other], "of": names[one]} for other, one in others]


@dataclass(kw_only=True)
class _Stored:
    kept: list[int] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    noted: dict[str, list[str]] = field(default_factory=dict)
    grey_bits: set[int] = field(default_factory=set)
    all_grey: bool = True


def _decode_all(
    path: Path,
    title: str,
    source: Source,
    framing: Framing,
    num_workers: int | None,
    progress: bool,
) -> _Stored:
    """Write the images that can be used to the .npy file ``path``, in their order.

    Only so many are decoded ahead as fit into `AHEAD_BYTES`. Decoders release the interpreter's
    lock, so threads are enough. "auto" writes RGB, for the caller to narrow.
    """
    stored, num = _Stored(), len(source.names)
    shape = (3 if framing.channels == "auto" else framing.channels, *framing.image_size)
    ahead = max(AHEAD_BYTES // (BATCH * math.prod(shape)), 1) * BATCH

    def decode_batch(first: int) -> list[Decoded]:
        return [source.decode_one(at, framing) for at in range(first, min(first + BATCH, num))]

    with (
        decoding(framing.max_pixels),
        ThreadPoolExecutor(num_workers) as pool,
        open(path, "wb") as file,
        tqdm(total=num, desc=title, unit="image", disable=not progress) as bar,
    ):
        _write_header(file, (0, *shape))
        for start in range(0, num, ahead):
            batches = pool.map(decode_batch, range(start, min(start + ahead, num), BATCH))
            for at, decoded in enumerate(chain.from_iterable(batches), start):
                bar.update()
                name = source.names[at]
                for note in decoded.notes:
                    stored.noted.setdefault(note, []).append(name)
                if decoded.image_u8 is None:
                    why = {"reason": decoded.reason, "detail": decoded.detail}
                    stored.refused.append({"file": name, **why})
                    continue
                stored.kept.append(at)
                stored.all_grey &= len(decoded.image_u8) == 1
                stored.grey_bits |= {decoded.grey_bits} - {0}
                file.write(np.ascontiguousarray(with_channels(decoded.image_u8, shape[0])).data)
        file.seek(0)
        _write_header(file, (len(stored.kept), *shape))
    return stored


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    """Write the head of a .npy file; NumPy pads it so that the first axis can grow in place."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _rewrite(path: Path, rows: Sequence[int], num_channels: int | None = None) -> None:
    """Leave only some images in a .npy file, and of each the first channels; None: all."""
    images_u8 = np.load(path, mmap_mode="r", allow_pickle=False)[:, :num_channels]
    part = path.with_name("part.npy")
    with open(part, "wb") as file:
        _write_header(file, (len(rows), *images_u8.shape[1:]))
        for row in rows:
            file.write(np.ascontiguousarray(images_u8[row]).data)
    os.replace(part, path)


def resized(image_set: ImageSet, image_size: tuple[int, int]) -> ImageSet:
    """Return an image set at another size, scaled and cropped; n x 4 boxes follow the pixels."""
    if image_size == image_set.image_size:
        return image_set
    source, framing = source_of_arrays(image_set.images_u8), Framing(image_size=image_size)
    images_u8 = np.empty((len(image_set), image_set.num_channels, *image_size), dtype=np.uint8)
    for position in range(len(image_set)):
        images_u8[position] = source.decode_one(position, framing).image_u8
    (height, width), (high, wide) = image_size, image_set.image_size
    scale = min(high / height, wide / width)
    corner = np.array([(wide - width * scale) / 2, (high - height * scale) / 2] * 2)
    attributes = {
        key: ((values - corner) / scale).astype(np.float32) if values.shape[1:] == (4,) else values
        for key, values in image_set.attributes.items()
    }
    origin = {"digest": image_set.card.get("digest"), "images": len(image_set)}
    card = {"cut_from": origin} | image_set.card
    card.pop("digest", None)
    return replace(image_set, images_u8=images_u8, attributes=attributes, card=card)
