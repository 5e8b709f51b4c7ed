"""What a trainer adds to a step: ftl and TRL's `SFTTrainer` over a loop written by hand, on a tiny model.

    python benchmarks/overhead.py [--rounds 7]

A Llama of two layers, 64 wide, with 2,048 tokens of vocabulary, and steps of one row of 64 tokens, so that little
beside the trainer takes time. Prints one JSON object: milliseconds a step, medians, and what is left when the loop's
own are taken away.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from cpu_systems import Work, measure

WORK = Work(
    shape={
        "vocab_size": 2048,
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 64,
    },
    row_tokens=64,
    rows_per_step=1,
    warm_steps=20,
    steps=220,
    log_every=10,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(WORK, rounds, Path(scratch))
    print(json.dumps(found | over_the_loop(found["cpu_ms_per_step"]), indent=1))


def over_the_loop(cpu_ms: dict[str, float]) -> dict[str, Any]:
    added = {name: round(ms - cpu_ms["hand"], 3) for name, ms in cpu_ms.items() if name != "hand"}
    peers = [name for name in added if name != "ftl"]
    best = min((added[name] for name in peers), default=None)
    share = "trl is not installed" if best is None else round(added["ftl"] / best, 3)
    return {"overhead_cpu_ms": added, "ftl / the better trl": share}


if __name__ == "__main__":
    main()
