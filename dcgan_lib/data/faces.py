"""Find faces in photographs and cut them out: from photographs to a set, as in section 4.2.

The paper names OpenCV's face detector and no setting of it, so those here are [O], our own; they
were chosen by `dcgan face-crops`. Photographs with known faces in known places, to measure with,
are composed at the end of the file.

Legend: grey_hw is h x w and photo_hwc h x w x 3, both uint8; a box is left, top, right, bottom in
pixels of the upright photograph, right and bottom exclusive; boxes are n x 4.
"""

import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from tqdm import tqdm

from dcgan_lib.data.decode import VERSION as DECODE_VERSION
from dcgan_lib.data.decode import Box, Decoded, Framing, decode_file, decode_grey, decoding
from dcgan_lib.data.listing import file_state
from dcgan_lib.data.prepare import Source, attributes_from_names
from dcgan_lib.errors import UserError, check_choices, check_number, require
from dcgan_lib.paths import atomic_write

Cascade = Literal["default", "alt", "alt2"]
VERSION = 1  # of the boxes: raise it when the same photograph would give others
SAME_FACE = 0.2
"""OpenCV's own: windows whose sides differ by less than this share are about one face."""
NO_FACE = "no face found"
MOVED = "crop moved or narrowed at the photograph's edge"


@dataclass(frozen=True, kw_only=True)
class Faces:
    """Hold the faces of one photograph, those with the most votes first."""

    boxes_n4: np.ndarray
    """int64; squares, as the detector gives them."""
    votes_n: np.ndarray
    """int64: how many windows of the detector's agreed on each."""

    def __len__(self) -> int:
        return len(self.votes_n)


@dataclass(frozen=True, kw_only=True)
class FaceCrops:
    """Say how faces are found and cut out; `prepare` takes it as its ``crop``."""

    cascade: Cascade = "alt2"
    """Which of OpenCV's three full detectors of frontal faces."""
    scale_factor: float = 1.1
    """From one size of the window to the next."""
    min_neighbours: int = 13
    """A face needs more votes than this: overlapping windows that each call it one. With the
    upright photograph alone, 6 does as well."""
    min_face: int = 40
    """Smallest side of a face's box that is looked for, in pixels of what the detector sees; the
    cascades know none below 20."""
    margin: float = 0.0
    """What a crop adds to the face's box on each side, as a share of the box. 0 is the box itself:
    the paper trained on "face boxes"."""
    turns: tuple[float, ...] = (-12.0, 0.0, 12.0)
    """Degrees in which the photograph is looked at, turned anticlockwise; windows of all turns vote
    together. The cascades see faces that are turned by some 10 degrees at most."""
    longest_side: int = 1600
    """A photograph with a longer side is shrunk to it before the detector sees it, so that the time
    for one is bounded. Crops are cut from the photograph at its own size."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_number(self, "scale_factor", 1.01, 2)
        for name, least in (("min_neighbours", 1), ("min_face", 20), ("longest_side", 20)):
            got = getattr(self, name)
            require(type(got) is int and got >= least, name, got, f"a whole number, from {least}")
        check_number(self, "margin", 0, 2)
        object.__setattr__(self, "turns", tuple(map(float, self.turns)))
        within = self.turns and max(map(abs, self.turns)) <= 180
        require(within, "turns", self.turns, "one or more angles of -180 to 180 degrees")

    def as_card(self) -> dict[str, Any]:
        """Return what decides the crops, as JSON holds it."""
        return {
            "cut": "faces",
            **vars(self),
            "turns": list(self.turns),
            "faces_version": VERSION,
        }

    def cut(
        self,
        files: Source,
        root: Path,
        log: Path,
        framing: Framing,
        num_workers: int | None = None,
        progress: bool = False,
    ) -> Source:
        """Return a source of one square a face, in the order of the photographs.

        A photograph without a face, and one that cannot be read, stays in it as an entry that is
        refused, so that the report names it. Each crop's name is its photograph's with the place in
        it, as in "a.jpg [10, 20, 50, 60]"; its attributes are ``photo``, the number of the
        photograph among the files, ``face``, the corners of the detector's box (n x 2 x 2), and
        ``votes``.
        """
        looks = _look_at_all(
            self, files.names, root, log, framing.max_pixels, num_workers, progress
        )
        crops = []
        for photo, look in enumerate(looks):
            for face, votes in zip(look["boxes"], look["votes"], strict=True):
                box = crop_box(face, self.margin, *look["size"])
                moved = box != crop_box(face, self.margin)
                crops.append(_Crop(photo=photo, face=face, votes=votes, box=box, moved=moved))
            if not look["boxes"]:
                crops.append(_Crop(photo=photo))

        def decode_one(position: int, framing: Framing) -> Decoded:
            crop = crops[position]
            if crop.box is None:
                look = looks[crop.photo]
                why = {"reason": look["reason"], "detail": look["detail"]}
                return Decoded(notes=tuple(look["notes"]), **why)
            found = decode_file(root / files.names[crop.photo], framing, crop.box)
            return replace(found, notes=(*found.notes, MOVED)) if crop.moved else found

        photo_n = np.array([crop.photo for crop in crops], dtype=np.int64)
        attributes = {
            "photo": photo_n,
            "face": np.array([crop.face for crop in crops], dtype=np.int64).reshape(-1, 2, 2),
            "votes": np.array([crop.votes for crop in crops], dtype=np.int64),
        }
        paths = [files.paths[at] for at in photo_n]
        counts = [len(look["boxes"]) for look in looks]
        num_with = np.count_nonzero(counts)
        found = f"{sum(counts):,} faces in {num_with:,} of {len(looks):,} photographs"
        return Source(
            names=[
                files.names[crop.photo] + (f" {list(crop.box)}" if crop.box else "")
                for crop in crops
            ],
            decode_one=decode_one,
            splits=files.spans(photo_n),
            attributes=attributes_from_names(paths) | attributes,
            paths=paths,
            report={**files.report, "crops": found, "opencv": cv2.__version__},
            ignored=files.ignored,
        )


@dataclass(frozen=True, kw_only=True)
class _Crop:
    photo: int
    face: Sequence[int] = (0, 0, 0, 0)
    votes: int = 0
    box: Box | None = None
    """Of the crop; None where the photograph has no face, or could not be read."""
    moved: bool = False


# ---------------------------------------------------------------- the detector


def find_faces(grey_hw: np.ndarray, settings: FaceCrops) -> Faces:
    """Find the frontal, about upright faces of one photograph."""
    height, width = grey_hw.shape
    shrink = min(1.0, settings.longest_side / max(height, width))
    seen_hw = grey_hw
    if shrink < 1:
        size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
        seen_hw = cv2.resize(grey_hw, size, interpolation=cv2.INTER_AREA)
    windows_n4 = face_windows(seen_hw, settings)
    faces = group_windows(windows_n4, settings.min_neighbours)
    boxes_n4 = np.rint(faces.boxes_n4 / shrink).astype(np.int64)
    return replace(faces, boxes_n4=boxes_n4.clip(0, [width, height] * 2))


def face_windows(grey_hw: np.ndarray, settings: FaceCrops) -> np.ndarray:
    """Return every window that the cascade calls a face, as boxes, m x 4: before they are grouped.

    Their order is that of their numbers, because OpenCV's own depends on its threads. A window in a
    turned photograph becomes the upright square about the same point.
    """
    windows_n4 = np.concatenate([_windows(grey_hw, settings, turn) for turn in settings.turns])
    return windows_n4[np.lexsort(windows_n4.T)]


def _windows(grey_hw: np.ndarray, settings: FaceCrops, turn: float) -> np.ndarray:
    """Return the windows in a photograph that is turned about its middle; its corners are lost."""
    height, width = grey_hw.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, 1.0)
    if turn:
        border = cv2.BORDER_REPLICATE
        grey_hw = cv2.warpAffine(grey_hw, matrix, (width, height), borderMode=border)
    cascade = _load_cascade(settings.cascade)
    least = (settings.min_face, settings.min_face)
    found = cascade.detectMultiScale(grey_hw, settings.scale_factor, 0, minSize=least)
    corner_and_size_n4 = np.array(found, dtype=np.int64).reshape(-1, 4)
    corners_n2, sizes_n2 = corner_and_size_n4[:, :2], corner_and_size_n4[:, 2:]
    if turn:
        back = cv2.invertAffineTransform(matrix)
        middles_n2 = corners_n2 + (sizes_n2 - 1) / 2
        middles_n2 = middles_n2 @ back[:, :2].T + back[:, 2]
        corners_n2 = np.rint(middles_n2 - (sizes_n2 - 1) / 2).astype(np.int64)
    return np.concatenate([corners_n2, corners_n2 + sizes_n2], axis=1)


def group_windows(windows_n4: np.ndarray, min_neighbours: int) -> Faces:
    """Make one face of windows that lie together, where they are more than ``min_neighbours``.

    This is the detector's second half, and cheap: try thresholds on the same windows.
    """
    corner_and_size_n4 = windows_n4.copy()
    corner_and_size_n4[:, 2:] -= windows_n4[:, :2]
    found = cv2.groupRectangles(corner_and_size_n4.tolist(), min_neighbours, SAME_FACE)
    boxes_n4 = np.array(found[0], dtype=np.int64).reshape(-1, 4)
    boxes_n4[:, 2:] += boxes_n4[:, :2]
    votes_n = np.array(found[1], dtype=np.int64).ravel()
    order = np.lexsort((boxes_n4[:, 0], boxes_n4[:, 1], -votes_n))
    return Faces(boxes_n4=boxes_n4[order], votes_n=votes_n[order])


def crop_box(
    face: Sequence[int], margin: float, width: int | None = None, height: int | None = None
) -> Box:
    """Return the square around a face's box.

    In a photograph of that width and height, one that would leave it is moved inside, and narrowed
    where it is larger than the photograph.
    """
    left, top, right, bottom = face
    side = round(max(right - left, bottom - top) * (1 + 2 * margin))
    inside = width is not None and height is not None
    side = min(side, width, height) if inside else side
    left, top = (left + right - side) // 2, (top + bottom - side) // 2
    if inside:
        left = min(max(left, 0), width - side)
        top = min(max(top, 0), height - side)
    return left, top, left + side, top + side


_loaded = threading.local()


def _load_cascade(name: Cascade) -> cv2.CascadeClassifier:
    """Return this thread's own detector: one cannot be shared."""
    known = vars(_loaded).setdefault("cascades", {})
    if name not in known:
        folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
        path = Path(folder, f"haarcascade_frontalface_{name}.xml")
        if not folder or not path.is_file() or not hasattr(cv2, "CascadeClassifier"):
            raise UserError(
                f"OpenCV {cv2.__version__} carries no Haar face detector: "
                'pip install "opencv-python-headless>=4.10,<5"'
            )
        known[name] = cv2.CascadeClassifier(str(path))
    return known[name]


# ---------------------------------------------------------------- a folder of photographs


def _look_at_all(
    settings: FaceCrops,
    names: Sequence[str],
    root: Path,
    log: Path,
    max_pixels: int,
    num_workers: int | None,
    progress: bool,
) -> list[dict[str, Any]]:
    """Look for faces in every file, and write each finding to ``log`` at once.

    Findings of a stopped run count where the settings are the same and the file has not changed.
    """
    _load_cascade(settings.cascade)  # a mistake is answered before the files are read
    detection = {**settings.as_card(), "max_pixels": max_pixels, "decoding": DECODE_VERSION}
    del detection["margin"]
    known = _read_log(log, {**detection, "opencv": cv2.__version__})
    stats = {name: list(file_state(root / name)) for name in names}
    done = {name: known[name] for name in names if known.get(name, {}).get("stat") == stats[name]}
    todo = [name for name in names if name not in done]
    look = partial(_look, settings, root, max_pixels)
    with (
        decoding(max_pixels),
        ThreadPoolExecutor(num_workers) as pool,
        open(log, "a", encoding="utf-8") as file,
        tqdm(todo, desc="faces", unit="photo", disable=not progress) as bar,
    ):
        # a few at a time: a run that is stopped waits for those, and no more lie in memory
        ahead = 4 * (num_workers or os.cpu_count() or 1)
        for start in range(0, len(todo), ahead):
            batch = todo[start : start + ahead]
            for name, found in zip(batch, pool.map(look, batch), strict=True):
                done[name] = {"file": name, "stat": stats[name], **found}
                file.write(json.dumps(done[name]) + "\n")
                bar.update()
            file.flush()
    return [done[name] for name in names]


def _look(settings: FaceCrops, root: Path, max_pixels: int, name: str) -> dict[str, Any]:
    """Return one file's size, faces and notes as JSON holds them, or why there are none."""
    decoded = decode_grey(root / name, max_pixels)
    found = {"size": None, "boxes": [], "votes": [], "notes": list(decoded.notes)}
    if decoded.image_u8 is None:
        return found | {"reason": decoded.reason, "detail": decoded.detail}
    grey_hw = decoded.image_u8[0]
    try:
        faces = find_faces(grey_hw, settings)
    except cv2.error as error:  # such as a side beyond what it can address
        detail = f"cv2.error: {error.err}"[:200]
        return found | {"reason": "the face detector failed", "detail": detail}
    found["size"] = [grey_hw.shape[1], grey_hw.shape[0]]
    found |= {"boxes": faces.boxes_n4.tolist(), "votes": faces.votes_n.tolist()}
    return found | {"reason": NO_FACE, "detail": ""}


def _read_log(log: Path, detection: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a log holds by file, and leave it ready to be added to.

    A log of other settings is begun anew, and a line that was cut off in the middle removed.
    """
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.is_file() else []
    first = json.dumps(detection) + "\n"
    if lines[:1] != [first]:
        atomic_write(log, first)
        return {}
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        atomic_write(log, "".join(whole))
    entries = map(json.loads, whole[1:])
    return {entry["file"]: entry for entry in entries}


# ---------------------------------------------------------------- photographs to measure with


@dataclass(frozen=True, kw_only=True, eq=False)
class Composed:
    """Hold a photograph that faces were pasted into, and where they are."""

    photo_hwc: np.ndarray
    boxes_k4: np.ndarray
    """int64: the square that each face picture has before it is turned."""
    sizes_k: np.ndarray
    """Side of each square in pixels."""
    turns_k: np.ndarray
    """Degrees that each face is turned by in the picture's plane, anticlockwise."""


FEATHER = 0.1
"""Share of a face picture's side over which its edges fade into the photograph."""


def grey_of(photo_hwc: np.ndarray) -> np.ndarray:
    """Return an RGB photograph as the detector takes it."""
    return cv2.cvtColor(photo_hwc, cv2.COLOR_RGB2GRAY)


def compose(
    background_hwc: np.ndarray,
    faces_u8: np.ndarray,
    sizes: Sequence[int],
    turns: Sequence[float],
    rng: np.random.Generator,
    grid: tuple[int, int] = (2, 2),
) -> Composed:
    """Paste k face pictures (k x 3 x h x w, square) into a photograph, one in each field of a grid.

    Each gets its size and turn and a place at random inside its field, so that none overlap. The
    fields that are used are drawn at random where there are more than faces.
    """
    (rows, columns), (high, wide) = grid, background_hwc.shape[:2]
    field_high, field_wide = high // rows, wide // columns
    if len(faces_u8) > rows * columns:
        raise UserError(
            f"{len(faces_u8)} faces need as many fields, but the grid has {rows} x {columns}: "
            "give fewer faces or a finer grid"
        )
    photo_hwc = background_hwc.copy()
    fields = rng.permutation(rows * columns)[: len(faces_u8)]
    boxes = []
    for face_u8, size, turn, chosen in zip(faces_u8, sizes, turns, fields, strict=True):
        angle = np.deg2rad(turn)
        reach = int(np.ceil(size * (abs(np.cos(angle)) + abs(np.sin(angle)))))
        if reach > min(field_high, field_wide):
            raise UserError(
                f"a face of {size} pixels turned by {turn:g} degrees needs {reach} pixels, but a "
                f"field of the grid has {field_wide} x {field_high}: "
                "give a smaller size or a larger background"
            )
        row, column = divmod(int(chosen), columns)
        left = column * field_wide + int(rng.integers(field_wide - reach + 1))
        top = row * field_high + int(rng.integers(field_high - reach + 1))
        inset = (reach - size) // 2
        box = (left + inset, top + inset, left + inset + size, top + inset + size)
        _paste(photo_hwc[top : top + reach, left : left + reach], face_u8, size, turn, inset)
        boxes.append(box)
    return Composed(
        photo_hwc=photo_hwc,
        boxes_k4=np.array(boxes, dtype=np.int64).reshape(-1, 4),
        sizes_k=np.array(sizes),
        turns_k=np.array(turns),
    )


def _paste(part_hwc: np.ndarray, face_u8: np.ndarray, size: int, turn: float, inset: int) -> None:
    """Lay a turned face picture over a square part of a photograph, which is changed."""
    face_hwc = np.ascontiguousarray(face_u8.transpose(1, 2, 0))
    smaller = size < face_hwc.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    face_hwc = cv2.resize(face_hwc, (size, size), interpolation=how)
    from_edge = np.minimum(np.arange(size) + 0.5, size - 0.5 - np.arange(size))
    ramp = np.clip(from_edge / (FEATHER * size), 0, 1).astype(np.float32)
    reach = part_hwc.shape[0]
    centre = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), turn, 1.0)
    matrix[:, 2] += inset
    target = (reach, reach)
    turned_hwc = cv2.warpAffine(face_hwc, matrix, target, borderMode=cv2.BORDER_REPLICATE)
    opaque_hw = cv2.warpAffine(np.outer(ramp, ramp), matrix, target)
    mixed_hwc = part_hwc + opaque_hw[..., None] * (turned_hwc.astype(np.float32) - part_hwc)
    part_hwc[:] = np.rint(mixed_hwc).astype(np.uint8)


def mosaic(
    images_u8: np.ndarray, height: int, width: int, tile: int, rng: np.random.Generator
) -> np.ndarray:
    """Return a picture, h x w x 3, of square images (n x 3 x h x w) drawn at random."""
    rows, columns = -(-height // tile), -(-width // tile)
    chosen = images_u8[rng.integers(len(images_u8), size=rows * columns)]
    size = (tile, tile)
    how = cv2.INTER_AREA if tile < chosen.shape[-1] else cv2.INTER_CUBIC
    tiles = [
        cv2.resize(np.ascontiguousarray(image.transpose(1, 2, 0)), size, interpolation=how)
        for image in chosen
    ]
    whole = np.stack(tiles).reshape(rows, columns, tile, tile, 3).swapaxes(1, 2)
    whole = whole.reshape(rows * tile, columns * tile, 3)
    return np.ascontiguousarray(whole[:height, :width])
