"""The drawn sets' pixels and truths stay as they are: checkpoints and probes were trained on them.

The digests of the 20,000 images at seed 0 stand in the checkpoints' ``config.json``; image i
depends on the seed and on i only, so the first 500 stand for them here.
"""

import hashlib

import numpy as np
import pytest

from dcgan_lib.data.drawn.portraits import draw_portrait, draw_portraits
from dcgan_lib.data.drawn.rooms import draw_room, draw_rooms
from dcgan_lib.data.drawn.street_digits import draw_street_digits

PINNED = {
    draw_rooms: ({"4c6eb6beec860b71"}, "3ac4d4152032c1c7"),
    # the second was met on a processor without AVX-512, where some pixels are rounded otherwise
    draw_portraits: ({"1e1c20a0f9bcbd03", "283a135e69dedaa5"}, "334e53900e26780d"),
    draw_street_digits: ({"550035e97a0e67d2"}, "9cc768c408a4aedf"),
}


def digest(*arrays: np.ndarray) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(np.ascontiguousarray(array))
    return found.hexdigest()[:16]


@pytest.mark.parametrize("draw", PINNED, ids=lambda draw: draw.__name__)
def test_pictures_and_truths_are_those_of_the_checkpoints(draw):
    drawn = draw(500, seed=0)
    truths = [drawn.attributes[name] for name in sorted(drawn.attributes)]
    truths += [drawn.labels] if drawn.labels is not None else []
    pictures, told = PINNED[draw]
    assert digest(drawn.images_u8) in pictures and digest(*truths) == told


def test_changed_pictures_are_those_that_were_drawn_before():
    """The chapters change one thing in a picture: each object alone, the view, and the colours."""
    changes = [{name: True} for name in ("window", "lamp", "door", "picture", "bed")]
    changes += [{name: False} for change in changes for name in change]
    changes += [{"camera_yaw": -0.8, "bed": True}, {"wall_hue": 0.3}, {"blanket_hue": 0.7}]
    rooms = [draw_room(i, seed=7, **change) for i in range(4) for change in changes]
    boxes = [box for _, found in rooms for box in found.values()]
    faces = [
        draw_portrait(i, seed=7, **change)
        for i in range(4)
        for change in ({"smile": True}, {"hat": True, "yaw": 0.9}, {"hair_colour": "silver"})
    ]
    found = [digest(np.stack(part)) for part in ([u8 for u8, _ in rooms], boxes, faces)]
    assert found == ["012916c8699e2296", "b2d8fc92fcecb0d1", "fe9f55658f11d798"]
