import numpy as np
import pytest

from dcgan_lib.data.drawn.room_objects import HUE_END
from dcgan_lib.data.drawn.rooms import OBJECTS, PRESENCE, draw_room, draw_rooms, room_truth
from dcgan_lib.errors import UserError


@pytest.fixture(scope="module")
def rooms():
    return draw_rooms(200, seed=3)


@pytest.fixture(scope="module")
def truths():
    return [room_truth(index, seed=11) for index in range(6000)]


def changed_pixels(first_u8, second_u8):
    """Return the 64 x 64 mask of pixels that differ by more than rounding."""
    return np.abs(first_u8.astype(int) - second_u8.astype(int)).max(0) > 2


def bounds_match(changed_hw, box, slack=1.5):
    """Say whether a box hugs the changed pixels on all four sides."""
    rows, columns = np.nonzero(changed_hw)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return bool(np.abs(found - box).max() <= slack)


def test_same_seed_same_pictures_and_other_seed_others(rooms):
    again = draw_rooms(20, seed=3)
    assert np.array_equal(again.images_u8, rooms.images_u8[:20])
    assert not np.array_equal(draw_rooms(20, seed=4).images_u8, again.images_u8)


def test_a_shorter_set_is_a_prefix_with_all_its_attributes(rooms):
    short = draw_rooms(7, seed=3)
    assert set(short.attributes) == set(rooms.attributes)
    for name, values in short.attributes.items():
        np.testing.assert_array_equal(values, rooms.attributes[name][:7], err_msg=name)


def test_form_of_the_set(rooms):
    assert rooms.images_u8.shape == (200, 3, 64, 64) and rooms.images_u8.dtype == np.uint8
    assert rooms.labels is None
    for name in OBJECTS:
        assert rooms.attributes[name].dtype == bool
        assert rooms.attributes[f"{name}_box"].shape == (200, 4)
    for name in ("wall_hue", "blanket_hue", "camera_yaw"):
        assert rooms.attributes[name].dtype == np.float32
    flat = rooms.images_u8.reshape(200, -1)
    assert len(np.unique(flat, axis=0)) == 200
    assert flat.std(1).min() > 15


def test_boxes_lie_inside_the_picture_and_only_where_the_object_is(rooms):
    for name in OBJECTS:
        boxes, present = rooms.attributes[f"{name}_box"], rooms.attributes[name]
        assert np.isnan(boxes[~present]).all() and np.isfinite(boxes[present]).all()
        x0, y0, x1, y1 = boxes[present].T
        assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 <= 64).all() and (y1 <= 64).all()
        assert ((x1 - x0) * (y1 - y0)).min() >= 20, name
    assert np.array_equal(np.isnan(rooms.attributes["blanket_hue"]), ~rooms.attributes["bed"])


def test_redrawing_without_changes_gives_the_same_room(rooms):
    for index in (0, 5, 42):
        image_u8, boxes = draw_room(index, seed=3)
        assert np.array_equal(image_u8, rooms.images_u8[index])
        for name in OBJECTS:
            np.testing.assert_array_equal(boxes[name], rooms.attributes[f"{name}_box"][index])


@pytest.mark.parametrize("name", ["door", "picture"])
def test_what_gives_no_light_changes_its_box_and_nothing_else(name):
    for index in range(25):
        with_u8, boxes = draw_room(index, seed=5, **{name: True, "bed": False, "lamp": False})
        without_u8, other = draw_room(index, seed=5, **{name: False, "bed": False, "lamp": False})
        changed_hw = changed_pixels(with_u8, without_u8)
        assert bounds_match(changed_hw, boxes[name], slack=2)
        assert not bounds_match(changed_hw, boxes[name] + 4, slack=2)
        assert np.isnan(other[name]).all()


@pytest.mark.parametrize("name", ["window", "lamp", "bed"])
def test_objects_change_their_box_far_more_than_the_rest(name):
    for index in range(25):
        with_u8, boxes = draw_room(index, seed=6, **{name: True})
        without_u8, _ = draw_room(index, seed=6, **{name: False})
        difference_hw = np.abs(with_u8.astype(float) - without_u8).mean(0)
        x0, y0, x1, y1 = boxes[name].astype(int)
        inside_hw = np.zeros((64, 64), bool)
        inside_hw[y0:y1, x0:x1] = True
        assert difference_hw[inside_hw].mean() > 2 * difference_hw[~inside_hw].mean()


def test_leaving_one_object_out_keeps_the_others_where_they_are():
    for index in range(25):
        _, full = draw_room(
            index, seed=7, window=True, door=True, picture=True, lamp=False, bed=False
        )
        _, bare = draw_room(
            index, seed=7, window=False, door=True, picture=True, lamp=False, bed=False
        )
        np.testing.assert_array_equal(full["door"], bare["door"])
        np.testing.assert_array_equal(full["picture"], bare["picture"])


def test_turning_the_camera_moves_the_room_the_other_way():
    moved = []
    for index in range(25):
        centres = []
        for yaw in (-0.3, 0.3):
            _, boxes = draw_room(index, seed=8, camera_yaw=yaw, window=True, lamp=False, bed=False)
            centres.append((boxes["window"][0] + boxes["window"][2]) / 2)
        moved.append(centres[1] - centres[0])
    assert np.nanmax(moved) < 0


def test_hues_are_what_they_say():
    for index in range(15):
        red_u8, _ = draw_room(index, seed=9, wall_hue=0.0)
        blue_u8, _ = draw_room(index, seed=9, wall_hue=0.62)
        gap = (red_u8.astype(float) - blue_u8).mean((1, 2))
        assert gap[0] > 5 and gap[2] < -5
        red_u8, _ = draw_room(index, seed=9, blanket_hue=0.0, bed=True)
        green_u8, _ = draw_room(index, seed=9, blanket_hue=0.33, bed=True)
        gap = (red_u8.astype(float) - green_u8).mean((1, 2))
        assert gap[0] > 1 and gap[1] < -1


def test_shares_of_the_objects(truths):
    for name, share in PRESENCE.items():
        found = np.mean([getattr(truth, name) for truth in truths])
        assert abs(found - share) < 4.5 * np.sqrt(share * (1 - share) / len(truths)), name


def test_attributes_are_independent_and_all_combinations_occur(truths):
    names = (*OBJECTS, "wall_hue", "blanket_hue", "camera_yaw")
    table = np.array([[float(getattr(truth, name)) for name in names] for truth in truths])
    correlation = np.corrcoef(table.T) - np.eye(len(names))
    assert np.abs(correlation).max() < 4.5 / np.sqrt(len(truths))
    assert len({tuple(row) for row in table[:, :5]}) == 32
    assert table[:, 5:7].min() >= 0 and table[:, 5:7].max() < HUE_END
    assert abs(table[:, 7].std() - 1 / np.sqrt(3)) < 0.02


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: draw_rooms(0), "num_images must be at least 1"),
        (lambda: draw_rooms(3, seed=-1), "seed must be at least 0"),
        (lambda: draw_room(0, chair=True), "got chair"),
        (lambda: draw_room(0, camera_yaw=1.5), "camera_yaw must lie in"),
        (lambda: draw_room(0, wall_hue=0.9), "wall_hue must lie in"),
    ],
)
def test_bad_calls_say_what_to_mend(call, words):
    with pytest.raises(UserError, match=words):
        call()
