"""Load the sets that need no download: drawn ones by seed, and scikit-learn's digits."""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.data.parts import prepared_root, resized, sound_or_none
from dcgan_lib.errors import UserError

PROCEDURAL = {"rooms": "rooms", "portraits": "portraits", "street-digits": "street_digits"}
NUM_DRAWN = {"train": 20_000, "validation": 2_000, "test": 2_000}
SEED_STEP = 1_000_000


def load_drawn(
    name: str,
    split: str,
    size: tuple[int, int] | None = None,
    num_images: int | None = None,
    seed: int = 0,
    channels: str | int = "auto",
    *,
    progress: bool = False,
) -> ImageSet:
    """Draw a procedural set, or open the copy kept from the last time that the same was asked for."""
    if split not in NUM_DRAWN or not 0 <= seed < SEED_STEP or channels not in ("auto", 3):
        raise UserError(
            f"{name} is drawn in RGB, for the splits {', '.join(NUM_DRAWN)} and seeds 0..{SEED_STEP - 1}; "
            f"got {split!r}, seed {seed}, channels {channels!r}"
        )
    num = num_images or NUM_DRAWN[split]
    drawn_seed = seed + list(NUM_DRAWN).index(split) * SEED_STEP  # no split shares a seed with another
    module = import_module(f"dcgan_lib.data.procedural.{PROCEDURAL[name]}")
    folder = prepared_root() / f"{name}-{num}-seed{drawn_seed}.{_source_digest(Path(module.__file__).parent)}"
    found = sound_or_none(folder)
    if found is None:
        draw: Callable[..., ImageSet] = getattr(module, f"draw_{PROCEDURAL[name]}")
        found = draw(num, drawn_seed, progress=progress)
        with contextlib.suppress(OSError):  # a data folder that may not be written costs only the time next time
            found = found.save(folder)
    found = found if size is None else resized(found, size)
    return replace(found, card={**found.card, "split": split})


def _source_digest(folder: Path) -> str:
    """Return a digest of the drawing code, so that a kept set never outlives it."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
