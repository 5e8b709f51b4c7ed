"""`ftl check` of 100,000 alpaca rows: seconds, and the most memory the process had.

python benchmarks/check_memory.py [--count 100000]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import corpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write_project(arguments.write, arguments.count)
        return
    with tempfile.TemporaryDirectory() as scratch:
        # In a process of its own: a child's peak of memory begins with that of its parent.
        maker = [sys.executable, __file__, "--write", scratch, "--count", str(arguments.count)]
        subprocess.run(maker, check=True)
        program = "import os; os.dup2(os.open(os.devnull, os.O_WRONLY), 1); from ftl.cli import main; main()"
        check = [sys.executable, "-c", program, "check", f"{scratch}/cfg.yml", "--no-network"]
        started = time.perf_counter()
        pid = os.posix_spawn(sys.executable, check, {**os.environ, "FTL_STATE_DIR": scratch})
        _, status, used = os.wait4(pid, 0)
        wall_s = time.perf_counter() - started
    assert os.waitstatus_to_exitcode(status) == 0, "the check found no problem"
    figures = {
        "rows": arguments.count,
        "wall_s": round(wall_s, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss / 1024),
        "load": os.getloadavg()[0],
    }
    print(json.dumps(figures, indent=1))


def write_project(directory: Path, count: int) -> Path:
    """A config with a model that has only a tokenizer and a shape, and its alpaca rows of about 110 tokens."""
    model = corpus.make_tokenizer(directory / "model")
    shape = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32_000, "hidden_size": 64}
    (model / "config.json").write_text(json.dumps(shape))
    rng = random.Random(0)
    texts = corpus.paragraphs()
    with (directory / "rows.jsonl").open("w") as file:
        for _ in range(count):
            row = {"instruction": rng.choice(texts), "input": rng.choice(["", *texts[:3]]), "output": rng.choice(texts)}
            file.write(json.dumps(row) + "\n")
    config = directory / "cfg.yml"
    config.write_text(
        f"base_model: {model}\nreinit_weights: true\nlearning_rate: 1e-4\nsequence_len: 2048\n"
        f"datasets:\n  - path: {directory}/rows.jsonl\n    type: alpaca\noutput_dir: {directory}/out\n"
    )
    return config


if __name__ == "__main__":
    main()
