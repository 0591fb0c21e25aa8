"""Turn one image file, whatever its kind, into one uint8 picture of the asked size, or say why not.

Legend: image_u8 is c x h x w, uint8, 0..255, c = 1 where the file is grey, 3 where it has colour.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from dcgan_lib.errors import check_choices, check_number, require

Fit = Literal["crop", "stretch", "centre"]
VERSION = 2  # of the pixels: raise it when the same file would decode to others
LARGEST_SIDE = 4096
MAX_PIXELS = 89_478_485  # Pillow's own limit: a 3-byte image of 256 MiB
WIDE_ASPECT = 4.0
GREY_BITS = (8, 10, 12, 14, 16)  # depths that cameras and scanners store in 16 bits
# Formats with a firm signature whose readers run no outside program (EPS would start Ghostscript).
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000", "HEIF")
HEIC_BRANDS = ("heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "msf1")
HEIC_REASON = "HEIC photograph: convert it to JPEG, or pip install pillow-heif"


@dataclass(frozen=True, kw_only=True)
class Framing:
    """Say what every image is brought to, and what is refused."""

    image_size: tuple[int, int]
    """(height, width) of the result in pixels, 1..4096 each; a side alone makes a square."""
    channels: Literal["auto", 1, 3] = "auto"
    """1 for grey, 3 for RGB; "auto" keeps grey when every image of the set is grey."""
    fit: Fit = "crop"
    """Scale the shorter side and crop the centre; scale both sides ("stretch"); or crop the centre
    without scaling ("centre"), as the authors did for faces ([C])."""
    min_side: int | None = 1
    """A file whose shorter side has fewer pixels is refused; None: half of the asked size's shorter
    side, because to enlarge more than twofold teaches blur ([O])."""
    max_pixels: int = MAX_PIXELS
    """A file with more pixels is refused before it is decoded."""
    grey_bits: int = 0
    """Scale 16-bit grey as if it held at least so many bits; 0: as many as the file shows."""

    def __post_init__(self) -> None:
        size = self.image_size
        pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
        sides = (isinstance(side, (int, np.integer)) and 1 <= side <= LARGEST_SIDE for side in pair)
        allowed = f"a side or (height, width), 1..{LARGEST_SIDE} pixels"
        require(len(pair) == 2 and all(sides), "image_size", size, allowed)
        object.__setattr__(self, "image_size", (int(pair[0]), int(pair[1])))
        if self.min_side is None:
            object.__setattr__(self, "min_side", max(min(self.image_size) // 2, 1))
        check_choices(self)
        for name in ("min_side", "max_pixels"):
            check_number(self, name, 1)

    def as_card(self) -> dict[str, Any]:
        """Return what decides the pixels of a set, its files apart, as JSON holds it."""
        size = list(self.image_size)
        chosen = {key: value for key, value in vars(self).items() if key != "grey_bits"}
        return {**chosen, "image_size": size, "version": VERSION}


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Hold a picture, or the reason why there is none, and what was noteworthy about the file."""

    image_u8: np.ndarray | None = None
    reason: str = ""
    detail: str = ""
    notes: tuple[str, ...] = ()
    grey_bits: int = 0
    """Bits that the values of 16-bit grey fill: 8, 10, 12, 14 or 16; 0 for other images."""


class _Refused(Exception):
    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the upright picture, right and bottom exclusive."""


def decode_file(path: Path, framing: Framing, box: Box | None = None) -> Decoded:
    """Decode ``path`` by what it holds, not by what its name says; only ``box`` of it if given."""
    return decode(partial(_open, path), framing, suffix=path.suffix.lower(), box=box)


def decode_bytes(raw: bytes, framing: Framing, *, suffix: str = "") -> Decoded:
    """Decode an encoded image that lies in memory; ``suffix`` is the ending of its name."""
    return decode(partial(_open_bytes, raw), framing, suffix=suffix)


def decode_grey(path: Path, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode ``path`` whole and upright at its own size, as grey: 1 x h x w."""
    framing = Framing(image_size=1, max_pixels=max_pixels)

    def finish(image: Image.Image, notes: list[str]) -> np.ndarray:
        return np.asarray(image.convert("L"))[None]

    return _decode(partial(_open, path), framing, path.suffix.lower(), finish, may_shrink=False)


def decode(
    load: Callable[[], Image.Image], framing: Framing, *, suffix: str = "", box: Box | None = None
) -> Decoded:
    """Bring the image that ``load`` opens to ``framing``; a bad file gives a reason, no error."""

    def finish(image: Image.Image, notes: list[str]) -> np.ndarray:
        if box is not None:
            image = image.crop(box)
            _check_size(image, framing)
        return _to_array(image, framing, notes)

    return _decode(load, framing, suffix, finish, may_shrink=box is None)


def _decode(
    load: Callable[[], Image.Image],
    framing: Framing,
    suffix: str,
    finish: Callable[[Image.Image, list[str]], np.ndarray],
    may_shrink: bool,
) -> Decoded:
    notes: list[str] = []
    try:
        with load() as image:
            _check_size(image, framing)
            by_name = Image.registered_extensions().get(suffix, image.format)
            if by_name != image.format and {by_name, image.format} != {"JPEG", "MPO"}:
                notes.append("ending of another format")  # an MPO is a JPEG with a second picture
            _turn_upright(image, framing, notes, may_shrink)
            grey_or_rgb, bits = _to_8_bit(image, framing, notes)
            image_u8 = finish(grey_or_rgb, notes)
    except _Refused as refusal:
        return Decoded(reason=refusal.reason, detail=refusal.detail)
    except PermissionError as error:
        return Decoded(reason="no permission to read", detail=str(error.strerror))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        return Decoded(reason="too many pixels", detail=str(error) or "out of memory")
    except UnidentifiedImageError:
        return Decoded(reason="not an image")
    # Decoders meet hostile bytes with a dozen kinds of exception, struct.error and AttributeError
    # among them; whatever it is, one bad file must cost one line of the report and not the run.
    except Exception as error:
        reason = "truncated" if "truncated" in str(error).lower() else "damaged"
        return Decoded(reason=reason, detail=f"{type(error).__name__}: {error}"[:200])
    return Decoded(image_u8=image_u8, notes=tuple(notes), grey_bits=bits)


@contextlib.contextmanager
def decoding(max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Set Pillow up for a run of `decode` in any number of threads.

    Its limit and the filters of warnings belong to the process, so they are set once, outside the
    threads. The warning of huge images becomes a refusal; bad EXIF tags do not matter to the
    pixels.
    """
    Image.init()
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max(MAX_PIXELS, max_pixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def open_image(file: Path | IO[bytes]) -> Image.Image:
    """Open an image of one of `FORMATS`, by its content; its pixels are not read yet."""
    return Image.open(file, formats=_formats())


def named_like_image(name: str) -> bool:
    """Say whether a file's name ends as that of an image."""
    return os.path.splitext(name)[1].lower() in _endings()


def holds_image(file: Path | IO[bytes]) -> bool:
    """Say whether a file whose name does not say so begins as an image does."""
    try:
        with open_image(file):
            return True
    except UnidentifiedImageError:
        return _is_heic(_head(file))
    except Exception:  # as many kinds as in `decode`
        return False


def with_channels(image_u8: np.ndarray, channels: int) -> np.ndarray:
    """Return a (n x) c x h x w image as RGB, or as grey: Pillow's ITU-R 601 luma, bit for bit."""
    axis = image_u8.ndim - 3
    if image_u8.shape[axis] == channels:
        return image_u8
    if channels == 3:
        return np.repeat(image_u8, 3, axis=axis)
    red, green, blue = (image_u8.take([index], axis=axis).astype(np.uint32) for index in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


@cache
def _formats() -> tuple[str, ...]:
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def _endings() -> frozenset[str]:
    known = Image.registered_extensions().items()
    read = {ending for ending, name in known if name in FORMATS}
    return frozenset(read | {".avif", ".heic", ".heif", ".hif"})  # named where they are not read


def _open(path: Path) -> Image.Image:
    try:
        found = path.stat()
    except OSError as error:
        reason = "vanished" if isinstance(error, FileNotFoundError) else "cannot be opened"
        reason = "broken link" if path.is_symlink() else reason
        raise _Refused(reason, str(error.strerror)) from error
    if not S_ISREG(found.st_mode):
        raise _Refused("not an ordinary file")  # opening a pipe would wait for ever
    if found.st_size == 0:
        raise _Refused("empty file")
    try:
        return open_image(path)
    except UnidentifiedImageError as error:
        raise _unknown(_head(path), found.st_size) from error


def _open_bytes(raw: bytes) -> Image.Image:
    if not raw:
        raise _Refused("empty file")
    try:
        return open_image(io.BytesIO(raw))
    except UnidentifiedImageError as error:
        raise _unknown(raw[:16], len(raw)) from error


def _unknown(head: bytes, size: int) -> _Refused:
    if _is_heic(head):
        return _Refused(HEIC_REASON)
    return _Refused("not an image", f"{size} bytes that begin with {head!r}")


def _head(file: Path | IO[bytes]) -> bytes:
    if isinstance(file, Path):
        with open(file, "rb") as opened:
            return opened.read(16)
    file.seek(0)
    return file.read(16)


def _is_heic(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12].decode("latin-1") in HEIC_BRANDS


def _check_size(image: Image.Image, framing: Framing) -> None:
    width, height = image.size
    size = f"{width} x {height} pixels"
    if width * height > framing.max_pixels:
        raise _Refused("too many pixels", f"{size}, more than {framing.max_pixels}")
    if min(width, height) < framing.min_side:
        raise _Refused("too small", f"{size}, shorter side below {framing.min_side}")


def _turn_upright(image: Image.Image, framing: Framing, notes: list[str], may_shrink: bool) -> None:
    """Read the pixels, and turn them in place as the camera's EXIF tag says."""
    if getattr(image, "is_animated", False):
        notes.append("first frame of several")
    if may_shrink and framing.fit != "centre":
        # let the JPEG reader shrink by 2, 4 or 8, to no less than twice the asked size
        image.draft(None, (2 * max(framing.image_size), 2 * max(framing.image_size)))
    if ";16" in str(getattr(image, "tile", "")) and not image.mode.startswith("I"):
        notes.append("16-bit colour cut to its upper 8 bits")  # Pillow keeps no more of it
    image.load()
    try:
        if image.getexif().get(ExifTags.Base.Orientation) in range(2, 9):
            notes.append("turned as EXIF says")
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # a damaged tag, in as many ways as in `decode`; the pixels are sound
        notes.append("unreadable EXIF")


def _to_8_bit(image: Image.Image, framing: Framing, notes: list[str]) -> tuple[Image.Image, int]:
    """Bring any colour mode to L or RGB; also return the bits of 16-bit grey, or 0."""
    mode = image.mode
    if mode.startswith(("I", "F")):
        return _scaled(np.asarray(image), framing, notes)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        notes.append("transparency over white")
        layered = image.convert("LA" if mode in ("LA", "La", "L", "1") else "RGBA")
        white = Image.new(layered.mode.removesuffix("A"), image.size, "white")
        white.paste(layered.convert(white.mode), mask=layered.getchannel("A"))
        return white, 0
    if mode in ("1", "P", "CMYK", "YCbCr", "HSV", "RGBX"):
        notes.append({"1": "1-bit", "P": "palette"}.get(mode, mode))
        return image.convert("L" if mode == "1" else "RGB"), 0
    if mode not in ("L", "RGB"):
        raise _Refused("colour mode not supported", mode)
    return image, 0


def _scaled(values: np.ndarray, framing: Framing, notes: list[str]) -> tuple[Image.Image, int]:
    """Scale 16-bit, 32-bit and float grey to 0..255 by the range that the values show."""
    kind = {"f": "float", "i": "32-bit", "u": "16-bit"}[values.dtype.kind]
    if kind == "float" and not np.isfinite(values).all():
        raise _Refused("values not finite", "a float image with NaN or infinity")
    low, high = float(values.min()), float(values.max())
    bits = 0
    if kind == "float":
        tops = [1.0, 255.0, 65535.0]
    else:
        bits = next((bits for bits in GREY_BITS if low >= 0 and high < 2**bits), 0)
        tops = [2.0 ** max(bits, framing.grey_bits) - 1] if bits else []
    top = next((top for top in tops if low >= 0 and high <= top), None)
    offset, span = (0.0, top) if top else (low, max(high - low, 1e-12))
    notes.append(f"{kind} grey scaled from {f'0..{top:g}' if top else 'its own lowest..highest'}")
    scaled = (values.astype(np.float64) - offset) * (255.0 / span) + 0.5
    return Image.fromarray(scaled.astype(np.uint8)), bits


def _to_array(image: Image.Image, framing: Framing, notes: list[str]) -> np.ndarray:
    """Crop and scale to the asked size; return c x h x w."""
    (height, width), (wide, high) = framing.image_size, image.size
    least, most = sorted((wide / width, high / height))
    if framing.fit == "centre" and least < 1.0:
        size = f"{wide} x {high} pixels"
        raise _Refused("too small", f"{size} cannot be cropped to {width} x {height}")
    if framing.fit == "crop" and most > WIDE_ASPECT * least:
        notes.append(f"more than {WIDE_ASPECT:g} times as long as asked, ends cropped")
    if framing.fit == "centre" or (framing.fit == "crop" and least == 1.0):
        left, top = (wide - width) // 2, (high - height) // 2  # whole pixels: nothing to resample
        image = image.crop((left, top, left + width, top + height))
    elif framing.fit == "crop":
        image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    else:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
