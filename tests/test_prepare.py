"""Preparing folders: every good file is kept exactly, every bad one is named, none crashes."""

import importlib.util
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import typing
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from dcgan_lib.data import decode as decoding
from dcgan_lib.data.decode import Fit, Framing, decode_file, with_channels
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.listing import natural_key
from dcgan_lib.data.load import load_image_set
from dcgan_lib.data.prepare import (
    SPLIT_FOLDERS,
    attributes_from_names,
    classes_of,
    find_splits,
    name_of_folder,
    name_share,
    prepare,
)
from dcgan_lib.errors import UserError

SIZE = 16
PLAIN = Framing(image_size=(SIZE, SIZE))


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: None
    )  # power cuts are not what is tested here
    return tmp_path / "data"


def noise(seed, height=SIZE, width=SIZE, channels=3) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, pixels, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def encoded(kind: str, seed: int, side: int = 32) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(seed, side, side)).save(file, kind)
    return file.getvalue()


def chw(pixels: np.ndarray) -> np.ndarray:
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def report_of(name: str, data_folder: Path) -> dict:
    return json.loads((data_folder / "prepared" / name / "report.json").read_text())


def visible(data_folder: Path) -> list[str]:
    return sorted(path.name for path in (data_folder / "prepared").glob("[!.]*"))


# ---- what a file's kind means for its pixels; each beside what a careless reading would give ----


def test_a_file_of_the_asked_size_is_kept_bit_for_bit(tmp_path):
    for channels in (1, 3):
        pixels = noise(1, channels=channels)
        decoded = decode_file(write(tmp_path / f"{channels}.png", pixels), PLAIN)
        np.testing.assert_array_equal(decoded.image_u8, chw(pixels))
        assert not decoded.notes and not decoded.reason


def with_orientation(image: Image.Image, orientation: int) -> Image.Image:
    image = image.copy()
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path, orientation):
    upright = noise(2)
    stored = Image.fromarray(upright)
    undo = {6: 8, 8: 6}.get(orientation, orientation)  # every other turn undoes itself
    if undo != 1:
        stored = ImageOps.exif_transpose(with_orientation(stored, undo))
    exif = with_orientation(stored, orientation).getexif()
    for ending in ("png", "tif"):
        path = write(tmp_path / f"photo.{ending}", stored, exif=exif)
        decoded = decode_file(path, PLAIN)
        np.testing.assert_array_equal(decoded.image_u8, chw(upright))
        careless = np.asarray(Image.open(path).convert("RGB"))
        assert np.array_equal(careless, upright) == (orientation == 1 or ending == "tif")


def test_broken_exif_costs_a_note_and_not_the_image(tmp_path):
    pixels = noise(3)
    path = write(tmp_path / "a.png", pixels, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    with decoding.decoding():  # Pillow warns of the tag; a run of thousands must not
        decoded = decode_file(path, PLAIN)
    np.testing.assert_array_equal(decoded.image_u8, chw(pixels))


def test_sixteen_bit_grey_is_scaled_and_not_cut_off(tmp_path):
    deep = np.linspace(0, 65535, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint16)
    for ending in ("png", "tif"):
        path = write(tmp_path / f"deep.{ending}", Image.fromarray(deep))
        decoded = decode_file(path, PLAIN)
        np.testing.assert_array_equal(decoded.image_u8[0], np.round(deep / 257.0))
        assert decoded.notes == ("16-bit grey scaled from 0..65535",)
    careless = np.minimum(deep, 255)
    assert not np.array_equal(careless, decoded.image_u8[0])


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["uint16 png", "uint16 tif", ">u2 tif", "int32 tif"])
def test_deep_grey_is_scaled_by_the_bits_that_it_holds(tmp_path, bits, kind):
    dtype, ending = kind.split()
    deep = np.linspace(0, 2**bits - 1, SIZE * SIZE).reshape(SIZE, SIZE).astype(dtype)
    path = write(tmp_path / f"deep.{ending}", Image.fromarray(deep))
    decoded = decode_file(path, PLAIN)
    np.testing.assert_array_equal(decoded.image_u8[0], np.round(deep * (255 / (2**bits - 1))))
    assert (decoded.image_u8.min(), decoded.image_u8.max()) == (0, 255)
    assert f"scaled from 0..{2**bits - 1}" in decoded.notes[0]


def test_deep_colour_is_noted(tmp_path):
    """Pillow keeps the upper 8 of 16 bits, so that a camera's 12 come out nearly black."""
    cv2 = pytest.importorskip("cv2")
    deep = np.linspace(0, 4095, SIZE * SIZE * 3).reshape(SIZE, SIZE, 3).astype(np.uint16)
    for ending in ("png", "tif"):
        cv2.imwrite(str(tmp_path / f"deep.{ending}"), deep)
        decoded = decode_file(tmp_path / f"deep.{ending}", PLAIN)
        assert decoded.image_u8.max() <= 16
        assert decoded.notes == ("16-bit colour cut to its upper 8 bits",)


def test_deep_grey_has_one_scale_in_a_set(tmp_path, data_folder):
    """A dark picture of a camera with 12 bits stays dark beside the bright ones."""
    ramp = np.linspace(0, 4095, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint16)
    for at, deep in enumerate([ramp, ramp // 8, ramp // 40]):
        write(tmp_path / "photos" / f"{at}.png", Image.fromarray(deep))
    image_set = prepare(tmp_path / "photos", "deep", image_size=SIZE, held_out=0.0)
    assert image_set.images_u8.reshape(3, -1).max(axis=1).tolist() == [255, 32, 6]
    assert image_set.num_channels == 1
    assert image_set.card["report"]["noted"] == {"16-bit grey scaled from 0..4095": 3}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.linspace(0, 1, 256), np.arange(256)),
        (np.linspace(0, 255, 256), np.arange(256)),
        (np.linspace(-3, 7, 256), np.arange(256)),
        (np.zeros(256), np.zeros(256)),
    ],
)
def test_float_grey_is_scaled_by_the_range_it_shows(tmp_path, values, expected):
    path = write(tmp_path / "f.tif", Image.fromarray(values.astype(np.float32).reshape(16, 16)))
    decoded = decode_file(path, PLAIN)
    assert np.abs(decoded.image_u8.ravel().astype(int) - expected).max() <= 1
    assert "float grey" in decoded.notes[0]


def test_float_grey_with_nan_is_refused(tmp_path):
    values = np.zeros((16, 16), np.float32)
    values[3, 3] = np.nan
    decoded = decode_file(write(tmp_path / "f.tif", Image.fromarray(values)), PLAIN)
    assert decoded.image_u8 is None and decoded.reason == "values not finite"


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.dstack([noise(4), np.tile(np.array([0, 255], np.uint8), (SIZE, SIZE // 2))])
    path = write(tmp_path / "a.png", rgba)
    decoded = decode_file(path, PLAIN)
    expected = np.where(rgba[..., 3:] == 0, 255, rgba[..., :3])
    np.testing.assert_array_equal(decoded.image_u8, chw(expected))
    assert not np.array_equal(np.asarray(Image.open(path).convert("RGB")), expected)
    grey = write(tmp_path / "la.png", Image.fromarray(rgba).convert("LA"))
    kept = decode_file(grey, PLAIN)
    assert (
        kept.image_u8.shape == (1, SIZE, SIZE)
        and (kept.image_u8[0][rgba[..., 3] == 0] == 255).all()
    )


def test_palettes_and_one_bit_images(tmp_path):
    pixels = noise(5) // 128 * 255
    palette = Image.fromarray(pixels).quantize(8)
    decoded = decode_file(write(tmp_path / "p.png", palette), PLAIN)
    np.testing.assert_array_equal(decoded.image_u8, chw(pixels))
    clear = decode_file(
        write(tmp_path / "t.png", palette, transparency=palette.getpixel((0, 0))), PLAIN
    )
    same = (pixels == pixels[0, 0]).all(axis=-1)
    assert (clear.image_u8[:, same] == 255).all() and "transparency over white" in clear.notes
    bits = Image.fromarray(pixels[..., 0]).convert("1")
    decoded = decode_file(write(tmp_path / "b.png", bits), PLAIN)
    np.testing.assert_array_equal(decoded.image_u8[0], np.asarray(bits) * 255)


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_colour_named_transparent_becomes_white(tmp_path, mode):
    image = Image.fromarray(noise(6) // 128 * 255).convert(mode)
    image.putpixel((0, 0), 0)
    path = write(tmp_path / "t.png", image, transparency=(0, 0, 0) if mode == "RGB" else 0)
    decoded = decode_file(path, PLAIN)
    plain = np.asarray(image.convert("RGB" if mode == "RGB" else "L"))
    black = (chw(plain) == 0).all(axis=0)
    np.testing.assert_array_equal(decoded.image_u8, np.where(black, 255, chw(plain)))
    assert black[0, 0] and decoded.notes == ("transparency over white",)


def test_cmyk_becomes_rgb(tmp_path):
    flat = np.zeros((SIZE, SIZE, 3), np.uint8) + np.array([200, 60, 20], np.uint8)
    path = write(tmp_path / "c.jpg", Image.fromarray(flat).convert("CMYK"), quality=95)
    decoded = decode_file(path, PLAIN)
    assert (
        decoded.notes == ("CMYK",) and np.abs(decoded.image_u8.astype(int) - chw(flat)).max() <= 4
    )


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_the_first_of_several_frames_is_kept(tmp_path, ending):
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "blue", "green")]
    options = {"lossless": True} if ending == "webp" else {}
    path = write(
        tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:], **options
    )
    decoded = decode_file(path, PLAIN)
    np.testing.assert_array_equal(decoded.image_u8, chw(np.asarray(frames[0])))
    assert "first frame of several" in decoded.notes


def test_a_wrong_ending_is_noted_and_the_content_believed(tmp_path):
    pixels = noise(6)
    (tmp_path / "a.jpg").write_bytes(write(tmp_path / "b.png", pixels).read_bytes())
    decoded = decode_file(tmp_path / "a.jpg", PLAIN)
    np.testing.assert_array_equal(decoded.image_u8, chw(pixels))
    assert decoded.notes == ("ending of another format",)
    assert decode_file(tmp_path / "b.png", PLAIN).notes == ()


def test_the_limit_of_pixels_is_ours_to_set(tmp_path):
    path = write(tmp_path / "a.png", noise(1, 30, 30))
    assert (
        decode_file(path, Framing(image_size=(SIZE, SIZE), max_pixels=899)).reason
        == "too many pixels"
    )
    assert decode_file(path, Framing(image_size=(SIZE, SIZE), max_pixels=900)).image_u8 is not None


def test_large_photographs_are_read_when_asked(tmp_path):
    """Pillow refuses more than 89 million pixels by itself: 12,000 x 9,000 are a camera's."""
    write(tmp_path / "photos" / "large.jpg", Image.new("L", (12_000, 9_000), 77), quality=20)
    with pytest.raises(UserError, match=r"none of the 1 images .*: 1 x too many pixels"):
        prepare(tmp_path / "photos", "x", image_size=SIZE)
    limit = Image.MAX_IMAGE_PIXELS
    image_set = prepare(tmp_path / "photos", "x", image_size=SIZE, max_pixels=200_000_000)
    assert np.ptp(image_set.images_u8) == 0 and abs(int(image_set.images_u8[0, 0, 0, 0]) - 77) <= 1
    assert limit == Image.MAX_IMAGE_PIXELS


def heic() -> bytes:
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


def test_heic_is_named_and_told_how_to_read(tmp_path):
    for name in ("a.heic", "b.JPG", "c"):
        (tmp_path / name).write_bytes(heic())
    reads_it = importlib.util.find_spec("pillow_heif")
    with pytest.raises(UserError) as told:
        prepare(tmp_path, "x")
    assert "none of the 3 images" in str(told.value)
    if not reads_it:
        assert "3 x HEIC photograph: convert it to JPEG, or pip install pillow-heif" in str(
            told.value
        )


def test_heic_is_read_where_its_package_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    y, x = np.mgrid[0:64, 0:64].astype(np.uint8)
    pixels = np.dstack([x * 3, y * 3, 90 + x])
    path = write(tmp_path / "a.heic", pixels, quality=-1)
    path.rename(tmp_path / "a.JPG")
    decoded = decode_file(tmp_path / "a.JPG", Framing(image_size=(64, 64)))
    assert np.abs(decoded.image_u8.astype(int) - chw(pixels)).max() <= 4


def test_lab_is_refused_by_name(tmp_path):
    decoded = decode_file(write(tmp_path / "l.tif", Image.new("LAB", (SIZE, SIZE))), PLAIN)
    assert (decoded.reason, decoded.detail) == ("colour mode not supported", "LAB")


def test_files_that_may_not_be_read_are_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png", noise(1))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(decoding, "open_image", refuse)  # a mode of 000 does not stop root
    assert decode_file(path, PLAIN).reason == "no permission to read"


# ---- framing ----


def test_crop_keeps_the_middle_and_the_aspect(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    path = write(tmp_path / "w.png", wide)
    assert (decode_file(path, Framing(image_size=(20, 20))).image_u8 == 255).all()
    half = decode_file(path, Framing(image_size=(10, 10))).image_u8
    assert (half[:, :, 2:8] == 255).all()
    stretched = decode_file(path, Framing(image_size=(20, 20), fit="stretch")).image_u8
    assert stretched[0, 10, 10] == 255 and (stretched[:, :, [0, 19]] == 0).all()


def test_centre_crops_without_scaling(tmp_path):
    pixels = noise(7, 40, 30)
    path = write(tmp_path / "a.png", pixels)
    decoded = decode_file(path, Framing(image_size=(20, 10), fit="centre"))
    np.testing.assert_array_equal(decoded.image_u8, chw(pixels[10:30, 10:20]))
    assert decode_file(path, Framing(image_size=(41, 30), fit="centre")).reason == "too small"


def test_an_integer_crop_resamples_nothing(tmp_path):
    pixels = noise(8, 16, 21)
    decoded = decode_file(write(tmp_path / "a.png", pixels), PLAIN)
    np.testing.assert_array_equal(decoded.image_u8, chw(pixels[:, 2:18]))


@given(
    wide=st.integers(1, 90),
    high=st.integers(1, 90),
    width=st.integers(1, 24),
    height=st.integers(1, 24),
    fit=st.sampled_from(typing.get_args(Fit)),
    mode=st.sampled_from(["L", "RGB", "CMYK", "1", "I;16"]),
)
@example(wide=23, high=2, width=21, height=1, fit="crop", mode="L")  # 21 * (23 / 21) is above 23
@settings(max_examples=60, deadline=None)
def test_any_size_comes_out_as_asked(wide, high, width, height, fit, mode):
    image = Image.new(mode, (wide, high))
    decoded = decoding.decode(lambda: image, Framing(image_size=(height, width), fit=fit))
    if fit == "centre" and (wide < width or high < height):
        assert decoded.reason == "too small"
    else:
        assert decoded.image_u8.shape[1:] == (height, width) and decoded.image_u8.dtype == np.uint8
        assert decoded.image_u8.flags.c_contiguous


def test_large_jpegs_are_shrunk_while_reading_to_the_same_picture(tmp_path):
    y, x = np.mgrid[0:512, 0:768] / 512
    smooth = np.dstack([x * 120 + 40, y * 200, 255 - x * 100]).astype(np.uint8)
    path = write(tmp_path / "big.jpg", smooth, quality=95)
    decoded = decode_file(path, Framing(image_size=(32, 32))).image_u8
    slow = (
        Image.open(path)
        .convert("RGB")
        .resize((32, 32), Image.Resampling.BICUBIC, box=(128, 0, 640, 512))
    )
    assert np.abs(decoded.astype(int) - chw(np.asarray(slow))).max() <= 3


def test_a_ribbon_is_kept_and_noted(tmp_path):
    decoded = decode_file(write(tmp_path / "r.png", noise(9, 16, 3000)), PLAIN)
    assert decoded.image_u8.shape == (3, 16, 16) and "times as long" in decoded.notes[0]


def test_grey_is_pillows_to_the_last_bit():
    pixels = noise(10, 64, 64)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(with_channels(chw(pixels), 1)[0], expected)
    np.testing.assert_array_equal(with_channels(chw(pixels)[None], 1)[0, 0], expected)


# ---- five hundred bad files ----


def png_bomb(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def spoil_middle(raw: bytes) -> bytes:
    return raw[: len(raw) // 2] + bytes(60) + raw[len(raw) // 2 + 60 :]


def bad_tiff(seed: int) -> bytes:
    file = io.BytesIO()
    values = np.full((SIZE, SIZE), np.inf if seed % 2 else np.nan, np.float32)
    Image.fromarray(values).save(file, "TIFF")
    return file.getvalue()


def of_image(kind: str, image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


BAD_KINDS = {  # kind: (ending, bytes by seed, reasons that are right)
    "empty": ("jpg", lambda seed: b"", {"empty file"}),
    "text": ("jpg", lambda seed: f"not a picture, {seed}\n".encode() * 20, {"not an image"}),
    "page": ("gif", lambda seed: b"<html><body>404 not found</body></html>", {"not an image"}),
    "random": ("png", lambda seed: np.random.default_rng(seed).bytes(400), {"not an image"}),
    "signature only": (
        "png",
        lambda seed: b"\x89PNG\r\n\x1a\n",
        {"not an image", "damaged", "truncated"},
    ),
    "cut jpeg": ("jpg", lambda seed: encoded("JPEG", seed)[: 400 + 9 * seed % 500], {"truncated"}),
    "cut png": (
        "png",
        lambda seed: encoded("PNG", seed)[: 200 + 17 * seed % 2000],
        {"truncated", "damaged"},
    ),
    "cut gif": (
        "gif",
        lambda seed: encoded("GIF", seed)[: 790 + seed % 50],
        {"truncated", "damaged"},
    ),
    "cut webp": (
        "webp",
        lambda seed: encoded("WEBP", seed)[:200],
        {"truncated", "damaged", "not an image"},
    ),
    "cut bmp": ("bmp", lambda seed: encoded("BMP", seed)[: 100 + seed], {"truncated", "damaged"}),
    "cut tiff": (
        "tif",
        lambda seed: encoded("TIFF", seed)[:1000],
        {"truncated", "damaged", "not an image"},
    ),
    "spoilt png": (
        "png",
        lambda seed: spoil_middle(encoded("PNG", seed)),
        {"damaged", "truncated"},
    ),
    "tiny": (
        "png",
        lambda seed: of_image("PNG", Image.new("RGB", (1 + seed % 7, 40))),
        {"too small"},
    ),
    "bomb": ("png", lambda seed: png_bomb(20_000 + seed), {"too many pixels"}),
    "big": ("png", lambda seed: png_bomb(9_600 + seed % 9), {"too many pixels"}),
    "not finite": ("tif", bad_tiff, {"values not finite"}),
    "lab": (
        "tif",
        lambda seed: of_image("TIFF", Image.new("LAB", (20, 20))),
        {"colour mode not supported"},
    ),
    "postscript": (
        "png",
        lambda seed: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        {"not an image"},
    ),
    "gzip": ("jpeg", lambda seed: b"\x1f\x8b\x08\0" + bytes(60), {"not an image"}),
}


def make_bad_folder(
    folder: Path, num_bad: int, num_good: int
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Write bad and good files in turn; return each bad file's kind and each good one's pixels."""
    folder.mkdir(parents=True)
    kinds, bad, good = list(BAD_KINDS), {}, {}
    for at in range(num_bad):
        kind = kinds[at % len(kinds)]
        ending, make, _ = BAD_KINDS[kind]
        name = f"{at}-bad.{ending}"
        (folder / name).write_bytes(make(at))
        bad[name] = kind
        if at % (num_bad // num_good) == 0:
            good[f"{at}-good.png"] = noise(at)
            write(folder / f"{at}-good.png", good[f"{at}-good.png"])
    return bad, good


def test_five_hundred_bad_files_of_many_kinds(tmp_path, data_folder):
    folder = tmp_path / "photos"
    bad, good = make_bad_folder(folder, 500, 50)
    (folder / "broken.png").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "notes.txt").write_text("mine")
    image_set = prepare(folder, "bad", image_size=SIZE, held_out=0.0)
    report = report_of("bad", data_folder)
    assert len(BAD_KINDS) >= 12 and len(bad) == 500
    assert report["kept"] == sorted(good, key=natural_key)
    for at, name in enumerate(report["kept"]):
        np.testing.assert_array_equal(image_set.images_u8[at], chw(good[name]))
    reasons = {entry["file"]: entry["reason"] for entry in report["refused"]}
    assert (
        reasons.pop("broken.png") == "broken link"
        and reasons.pop("pipe.png") == "not an ordinary file"
    )
    assert reasons.keys() == bad.keys()
    wrong = {
        name: (bad[name], reason)
        for name, reason in reasons.items()
        if reason not in BAD_KINDS[bad[name]][2]
    }
    assert not wrong
    assert report["ignored"] == {
        "folder named like an image": ["folder.png"],
        "not an image by name or content": ["notes.txt"],
    }
    counts = image_set.card["report"]
    assert (
        counts["kept"] == 50 and sum(counts["refused"].values()) == 502 and counts["found"] == 552
    )


@given(
    raw=st.binary(max_size=300),
    ending=st.sampled_from([".jpg", ".png", ".gif", ".tif", ".webp", ".pgm", ".bmp"]),
)
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_random_bytes_never_crash(tmp_path, raw, ending):
    path = tmp_path / f"x{ending}"
    path.write_bytes(raw)
    decoded = decode_file(path, PLAIN)
    assert (decoded.image_u8 is None) == bool(decoded.reason)


@given(
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=12),
    keep=st.floats(0.05, 1),
)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_spoilt_images_never_crash(tmp_path, kind, changes, keep):
    raw = bytearray(encoded(kind, 1, 20))
    raw = raw[: int(len(raw) * keep)]
    for place, value in changes:
        raw[int(place * len(raw))] = value
    path = tmp_path / "x.png"
    path.write_bytes(raw)
    with decoding.decoding():
        decoded = decode_file(path, PLAIN)
    if decoded.reason:
        assert decoded.image_u8 is None
    else:
        assert decoded.image_u8.shape[1:] == (SIZE, SIZE) and decoded.image_u8.dtype == np.uint8


def test_when_nothing_is_usable_the_reasons_are_told(tmp_path, data_folder):
    (tmp_path / "photos").mkdir()
    for at in range(3):
        (tmp_path / "photos" / f"{at}.jpg").write_text("no")
    write(tmp_path / "photos" / "small.png", noise(1, 2, 2))
    with pytest.raises(
        UserError, match=r"none of the 4 images .*: 3 x not an image; 1 x too small"
    ):
        prepare(tmp_path / "photos", "none")
    assert visible(data_folder) == ["none.report.json"]
    report = json.loads((data_folder / "prepared" / "none.report.json").read_text())
    refused = {entry["file"]: entry["reason"] for entry in report["refused"]}
    assert len(refused) == 4 and refused["small.png"] == "too small"
    write(tmp_path / "photos" / "sound.png", noise(1))
    prepare(tmp_path / "photos", "none", image_size=SIZE)
    assert visible(data_folder) == ["none"]


# ---- folders, classes, order ----


def test_found_0_images_says_what_was_seen(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    with pytest.raises(UserError, match=r"found 0 images.*it is empty"):
        prepare(folder, "x")
    for name in ("a.txt", "b.txt", "c.csv"):
        (folder / name).write_text("1")
    with pytest.raises(UserError, match=r"found 0 images.*2 x \.txt, 1 x \.csv.*a\.txt"):
        prepare(folder, "x")
    with pytest.raises(UserError, match="does not exist"):
        prepare(tmp_path / "nowhere", "x")
    with pytest.raises(UserError, match="is a file"):
        prepare(folder / "a.txt", "x")


def test_files_come_in_natural_order(tmp_path, data_folder):
    names = ["b/1.png", "a/10.png", "a/2.png", "a/2b/1.png", "B/03.png", "a/01.png"]
    for at, name in enumerate(names):
        write(tmp_path / "photos" / name, noise(at))
    prepare(tmp_path / "photos", "x", image_size=SIZE, held_out=0.0)
    assert report_of("x", data_folder)["kept"] == [
        *("a/01.png", "a/2.png", "a/2b/1.png", "a/10.png"),
        *("b/1.png", "B/03.png"),
    ]
    assert sorted(names) != report_of("x", data_folder)["kept"]


@pytest.mark.parametrize(
    ("names", "classes", "labels"),
    [
        (["a/1", "a/2", "b/1"], ("a", "b"), [0, 0, 1]),
        (["a/x/1", "b/y/z/1"], ("a", "b"), [0, 1]),
        (["10/1", "9/1"], ("10", "9"), [0, 1]),
        (["a/1", "a/2"], (), None),
        (["1", "2"], (), None),
        (["a/1", "2"], (), None),
    ],
)
def test_classes_are_the_first_folders(names, classes, labels):
    found, class_names = classes_of(names)
    assert class_names == classes and (
        found is None if labels is None else found.tolist() == labels
    )


@pytest.mark.parametrize(
    ("names", "splits", "classes"),
    [
        (["train/cats/1", "train/dogs/2", "test/cats/3"], "train train test", ("cats", "dogs")),
        (["Train/1", "VALID/2", "Testing/3"], "train validation test", ()),
        (["training/a/1", "val/b/2"], "train validation", ("a", "b")),
        (["validation/1", "test/2"], "validation test", ()),
        (["zip/set/train/a/1", "zip/set/val/b/2"], "train validation", ()),
        (["cats/train/1", "cats/test/2", "dogs/train/3"], "train test train", ("cats", "dogs")),
        (["train/a/1", "test/b/2", "extra/c/3", "logo"], "train test", ("a", "b")),
        (["train/1", "tram/2"], None, ("train", "tram")),
        (["2019/train/1", "2020/test/2", "2020/sea/3"], None, ("2019", "2020")),
        (["train/a/1", "train/b/2"], None, ()),
        (["test", "train"], None, ()),
    ],
)
def test_split_folders_are_no_classes(tmp_path, data_folder, names, splits, classes):
    for at, name in enumerate(names):
        write(tmp_path / "photos" / f"{name}.png", noise(at))
    files = [f"{name}.png" for name in names]
    found = find_splits(files)
    image_set = prepare(tmp_path / "photos", "x", image_size=SIZE, held_out=0.0)
    assert image_set.class_names == classes
    if splits is None:
        assert found is None and "held out" in image_set.card["report"]["splits"]
        return
    wanted = dict(zip(files, splits.split(), strict=False))
    kinds = [*SPLIT_FOLDERS, None]
    assert [kinds[at] for at in found[1]] == [wanted.get(name) for name in files]
    assert "as the folders say" in image_set.card["report"]["splits"]
    report, spans = report_of("x", data_folder), image_set.card["splits"]
    came = {
        name: split for split, (start, stop) in spans.items() for name in report["kept"][start:stop]
    }
    assert came == wanted and sum(stop - start for start, stop in spans.values()) == len(wanted)
    outside = report["ignored"].get("outside the folders of the splits", [])
    assert sorted(outside) == sorted(set(files) - set(wanted))
    assert report["splits"] == image_set.card["report"]["splits"]


def test_a_class_without_a_usable_image_is_no_class(tmp_path):
    for name in ("a/1.png", "c/1.png"):
        write(tmp_path / "photos" / name, noise(1))
    (tmp_path / "photos" / "b").mkdir()
    (tmp_path / "photos" / "b" / "1.png").write_text("no")
    image_set = prepare(tmp_path / "photos", "x", image_size=SIZE, held_out=0.0)
    assert image_set.class_names == ("a", "c") and image_set.labels.tolist() == [0, 1]


def test_ages_are_read_from_names():
    found = attributes_from_names(["female/00002_age100.png", "male/1_age18.jpg"])
    assert found["age"].tolist() == [100.0, 18.0] and found["female"].tolist() == [True, False]
    assert found["age"].dtype == np.float32 and found["female"].dtype == np.bool_
    for other in (["female/1_age20.png", "male/2.png"], ["dogs/1_age20.png"], ["1_age20.png"], []):
        assert attributes_from_names(other) == {}


def test_hidden_files_loops_and_content_without_ending(tmp_path, data_folder):
    folder = tmp_path / "photos"
    write(folder / "a" / "1.png", noise(1))
    write(folder / ".hidden.png", noise(2))
    write(folder / "__MACOSX" / "1.png", noise(3))
    (folder / "a" / "plain").write_bytes(encoded("PNG", 4, SIZE))
    (folder / "a" / "loop").symlink_to(folder)
    elsewhere = write(tmp_path / "elsewhere" / "2.png", noise(5)).parent
    (folder / "linked").symlink_to(elsewhere)
    prepare(folder, "x", image_size=SIZE, held_out=0.0)
    assert report_of("x", data_folder)["kept"] == ["a/1.png", "a/plain", "linked/2.png"]


def test_names_that_are_not_unicode(tmp_path, data_folder):
    folder = tmp_path / "photos"
    write(folder / "a.png", noise(1))
    try:
        os.rename(folder / "a.png", os.fsencode(folder) + b"/\xff\xfe.png")
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    prepare(folder, "x", image_size=SIZE)
    assert len(report_of("x", data_folder)["kept"]) == 1


def test_grey_stays_grey_only_when_all_is_grey(tmp_path):
    for at in range(40):
        write(tmp_path / "grey" / f"{at}.png", noise(at, channels=1))
        write(tmp_path / "mixed" / f"{at}.png", noise(at, channels=1))
    write(tmp_path / "mixed" / "z.png", noise(99))
    grey = prepare(tmp_path / "grey", "grey", image_size=SIZE, held_out=0.0)
    assert grey.num_channels == 1
    np.testing.assert_array_equal(grey.images_u8[7, 0], noise(7, channels=1))
    assert prepare(tmp_path / "mixed", "mixed", image_size=SIZE).num_channels == 3
    assert prepare(tmp_path / "mixed", "one", image_size=SIZE, channels=1).num_channels == 1
    wide = prepare(tmp_path / "grey", "three", image_size=SIZE, channels=3)
    assert wide.num_channels == 3 and np.array_equal(wide.images_u8[:, 0], wide.images_u8[:, 2])


def photos(folder: Path, num: int, start: int = 0) -> Path:
    for at in range(start, start + num):
        write(folder / f"{at}.png", noise(at, 20, 24))
    return folder


def test_the_number_of_threads_changes_nothing(tmp_path):
    folder = photos(tmp_path / "photos", 150)
    digests = {
        prepare(folder, f"w{num}", image_size=SIZE, num_workers=num).card["digest"]
        for num in (1, 2, 7)
    }
    assert len(digests) == 1


def test_decoding_runs_only_a_bounded_way_ahead(tmp_path, monkeypatch):
    """The file grows while later images wait, so a set may be larger than memory."""
    monkeypatch.setattr("dcgan_lib.data.prepare.AHEAD_BYTES", 8 * 3 * SIZE * SIZE)
    sizes, plain = [], decode_file

    def watched(path: Path, framing: Framing):
        written = list((tmp_path / "data" / "prepared").glob(".x.part/images.npy"))
        sizes.append(written[0].stat().st_size)
        return plain(path, framing)

    monkeypatch.setattr("dcgan_lib.data.listing.decode_file", watched)
    image_set = prepare(photos(tmp_path / "photos", 200), "x", image_size=SIZE, held_out=0.0)
    assert max(sizes) > image_set.images_u8.nbytes / 2
    np.testing.assert_array_equal(
        image_set.images_u8[[0, 199]],
        [plain(tmp_path / "photos" / f"{at}.png", PLAIN).image_u8 for at in (0, 199)],
    )


# ---- held-out files, limits, settings ----


def test_a_held_out_file_stays_held_out(tmp_path, data_folder):
    folder = photos(tmp_path / "photos", 120)

    def sides(name: str) -> tuple[set[str], set[str]]:
        image_set, kept = (
            prepare(folder, name, image_size=SIZE),
            report_of(name, data_folder)["kept"],
        )
        cut = image_set.card["splits"]["train"][1]
        assert image_set.card["splits"]["validation"] == [cut, len(kept)]
        return set(kept[:cut]), set(kept[cut:])

    train, held = sides("before")
    photos(folder, 60, start=500)
    (folder / "3.png").unlink()
    later_train, later_held = sides("after")
    assert held - {"3.png"} <= later_held and train - {"3.png"} <= later_train
    assert not later_train & later_held and held
    assert later_held == {
        name for name in later_train | later_held if name_share(name, "held out") < 0.1
    }


def test_the_share_held_out_is_about_what_was_asked():
    assert (
        round(name_share("cat/1.png", "held out"), 6) == 0.27224
    )  # in every process, on every machine
    shares = np.array([name_share(f"{at}.png", "held out") for at in range(20_000)])
    assert abs((shares < 0.1).mean() - 0.1) < 0.01 and shares.min() >= 0 and shares.max() < 1
    other = np.array([name_share(f"{at}.png", "limit") for at in range(20_000)])
    assert abs(np.corrcoef(shares, other)[0, 1]) < 0.03


def test_a_limit_takes_files_from_the_whole_folder(tmp_path):
    for at in range(60):
        write(tmp_path / "photos" / f"{'abc'[at // 20]}" / f"{at}.png", noise(at))
    image_set = prepare(tmp_path / "photos", "x", image_size=SIZE, limit=20)
    assert len(image_set) == 20 and set(image_set.labels) == {0, 1, 2}


def test_a_second_time_opens_the_first(tmp_path, monkeypatch):
    folder = photos(tmp_path / "photos", 5)
    first = prepare(folder, "x", image_size=SIZE)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded again"))
    assert prepare(folder, "x", image_size=SIZE).card == first.card


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_size": 8}, "image_size .16, 16., now .8, 8."),
        ({"channels": 1}, "channels 'auto', now 1"),
        ({"fit": "stretch"}, "fit 'crop', now 'stretch'"),
        ({"min_side": 3}, "min_side 8, now 3"),
        ({"limit": 3}, "limit None, now 3"),
        ({"held_out": 0.5}, "held_out 0.1, now 0.5"),
        ({"max_pixels": 500}, "max_pixels 89478485, now 500"),
    ],
)
def test_other_settings_are_never_served_from_the_cache(tmp_path, change, said):
    folder = photos(tmp_path / "photos", 5)
    before = prepare(folder, "x", image_size=SIZE)
    with pytest.raises(UserError, match=said):
        prepare(folder, "x", **{"image_size": SIZE, **change})
    assert prepare(folder, "x", image_size=SIZE).card == before.card
    assert (
        prepare(folder, "x", **{"image_size": SIZE, **change}, overwrite=True).card != before.card
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: write(folder / "new.png", noise(77)),
        lambda folder: (folder / "1.png").unlink(),
        lambda folder: write(folder / "1.png", noise(78)),
    ],
)
def test_a_folder_that_changed_is_not_served_from_the_cache(tmp_path, change):
    folder = photos(tmp_path / "photos", 5)
    prepare(folder, "x", image_size=SIZE)
    change(folder)
    with pytest.raises(UserError, match="files have come, gone or changed"):
        prepare(folder, "x", image_size=SIZE)
    prepare(folder, "x", image_size=SIZE, overwrite=True)


def test_a_damaged_set_is_told_or_made_anew(tmp_path, data_folder):
    folder = photos(tmp_path / "photos", 5)
    whole = prepare(folder, "x", image_size=SIZE)
    os.truncate(data_folder / "prepared" / "x" / "images.npy", 500)
    with pytest.raises(UserError, match="damaged"):
        prepare(folder, "x", image_size=SIZE)
    assert (
        prepare(folder, "x", image_size=SIZE, overwrite=True).card["digest"] == whole.card["digest"]
    )


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"image_size": 0}, "image_size"),
        ({"image_size": (8, 8, 3)}, "image_size"),
        ({"image_size": 8.5}, "image_size"),
        ({"channels": 4}, "channels"),
        ({"fit": "pad"}, "fit"),
        ({"min_side": 0}, "min_side"),
        ({"max_pixels": 0}, "max_pixels"),
        ({"limit": 0}, "limit"),
        ({"held_out": 1.0}, "held_out"),
    ],
)
def test_wrong_options_are_refused(tmp_path, option, said):
    with pytest.raises(UserError, match=said):
        prepare(photos(tmp_path / "photos", 1), "x", **option)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "a b", "x\n"])
def test_names_that_leave_the_cache_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="name"):
        prepare(photos(tmp_path / "photos", 1), name)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("my photos!", "my-photos"),
        ("猫の写真", "猫の写真"),
        ("cafe\u0301", "café"),  # decomposed, as macOS stores it
        ("हिन्दी", "हिन्दी"),
        (".hidden-", "hidden"),
        ("📷", ""),
    ],
)
def test_a_folder_of_any_script_names_its_set(tmp_path, folder, name):
    assert name_of_folder(tmp_path / folder) == name
    if name:
        write(tmp_path / folder / "1.png", noise(1))
        prepare(tmp_path / folder, name, image_size=SIZE)
        assert len(load_image_set(name, image_size=SIZE)) == 1


def test_progress_goes_to_standard_error_and_only_when_asked(tmp_path, capsys):
    prepare(photos(tmp_path / "photos", 3), "x", image_size=SIZE)
    assert capsys.readouterr() == ("", "")
    prepare(tmp_path / "photos", "y", image_size=SIZE, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "3/3" in err


def test_a_file_system_that_refuses_chmod(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    for function in ("chmod", "fchmod", "lchmod"):
        monkeypatch.setattr(os, function, refuse, raising=False)
    assert len(prepare(photos(tmp_path / "photos", 4), "x", image_size=SIZE)) == 4


# ---- processes that die or meet ----

SLOW = """
import importlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
module = importlib.import_module("dcgan_lib.data.listing")
plain = module.decode_file
def slow(path, framing):
    time.sleep(float(sys.argv[3]))
    return plain(path, framing)
module.decode_file = slow
prepare = importlib.import_module("dcgan_lib.data.prepare").prepare
print(prepare(sys.argv[1], sys.argv[2], image_size=16, num_workers=1).card["digest"])
"""


def start(folder: Path, name: str, delay: float) -> subprocess.Popen:
    command = [sys.executable, "-c", SLOW, str(folder), name, str(delay)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_part(process: subprocess.Popen, root: Path) -> Path:
    for _ in range(6_000):
        if process.poll() is not None:
            break
        if found := list(root.glob(".x.part/images.npy")):
            return found[0].parent
        time.sleep(0.05)
    raise AssertionError(f"the preparation never began: {process.communicate(timeout=1)}")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")
@pytest.mark.parametrize("number", ["SIGKILL", "SIGINT"])
def test_an_interrupted_run_leaves_nothing_that_is_believed(tmp_path, data_folder, number):
    folder, root = photos(tmp_path / "photos", 64), data_folder / "prepared"
    process = start(folder, "x", 0.05)
    part = wait_for_part(process, root)
    process.send_signal(getattr(signal, number))
    process.communicate(timeout=300)
    assert process.returncode != 0 and not (root / "x").exists()
    with pytest.raises(UserError, match="not a prepared image set"):
        ImageSet.load(part)
    assert len(prepare(folder, "x", image_size=SIZE)) == 64
    assert visible(data_folder) == ["x"] and not part.exists()


def test_two_processes_prepare_a_set_once(tmp_path, data_folder):
    folder = photos(tmp_path / "photos", 40)
    first = start(folder, "x", 0.02)
    wait_for_part(first, data_folder / "prepared")
    second = start(folder, "x", 5.0)  # would need 200 s, had it to decode anything itself
    told = [process.communicate(timeout=300) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], told
    assert told[0][0] == told[1][0]
    assert (
        ImageSet.load(data_folder / "prepared" / "x", verify=True).card["digest"]
        == told[0][0].strip()
    )
    assert visible(data_folder) == ["x"]


def test_threads_that_prepare_at_once_agree(tmp_path, data_folder):
    folder, found = photos(tmp_path / "photos", 20), []

    def run() -> None:
        found.append(prepare(folder, "x", image_size=SIZE).card["digest"])

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4 and len(set(found)) == 1
