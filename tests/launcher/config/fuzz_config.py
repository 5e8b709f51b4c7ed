"""Loads random configs for as long as it is told: python tests/launcher/config/fuzz_config.py --minutes 10"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import random_configs
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ftl.config.load import load_train
from ftl.errors import ConfigError

BATCH = 500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    end = time.monotonic() + options.minutes * 60
    counts = {"loaded": 0, "refused": 0}
    path = Path(tempfile.mkdtemp()) / "random.yml"

    def load(raw: bytes, overrides: list[tuple[str, str]], bear_unbuilt: bool) -> None:
        path.write_bytes(raw)
        try:
            load_train(path, overrides, bear_unbuilt=bear_unbuilt)
            counts["loaded"] += 1
        except ConfigError:
            counts["refused"] += 1

    number = options.seed
    while time.monotonic() < end:
        number += 1
        unlimited = settings(max_examples=BATCH, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        arguments = given(random_configs.FILES, random_configs.OVERRIDES, st.booleans())
        seed(number)(unlimited(arguments(load)))()
    seeds = f"seeds {options.seed + 1} to {number}"
    print(f"{counts['loaded']} loaded, {counts['refused']} refused, nothing else ({seeds})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
