"""Turn one image file, whatever its kind, into one uint8 picture of the asked size, or say why not.

Legend: image_u8 is c x h x w, uint8, 0..255, c = 1 where the file is grey and 3 where it has colour.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from stat import S_ISREG
from typing import IO, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

Fit = Literal["crop", "stretch", "centre"]
FITS: tuple[Fit, ...] = ("crop", "stretch", "centre")
# Formats with a firm signature whose readers run no outside program (EPS would start Ghostscript).
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000")
SUFFIXES = frozenset(
    (
        *(
            ".jpg",
            ".jpeg",
            ".jpe",
            ".jfif",
            ".mpo",
            ".png",
            ".apng",
            ".bmp",
            ".gif",
            ".tif",
            ".tiff",
            ".webp",
        ),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k"),
    )
)
SIGNATURES = (
    *(
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"BM",
        b"GIF87a",
        b"GIF89a",
        b"II*\0",
        b"MM\0*",
        b"RIFF",
        b"P1",
        b"P2",
    ),
    *(b"P3", b"P4", b"P5", b"P6", b"\0\0\0\x0cjP  ", b"\xffO\xffQ"),
)
WIDE_ASPECT = 4.0
ORIENTATION_TAG = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True)
class Framing:
    """Say what every image is brought to.

    Parameters
    ----------
    image_size : tuple of int
        (height, width) of the result in pixels.
    fit : {"crop", "stretch", "centre"}
        Scale the shorter side and crop the centre; scale both sides; or crop the centre without
        scaling, as the authors did for faces ([C]).
    min_side : int
        A file whose shorter side has fewer pixels is refused.
    max_pixels : int
        A file with more pixels is refused before it is decoded.
    """

    image_size: tuple[int, int]
    fit: Fit = "crop"
    min_side: int = 1
    max_pixels: int = 89_478_485  # Pillow's own limit: a 3-byte image of 256 MiB


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Hold a picture, or the reason why there is none, and what was noteworthy about the file."""

    image_u8: np.ndarray | None = None
    reason: str = ""
    detail: str = ""
    notes: tuple[str, ...] = ()


class _Refused(Exception):
    """Carry a reason, and a detail, out of the decoding of one file."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def decode_file(path: Path, framing: Framing) -> Decoded:
    """Decode ``path`` by what it holds, not by what its name says."""
    return decode(partial(_open, path), framing, suffix=path.suffix.lower())


def decode(load: Callable[[], Image.Image], framing: Framing, *, suffix: str = "") -> Decoded:
    """Open an image with ``load`` and bring it to ``framing``.

    Parameters
    ----------
    load : callable
        Opens one image; called once.
    framing : Framing
        The asked size, and what is refused.
    suffix : str, optional
        The file's ending, to note where it is not that of its format.

    Returns
    -------
    Decoded
        Never raises for a bad file: the reason is in the result.
    """
    notes: list[str] = []
    try:
        with load() as image:
            _check_size(image, framing)
            if suffix and Image.registered_extensions().get(suffix, image.format) not in (
                image.format,
                _kin(image),
            ):
                notes.append("ending of another format")
            is_png = image.format == "PNG"
            upright = _upright(image, framing, notes)
            image_u8 = _to_array(_to_8_bit(upright, notes, is_png), framing, notes)
    except _Refused as refusal:
        return Decoded(reason=refusal.reason, detail=refusal.detail)
    except PermissionError as error:
        return Decoded(reason="no permission to read", detail=str(error.strerror))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        return Decoded(reason="too many pixels", detail=str(error))
    except UnidentifiedImageError:
        return Decoded(reason="not an image")
    except MemoryError:
        return Decoded(reason="too many pixels", detail="out of memory")
    # Decoders meet hostile bytes with a dozen kinds of exception, struct.error and AttributeError
    # among them; whatever it is, one bad file must cost one line of the report and not the run.
    except Exception as error:
        reason = "truncated" if "truncated" in str(error).lower() else "damaged"
        return Decoded(reason=reason, detail=f"{type(error).__name__}: {error}"[:200])
    return Decoded(image_u8=image_u8, notes=tuple(notes))


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Set Pillow up for a run of `decode` in any number of threads.

    Notes
    -----
    Filters of warnings belong to the process, so they are set once, outside the threads: the one for
    huge images becomes a refusal, the one for bad EXIF tags says nothing that matters to the pixels.
    """
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
        yield


def is_image_file(path: Path) -> bool:
    """Say whether a file whose name does not say so begins as an image does."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return False
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    if head[:1] == b"P":
        return head[:2] in SIGNATURES and head[2:3] in (b" ", b"\n", b"\t", b"\r")
    if head[:2] == b"BM":
        return head[6:10] == bytes(4)
    return head.startswith(SIGNATURES) or head[4:12] == b"ftypavif"


def open_image(file: Path | IO[bytes]) -> Image.Image:
    """Open an image of one of `FORMATS`, by its content; its pixels are not read yet."""
    return Image.open(file, formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(path: Path) -> Image.Image:
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise _Refused("broken link" if path.is_symlink() else "vanished") from error
    except OSError as error:
        raise _Refused(
            "broken link" if path.is_symlink() else "cannot be opened", str(error.strerror)
        ) from error
    if not S_ISREG(found.st_mode):
        raise _Refused("not an ordinary file")  # opening a pipe would wait for ever
    if found.st_size == 0:
        raise _Refused("empty file")
    try:
        return open_image(path)
    except UnidentifiedImageError as error:
        with open(path, "rb") as file:
            head = file.read(16)
        raise _Refused("not an image", f"{found.st_size} bytes that begin with {head!r}") from error


def _kin(image: Image.Image) -> str | None:
    return {"MPO": "JPEG", "JPEG": "MPO"}.get(
        image.format or ""
    )  # a JPEG with a second picture inside


def _check_size(image: Image.Image, framing: Framing) -> None:
    width, height = image.size
    size = f"{width} x {height} pixels"
    if width * height > framing.max_pixels:
        raise _Refused("too many pixels", f"{size}, more than {framing.max_pixels}")
    if min(width, height) < framing.min_side:
        raise _Refused("too small", f"{size}, shorter side below {framing.min_side}")


def _upright(image: Image.Image, framing: Framing, notes: list[str]) -> Image.Image:
    """Read the pixels and turn them as the camera's EXIF tag says."""
    if getattr(image, "is_animated", False):
        notes.append("first frame of several")
    if (
        framing.fit != "centre"
    ):  # let the JPEG reader shrink by 2, 4 or 8, to no less than twice the asked size
        image.draft(None, (2 * max(framing.image_size), 2 * max(framing.image_size)))
    image.load()
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a damaged tag, in as many ways as above; the pixels are sound
        notes.append("unreadable EXIF")
        return image
    if turn is None:
        return image
    notes.append("turned as EXIF says")
    return image.transpose(turn)


def _to_8_bit(image: Image.Image, notes: list[str], is_png: bool) -> Image.Image:
    """Bring any colour mode to L or RGB."""
    mode = "I;16" if is_png and image.mode == "I" else image.mode  # older Pillow widens 16-bit PNGs
    if mode.startswith(("I", "F")):
        return _scaled(np.asarray(image), mode, notes)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        notes.append("transparency over white")
        layered = (
            image.convert("RGBA") if mode not in ("LA", "La", "L", "1") else image.convert("LA")
        )
        white = Image.new(layered.mode.removesuffix("A"), image.size, "white")
        white.paste(layered.convert(white.mode), mask=layered.getchannel("A"))
        return white
    if mode in ("1", "P", "CMYK", "YCbCr", "HSV", "RGBX"):
        notes.append({"1": "1-bit", "P": "palette"}.get(mode, mode))
        return image.convert("L" if mode == "1" else "RGB")
    if mode not in ("L", "RGB"):
        raise _Refused("colour mode not supported", mode)
    return image


def _scaled(values: np.ndarray, mode: str, notes: list[str]) -> Image.Image:
    """Scale 16-bit, 32-bit and float grey to 0..255 by the range that the values show."""
    if mode == "F" and not np.isfinite(values).all():
        raise _Refused("values not finite", "a float image with NaN or infinity")
    low, high = float(values.min()), float(values.max())
    tops = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0)}.get(mode, (65535.0,))
    top = next((top for top in tops if low >= 0.0 and high <= top), None)
    offset, span = (0.0, top) if top else (low, max(high - low, 1e-12))
    kind = {"F": "float", "I": "32-bit"}.get(mode, "16-bit")
    notes.append(f"{kind} grey scaled from {f'0..{top:g}' if top else 'its own lowest..highest'}")
    return Image.fromarray(
        ((values.astype(np.float64) - offset) * (255.0 / span) + 0.5).astype(np.uint8)
    )


def _to_array(image: Image.Image, framing: Framing, notes: list[str]) -> np.ndarray:
    """Crop and scale to the asked size; return c x h x w."""
    (height, width), (wide, high) = framing.image_size, image.size
    box = (0.0, 0.0, float(wide), float(high))
    if framing.fit == "centre":
        if high < height or wide < width:
            raise _Refused(
                "too small", f"{wide} x {high} pixels cannot be cropped to {width} x {height}"
            )
        image = _cut(image, width, height)
    elif framing.fit == "crop":
        scale = min(wide / width, high / height)
        if max(wide / width, high / height) > WIDE_ASPECT * scale:
            notes.append(f"more than {WIDE_ASPECT:g} times as long as asked, ends cropped")
        if scale == 1.0:
            image = _cut(image, width, height)  # whole pixels: nothing to resample
        else:
            # width * (wide / width) may round to just above wide
            left, top = max(0.0, wide - width * scale) / 2, max(0.0, high - height * scale) / 2
            box = (left, top, min(left + width * scale, wide), min(top + height * scale, high))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _cut(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    if image.size == (width, height):
        return image
    return image.crop((left, top, left + width, top + height))
