"""Training steps on one GPU: ftl against TRL, on the same weights and the same tokens.

    python benchmarks/gpu/train_speed.py --works 1b-full 1b-lora --systems ftl trl-default trl-best --out results.json

Weights are random, made on the GPU once and loaded by every system; rows are 4,096 random tokens, one document each,
four a step. Each measurement is a process of its own; the first ten steps are not counted. Prints one JSON object:
tokens/s, the share of a measured matrix product that the model's own work is (recomputed work is not counted), and GB
of GPU memory at most. Needs the runtime extra; `trl` for its rows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ROW = 4096
WARM, STEPS = 10, 30
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128_256,
    "num_key_value_heads": 8,
    "num_attention_heads": 32,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    "bos_token_id": 1,
    "eos_token_id": 0,
    "pad_token_id": 2,
}
SHAPES: dict[str, dict[str, Any]] = {
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "tie_word_embeddings": True},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "tie_word_embeddings": False},
}
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
ROWS_PER_STEP = {"1b": 4, "8b": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", nargs="+", default=["1b-full", "1b-lora"], help="SIZE-full, SIZE-lora")
    parser.add_argument("--systems", nargs="+", default=["ftl", "trl-default", "trl-best"])
    parser.add_argument("--set", nargs="*", default=[], help="section.field=JSON for ftl's config")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        print(json.dumps(prepare(arguments.scratch, arguments.prepare)))
    elif arguments.measure:
        system, work = arguments.measure
        found = ftl(arguments.scratch, work, arguments.set) if system == "ftl" else trl(arguments.scratch, work, system)
        print(json.dumps(found))
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        found: dict[str, Any] = {"versions": versions(), "row": ROW, "load": os.getloadavg()[0], "works": {}}
        for size in sorted({work.split("-")[0] for work in arguments.works}):
            found |= _run(scratch, "--prepare", size)
        for work in arguments.works:
            flops = flops_per_token(work)
            for system in arguments.systems:
                figures = _run(scratch, "--measure", system, work, "--set", *arguments.set)
                if "tokens_per_s" in figures:
                    figures["util"] = round(figures["tokens_per_s"] * flops / 1e12 / found["gemm_tflops"], 3)
                found["works"].setdefault(work, {})[system] = figures
                print(work, system, json.dumps(figures), flush=True)
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


def _run(scratch: str, *asked: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--scratch", scratch, *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stdout[-2000:], done.stderr[-3000:], flush=True)
        return {"error": (done.stderr.strip().splitlines() or ["?"])[-1][:300]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def flops_per_token(work: str) -> float:
    """Of the model's own work: causal attention at half, the look-up of embeddings at nothing."""
    size, _, mode = work.partition("-")
    shape = LLAMA | SHAPES[size]
    d, ff, num_layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    kv = d * shape["num_key_value_heads"] // shape["num_attention_heads"]
    body = num_layers * (2 * d * d + 2 * d * kv + 3 * d * ff)
    head = shape["vocab_size"] * d
    attention = 2 * num_layers * d * ROW
    lora = num_layers * LORA["r"] * (2 * (d + d) + 2 * (d + kv) + 3 * (d + ff))  # type: ignore[operator]
    products = 6 * (body + head) if mode == "full" else 4 * (body + head) + 6 * lora
    return float(products + 3 * attention)


def prepare(scratch: Path, size: str) -> dict[str, Any]:
    """Weights, a tokenizer and rows; and what a matrix product reaches on this GPU."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    config = AutoConfig.for_model(**LLAMA, **SHAPES[size])
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(scratch / size)
    names = {"<eos>": 0, "<bos>": 1, "<pad>": 2, **{f"w{i}": i for i in range(3, 1000)}}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", bos_token="<bos>", pad_token="<pad>"
    ).save_pretrained(scratch / size)
    ids = torch.randint(
        3, 1000, (STEPS * ROWS_PER_STEP[size], ROW), generator=torch.Generator().manual_seed(0)
    ).tolist()
    with (scratch / f"{size}.jsonl").open("w") as file:
        for row in ids:
            file.write(json.dumps({"input_ids": row, "attention_mask": [1] * ROW, "labels": row}) + "\n")
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    b = torch.randn_like(a)
    for _ in range(5):
        a @ b
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(30):
        a @ b
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / 30
    return {"gpu": torch.cuda.get_device_name(), "gemm_tflops": round(2 * 8192**3 / seconds / 1e12, 1)}


def ftl(scratch: Path, work: str, changes: list[str]) -> dict[str, Any]:
    """A whole job, as a backend starts it."""
    size, _, mode = work.partition("-")
    rows = ROWS_PER_STEP[size]
    config: dict[str, Any] = {
        "model": {"base": str(scratch / size)},
        "data": {"datasets": [{"path": str(scratch / f"{size}.jsonl"), "type": None}], "sequence_len": ROW},
        "optim": {"learning_rate": 1e-5, "micro_batch_size": rows, "max_steps": STEPS},
        "output": {"logging_steps": WARM, "save_strategy": "no"},
    }
    if mode == "lora":
        config["adapter"] = {"kind": "lora", "rank": LORA["r"], "alpha": LORA["lora_alpha"]}
    for change in changes:
        key, _, value = change.partition("=")
        section, _, field = key.partition(".")
        config.setdefault(section, {})[field] = json.loads(value)
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        run, bundle = Path(place) / "run", Path(place) / "bundle"
        run.mkdir()
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(config))
        paths = {"bundle": str(bundle), "run": str(run), "cache": str(scratch / "cache")}
        job = {"run_id": "speed", "resources": {"gpus": 1}, "paths": paths}
        (run / "job.json").write_text(json.dumps(job))
        path = os.pathsep.join([str(ROOT / "launcher"), str(ROOT / "runtime"), os.environ.get("PYTHONPATH", "")])
        started = time.time()
        done = subprocess.run(
            [sys.executable, "-m", "ftl_runtime", str(run / "job.json")],
            env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    steps = {event["data"]["step"]: event for event in events if event["event"] == "step"}
    if done.returncode != 0 or STEPS not in steps:
        raise SystemExit(f"{done.stdout[-3000:]}{done.stderr[-3000:]}")
    seconds = steps[STEPS]["t"] - steps[WARM]["t"]
    return {
        "tokens_per_s": round((STEPS - WARM) * rows * ROW / seconds),
        "gib": round(steps[STEPS]["data"]["memory_gib"], 1),
        "loss": steps[STEPS]["data"]["loss"],
        "first_log_s": round(steps[WARM]["t"] - started, 1),
        "warnings": [event["data"]["message"] for event in events if event["event"] == "warning"],
    }


def trl(scratch: Path, work: str, system: str) -> dict[str, Any]:
    """trl-default: as SFTConfig has it. trl-best: bf16 base under LoRA, nothing recomputed, liger's kernels."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    size, _, mode = work.partition("-")
    rows = ROWS_PER_STEP[size]
    is_best = system == "trl-best"
    marks: dict[int, float] = {}

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step in (WARM, STEPS):
                torch.cuda.synchronize()
                marks[state.global_step] = time.perf_counter()

    best = {"gradient_checkpointing": False, "use_liger_kernel": True} if is_best else {}
    args = SFTConfig(
        output_dir=str(scratch / "trl"), max_steps=STEPS, per_device_train_batch_size=rows, learning_rate=1e-5,
        max_length=ROW, logging_steps=WARM, save_strategy="no", report_to=[], bf16=True, disable_tqdm=True, **best,
    )  # fmt: skip
    dtype = torch.bfloat16 if mode == "lora" and (is_best or size == "8b") else torch.float32
    started = time.time()
    model = AutoModelForCausalLM.from_pretrained(scratch / size, dtype=dtype, attn_implementation="sdpa")
    dataset = load_dataset("json", data_files=str(scratch / f"{size}.jsonl"), split="train")
    trainer = SFTTrainer(
        model=model, args=args, train_dataset=dataset.select_columns(["input_ids", "labels"]),
        processing_class=AutoTokenizer.from_pretrained(scratch / size),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **LORA) if mode == "lora" else None, callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "tokens_per_s": round((STEPS - WARM) * rows * ROW / (marks[STEPS] - marks[WARM])),
        "gib": round(torch.cuda.max_memory_reserved() / 2**30, 1),
        "loss": losses[-1],
        "seconds": round(time.time() - started, 1),
    }


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0], "date": time.strftime("%Y-%m-%d")}
    for name in ("torch", "transformers", "peft", "accelerate", "trl", "liger-kernel", "triton"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


if __name__ == "__main__":
    main()
