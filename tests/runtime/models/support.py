"""Measure what ftl can train of an architecture, and write the table of docs/models.md.

    python tests/runtime/models/support.py      # from the root, with PYTHONPATH=launcher:runtime

Everything goes the way a training goes: the loader, the adapter, the collator, the loss. Only the loop of a few steps
is written out here.
"""

import inspect
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from architectures import FAMILIES, dimensions
from torch import Tensor, nn
from transformers import AutoConfig, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ftl.config.adapter import LoraSection
from ftl.config.model import ModelSection
from ftl.config.quantize import QuantSection
from ftl.errors import ConfigError
from ftl_runtime.context import Device
from ftl_runtime.data.collate import Collator
from ftl_runtime.data.dataset import Document
from ftl_runtime.models.adapter import add_adapter
from ftl_runtime.models.attention import AttentionPlan, plan_attention
from ftl_runtime.models.load import architecture, load_config, load_model
from ftl_runtime.models.packing import mask_window
from ftl_runtime.models.quantize import quantise
from ftl_runtime.objectives.sft import sft_loss

MODELS_PAGE = Path(__file__).parents[3] / "docs" / "models.md"
_HEADER = "| models | `model_type` | full | LoRA | QLoRA | packing |\n|---|---|---|---|---|---|\n"
_LENGTHS = (7, 12, 9)
"""Of the documents that are packed, in tokens: longer than the windows of the tiny models."""
_TOLERANCE = 1e-5
"""Of a logit; those of the tiny models are of the order of 1."""
_WITHOUT_ADAPTER = {
    **dict.fromkeys(("bamba", "falcon_h1", "granitemoehybrid", "jamba", "mamba", "mamba2"), "out_proj"),
    "llama4_text": "router",
    "phimoe": "router",
}
"""Linear layers that stay as they are: routers give more than a product, kernels read the projections."""
_PACKING = {"positions": "yes", "mask": "yes, by a mask", None: "no"}


@dataclass(frozen=True)
class Support:
    packing: str | None
    """What keeps the documents of a row apart; None where nothing does."""
    chosen: str | None
    """What ftl uses for it; None where it refuses."""
    in_4bit: str
    """What QLoRA makes of it. Experts that are one stacked parameter stay in 16 bits."""


def measure(model_type: str, directory: Path) -> Support:
    """What keeps documents apart. Raises AssertionError where a full fine-tune or LoRA does not work."""
    AutoConfig.for_model(model_type, **dimensions(model_type)).save_pretrained(directory)
    model, config = load(directory, reinit_weights=True)
    draw_weights(model)
    model.save_pretrained(directory / "drawn")
    check_full(model, directory / "trained")
    check_adapter(directory / "drawn")
    documents = draw_documents()
    return Support(
        next((kind for kind in ("positions", "mask") if keeps_apart(model, kind, documents)), None),
        chosen_input(config),
        check_qlora(directory / "drawn"),
    )


def row(model_type: str, support: Support) -> str:
    """Its line in docs/models.md."""
    found = (FAMILIES[model_type], f"`{model_type}`", "yes", "yes", support.in_4bit, _PACKING[support.packing])
    return f"| {' | '.join(found)} |"


def load(
    directory: Path, bits: BitsAndBytesConfig | None = None, **section: Any
) -> tuple[PreTrainedModel, PreTrainedConfig]:
    """As a training loads it, on a machine without a GPU."""
    device = SimpleNamespace(kind="cpu")
    ctx: Any = SimpleNamespace(resolve_model=lambda reference: reference, warn=_refuse_warning, device=device)
    wanted = ModelSection(base=str(directory), **section)
    config = load_config(wanted, ctx)
    attention = plan(config, is_packed=False).implementation
    how: Any = {"dtype": torch.float32, "attention": attention, "seed": 0, "quantisation": bits}
    return load_model(wanted, config, ctx, **how), config


def plan(config: PreTrainedConfig, *, is_packed: bool) -> AttentionPlan:
    """As for batches of several rows on a CPU; document by document is measured in tests/runtime/kernels."""
    device = Device("cpu", has_bf16=True, rank=0, num_ranks=1)
    keys: Any = {"is_packed": is_packed, "device": device, "dtype": torch.float32, "gives_borders": False}
    return plan_attention(None, config, architecture(config), **keys)


def draw_weights(model: nn.Module) -> None:
    """Larger than those a training starts from, so that every token matters to the later ones."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)


def draw_documents() -> list[Document]:
    generator = np.random.default_rng(0)
    return [Document(ids, ids) for ids in (generator.integers(3, 96, length) for length in _LENGTHS)]


def chosen_input(config: PreTrainedConfig) -> str | None:
    try:
        return plan(config, is_packed=True).documents
    except ConfigError:
        return None


@torch.no_grad()
def keeps_apart(model: PreTrainedModel, kind: Any, documents: list[Document]) -> bool:
    """Whether logits and loss of the packed row are those of its documents alone."""
    model.eval()
    collator = Collator(0, 64, False, kind, window=mask_window(model.config))
    together = collator([tuple(documents)])
    apart = [Collator(0, 64, False, "positions")([(document,)]) for document in documents]
    try:
        logits = forward(model, together)
    except (ValueError, RuntimeError):  # it takes no such mask
        return False
    expected = torch.cat([forward(model, batch) for batch in apart], dim=1)
    num_items = sum(_LENGTHS) - len(_LENGTHS)
    loss = float(sft_loss(logits, together["labels"], num_items))
    expected_loss = sum(float(sft_loss(forward(model, batch), batch["labels"], num_items)) for batch in apart)
    scale = max(1.0, float(expected.abs().max()))
    return bool((logits - expected).abs().max() <= _TOLERANCE * scale) and abs(loss - expected_loss) <= 1e-5


def forward(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """As the Trainer gives it to the model."""
    given = {key: batch[key] for key in ("input_ids", "position_ids", "attention_mask") if key in batch}
    if "position_ids" not in inspect.signature(model.forward).parameters:
        del given["position_ids"]
    logits: Tensor = model(**given, use_cache=False).logits
    return logits


def check_full(model: PreTrainedModel, saved: Path) -> None:
    """Loss falls, every weight moves that the loss reaches, and what is saved gives the same logits."""
    batch = Collator(0, 64, False, "positions")([(document,) for document in draw_documents()])
    first, last = train(model, batch, model.parameters())
    assert last < 0.9 * first, f"full: the loss went from {first} to {last}"
    model.eval()
    model.save_pretrained(saved)
    reloaded, _ = load(saved)
    with torch.no_grad():
        assert_equal_logits(reloaded.eval(), model, batch)


def check_adapter(base: Path, bits: BitsAndBytesConfig | None = None) -> PreTrainedModel:
    """Every linear layer but the head has an adapter, the loss falls, and a reloaded one gives the same logits.

    On a base in 4 bits with `bits`: those layers are then what is quantised.
    """
    from peft import PeftModel

    torch.manual_seed(0)
    section = LoraSection(kind="lora", rank=4, alpha=8)
    model = add_adapter(load(base, bits)[0], section, SimpleNamespace(), base=ModelSection(base=str(base)))
    batch = Collator(0, 64, False, "positions")([(document,) for document in draw_documents()])
    without = _WITHOUT_ADAPTER.get(model.config.model_type)
    trained = {name.split(".lora_")[0] for name, weight in model.named_parameters() if weight.requires_grad}
    head = model.get_output_embeddings()
    linear = {
        name.removesuffix(".base_layer")
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear | Conv1D)
        and ".lora_" not in name
        and part is not head
        and name.removesuffix(".base_layer").rpartition(".")[2] != without
    }
    assert trained == linear, f"lora: without an adapter {linear - trained}; not expected {trained - linear}"
    assert {f".{layer}." in f"{name}." for name in trained for layer in (0, 1)} == {True, False}
    first, last = train(model, batch, [weight for weight in model.parameters() if weight.requires_grad])
    assert last < 0.9 * first, f"adapter: the loss went from {first} to {last}"
    model.eval()
    with tempfile.TemporaryDirectory() as saved, torch.no_grad():
        model.save_pretrained(saved)
        reloaded = PeftModel.from_pretrained(load(base, bits)[0], saved).eval()
        assert_equal_logits(reloaded, model, batch)
    if bits is not None:
        quantised = {name for name, part in model.named_modules() if type(part).__name__ == "Linear4bit"}
        assert {f"{name}.base_layer" for name in linear} <= quantised
    return model


def check_qlora(base: Path) -> str:
    """As `check_adapter`; "no" where ftl refuses it."""
    try:
        model = check_adapter(base, quantise(QuantSection(in_4bit=True), torch.float32))
    except ConfigError:
        return "no"
    has_stacks = any(weight.dim() == 3 and "experts" in name for name, weight in model.named_parameters())
    return "yes, but experts" if has_stacks else "yes"


def assert_equal_logits(one: nn.Module, other: nn.Module, batch: dict[str, Any]) -> None:
    """Of models with the same weights: sums may differ in their last bits, by where the weights lie in memory."""
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    difference = float((forward(one, batch) - forward(other, batch)).abs().max())
    assert difference <= _TOLERANCE, f"logits differ by {difference} once reloaded"


def train(model: nn.Module, batch: dict[str, Any], weights: Any) -> tuple[float, float]:
    """Loss before and after five steps on one batch."""
    model.train()
    optimizer = torch.optim.AdamW(weights, lr=2e-2, weight_decay=0.0)
    num_items = int((batch["labels"][:, 1:] >= 0).sum())
    losses = []
    for _ in range(6):
        loss = sft_loss(forward(model, batch), batch["labels"], num_items)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses[0], losses[-1]


def _refuse_warning(message: str) -> None:
    raise AssertionError(message)


def _write_table() -> None:
    rows = []
    for model_type in FAMILIES:
        with tempfile.TemporaryDirectory() as directory:
            try:
                support = measure(model_type, Path(directory))
            except Exception as error:
                print(f"{model_type}: {type(error).__name__}: {error}")
                continue
            rows.append(row(model_type, support))
            if support.packing != support.chosen:
                print(f"{model_type}: measured {support.packing}, but ftl chooses {support.chosen}")
    text = MODELS_PAGE.read_text()
    table = _HEADER + "".join(f"{line}\n" for line in sorted(rows, key=str.lower))
    MODELS_PAGE.write_text(re.sub(re.escape(_HEADER) + r"(?:\|.*\n)*", lambda _: table, text))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    _write_table()
