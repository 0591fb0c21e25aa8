"""Draw bedrooms in perspective from a seed, with the truth about every one.

Legend: ``images_u8`` is N x 3 x 64 x 64 uint8 (0..255); boxes are (x0, y0, x1, y1) in pixels, x1 and y1 exclusive.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from tqdm import tqdm

from dcgan_lib.data.drawn import room_objects as furniture
from dcgan_lib.data.drawn import room_objects as parts
from dcgan_lib.data.drawn.painting import Canvas, Dice, Stage, tag_box
from dcgan_lib.data.drawn.room_objects import (
    Layout,
    Lighting,
    lit_picture,
    make_layout,
    soft_shadows,
    turned,
)
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError

SIZE = 64
PRESENCE = {"window": 0.7, "lamp": 0.5, "door": 0.4, "picture": 0.5, "bed": 0.9}
OBJECTS = tuple(PRESENCE)
# Every part of a picture has its own row of uniforms, so no choice moves another part's.
# New parts go to the end: that keeps the pictures of old seeds.
_PARTS = (
    "truth",
    "view",
    "layout",
    "light",
    "paint",
    "shell",
    "window",
    "door",
    "picture",
    "bed",
    "table",
    "lamp",
    "rug",
    "plant",
)
_UNIFORMS = 32
_NO_BOX = (np.nan,) * 4


@dataclass(frozen=True, kw_only=True)
class RoomTruth:
    """Hold what can be asked of a drawn bedroom.

    Parameters
    ----------
    window, lamp, door, picture, bed : bool
        Whether the object is there.
    wall_hue, blanket_hue : float
        Hue in [0, 0.8): 0 is red, 1/3 green, 2/3 blue. The arc from violet back to red is
        left out, so that near numbers are near colours and a plain regression can learn them.
    camera_yaw : float
        Turn of the camera in [-1, 1]: -1 looks 20 degrees to the left, 1 looks 20 degrees to the right.
    """

    window: bool
    lamp: bool
    door: bool
    picture: bool
    bed: bool
    wall_hue: float
    blanket_hue: float
    camera_yaw: float

    def __post_init__(self) -> None:
        """Check the ranges."""
        ranges = {
            "wall_hue": (0, parts.HUE_END),
            "blanket_hue": (0, parts.HUE_END),
            "camera_yaw": (-1, 1),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"{name} must lie in [{low}, {high}]; got {value}.")


def draw_rooms(num_images: int, seed: int = 0, *, progress: bool = False) -> ImageSet:
    """Draw bedrooms with the truth about each.

    Parameters
    ----------
    num_images : int
        How many, at least 1. Image i depends on the seed and i only: a shorter set is a prefix of a longer one.
    seed : int, default 0
        Not negative.
    progress : bool, default False
        Show a progress bar on stderr.

    Returns
    -------
    ImageSet
        ``images_u8`` N x 3 x 64 x 64, no labels, and in ``attributes``, each of length N:
        ``window``, ``lamp``, ``door``, ``picture``, ``bed`` (bool, independent; shares in ``PRESENCE``);
        ``window_box`` ... ``bed_box`` (N x 4 float32, pixels, the visible part, NaN where absent);
        ``wall_hue``, ``blanket_hue`` (float32 in [0, 0.8); blanket NaN where there is no bed);
        ``camera_yaw`` (float32 in [-1, 1]).

    Raises
    ------
    UserError
        When ``num_images`` is under 1 or ``seed`` is negative.

    Notes
    -----
    Our choice: the paper's bedrooms come without truth. Here a sentence such as "the windows
    are gone" can be counted.
    """
    if num_images < 1:
        raise UserError(f"num_images must be at least 1; got {num_images}.")
    images_u8 = np.empty((num_images, 3, SIZE, SIZE), np.uint8)
    boxes = np.empty((num_images, len(OBJECTS), 4), np.float32)
    truths, canvas = [], Canvas(SIZE)
    for index in tqdm(range(num_images), desc="rooms", unit="image", disable=not progress):
        chances = _chances(seed, index)
        truth = _draw_truth(chances)
        images_u8[index], boxes[index] = _render(truth, chances, canvas)
        truths.append(truth)
    return ImageSet(
        name="rooms",
        images_u8=images_u8,
        labels=None,
        class_names=(),
        attributes=_attributes(truths, boxes),
        card=_card(num_images, seed),
    )


def room_truth(index: int = 0, seed: int = 0) -> RoomTruth:
    """Return the truth of image ``index`` of ``draw_rooms(..., seed)``."""
    return _draw_truth(_chances(seed, index))


def draw_room(
    index: int = 0, seed: int = 0, **changes: bool | float
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw image ``index`` of ``draw_rooms(..., seed)`` again, with some of its truth changed.

    All else stays: with ``window=False`` the same room is drawn without its window (and
    without its light), with ``camera_yaw=0.5`` the camera turns in the same room.

    Parameters
    ----------
    index, seed : int
        Which image of which set.
    **changes
        Fields of ``RoomTruth`` with their new values.

    Returns
    -------
    image_u8 : numpy.ndarray
        3 x 64 x 64 uint8.
    boxes : dict of str to numpy.ndarray
        For each object its visible box (4 float32, pixels), NaN where it is absent.

    Raises
    ------
    UserError
        When a change names no field of ``RoomTruth`` or its value is out of range.
    """
    known = [field.name for field in fields(RoomTruth)]
    if unknown := sorted(set(changes) - set(known)):
        raise UserError(f"a room has {', '.join(known)}; got {', '.join(unknown)}.")
    chances = _chances(seed, index)
    drawn = _draw_truth(chances)
    truth = replace(drawn, **changes)
    image_u8, boxes = _render(truth, chances, Canvas(SIZE), furnished_for=drawn)
    return image_u8, dict(zip(OBJECTS, boxes, strict=True))


def _chances(seed: int, index: int) -> dict[str, list[float]]:
    """Return each part's own uniforms for one image."""
    if seed < 0 or index < 0:
        raise UserError(f"seed and index must not be negative; got seed {seed}, index {index}.")
    rows = np.random.default_rng((seed, index)).random((len(_PARTS), _UNIFORMS)).tolist()
    return dict(zip(_PARTS, rows, strict=True))


def _draw_truth(chances: dict[str, list[float]]) -> RoomTruth:
    dice = Dice(chances["truth"])
    present = {name: dice.chance(share) for name, share in PRESENCE.items()}
    return RoomTruth(
        **present,
        wall_hue=parts.draw_hue(dice),
        blanket_hue=parts.draw_hue(dice),
        camera_yaw=dice.between(-1, 1),
    )


def _render(
    truth: RoomTruth,
    chances: dict[str, list[float]],
    canvas: Canvas,
    furnished_for: RoomTruth | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture (3 x 64 x 64 uint8) and the boxes (objects x 4 float32) of one room.

    ``furnished_for`` is the truth whose view decided where things stand: this one's when None.
    """
    dice = {part: Dice(row) for part, row in chances.items()}
    layout = make_layout((furnished_for or truth).camera_yaw, dice["view"], dice["layout"])
    if furnished_for:
        layout = replace(layout, camera=turned(layout.camera, truth.camera_yaw))
    light = _draw_light(layout, dice["light"])
    stage = Stage(layout.camera, light.light_x)
    _furnish(stage, layout, truth, light, dice)
    canvas.clear()
    stage.paint(canvas)
    rgbt_hw4, tags_hw = canvas.shrink()
    shade_hw = soft_shadows(layout, light, window=truth.window, bed=truth.bed)
    image_u8 = lit_picture(
        rgbt_hw4, shade_hw, layout, light, dice["light"], window=truth.window, lamp=truth.lamp
    )
    boxes = [
        tag_box(tags_hw, parts.TAGS[name]) if getattr(truth, name) else _NO_BOX for name in OBJECTS
    ]
    return image_u8, np.array(boxes, np.float32)


def _draw_light(layout: Layout, dice: Dice) -> Lighting:
    sky, lit, across = dice.pick(parts.SKIES), dice.chance(0.8), dice.between(-0.6, 0.6)
    light_x = {"back": across, "left": -1.0, "right": 1.0}[layout.hangings.walls["window"]]
    return Lighting(sky=sky, light_x=light_x, lamp_lit=lit or sky.name == "night")


def _furnish(
    stage: Stage, layout: Layout, truth: RoomTruth, light: Lighting, dice: dict[str, Dice]
) -> None:
    """Put the room and what is in it on the stage, from back to front."""
    parts.add_shell(stage, layout, parts.paint(truth.wall_hue, dice["paint"]), dice["shell"])
    hangings, shine = layout.hangings, {"back": 0.9, "left": stage.right, "right": stage.left}
    for name, add, lights in (
        ("door", parts.add_door, shine),
        ("picture", parts.add_picture, shine),
        ("window", parts.add_window, dict.fromkeys(shine, light.sky)),
    ):
        if getattr(truth, name):
            wall, centre, size = hangings.walls[name], hangings.centres[name], hangings.sizes[name]
            add(stage, layout.plane(wall), centre, size, lights[wall], dice[name])
    furniture.add_rug(stage, layout, dice["rug"])
    furniture.add_plant(stage, layout, dice["plant"])
    if truth.bed and layout.lamp_before_bed:
        furniture.add_bed(stage, layout, truth.blanket_hue, dice["bed"])
    if not layout.lamp_tall:
        furniture.add_side_table(stage, layout, dice["table"])
    if truth.lamp:
        furniture.add_lamp(stage, layout, light.lamp_lit, dice["lamp"])
    if truth.bed and not layout.lamp_before_bed:
        furniture.add_bed(stage, layout, truth.blanket_hue, dice["bed"])


def _attributes(truths: list[RoomTruth], boxes: np.ndarray) -> dict[str, np.ndarray]:
    """Return the truths and boxes as one array per attribute."""
    attributes = {}
    for name in (field.name for field in fields(RoomTruth)):
        dtype = bool if name in OBJECTS else np.float32
        attributes[name] = np.array([getattr(truth, name) for truth in truths], dtype)
    attributes["blanket_hue"][~attributes["bed"]] = np.nan
    return attributes | {
        f"{name}_box": np.ascontiguousarray(boxes[:, k]) for k, name in enumerate(OBJECTS)
    }


def _card(num_images: int, seed: int) -> dict:
    return {
        "name": "rooms",
        "source": "drawn by dcgan_lib.data.drawn.rooms",
        "licence": "that of this project",
        "counts": {"images": num_images},
        "preparation": {"seed": seed, "image_size": SIZE, "channels": 3},
    }
