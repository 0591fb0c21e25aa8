"""Does saliency lie on the objects? Shares inside the true boxes, over what evenly spread saliency would have there.

Axes: n images, f features, p peaks, o objects, h x w pixels; boxes are left, top, right, bottom in pixels, ends
exclusive, NaN where the object is absent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.statistics import Estimate, bootstrap_interval
from dcgan_lib.interpretation.guided_backprop import Method, Peak, saliency_maps
from dcgan_lib.interpretation.receptive_field import receptive_field
from dcgan_lib.models.dcgan import Discriminator

_AT_A_TIME = 512


def boxes_in(image_set: ImageSet, objects: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the true boxes of some objects, n x 4 each; empty when the set has no boxes at all.

    Raises
    ------
    UserError
        If the set has boxes, but not of these objects.
    """
    known = [name.removesuffix("_box") for name in image_set.attributes if name.endswith("_box")]
    if wrong := [name for name in objects if name not in known] if known else []:
        raise UserError(f"{image_set.name} has boxes of {', '.join(known)}, but not of {', '.join(wrong)}")
    return {name: image_set.attributes[f"{name}_box"] for name in objects} if known else {}


def cover(boxes_p4: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return which pixels lie inside each box: bool, p x h x w; none where the box is NaN."""
    left, top, right, bottom = np.asarray(boxes_p4, np.float64).T[:, :, None, None]
    rows, columns = np.arange(size[0])[:, None], np.arange(size[1])
    return (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)


@dataclass(frozen=True)
class Shares:
    """Hold what share of each peak's saliency lies inside an object's box, and the box's share of what it sees.

    Parameters
    ----------
    inside, area : dict of str to ndarray
        Per object, float64, f x k for k peaks a feature; both 0 where the object is absent or the map is empty.
    image : ndarray
        int64, f x k: the image of each peak.
    """

    inside: dict[str, np.ndarray]
    area: dict[str, np.ndarray]
    image: np.ndarray

    def lifts(self, name: str) -> np.ndarray:
        """Return each feature's lift, shape (f,): its saliency inside over the area; 0 where it met no object."""
        inside, area = self.inside[name].sum(1), self.area[name].sum(1)
        return np.divide(inside, area, out=np.zeros_like(inside), where=area > 0)

    def by_image(self, name: str, num_images: int) -> np.ndarray:
        """Return inside and area added up per image, shape (n, 2), for a bootstrap over images."""
        sums = [np.bincount(self.image.ravel(), x[name].ravel(), num_images) for x in (self.inside, self.area)]
        return np.stack(sums, 1)


def measure_shares(
    network: Discriminator, images_u8: np.ndarray, boxes: Mapping[str, np.ndarray], peaks: Sequence[Peak],
    num_features: int, method: Method = "guided", layer: int = -1,
) -> Shares:  # fmt: skip
    """Measure how much of each peak's saliency lies inside the boxes.

    Parameters
    ----------
    network, images_u8, peaks, method, layer : optional
        See `saliency_maps`; the peaks of a feature follow each other, as `strongest` returns them.
    boxes : mapping of str to ndarray
        Object to boxes, n x 4.
    num_features : int
        How many features the peaks belong to, each with as many peaks.
    """
    field, size = receptive_field(network.config, layer), network.config.image_size
    inside: dict[str, list[np.ndarray]] = {name: [] for name in boxes}
    area: dict[str, list[np.ndarray]] = {name: [] for name in boxes}
    for start in range(0, len(peaks), _AT_A_TIME):
        some = peaks[start : start + _AT_A_TIME]
        strength = saliency_maps(network, images_u8, some, method, layer).strength.astype(np.float64)
        total = strength.sum((1, 2))
        seen = cover(np.array([field.window(peak.row, peak.column) for peak in some]), size)
        for name, boxes_n4 in boxes.items():
            in_box = cover(boxes_n4[[peak.image for peak in some]], size)
            part = (strength * in_box).sum((1, 2))
            inside[name].append(np.divide(part, total, out=np.zeros_like(part), where=total > 0))
            area[name].append((total > 0) * (in_box & seen).sum((1, 2)) / seen.sum((1, 2)))
    shape = num_features, -1
    return Shares(
        {name: np.concatenate(parts).reshape(shape) for name, parts in inside.items()},
        {name: np.concatenate(parts).reshape(shape) for name, parts in area.items()},
        np.array([peak.image for peak in peaks]).reshape(shape),
    )


def choose_features(shares: Shares, name: str, num: int) -> list[int]:
    """Return the features whose saliency lies most on an object, relative to its area.

    Features that hardly meet the object at their strongest responses do not count: their area must be at least a
    third of the features' mean.
    """
    area = shares.area[name].mean(1)
    score = np.where(area >= area.mean() / 3, shares.lifts(name), -1.0)
    return np.argsort(-score, kind="stable")[:num].tolist()


def lift(sums_n2: np.ndarray) -> float:
    """Return saliency inside the boxes over the boxes' area, of sums per image; 1 if it lies anywhere."""
    inside, area = sums_n2.sum(0)
    return float(inside / area) if area > 0 else 0.0


def estimate_lift(sums_n2: np.ndarray, seed: int = 0) -> Estimate:
    """Return `lift` with its interval over images."""
    return bootstrap_interval(lift, sums_n2, seed=seed)


def presence_auc(responses_nf: np.ndarray, is_there_n: np.ndarray) -> np.ndarray:
    """Return how well each feature's strongest response tells images with an object from those without, shape (f,).

    The area under the ROC curve: the chance that an image with the object has the larger response; ties count half.

    Raises
    ------
    UserError
        If every image has the object, or none has.
    """
    num, missing = int(is_there_n.sum()), int((~is_there_n).sum())
    if not num or not missing:
        raise UserError("an object's presence can be told only if some images have it and some have not")
    ranks = rankdata(responses_nf, axis=0)
    return (ranks[is_there_n].sum(0) - num * (num + 1) / 2) / (num * missing)


def auc_of_one(responses_n: np.ndarray, is_there_n: np.ndarray) -> float:
    """Return `presence_auc` of one feature; 0.5 where nothing can be told, as in a rare resample of a small set."""
    return 0.5 if is_there_n.all() or not is_there_n.any() else float(presence_auc(responses_n[:, None], is_there_n)[0])
