"""The model card: what a stranger needs to know of a model that ftl has trained. No paths, no names of machines."""

from collections.abc import Iterator
from typing import Any

import yaml

from ftl.contract import PROVENANCE_FILE, DatasetUse, Provenance

_OBJECTIVES = {
    "sft": "supervised fine-tuning",
    "dpo": "direct preference optimisation (DPO)",
    "ipo": "IPO",
    "orpo": "ORPO",
    "kto": "KTO",
    "simpo": "SimPO",
    "cpo": "CPO",
    "grpo": "GRPO",
    "reward": "a reward model (Bradley-Terry)",
    "prm": "a process reward model",
}


def card(record: Provenance, *, repo: str | None, is_adapter: bool, plot: str | None) -> str:
    """README.md of the repository `repo`, or of a directory; `plot` is the picture of the losses beside it."""
    base = str(record.config.get("base_model", "unknown"))
    is_public_base = not base.startswith("./")
    head: dict[str, Any] = {  # Any: YAML
        "library_name": "peft" if is_adapter else "transformers",
        "tags": ["ftl", *(["lora", "adapter"] if is_adapter else [])],
    }
    if is_public_base:
        head["base_model"] = base
        if is_adapter:
            head["base_model_relation"] = "adapter"
    if datasets := _hub_datasets(record.result.datasets):
        head["datasets"] = datasets
    title = repo.rpartition("/")[2] if repo else record.run_id
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False).strip()}\n---",
        f"# {title}",
        _summary(record, base, is_adapter=is_adapter),
        "## Training\n\n" + _table(_numbers(record)),
    ]
    if plot:
        parts.append(f"![Loss by step]({plot})")
    if record.result.datasets:
        parts.append("## Data\n\n" + _data(record))
    if repo:
        parts.append("## Use\n\n" + _use(repo, base, is_adapter=is_adapter))
    parts += [
        "## Config\n\n<details><summary>What it was trained with</summary>\n\n```yaml\n"
        + yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True, width=100).strip()
        + "\n```\n\n</details>",
        "## Made by\n\n" + _table(_versions(record)),
        f"`{PROVENANCE_FILE}` records all of it"
        + (f"; `ftl reproduce {repo}` writes the files to train it again." if repo else "."),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(record: Provenance, base: str, *, is_adapter: bool) -> str:
    kind = str(record.config.get("rl") or ("reward" if record.config.get("reward_model") else "sft"))
    what = "A LoRA adapter for" if is_adapter else "A fine-tune of"
    revision = record.result.base_revision
    at = f" at commit `{revision}`" if revision else ""
    name = f"[{base}](https://huggingface.co/{base})" if not base.startswith("./") else f"`{base.removeprefix('./')}`"
    return f"{what} {name}{at}, by {_OBJECTIVES.get(kind, kind)}."


def _numbers(record: Provenance) -> Iterator[tuple[str, str]]:
    result = record.result
    epochs = "1 epoch" if result.epochs == 1 else f"{result.epochs:g} epochs"
    yield "steps", f"{result.steps:,} in {epochs}, {result.tokens:,} tokens"
    yield "training loss", _change(result.train_loss_first, result.train_loss_last)
    if result.eval_loss_last is not None:
        yield "evaluation loss", _change(result.eval_loss_first, result.eval_loss_last)
    if result.best_step is not None:
        yield "best step", f"{result.best_step:,}"
    for name, value in result.metrics.items():
        yield name, f"{value:.4g}"
    yield "parameters", f"{result.num_parameters:,}, of which {result.num_trainable:,} were trained"
    if result.quantisation:
        yield "base held in", result.quantisation
    if result.tokens_per_s:
        yield "speed", f"{result.tokens_per_s:,.0f} tokens/s"
    gpu = record.cloud.get("gpu_kind") or record.cloud.get("gpu")
    hours = record.gpu_hours if record.gpu_hours is not None else record.hours
    unit = "GPU hours" if record.gpu_hours is not None else "hours on CPUs"
    yield "took", f"{hours:.2f} {unit}" + (f" ({gpu})" if gpu and record.gpu_hours is not None else "")
    if result.spread:
        yield "spread over", f"{result.ranks} processes: {result.spread}"


def _data(record: Provenance) -> str:
    lines = ["| data | revision or sha256 | used | tokens |", "|---|---|---|---|"]
    for use in record.result.datasets:
        name = use.label.removeprefix("./")
        pinned = use.revision or record.inputs.get(name) or use.identity
        lines.append(f"| {_cell(name)} | `{pinned}` | {use.samples:,} samples | {use.tokens:,} |")
    return "\n".join(lines)


def _use(repo: str, base: str, *, is_adapter: bool) -> str:
    if not is_adapter:
        loads = f'model = AutoModelForCausalLM.from_pretrained("{repo}")'
        imports = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    else:
        loads = f'model = AutoPeftModelForCausalLM.from_pretrained("{repo}")'
        imports = "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer"
        if base.startswith("./"):
            imports = "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer"
            loads = f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "{repo}")'
    return f'```python\n{imports}\n\n{loads}\ntokenizer = AutoTokenizer.from_pretrained("{repo}")\n```'


def _versions(record: Provenance) -> Iterator[tuple[str, str]]:
    yield from record.result.versions.items()
    if record.image:
        yield "image", f"`{record.image}`"


def _hub_datasets(used: tuple[DatasetUse, ...]) -> list[str]:
    return list(dict.fromkeys(use.label.partition(" ")[0] for use in used if use.revision))


def _change(first: float | None, last: float | None) -> str:
    return " -> ".join(f"{value:.4f}" for value in (first, last) if value is not None)


def _table(rows: Iterator[tuple[str, str]]) -> str:
    return "| | |\n|---|---|\n" + "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
