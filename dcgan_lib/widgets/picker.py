"""Pick exemplars by eye: a page of samples with a box to tick under each, for JupyterLab and Colab.

Axes: n samples. On a page without a kernel the samples and ticks stay as they were stored.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np

from dcgan_lib.errors import UserError
from dcgan_lib.interpretation.arithmetic import Exemplars, pictures_of
from dcgan_lib.models.sampling import sample_latents, seeded
from dcgan_lib.notebook import webp_bytes
from dcgan_lib.training.checkpoints import load_generator


class ExemplarPicker(widgets.VBox):
    """Show a generator's samples by number, and keep which of them show a concept.

    ``concepts`` may map a name to the samples that are ticked to begin with. ``seed`` and ``pool``
    are those of ``dcgan arithmetic``; a page shows ``count`` samples from ``first`` on.
    """

    def __init__(
        self,
        checkpoint: str = "faces",
        concepts: Sequence[str] | Mapping[str, Sequence[int]] = ("A", "B", "C"),
        *,
        seed: int = 1,
        pool: int = 8_000,
        first: int = 0,
        count: int = 24,
    ) -> None:
        known = concepts if isinstance(concepts, Mapping) else dict.fromkeys(concepts, ())
        kept = Exemplars(checkpoint=checkpoint, seed=seed, pool=pool, concepts=known)
        if count < 1:
            raise UserError(f"a page shows at least 1 sample, but count is {count}")
        self.checkpoint, self.seed, self.pool, self.count = checkpoint, seed, pool, count
        self.picked = {name: list(numbers) for name, numbers in kept.concepts.items()}
        self._generator = load_generator(checkpoint)
        self._z_nd = sample_latents(pool, self._generator.config, seeded(seed)).numpy()
        self._concept = widgets.Dropdown(options=list(self.picked), description="concept")
        self._back, self._on = (widgets.Button(description=text) for text in ("earlier", "later"))
        wrapped = {"flex_flow": "row wrap", "width": "100%"}
        self._grid, self._list = widgets.Box(layout=widgets.Layout(**wrapped)), widgets.Label()
        head = widgets.Box([self._concept, self._back, self._on], layout=widgets.Layout(**wrapped))
        super().__init__([head, self._grid, self._list])
        self._concept.observe(lambda _: self._tick(), "value")
        self._back.on_click(lambda _: self.show(max(self.first - count, 0)))
        self._on.on_click(lambda _: self.first + count < pool and self.show(self.first + count))
        self.show(first)

    def show(self, first: int) -> None:
        """Turn to the page that begins with a sample."""
        if not 0 <= first < self.pool:
            raise UserError(f"samples are numbered 0 to {self.pool - 1}, but {first} was asked for")
        self.first = first
        shown = pictures_of(self._generator, self._z_nd[first : first + self.count])
        cells = [self._cell(number, pixels) for number, pixels in enumerate(shown, first)]
        left, self._grid.children = self._grid.children, cells
        # Or each page that was seen stays in the kernel, and in the notebook when it is saved.
        for cell in left:
            for widget in (*cell.children, cell):
                widget.layout.close()
                widget.close()
        self._tick()

    def exemplars(self, sums: Mapping[str, Sequence[str]] | None = None) -> Exemplars:
        """Return what is picked, to be saved; ``sums`` maps a name to concepts A, B and C."""
        place = {"checkpoint": self.checkpoint, "seed": self.seed, "pool": self.pool}
        return Exemplars(**place, concepts=self.picked, sums=sums or {})

    def _cell(self, number: int, pixels_chw: np.ndarray) -> widgets.VBox:
        pixels = pixels_chw[0] if len(pixels_chw) == 1 else pixels_chw.transpose(1, 2, 0)
        narrow = {"layout": widgets.Layout(width="72px")}
        picture = widgets.Image(value=webp_bytes(pixels), format="webp", **narrow)
        box = widgets.Checkbox(description=str(number), indent=False, **narrow)
        box.observe(self._take, "value")
        return widgets.VBox([picture, box])

    def _boxes(self) -> list[widgets.Checkbox]:
        return [cell.children[1] for cell in self._grid.children]

    def _tick(self) -> None:
        numbers = list(self.picked[self._concept.value])
        for box in self._boxes():
            box.value = int(box.description) in numbers
        self._say()

    def _take(self, change: dict[str, Any]) -> None:
        numbers, number = self.picked[self._concept.value], int(change["owner"].description)
        if change["new"] and number not in numbers:
            numbers.append(number)
        elif not change["new"] and number in numbers:
            numbers.remove(number)
        self._say()

    def _say(self) -> None:
        concept = self._concept.value
        numbers = ", ".join(map(str, self.picked[concept])) or "none yet"
        self._list.value = f"{concept}: {numbers} (seed {self.seed}, pool of {self.pool:,})"

    def __repr__(self) -> str:
        return f"ExemplarPicker({self.checkpoint!r}, seed={self.seed}, first={self.first})"
