"""Read images from a folder or an archive once: decode, crop, resize, report, keep an ImageSet.

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
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
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
from dcgan_lib.data.listing import Chosen, Listing, list_images
from dcgan_lib.errors import UserError, require
from dcgan_lib.paths import atomic_write, data_root

REPORT_FILE = "report.json"
PROGRESS_FILE = ".progress.jsonl"
HELD_OUT = 0.1
AHEAD_BYTES = 2**27  # of pictures that are decoded before they are written,
AHEAD_IMAGES = 2**12  # and their number at most
BATCH = 8  # images that a thread takes at a time
HEADER_BYTES = 128  # of a .npy file of images
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
    """Prepare a source of images as ``prepared_root()/name``, or open what is already there.

    The set is memory-mapped, one split after the other. Its card counts the files refused and
    noted, by reason; report.json beside it names every file. Of two processes that prepare the same
    set, the second waits for the first. What was decoded is kept while it works: one that was
    killed goes on where it was, to the same set.

    Parameters
    ----------
    source
        A folder, a tar archive (also .tar.gz) or an LMDB, as LSUN comes. With two or more class
        folders and no image beside them, the first folder of a path is the image's class. Folders
        called train, val or test (or training, valid, validation, testing, in any case) are splits.
    name
        By default made of the folder's name, the settings and the state of its files; what was kept
        of an earlier state is then removed.
    image_size, channels, fit, min_side, max_pixels
        See `dcgan_lib.data.decode.Framing`.
    limit
        Use at most this many files, spread over the folder by the hash of their paths.
    held_out
        Share for validation, in [0, 1), of a source without split folders. A file's side depends on
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
        each file of a folder whole. What it found is kept while it works, too.
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
    if crop is not None and listing.kind != "folder":
        raise UserError(f"crops are cut out of files, but {source} is no folder: unpack it first")
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
    with new_folder(folder, resume=True) as part:
        found = _find(folder, wanted, overwrite)  # another process may have made it meanwhile
        if found is not None:
            _empty(part)
        else:
            what = listing.kind
            origin = {"source": f"the {what} {plain!r}", "licence": f"that of the {what}'s images"}
            card = {**origin, **(about or {}), **wanted}
            files = _source_of(listing, limit, held_out)
            if table is not None:
                files = replace(files, attributes=read_attributes(table, files.names))
            if crop is not None:
                files = crop.cut(files, source, crop_log, framing, num_workers, progress)
            fill(part, name or plain, files, framing, card, num_workers, progress, deduplicate)
    if crop is not None:
        crop_log.unlink(missing_ok=True)
    if stem:
        for begin in ("", "."):  # a dot: what a killed process had begun
            for earlier in prepared_root().glob(f"{begin}{glob.escape(stem)}.*"):
                if earlier != folder and earlier.is_dir():
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
    """Return the name that a set gets from its source; "" where no letter can stand in one."""
    # a decomposed letter, as some systems store it, is typed as one
    name = unicodedata.normalize("NFC", folder.resolve().name)
    name = re.sub(r"\.(tar|tar\.gz|tgz)$", "", name, flags=re.IGNORECASE)
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


def name_share(name: str, salt: str) -> float:
    """Return a number in [0, 1) that depends on ``name`` and ``salt`` alone."""
    digest = hashlib.sha256(f"{salt}\n{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6]) / 2**48


def find_splits(files: Sequence[str]) -> tuple[int, np.ndarray] | None:
    """Return how deep in the paths the split folders lie, and each file's split: n, int8.

    The number is the split's place in `SPLIT_FOLDERS`; -1: the file is in none.

    Split folders lie side by side at the top, below folders that hold everything, or inside every
    class folder. At the top, train beside validation or test is enough, and what lies beside them
    belongs to no split; further down, every path must name one. None when there are no splits.
    """
    number = {name: at for at, names in enumerate(SPLIT_FOLDERS.values()) for name in names}
    at_top = True
    for depth in range(max(name.count("/") for name in files)):
        folders = (_folder_at(name, depth) for name in files)
        numbers = (number.get(each.casefold(), -1) for each in folders)
        split_n = np.fromiter(numbers, np.int8, len(files))
        found = set(np.unique(split_n).tolist()) - {-1}
        if len(found) > 1 and (split_n.min() >= 0 or (at_top and 0 in found)):
            return depth, split_n
        at_top &= len({_folder_at(name, depth) for name in files}) == 1
    return None


def _folder_at(name: str, depth: int) -> str:
    """Return a path's folder at a depth from the top; "" where it has none."""
    folders = name.split("/")[:-1]
    return folders[depth] if depth < len(folders) else ""


def classes_of(names: Sequence[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return labels (n, int64) and class names by the first folder of each path.

    (None, ()) when an image lies outside every folder or all lie in the same one.
    """
    found: dict[str, int] = {}
    folders = (_folder_at(name, 0) for name in names)
    seen = (found.setdefault(each, len(found)) for each in folders)
    first_seen = np.fromiter(seen, np.int32, len(names))
    class_names = tuple(sorted(found, key=lambda name: (name.casefold(), name)))
    if "" in found or len(found) < 2:
        return None, ()
    label_of = {name: label for label, name in enumerate(class_names)}
    return np.array([label_of[name] for name in found])[first_seen], class_names


def attributes_from_names(names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return ``age`` (n, float32, years) and ``female`` (n, bool) where every path states both.

    The form is ``female/ANYTHING_age31.png`` and ``male/...``; {} for any other folder.
    """
    age, female = array("f"), array("b")
    for name in names:
        match = re.fullmatch(r"(female|male)/.*_age(\d{1,3})\.\w+", name)
        if not match:
            return {}
        age.append(float(match[2]))
        female.append(match[1] == "female")
    return {"age": np.array(age), "female": np.array(female, bool)} if age else {}


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


def _source_of(listing: Listing, limit: int | None, held_out: float) -> Source:
    """Return the files to use, one split after the other, each in the listing's order."""
    files, ignored, kinds = listing.names, dict(listing.ignored), list(SPLIT_FOLDERS)
    rows, depth = np.arange(len(files), dtype=np.int32), None
    split_by = f"{held_out:.0%} of the files held out, by the hash of their paths"
    if found := find_splits(files):
        depth, split_n = found
        rows = rows[split_n >= 0]
        folders = {_folder_at(files[row], depth) for row in rows}
        split_by = f"as the folders say: {', '.join(sorted(folders))}"
        if len(outside := np.flatnonzero(split_n < 0)):
            ignored["outside the folders of the splits"] = Chosen(files.__getitem__, outside)
    if limit is not None:
        share_n = _shares(Chosen(files.__getitem__, rows), "limit")
        rows = rows[np.sort(np.argsort(share_n, kind="stable")[:limit])]
    if not found:
        is_held = _shares(Chosen(files.__getitem__, rows), "held out") < held_out
        is_held &= not is_held.all()  # of one or two files: train on them
        split_n = np.zeros(len(files), np.int8)
        split_n[rows[is_held]] = kinds.index("validation")
        present = ["train", "validation"]
    else:
        present = [kind for at, kind in enumerate(kinds) if (found[1] == at).any()]
    spans, start = {}, 0
    for kind in present:
        num = int(np.count_nonzero(split_n[rows] == kinds.index(kind)))
        spans[kind] = (start, start + num)
        start += num
    rows = rows[np.argsort(split_n[rows], kind="stable")]
    names = Chosen(files.__getitem__, rows)
    paths = names
    if depth is not None:
        paths = Chosen(lambda row: _without_folder(files[row], depth), rows)
    return Source(
        names=names,
        decode_one=lambda position, framing: listing.decode_one(rows[position], framing),
        splits=spans,
        paths=paths,
        report={"splits": split_by},
        ignored=ignored,
    )


def _shares(names: Sequence[str], salt: str) -> np.ndarray:
    return np.fromiter((name_share(name, salt) for name in names), np.float64, len(names))


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
    path, num = part / IMAGES_FILE, len(source.names)
    stored = _decode_all(path, name, source, framing, card, num_workers, progress)
    if len(stored.grey_bits) > 1:  # one scale for all, or a dark image would come out bright
        framing = replace(framing, grey_bits=max(stored.grey_bits))
        stored = _decode_all(path, name, source, framing, card, num_workers, progress)
    kept = np.arange(num, dtype=np.int32)[stored.is_kept]
    duplicates: Sequence[dict[str, str]] = []
    if deduplicate is not None and len(kept):
        first = first_of_each(np.load(path, mmap_mode="r", allow_pickle=False), deduplicate)
        is_first = first == np.arange(len(first))
        _rewrite(path, np.flatnonzero(is_first))
        pairs = np.stack([kept[~is_first], kept[first[~is_first]]], axis=1)
        names, kept = source.names, kept[is_first]
        duplicates = Chosen(lambda pair: {"file": names[pair[0]], "of": names[pair[1]]}, pairs)
    report = {
        **source.report,
        "kept": Chosen(source.names.__getitem__, kept),
        "refused": [
            {"file": source.names[at], "reason": reason, "detail": detail}
            for at, reason, detail in stored.refused
        ],
        "noted": {
            note: Chosen(source.names.__getitem__, places)
            for note, places in sorted(stored.noted.items())
        },
        "ignored": source.ignored,
    }
    counts = {
        "refused": Counter(reason for _, reason, _ in stored.refused),
        "noted": {note: len(files) for note, files in stored.noted.items()},
        "ignored": {reason: len(files) for reason, files in source.ignored.items()},
    }
    counts = {kind: dict(sorted(reasons.items())) for kind, reasons in counts.items()}
    if deduplicate is not None:
        report["duplicates"] = duplicates
        counts["duplicates"] = len(duplicates)
    spare = part.parent / f"{name}.{REPORT_FILE}"
    spare.unlink(missing_ok=True)
    with open(part / REPORT_FILE if len(kept) else spare, "w", encoding="utf-8") as file:
        _write_json(file, report)
    if not len(kept):
        reasons = "; ".join(f"{num:,} x {reason}" for reason, num in counts["refused"].items())
        raise UserError(
            f"none of the {num:,} images of {name} could be used: {reasons} "
            f"(every file by name: {spare})"
        )
    if framing.channels == "auto" and stored.all_grey:
        _rewrite(path, range(len(kept)), 1)
    spans = source.spans(kept)
    card = {
        **card,
        "counts": {"images": len(kept)} | {key: end - start for key, (start, end) in spans.items()},
        "splits": spans,
        "preparation": framing.as_card(),
        "report": {**source.report, "found": num, "kept": len(kept), **counts},
    }
    paths = Chosen(source.paths.__getitem__, kept) if source.paths else []
    labels, class_names = classes_of(paths)
    if source.labels is not None:
        labels, class_names = source.labels[kept], source.class_names
    attributes = {key: values[kept] for key, values in source.attributes.items()}
    seal(part, name, class_names, labels, attributes or attributes_from_names(paths), card)
    (part / PROGRESS_FILE).unlink()


def _write_json(file: IO[str], value: Any) -> None:
    """Write JSON, a sequence item by item: no memory need hold it."""
    if isinstance(value, dict):
        brackets, items = "{}", ((json.dumps(key) + ": ", item) for key, item in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        brackets, items = "[]", (("", item) for item in value)
    else:
        file.write(json.dumps(value))
        return
    file.write(brackets[0])
    for number, (key, item) in enumerate(items):
        file.write((",\n" if number else "\n") + key)
        _write_json(file, item)
    file.write(brackets[1])


class _Stored:
    """What became of the images so far: one block after the other, as the progress file has it."""

    def __init__(self, num: int) -> None:
        self.done = 0
        self.is_kept = np.zeros(num, bool)
        self.refused: list[tuple[int, str, str]] = []
        self.noted: dict[str, array] = {}
        self.grey_bits: set[int] = set()
        self.all_grey = True

    @property
    def num_kept(self) -> int:
        return int(np.count_nonzero(self.is_kept))

    def add(self, block: dict[str, Any]) -> None:
        self.is_kept[self.done : block["done"]] = True
        self.is_kept[[at for at, *_ in block["refused"]]] = False
        self.refused += block["refused"]
        for note, places in block["noted"].items():
            self.noted.setdefault(note, array("q")).extend(places)
        self.grey_bits |= set(block["grey_bits"])
        self.all_grey &= block["all_grey"]
        self.done = block["done"]


def _empty(folder: Path, *but: str) -> None:
    for path in folder.iterdir():
        if path.name not in but:
            path.unlink()


def _read_progress(part: Path, first: str, num: int, row_bytes: int) -> _Stored:
    """Return what a stopped run had done of ``num`` images, and leave its file to be added to.

    The folder is emptied where that run began otherwise, or its images have been rewritten since.
    """
    stored, path = _Stored(num), part / PROGRESS_FILE
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    if lines[:1] == [first]:
        whole = [line for line in lines if line.endswith("\n")]
        for line in whole[1:]:
            stored.add(json.loads(line))
        if (part / IMAGES_FILE).stat().st_size >= HEADER_BYTES + stored.num_kept * row_bytes:
            _empty(part, IMAGES_FILE, PROGRESS_FILE)  # a card, say, from before its last moment
            atomic_write(path, "".join(whole))
            return stored
    _empty(part)
    atomic_write(path, first)
    (part / IMAGES_FILE).touch()
    return _Stored(num)


def _decode_all(
    path: Path,
    title: str,
    source: Source,
    framing: Framing,
    card: dict[str, Any],
    num_workers: int | None,
    progress: bool,
) -> _Stored:
    """Write the images that can be used to the .npy file ``path``, in their order.

    Only so many are decoded ahead as fit into `AHEAD_BYTES`. Decoders release the interpreter's
    lock, so threads are enough. "auto" writes RGB, for the caller to narrow. After each piece, the
    progress file says how far the images on the disk go.
    """
    num = len(source.names)
    shape = (3 if framing.channels == "auto" else framing.channels, *framing.image_size)
    row_bytes = math.prod(shape)
    ahead = min(max(AHEAD_BYTES // (BATCH * row_bytes), 1) * BATCH, AHEAD_IMAGES)
    begun_by = [card, source.report, framing.as_card(), framing.grey_bits, num]
    stored = _read_progress(path.parent, json.dumps(begun_by) + "\n", num, row_bytes)

    def decode_batch(first: int) -> list[Decoded]:
        return [source.decode_one(at, framing) for at in range(first, min(first + BATCH, num))]

    with (
        decoding(framing.max_pixels),
        ThreadPoolExecutor(num_workers) as pool,
        open(path, "r+b") as file,
        open(path.parent / PROGRESS_FILE, "a", encoding="utf-8") as log,
        tqdm(total=num, initial=stored.done, desc=title, unit="image", disable=not progress) as bar,
    ):
        _write_header(file, (0, *shape))
        file.truncate(file.seek(HEADER_BYTES + stored.num_kept * row_bytes))
        for start in range(stored.done, num, ahead):
            block = {"done": min(start + ahead, num), "refused": [], "noted": {}}
            grey_bits, all_grey = set(), True
            batches = pool.map(decode_batch, range(start, block["done"], BATCH))
            for at, decoded in enumerate(chain.from_iterable(batches), start):
                bar.update()
                for note in decoded.notes:
                    block["noted"].setdefault(note, []).append(at)
                if decoded.image_u8 is None:
                    block["refused"].append((at, decoded.reason, decoded.detail))
                    continue
                all_grey &= len(decoded.image_u8) == 1
                grey_bits |= {decoded.grey_bits} - {0}
                file.write(np.ascontiguousarray(with_channels(decoded.image_u8, shape[0])).data)
            file.flush()
            os.fsync(file.fileno())  # the images before the line that speaks of them
            block |= {"grey_bits": sorted(grey_bits), "all_grey": all_grey}
            log.write(json.dumps(block) + "\n")
            log.flush()
            stored.add(block)
        file.seek(0)
        _write_header(file, (stored.num_kept, *shape))
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
    card = {key: value for key, value in image_set.card.items() if key != "digest"}
    return replace(image_set, images_u8=images_u8, attributes=attributes, card=card)
