"""Words while training: what goes wrong, and what to do about it.

`fit` looks here only when it writes a line of metrics, so no step waits for a number. Every
sentence ends with the section to read on the book's page "When it goes wrong". The bounds are our
choice: the logs of all committed checkpoints stay within them, and runs that were spoilt on
purpose (that page, and ``dcgan ablate``) do not.

Axes: n images, c channels, h x w pixels; ``*_u8`` pixels 0..255.
"""

import numpy as np

from dcgan_lib.config import TrainConfig

WON, ALL_FAKE, SWINGING = "D has won", "D calls everything fake", "the losses swing far"
ALIKE = "the samples are alike"

PATIENCE = 100
"""Steps that trouble must last before it is named."""
LOST_G_LOSS = 6.0
"""G's loss above which D's victory is named. Where `find_trouble` says that D has won, D may still
teach: our rooms ended so, but G's loss stayed below 5.7, and rooms were drawn. At 6, D(G(z)) is
1 / 400."""
LEAST_VARIETY = 0.1
"""Share of the real images' variety below which samples are alike."""
YOUNG = 1_000
"""Steps before which alike samples mean a collapse only if they were twice as varied earlier: all
generators begin with pictures that are nearly alike."""
HIGH_RATE = 2e-3
FEW_IMAGES, MANY_PASSES = 1_000, 50

WORDS = {
    WON: (
        "the discriminator has won: the generator learns little from it; try the paper's learning "
        "rate (0.0002) and beta1 (0.5), more images, or more g_updates",
        "D's loss goes to 0, and G's rises",
    ),
    ALL_FAKE: (
        "the discriminator calls everything fake: it has collapsed; restart with another seed or "
        "a lower rate",
        "D's loss goes to 0, and G's rises",
    ),
    SWINGING: (
        "the losses diverge: soon one network may win for good; lower the learning rate, and give "
        "both networks the same number of updates",
        "All samples are alike",
    ),
    ALIKE: (
        "the generator has collapsed: its samples are nearly alike; go back to an earlier "
        "snapshot, give both networks the same number of updates, or restart with another seed",
        "All samples are alike",
    ),
}
"""What is said of each trouble, and the section to read."""


def find_trouble(line: dict[str, float]) -> str | None:
    """Return what is out of bounds in one line of metrics, or None.

    A discriminator that is sure of nearly every image gives the generator a gradient that says
    little; at d_loss < 0.05 it has in effect won. Before that happens at too high a rate, the two
    throw each other about: d_loss rises far above 1.386, that of a coin's flip, or g_loss above 15,
    where D(G(z)) is less than a millionth.
    """
    d_loss, g_loss = line.get("d_loss", 1.0), line.get("g_loss", 1.0)
    if d_loss < 0.05:
        return WON
    if line.get("d_real", 1.0) < 0.02 and line.get("d_fake", 1.0) < 0.02:
        return ALL_FAKE
    if d_loss > 2 or g_loss > 15:
        return SWINGING
    return None


def variety(images_u8: np.ndarray) -> float:
    """Return the standard deviation of a pixel over the images, averaged over all pixels."""
    return float(images_u8.astype(np.float32).std(0).mean())


class Watch:
    """Say once each what has gone wrong for `PATIENCE` steps.

    It begins anew with a resumed run, which keeps nothing of it.

    Parameters
    ----------
    real_u8
        Some of the set's images, at least two, whose variety samples are compared with.
    step
        The step that the run goes on from.
    """

    def __init__(self, real_u8: np.ndarray, step: int) -> None:
        self._variety, self._looked_at = variety(real_u8), step
        self._most, self._line = 0.0, {}
        self._since: dict[str, int] = {}
        self._said: set[str] = set()

    def look(self, line: dict[str, float], samples_u8: np.ndarray) -> list[str]:
        """Return sentences to say after a line of metrics, from it and from some samples."""
        self._line |= line  # with log_every 1, G and D may take turns in the log
        found = {find_trouble(self._line)}
        if self._line.get("g_loss", 0.0) < LOST_G_LOSS:
            found.discard(WON)
        if len(samples_u8) > 1 and self._are_alike(variety(samples_u8), line["step"]):
            found.add(ALIKE)
        begun, self._looked_at = self._looked_at, line["step"]
        self._since = {kind: self._since.get(kind, begun) for kind in WORDS if kind in found}
        lasting = [kind for kind, since in self._since.items() if line["step"] - since >= PATIENCE]
        new = [kind for kind in lasting if kind not in self._said]
        self._said.update(new)
        return [_sentence(*WORDS[kind]) for kind in new]

    def _are_alike(self, found: float, step: int) -> bool:
        self._most = max(self._most, found)
        fell = found < self._most / 2
        return found < LEAST_VARIETY * self._variety and (fell or step > YOUNG)


def warnings_at_start(config: TrainConfig, num_images: int) -> list[str]:
    """Return what can be said before the first step."""
    found = []
    if config.learning_rate > HIGH_RATE:
        found.append(
            f"learning_rate {config.learning_rate:g} is high: the paper uses 0.0002, "
            "and calls 0.001 too high"
        )
    passes = config.steps * config.batch_size / num_images
    if num_images < FEW_IMAGES and passes >= MANY_PASSES:
        sentence = (
            f"{num_images} images are few, and {passes:,.0f} passes over them are planned, so "
            "samples may be copies of them: add images, take fewer steps, try --mirror and "
            "--d-shift, and look for copies with dcgan evaluate"
        )
        found.append(_sentence(sentence, "Few photographs"))
    return found


def _sentence(words: str, section: str) -> str:
    return f'{words}; see "{section}" on the book\'s page "When it goes wrong"'
