"""Faces from photographs: composed with generated faces, since no real one is committed."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from dcgan_lib.cli import main
from dcgan_lib.data import faces as module
from dcgan_lib.data.decode import Framing, decode_file, decode_grey
from dcgan_lib.data.faces import (
    MOVED,
    NO_FACE,
    FaceCrops,
    compose,
    crop_box,
    face_windows,
    find_faces,
    grey_of,
    group_windows,
    mosaic,
)
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.load import load_image_set
from dcgan_lib.data.prepare import Source, prepare
from dcgan_lib.errors import UserError
from dcgan_lib.training.checkpoints import draw

BOX = st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 60)] * 2)


@pytest.fixture(scope="module")
def generated() -> np.ndarray:
    """Faces that the committed generator draws."""
    return draw("faces", 16, seed=0)


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    return tmp_path / "data"


def plain_photo(height: int = 240, width: int = 320) -> np.ndarray:
    """Return a smooth picture in which nothing looks like a face."""
    y, x = np.mgrid[0:height, 0:width]
    return np.dstack([80 + x * 60 // width, 100 + y * 40 // height, x * 0 + 120]).astype(np.uint8)


def photo_with(faces_u8: np.ndarray, seed: int = 0, size: int = 96, **options) -> module.Composed:
    num = len(faces_u8)
    rng = np.random.default_rng(seed)
    return compose(plain_photo(), faces_u8, [size] * num, [0] * num, rng, **options)


def save(path: Path, pixels: np.ndarray | Image.Image, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def report_of(data_folder: Path, name: str) -> dict:
    return json.loads((data_folder / "prepared" / name / "report.json").read_text())


def origin_of(name: str) -> tuple[str, tuple[int, ...]]:
    """Return a photograph's path and a crop's box from its name in the report."""
    path, _, box = name.rpartition(" [")
    return path, tuple(int(side) for side in box.removesuffix("]").split(","))


def overlap(one, other) -> float:
    shared = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(shared.clip(min=0).prod())
    areas = [float((box[2:] - box[:2]).prod()) for box in (one, other)]
    return shared / (sum(areas) - shared)


# ---- the detector ----


def test_generated_faces_are_found_where_they_were_pasted(generated):
    num_found = 0
    for seed, face_u8 in enumerate(generated[:8]):
        composed = photo_with(face_u8[None], seed)
        faces = find_faces(grey_of(composed.photo_hwc), FaceCrops())
        assert len(faces) <= 1
        num_found += any(overlap(box, composed.boxes_k4[0]) > 0.5 for box in faces.boxes_n4)
    assert num_found >= 6
    assert not len(find_faces(grey_of(plain_photo()), FaceCrops()))


def test_grouping_equals_opencvs_own_and_does_not_depend_on_the_order(generated):
    grey_hw = grey_of(photo_with(generated[:2]).photo_hwc)
    chosen = FaceCrops(min_neighbours=4, turns=(0,))
    file = f"haarcascade_frontalface_{chosen.cascade}.xml"
    cascade = cv2.CascadeClassifier(os.path.join(cv2.data.haarcascades, file))
    own = cascade.detectMultiScale(grey_hw, chosen.scale_factor, 4, minSize=(40, 40))
    own_n4 = np.array(own)
    own_n4[:, 2:] += own_n4[:, :2]
    faces = find_faces(grey_hw, chosen)
    assert sorted(faces.boxes_n4.tolist()) == sorted(own_n4.tolist())
    windows_n4 = face_windows(grey_hw, chosen)
    mixed = np.random.default_rng(0).permutation(windows_n4)
    again = group_windows(mixed[np.lexsort(mixed.T)], 4)
    assert again.boxes_n4.tolist() == faces.boxes_n4.tolist()


def test_a_higher_threshold_keeps_those_with_more_votes(generated):
    windows_n4 = face_windows(grey_of(photo_with(generated[:2]).photo_hwc), FaceCrops())
    few, many = group_windows(windows_n4, 2), group_windows(windows_n4, 5_000)
    assert len(few) >= 1 and (few.votes_n > 2).all() and not len(many)
    assert (np.diff(few.votes_n) <= 0).all()


def test_a_large_photograph_is_looked_at_smaller_and_its_boxes_fit_it(generated):
    composed = photo_with(generated[:1])
    big_hw = np.kron(grey_of(composed.photo_hwc), np.ones((4, 4), np.uint8))
    near = find_faces(big_hw, FaceCrops(longest_side=320))
    assert len(near) == 1
    assert overlap(near.boxes_n4[0] / 4, composed.boxes_k4[0]) > 0.5


def test_a_turned_face_is_found_in_a_photograph_that_is_turned_back(generated):
    num_upright = num_turned = 0
    for seed, face_u8 in enumerate(generated[:8]):
        rng = np.random.default_rng(seed)
        composed = compose(plain_photo(), face_u8[None], [96], [30], rng, grid=(1, 2))
        grey_hw = grey_of(composed.photo_hwc)
        num_upright += len(find_faces(grey_hw, FaceCrops(turns=(0,))))
        turned = find_faces(grey_hw, FaceCrops(turns=(-30,)))
        num_turned += any(overlap(box, composed.boxes_k4[0]) > 0.5 for box in turned.boxes_n4)
    assert num_upright <= 2 and num_turned >= 6


def test_windows_of_several_turns_vote_together(generated):
    grey_hw = grey_of(photo_with(generated[:1]).photo_hwc)
    one, other = (face_windows(grey_hw, FaceCrops(turns=(turn,))) for turn in (0, 8))
    both = face_windows(grey_hw, FaceCrops(turns=(0, 8)))
    assert len(both) == len(one) + len(other) > len(one) > 0


@given(face=BOX, margin=st.floats(0, 2), size=st.tuples(*[st.integers(130, 200)] * 2))
@settings(max_examples=100)
def test_a_crop_is_a_square_inside_the_photograph_around_the_face(face, margin, size):
    width, height = size
    left, top, wide, high = face
    box = crop_box((left, top, left + wide, top + high), margin, width, height)
    assert min(box) >= 0 and box[2] <= width and box[3] <= height
    assert box[2] - box[0] == box[3] - box[1] >= max(wide, high)
    assert box[0] <= left and box[1] <= top and box[2] >= left + wide and box[3] >= top + high


def test_a_margin_widens_the_box_on_every_side():
    assert crop_box((100, 100, 140, 140), 0) == (100, 100, 140, 140)
    assert crop_box((100, 100, 140, 140), 0.25) == (90, 90, 150, 150)
    assert crop_box((2, 100, 42, 140), 0.25, 400, 400) == (0, 90, 60, 150)  # moved
    assert crop_box((10, 10, 50, 50), 1, 60, 80) == (0, 0, 60, 60)  # narrowed


@pytest.mark.parametrize(
    "wrong",
    [
        {"cascade": "alt3"},
        {"scale_factor": 1.0},
        {"min_neighbours": 0},
        {"min_face": 8},
        {"min_face": 40.5},
        {"margin": -0.1},
        {"turns": ()},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        FaceCrops(**wrong)


def test_an_opencv_without_the_detector_is_named(monkeypatch):
    monkeypatch.setattr(cv2.data, "haarcascades", "/nowhere/")
    with (
        ThreadPoolExecutor(1) as pool,  # a new thread, which has loaded none yet
        pytest.raises(UserError, match="opencv-python-headless"),
    ):
        pool.submit(find_faces, grey_of(plain_photo()), FaceCrops()).result()


# ---- part of a file ----


def test_a_box_is_cut_from_the_upright_photograph(tmp_path):
    upright = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    stored = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    stored.getexif()[ExifTags.Base.Orientation] = 6
    path = save(tmp_path / "a.png", stored, exif=stored.getexif())
    cut = decode_file(path, Framing(image_size=16), (30, 10, 46, 26))
    np.testing.assert_array_equal(cut.image_u8, upright[10:26, 30:46].transpose(2, 0, 1))
    whole = decode_grey(path)
    expected = np.asarray(Image.fromarray(upright).convert("L"))
    np.testing.assert_array_equal(whole.image_u8[0], expected)


def test_the_size_that_is_asked_for_is_that_of_the_cut(tmp_path):
    path = save(tmp_path / "a.png", plain_photo())
    framing = Framing(image_size=64, min_side=33)
    assert decode_file(path, framing, (0, 0, 32, 32)).reason == "too small"
    assert decode_file(path, framing, (0, 0, 33, 33)).image_u8 is not None


# ---- a folder ----


@pytest.fixture
def folder(tmp_path, generated) -> Path:
    """A messy folder: faces in every kind of file, files without, broken ones."""
    photos = tmp_path / "photos"
    one = photo_with(generated[:1], 1).photo_hwc
    save(photos / "one.png", one)
    save(photos / "two.jpg", photo_with(generated[1:3], 2, grid=(1, 2)).photo_hwc, quality=95)
    save(photos / "grey.png", Image.fromarray(one).convert("L"))
    save(photos / "cmyk.jpg", Image.fromarray(one).convert("CMYK"), quality=95)
    deep = np.asarray(Image.fromarray(one).convert("L")).astype(np.uint16) * 257
    save(photos / "deep.png", Image.fromarray(deep))
    turned = Image.fromarray(one).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[ExifTags.Base.Orientation] = 6
    save(photos / "turned.jpg", turned, exif=turned.getexif(), quality=95)
    save(photos / "empty-room.png", plain_photo())
    save(photos / "dot.png", plain_photo(1, 1))
    save(photos / "huge.png", Image.new("L", (3000, 300)))
    (photos / "corrupt.jpg").write_bytes((photos / "two.jpg").read_bytes()[:1500])
    (photos / "text.jpg").write_text("no image at all")
    (photos / "nothing.png").touch()
    (photos / "notes.txt").write_text("a file beside")
    return photos


SAME_FACE = ("cmyk.jpg", "deep.png", "grey.png", "one.png", "turned.jpg")


def prepare_faces(folder: Path, name: str = "crops", **options) -> ImageSet:
    options = {"image_size": 64, "held_out": 0.0, "crop": FaceCrops()} | options
    return prepare(folder, name, max_pixels=500_000, **options)


def test_a_messy_folder_becomes_a_set_and_a_report(folder, data_folder):
    image_set = prepare_faces(folder)
    report = report_of(data_folder, "crops")
    origins = [origin_of(name) for name in report["kept"]]
    assert sorted(path for path, _ in origins) == sorted([*SAME_FACE, "two.jpg", "two.jpg"])
    assert image_set.images_u8.shape == (7, 3, 64, 64)
    refused = {entry["file"]: entry["reason"] for entry in report["refused"]}
    assert refused == {
        "empty-room.png": NO_FACE,
        "dot.png": NO_FACE,
        "huge.png": "too many pixels",
        "corrupt.jpg": "truncated",
        "text.jpg": "not an image",
        "nothing.png": "empty file",
    }
    assert report["crops"] == "7 faces in 6 of 12 photographs"
    assert report["ignored"] == {"not an image by name or content": ["notes.txt"]}
    noted = report["noted"]
    assert noted["CMYK"][0].startswith("cmyk.jpg [")
    assert noted["turned as EXIF says"][0].startswith("turned.jpg [")
    assert noted["16-bit grey scaled from 0..65535"][0].startswith("deep.png [")
    assert image_set.card["crop"] == FaceCrops().as_card()


def test_the_same_face_is_cut_out_whatever_the_file_is(folder, data_folder):
    image_set = prepare_faces(folder)
    kept = report_of(data_folder, "crops")["kept"]
    same = [at for at, name in enumerate(kept) if origin_of(name)[0] in SAME_FACE]
    grey = image_set.images_u8[same].mean(1)
    assert np.abs(grey - grey[0]).mean(axis=(1, 2)).max() < 12  # a shift by a few pixels is allowed
    corners = image_set.attributes["face"][same]
    assert np.abs(corners - corners[0]).max() <= 8


def test_the_source_and_the_box_are_kept_and_give_the_pixels_again(folder, data_folder):
    image_set = prepare_faces(folder, crop=FaceCrops(margin=0.1))
    kept = report_of(data_folder, "crops")["kept"]
    for at, name in enumerate(kept):
        path, box = origin_of(name)
        again = decode_file(folder / path, Framing(image_size=64), box).image_u8
        again = np.repeat(again, 3, 0) if len(again) == 1 else again
        np.testing.assert_array_equal(again, image_set.images_u8[at])
        face = image_set.attributes["face"][at].reshape(4).tolist()
        with Image.open(folder / path) as image:
            size = image.size[::-1] if path == "turned.jpg" else image.size
        assert crop_box(face, 0.1, *size) == box
    photo = image_set.attributes["photo"]
    assert (image_set.attributes["votes"] > FaceCrops().min_neighbours).all()
    same = [origin_of(a)[0] == origin_of(b)[0] for a, b in pairwise(kept)]
    assert (np.diff(photo) == 0).tolist() == same


def test_a_crop_at_the_edge_is_moved_and_noted(tmp_path, data_folder, generated):
    composed = photo_with(generated[:1], grid=(1, 1), size=200)
    save(tmp_path / "photos" / "a.png", composed.photo_hwc)
    prepare_faces(tmp_path / "photos", crop=FaceCrops(margin=0.5))
    assert list(report_of(data_folder, "crops")["noted"]) == [MOVED]


def test_faces_that_are_too_small_for_the_asked_size_are_named_with_their_box(folder, data_folder):
    with pytest.raises(UserError, match="too small"):
        prepare_faces(folder, image_size=256, min_side=None)
    report = json.loads((data_folder / "prepared" / "crops.report.json").read_text())
    small = [entry for entry in report["refused"] if entry["reason"] == "too small"]
    assert len(small) == 7 and all(origin_of(entry["file"])[1] for entry in small)


def test_the_faces_of_a_photograph_stay_on_one_side(tmp_path, generated, data_folder):
    for at in range(6):
        pair = generated[2 * at : 2 * at + 2]
        photo = photo_with(pair, at, grid=(1, 2)).photo_hwc
        save(tmp_path / "photos" / f"{at}.png", photo)
    image_set = prepare_faces(tmp_path / "photos", held_out=0.5)
    spans = image_set.card["splits"]
    sides = [
        set(image_set.attributes["photo"][slice(*spans[split])].tolist())
        for split in ("train", "validation")
    ]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert len(load_image_set("crops", "train")) == spans["train"][1]


def test_the_same_again_and_other_workers_change_nothing(folder, data_folder):
    first = prepare_faces(folder, num_workers=1)
    second = prepare_faces(folder, "again", num_workers=4)
    assert first.card["digest"] == second.card["digest"]
    before = (data_folder / "prepared" / "crops" / "card.json").stat().st_mtime_ns
    assert prepare_faces(folder).card == first.card
    assert (data_folder / "prepared" / "crops" / "card.json").stat().st_mtime_ns == before


def test_a_stopped_run_goes_on_where_it_was(folder, data_folder, monkeypatch):
    wanted = prepare_faces(folder, "whole").card["digest"]
    looked_at = []
    look = module.find_faces

    def stops(grey_hw, chosen):
        if len(looked_at) == 3:
            raise KeyboardInterrupt
        looked_at.append(grey_hw.shape)
        return look(grey_hw, chosen)

    monkeypatch.setattr(module, "find_faces", stops)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        prepare_faces(folder, num_workers=1)
    log = data_folder / "prepared" / ".crops.crops.jsonl"
    kept = len(log.read_text().splitlines()) - 1
    assert kept >= 1
    with open(log, "a") as file:
        file.write('{"file": "cut off in the mi')
    asked = []

    def counts(grey_hw, chosen):
        asked.append(grey_hw.shape)
        return look(grey_hw, chosen)

    monkeypatch.setattr(module, "find_faces", counts)
    image_set = prepare_faces(folder, num_workers=1)
    assert image_set.card["digest"] == wanted
    assert 0 < len(asked) < 8  # of the 8 files that can be read
    assert not log.exists()


def test_a_changed_file_and_other_settings_are_looked_at_again(folder, tmp_path, monkeypatch):
    names, log = ["one.png", "two.jpg"], tmp_path / "log.jsonl"
    files = Source(names=names, decode_one=None, paths=names)
    asked = []
    look = module.find_faces
    monkeypatch.setattr(module, "find_faces", lambda *given: asked.append(1) or look(*given))

    def num_looked_at(chosen: FaceCrops) -> int:
        asked.clear()
        chosen.cut(files, folder, log, Framing(image_size=64), 1)
        return len(asked)

    assert num_looked_at(FaceCrops()) == 2
    assert num_looked_at(FaceCrops(margin=0.5)) == 0  # the margin is about the cut alone
    save(folder / "one.png", plain_photo())
    assert num_looked_at(FaceCrops()) == 1
    assert num_looked_at(FaceCrops(min_face=60)) == 2


def test_crops_and_whole_files_are_not_taken_for_each_other(folder):
    prepare_faces(folder)
    with pytest.raises(UserError, match="min_face 40, now 60"):
        prepare_faces(folder, crop=FaceCrops(min_face=60))
    with pytest.raises(UserError, match="was prepared otherwise"):
        prepare_faces(folder, crop=None)
    unnamed = prepare(folder, image_size=16, max_pixels=500_000)
    cropped = prepare(folder, image_size=16, max_pixels=500_000, crop=FaceCrops())
    assert "photo" in cropped.attributes and "photo" not in unnamed.attributes
    again = prepare(folder, image_size=16, max_pixels=500_000)
    assert again.card == unnamed.card


def test_classes_and_ages_of_the_photographs_are_kept(tmp_path, generated):
    for at, name in enumerate(["female/a_age30.png", "male/b_age50.png"]):
        save(tmp_path / "photos" / name, photo_with(generated[at : at + 1], at).photo_hwc)
    image_set = prepare_faces(tmp_path / "photos", crop=FaceCrops(min_neighbours=2))
    assert image_set.class_names == ("female", "male")
    assert image_set.attributes["age"].tolist() == [30, 50]
    assert image_set.labels.tolist() == [0, 1]


def test_the_command_says_what_was_found(folder, data_folder, capsys):
    words = f"prepare {folder} --name mine --crop faces --min-face 48 --max-pixels 500000"
    assert main(words.split()) == 0
    printed = capsys.readouterr().out
    assert "crops: 7 faces in 6 of 12 photographs" in printed
    assert NO_FACE in printed and "truncated" in printed
    assert ImageSet.load(data_folder / "prepared" / "mine").card["crop"]["min_face"] == 48
    assert main(f"prepare {folder} --name other --margin 0.2".split()) == 2
    assert "--crop faces" in capsys.readouterr().err


# ---- composing ----


def test_faces_stand_where_the_boxes_say_and_nothing_else_changes(generated):
    background = plain_photo(200, 200)
    rng = np.random.default_rng(0)
    composed = compose(background, generated[:4], [40, 50, 60, 64], [0, 0, 0, 0], rng)
    assert (composed.boxes_k4[:, 2:] - composed.boxes_k4[:, :2]).tolist() == [
        [side, side] for side in (40, 50, 60, 64)
    ]
    outside = np.ones((200, 200), bool)
    for left, top, right, bottom in composed.boxes_k4:
        assert outside[top:bottom, left:right].all()  # none overlap
        outside[top:bottom, left:right] = False
    changed = (composed.photo_hwc != background).any(axis=2)
    assert not changed[outside].any() and changed[~outside].mean() > 0.9
    left, top, right, bottom = composed.boxes_k4[3]
    middle = composed.photo_hwc[top + 16 : bottom - 16, left + 16 : right - 16]
    np.testing.assert_array_equal(middle, generated[3].transpose(1, 2, 0)[16:48, 16:48])


def test_turning_is_anticlockwise_about_the_middle():
    face_u8 = np.zeros((1, 3, 64, 64), np.uint8)
    face_u8[:, :, :32, 32:] = 255  # a bright quarter above on the right
    background = np.full((100, 100, 3), 128, np.uint8)
    rng = np.random.default_rng(0)
    composed = compose(background, face_u8, [64], [90], rng, grid=(1, 1))
    left, top, _, _ = composed.boxes_k4[0]
    face_hw = composed.photo_hwc[top : top + 64, left : left + 64, 0]
    bright = [face_hw[10:26, 10:26], face_hw[10:26, 38:54], face_hw[38:54, 10:26]]
    assert [int(part.mean()) for part in bright] == [255, 0, 0]


def test_what_does_not_fit_is_refused(generated):
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="needs 136 pixels"):
        compose(plain_photo(), generated[:1], [96], [45], rng)
    with pytest.raises(UserError, match="2 faces need as many fields"):
        compose(plain_photo(), generated[:2], [32, 32], [0, 0], rng, grid=(1, 1))


def test_a_mosaic_is_made_of_its_images():
    images_u8 = np.arange(4, dtype=np.uint8).repeat(3 * 64).reshape(4, 3, 8, 8) * 60
    whole = mosaic(images_u8, 20, 36, 8, np.random.default_rng(0))
    assert whole.shape == (20, 36, 3)
    tiles = [whole[top : top + 8, left : left + 8] for top in (0, 8) for left in (0, 8, 16, 24)]
    assert all(np.ptp(tile) == 0 for tile in tiles)
    assert len({int(tile[0, 0, 0]) for tile in tiles}) > 1
