"""Every reader of bytes from outside meets damaged ones: it reads them, or says what is wrong.

Sound files are small ones of every kind that the library reads. Hypothesis damages them (bytes
turned, cut off, put in, taken out; values of JSON exchanged), and a reader may then do one of two
things: return something that holds what it promises, or raise a UserError of one line. What the
readers make of sound files, their own tests ask.

`make faults` tries many more examples than a test run does: ``--hypothesis-profile faults``.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from node import needs_node, run_js
from PIL import Image
from test_authors import arrays_of_discriminator, small, write_parts
from test_pytorch_example import ExampleGenerator, lively

from dcgan_lib.config import ModelConfig, TrainConfig
from dcgan_lib.data.decode import Framing, decode_file, decoding
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.listing import list_images
from dcgan_lib.data.load import load_image_set
from dcgan_lib.data.prepare import read_attributes
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.ledger import load_row, results_markdown
from dcgan_lib.evaluation.probes import Head, Probe, ProbeConfig, load_probe, save_probe
from dcgan_lib.models.networks import untrained_discriminator
from dcgan_lib.paths import results_root
from dcgan_lib.training.authors import read_pair
from dcgan_lib.training.checkpoints import (
    load_generator,
    load_state,
    read_metrics,
    save_networks,
    save_state,
)
from dcgan_lib.training.pytorch_example import read_generator
from dcgan_lib.training.step import make_gan

SIDE = 16
THIN = ModelConfig(image_size=(SIDE, SIDE), base_width=4, z_dim=6)

# ---------------------------------------------------------------- damage

Edit = tuple[str, float, bytes]
edits = st.lists(
    st.tuples(
        st.sampled_from(["turn", "overwrite", "insert", "delete", "cut", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)


def damaged(whole: bytes, changes: list[Edit]) -> bytes:
    """Change some bytes; a place near 0 is in the header, where most of what can go wrong is."""
    content = bytearray(whole)
    for kind, place, new in changes:
        at = int(place**3 * len(content))
        if kind == "turn" and content:
            content[at] ^= new[0] or 1
        elif kind == "overwrite":
            content[at : at + len(new)] = new
        elif kind == "insert":
            content[at:at] = new
        elif kind == "delete":
            del content[at : at + 4 * len(new)]
        elif kind == "cut":
            del content[int(place * len(content)) :]
        elif kind == "repeat":
            content[at:at] = content[at : at + 64]
    return bytes(content)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)


def exchanged(document: Any, place: int, new: Any) -> Any:
    """Return a JSON document with one of its values, counted from the outermost, exchanged."""
    document = json.loads(json.dumps(document))
    spots: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            spots.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(document)
    if place % (len(spots) + 1) == 0:
        return new
    node, key = spots[place % (len(spots) + 1) - 1]
    node[key] = new
    return document


def reads_or_says(read: Callable[[], Any]) -> Any:
    """Return what a reader returns, or None where it refuses as it should."""
    try:
        return read()
    except UserError as error:
        assert len(str(error)) > 20, error
        assert "\n" not in str(error).strip(), error


def test_a_reader_that_lets_an_error_through_is_seen():
    def careless() -> int:
        return json.loads("{")["config"]

    with pytest.raises(json.JSONDecodeError):
        reads_or_says(careless)

    def mumbling() -> None:
        raise UserError("bad")

    with pytest.raises(AssertionError):
        reads_or_says(mumbling)


# ---------------------------------------------------------------- pictures


def picture(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    stored = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(stored, kind, **({"exif": exif} if kind == "JPEG" else {}))
    return stored.getvalue()


KINDS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
PICTURES = {kind: picture(kind) for kind in KINDS}


@given(st.sampled_from(KINDS), edits)
def test_a_damaged_picture_is_decoded_or_gives_a_reason(tmp_path_factory, kind, changes):
    path = tmp_path_factory.getbasetemp() / f"fuzzed.{kind.lower()}"
    path.write_bytes(damaged(PICTURES[kind], changes))
    with decoding():
        found = decode_file(path, Framing(image_size=SIDE))
    if found.image_u8 is None:
        assert found.reason
    else:
        assert found.image_u8.dtype == np.uint8
        assert found.image_u8.shape in ((1, SIDE, SIDE), (3, SIDE, SIDE))


# ---------------------------------------------------------------- files that a folder is read from


@dataclass(frozen=True)
class Reader:
    """A sound folder, the files of it that are damaged, and what reads the folder."""

    make: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path], Any]


def make_image_set(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 3, 8, 8), dtype=np.uint8)
    labels, tall = np.arange(6) % 2, {"tall": np.arange(6) > 2}
    names = ("a", "b")
    whole = ImageSet(
        name="six", images_u8=pixels, labels=labels, class_names=names, attributes=tall
    )
    whole.save(folder / "six")


def make_run(folder: Path) -> None:
    gan = make_gan(TrainConfig(model=THIN), torch.device("cpu"))
    save_networks(folder, gan, {"image_set": "six", "images": 6})
    save_state(folder, gan, {"step": 0})
    lines = [json.dumps({"step": step, "d_loss": 0.5}) + "\n" for step in range(5)]
    (folder / "metrics.jsonl").write_text("".join(lines))


def read_state(folder: Path) -> None:
    gan = make_gan(TrainConfig(model=THIN), torch.device("cpu"))
    assert "step" in load_state(folder, gan)


def make_probe(folder: Path) -> None:
    config = ProbeConfig(
        image_size=(8, 8), num_channels=3, widths=(4,), heads=(Head(name="tall", kind="boolean"),)
    )
    save_probe(Probe(config), folder, report={}, command="dcgan probe tall")


def make_mnist(folder: Path) -> None:
    """Write the four IDX files of a small MNIST: a header of big-endian integers, then bytes."""
    rng = np.random.default_rng(0)
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        sizes = [7, 28, 28], [7]
        for what, shape in zip(("images-idx3", "labels-idx1"), sizes, strict=True):
            head = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
            body = rng.integers(0, 10, shape, dtype=np.uint8).tobytes()
            (raw / f"{part}-{what}-ubyte").write_bytes(head + body)


def read_mnist(folder: Path) -> ImageSet:
    shutil.rmtree(folder / "prepared", ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCGAN_DATA", str(folder))
        return load_image_set("mnist", "test")


def make_pth(folder: Path) -> None:
    torch.save(lively(ExampleGenerator(2, 3)).state_dict(), folder / "netG.pth")
    old = {"_use_new_zipfile_serialization": False}
    torch.save(lively(ExampleGenerator(2, 3)).state_dict(), folder / "old.pth", **old)


AUTHORS = small(ModelConfig(image_size=(SIDE, SIDE), base_width=4, z_dim=6, bn_eps=1e-8))


def make_authors(folder: Path) -> None:
    network = untrained_discriminator(AUTHORS.recipe.config.model)
    write_parts(folder, AUTHORS, "discrim", arrays_of_discriminator(network))


def make_tar(folder: Path) -> None:
    with tarfile.open(folder / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for number, kind in enumerate(("PNG", "JPEG")):
            member = tarfile.TarInfo(f"{'é' * 60 * number}/{number}.{kind.lower()}")
            member.size = len(PICTURES[kind])
            tar.addfile(member, io.BytesIO(PICTURES[kind]))


def read_tar(folder: Path) -> None:
    listing = list_images(folder / "a.tar")
    with decoding():
        for at in range(len(listing.names)):
            found = listing.decode_one(at, Framing(image_size=SIDE))
            assert (found.image_u8 is None) == bool(found.reason)


READERS = {
    "a tar": Reader(make_tar, ("a.tar",), read_tar),
    "a prepared image set": Reader(
        make_image_set,
        ("six/card.json", "six/images.npy", "six/labels.npy", "six/attributes.npz"),
        lambda folder: ImageSet.load(folder / "six"),
    ),
    "a generator": Reader(make_run, ("generator.safetensors", "config.json"), load_generator),
    "a saved state": Reader(make_run, ("state.safetensors",), read_state),
    "a probe": Reader(make_probe, ("probe.safetensors",), load_probe),
    "metrics": Reader(
        make_run, ("metrics.jsonl",), lambda folder: read_metrics(folder / "metrics.jsonl")
    ),
    "MNIST": Reader(
        make_mnist,
        ("MNIST/raw/t10k-images-idx3-ubyte", "MNIST/raw/t10k-labels-idx1-ubyte"),
        read_mnist,
    ),
    "a new .pth": Reader(
        make_pth, ("netG.pth",), lambda folder: read_generator(folder / "netG.pth")
    ),
    "an old .pth": Reader(
        make_pth, ("old.pth",), lambda folder: read_generator(folder / "old.pth")
    ),
    "the authors' arrays": Reader(
        make_authors,
        tuple(f"7_discrim_params.jl_{number:02d}.npy" for number in (1, 2, 3)),
        lambda folder: read_pair(AUTHORS, folder),
    ),
}


@pytest.fixture(scope="module", params=READERS)
def reader(request, tmp_path_factory):
    """Hand over a reader, the folder that it reads, and the sound bytes of each of its files."""
    chosen, folder = READERS[request.param], tmp_path_factory.mktemp("fuzz")
    chosen.make(folder)
    chosen.read(folder)
    return chosen, folder, {name: (folder / name).read_bytes() for name in chosen.files}


@given(st.data(), edits)
def test_a_damaged_file_is_read_or_refused_in_a_sentence(reader, data, changes):
    chosen, folder, sound = reader
    name = data.draw(st.sampled_from(chosen.files))
    (folder / name).write_bytes(damaged(sound[name], changes))
    try:
        reads_or_says(lambda: chosen.read(folder))
    finally:
        (folder / name).write_bytes(sound[name])


# ---------------------------------------------------------------- JSON, tables, addresses

DOCUMENTS = {
    "a prepared image set": ("six/card.json",),
    "a generator": ("config.json",),
    "a probe": ("config.json",),
}


@pytest.fixture(scope="module", params=DOCUMENTS)
def document(request, tmp_path_factory):
    """Hand over a reader, a JSON file that it reads, and what stands in it."""
    folder = tmp_path_factory.mktemp("documents")
    READERS[request.param].make(folder)
    (name,) = DOCUMENTS[request.param]
    return lambda: READERS[request.param].read(folder), folder / name


@given(place=st.integers(0, 300), new=anything)
def test_a_document_with_a_wrong_value_is_read_or_refused(document, place, new):
    read, path = document
    sound = path.read_text()
    try:
        path.write_text(json.dumps(exchanged(json.loads(sound), place, new)))
        reads_or_says(read)
    finally:
        path.write_text(sound)


ROWS = [path for path in sorted(results_root().glob("*.json")) if path.stem.startswith("t")]


@given(st.sampled_from(ROWS), st.integers(0, 300), anything)
def test_a_row_of_the_ledger_with_a_wrong_value_is_read_or_refused(
    tmp_path_factory, path, place, new
):
    folder = tmp_path_factory.getbasetemp() / "fuzzed-results"
    folder.mkdir(exist_ok=True)
    row = exchanged(json.loads(path.read_text()), place, new)
    (folder / path.name).write_text(json.dumps(row))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCGAN_RESULTS", str(folder))
        found = reads_or_says(lambda: load_row(path.stem.replace("--", ":")))
        if found is not None:
            results_markdown([found])


@given(edits)
def test_a_damaged_table_of_attributes_is_read_or_refused(changes):
    sound = b"file,smiling,glasses\na.png,1,0\nb.png,-1,1\n"
    table = damaged(sound, changes).decode("utf-8", "replace")
    found = reads_or_says(lambda: read_attributes(table, ["a.png", "b.png"]))
    assert found is None or all(values.shape == (2,) for values in found.values())


@needs_node
@pytest.mark.parametrize("script", ["sandbox.js", "transposed_convolution.js", "explorer.js"])
def test_a_damaged_address_still_opens_the_page(tmp_path, script):
    """2,000 addresses made of the words that a page knows, and of signs that mean something."""
    words = "seed target loss width size kernel input view pad axes ring own 1 -1 9e99 NaN 0x7 1e-9"
    signs = ": ; , = & # % %41 %E0%A4 __proto__ constructor null undefined é 😀"
    known, rng = f"{words} {signs}".split(), np.random.default_rng(0)
    texts = ["".join(rng.choice(known, rng.integers(0, 9))) for _ in range(2000)]
    code = """
    globalThis.location = { hash: "", href: "" };
    const bad = [];
    for (const text of read("texts.json")) {
      location.hash = `#x1=${text}`;
      try { readAddress("x1", DEFAULTS_OF_PAGE); }
      catch (error) { bad.push([text, String(error)]); }
    }
    answer([bad.length, ...bad.slice(0, 3)]);
    """
    code = code.replace("DEFAULTS_OF_PAGE", "DEFAULTS" if "convolution" in script else "{}")
    assert run_js(tmp_path, code, files={"texts.json": texts}, script=script) == [0]
