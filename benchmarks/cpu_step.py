"""A training step on a CPU: ftl against TRL's `SFTTrainer` and a loop written by hand, on the same rows.

    python benchmarks/cpu_step.py [--rounds 5]

A Llama of four layers, 256 wide, with 32,000 tokens of vocabulary, in fp32; steps of one row of 512 tokens. Prints one
JSON object: milliseconds a step, medians, and how many times ftl's speed is that of the others.
"""

import argparse
import json
import tempfile
from pathlib import Path

from cpu_systems import Work, measure

WORK = Work(
    shape={
        "vocab_size": 32_000,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
    },
    row_tokens=512,
    rows_per_step=1,
    warm_steps=1,
    steps=5,
    log_every=1,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(WORK, rounds, Path(scratch))
    cpu_ms = found["cpu_ms_per_step"]
    speed = {name: round(ms / cpu_ms["ftl"], 3) for name, ms in cpu_ms.items() if name != "ftl"}
    print(json.dumps(found | {"speed of ftl over (cpu)": speed}, indent=1))


if __name__ == "__main__":
    main()
