"""Compare the neighbours that the search finds with those of a float64 brute force.

usage: DCGAN_DATA=... python tests/brute_force_neighbours.py [--references 1000000] [--queries 1000]

The references are deformed MNIST digits, with every tenth an exact copy of an earlier one: ties.
The script ends with status 1 unless every neighbour agrees, ties by the earlier reference.
"""

import argparse
import sys
import time

import numpy as np

from dcgan_lib.data.load import load_image_set
from dcgan_lib.evaluation.neighbours import NearestSearch
from dcgan_lib.experiments.mnist_supplement import PORTION, DeformedStream


def brute_force(queries_qd: np.ndarray, references_rd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return exact distances and rows: squares and sums of pixels are exact in float64."""
    products = queries_qd @ references_rd.T
    squares = (queries_qd**2).sum(1)[:, None] - 2 * products + (references_rd**2).sum(1)
    rows = squares.argmin(1)  # the first of equal ones
    return np.sqrt(squares[np.arange(len(squares)), rows]), rows


def main() -> int:
    """Search both ways and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--references", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1_000)
    chosen = parser.parse_args()
    queries = load_image_set("mnist", "validation", image_size=28).images_u8[: chosen.queries]
    stream, search, seconds = (
        DeformedStream(load_image_set("mnist", image_size=28), 0),
        NearestSearch(queries),
        0.0,
    )
    best, indices = np.full(len(queries), np.inf), np.full(len(queries), -1)
    queries_qd = queries.reshape(len(queries), -1).astype(np.float64)
    for index in range(chosen.references // PORTION):
        images, _ = stream.portion(index)
        images[9::10] = images[:-9:10]
        begun = time.perf_counter()
        search.add(images)
        seconds += time.perf_counter() - begun
        distances, rows = brute_force(queries_qd, images.reshape(PORTION, -1).astype(np.float64))
        closer = distances < best
        best[closer], indices[closer] = distances[closer], rows[closer] + index * PORTION
    same, error = (
        int((search.indices == indices).sum()),
        float(np.abs(search.distances - best).max()),
    )
    print(
        f"{chosen.references:,} references: {same} of {len(queries)} neighbours agree, "
        f"distances within {error:.0e}"
    )
    print(f"{seconds:.0f} s of search, without drawing the references")
    return 0 if same == len(queries) and error < 1e-9 else 1


if __name__ == "__main__":
    sys.exit(main())
