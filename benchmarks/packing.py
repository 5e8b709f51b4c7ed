"""Packing of 100,000 and 1,000,000 document lengths: seconds on one core, and which share of the rows is tokens.

    python benchmarks/packing.py

Lengths are lognormal, cut to 16 ... 4096 tokens: "chat" with mean 490, "long" with mean 1,537. One JSON object a line.
With trl and datasets installed, trl's best-fit packing of the same lengths follows, over the first 100,000.
"""

import json
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from ftl_runtime.data.pack import pack

CAPACITY = 4096
DISTRIBUTIONS = {"chat": (490, 0.8), "long": (1665, 0.8)}
"""Mean before the cut, and sigma of the logarithm."""
REPEATS = 3


def main() -> None:
    for name, (mean, sigma) in DISTRIBUTIONS.items():
        for num_lengths in (100_000, 1_000_000):
            lengths = draw(mean, sigma, num_lengths)
            report("ftl", name, lengths, lambda lengths=lengths: len(pack(lengths, CAPACITY).row_offsets_R1) - 1)
        if find_spec("trl") and find_spec("datasets"):
            lengths = draw(mean, sigma, 100_000)
            report("trl bfd", name, lengths, lambda lengths=lengths: trl_rows(lengths))


def draw(mean: float, sigma: float, num_lengths: int) -> np.ndarray:
    drawn = np.random.default_rng(0).lognormal(np.log(mean) - sigma**2 / 2, sigma, num_lengths)
    return np.clip(drawn.astype(int), 16, CAPACITY)


def report(packer: str, distribution: str, lengths: np.ndarray, num_rows: Callable[[], int]) -> None:
    """Print the median of several packings; the CPU time tells that one core did it."""
    walls, cpus = [], []
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        rows = num_rows()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    record = {
        "packer": packer,
        "distribution": distribution,
        "lengths": len(lengths),
        "mean": round(float(lengths.mean()), 1),
        "rows": rows,
        "fill": round(float(lengths.sum() / (rows * CAPACITY)), 6),
        "wall_s": round(statistics.median(walls), 4),
        "cpu_s": round(statistics.median(cpus), 4),
    }
    print(json.dumps(record), flush=True)


def trl_rows(lengths: np.ndarray) -> int:
    """Rows that trl's pack_dataset makes; it moves the data, so each document is made of zeros."""
    from datasets import Dataset
    from trl import pack_dataset

    texts = Dataset.from_dict({"input_ids": [[0] * length for length in lengths.tolist()]})
    return len(pack_dataset(texts, CAPACITY, "bfd"))


if __name__ == "__main__":
    main()
