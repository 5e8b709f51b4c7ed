"""A merged model computes what base and adapter computed together, and says so to transformers alone."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, LlamaConfig  # noqa: E402

from ftl.errors import ConfigError  # noqa: E402

IDS = torch.arange(2, 34).reshape(2, 16)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS, use_cache=False).logits.float()


def adapter_on(base, directory: Path, **settings) -> Path:
    """An adapter with every matrix drawn at random, as peft saves it."""
    torch.manual_seed(1)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **settings))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * 0.2
    model.save_pretrained(directory)
    return directory


@pytest.fixture
def merge(attempt_below, tmp_path):
    """merge(base, adapter): the directory that the task leaves behind."""

    def run(base: Path, adapter: Path, **sections) -> Path:
        attempt = attempt_below(tmp_path, "merging", model=base, adapter={"kind": "lora", "initial": str(adapter)})
        attempt.config |= sections
        attempt.spec = {"task": "merge"}
        attempt.train()
        return attempt.run / "output"

    return run


LINEAR = ["q_proj", "v_proj", "up_proj", "down_proj"]
ADAPTERS = {
    "lora": {"target_modules": LINEAR},
    "dora": {"target_modules": LINEAR, "use_dora": True},
    "rslora": {"target_modules": LINEAR, "use_rslora": True},
    "embeddings in full": {"target_modules": LINEAR, "modules_to_save": ["embed_tokens", "lm_head"]},
    "embeddings in few ranks": {"target_modules": [*LINEAR, "embed_tokens"]},
}


@pytest.mark.parametrize("settings", ADAPTERS.values(), ids=ADAPTERS)
def test_logits_are_those_of_base_and_adapter(settings, weights, merge, tmp_path):
    adapter = adapter_on(AutoModelForCausalLM.from_pretrained(weights), tmp_path / "adapter", **settings)
    together = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(weights), adapter)
    expected = logits(together)
    output = merge(weights, adapter)
    found = logits(AutoModelForCausalLM.from_pretrained(output))
    assert torch.allclose(found, expected, atol=2e-6)  # some sums in another order
    assert (expected - logits(AutoModelForCausalLM.from_pretrained(weights))).abs().max() > 1e-2
    assert not (output / "adapter_config.json").exists()
    assert AutoTokenizer.from_pretrained(output).eos_token == "<eos>"


def test_tied_embeddings_stay_tied(base, merge, tmp_path):
    import shutil

    tied = tmp_path / "tied"
    shutil.copytree(base, tied)
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(LlamaConfig.from_pretrained(base, tie_word_embeddings=True)).save_pretrained(tied)
    settings = {"target_modules": LINEAR, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    adapter = adapter_on(AutoModelForCausalLM.from_pretrained(tied), tmp_path / "adapter", **settings)
    expected = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tied), adapter))
    output = merge(tied, adapter)
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(output)), expected, atol=2e-6)
    assert "lm_head.weight" not in load_file(output / "model.safetensors")


def test_bf16_weights_are_rounded_once(weights, merge, tmp_path):
    """Each merged weight is the bf16 nearest to W + s B A in fp32."""
    short = tmp_path / "short"
    AutoModelForCausalLM.from_pretrained(weights, dtype=torch.bfloat16).save_pretrained(short)
    AutoTokenizer.from_pretrained(weights).save_pretrained(short)
    adapter = adapter_on(AutoModelForCausalLM.from_pretrained(short), tmp_path / "adapter", target_modules=["q_proj"])
    name = "model.layers.0.self_attn.q_proj"
    trained = load_file(adapter / "adapter_model.safetensors")
    a, b = (trained[f"base_model.model.{name}.lora_{letter}.weight"].float() for letter in "AB")
    weight = load_file(short / "model.safetensors")[f"{name}.weight"].float()
    merged = load_file(merge(short, adapter) / "model.safetensors")[f"{name}.weight"]
    assert merged.dtype == torch.bfloat16
    assert torch.equal(merged, (weight + 8 / 4 * (b @ a)).bfloat16())


def test_few_bits_are_merged_into_as_the_adapter_saw_them(wide, merge, tmp_path):
    """Into what 4 bits made of the base: merged into the base itself the logits are others."""
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    adapter = adapter_on(AutoModelForCausalLM.from_pretrained(wide), tmp_path / "adapter", target_modules=LINEAR)
    seen = AutoModelForCausalLM.from_pretrained(wide, quantization_config=config, device_map={"": "cpu"}).dequantize()
    expected = logits(PeftModel.from_pretrained(seen, adapter))
    output = merge(wide, adapter, quant={"in_4bit": True})
    found = logits(AutoModelForCausalLM.from_pretrained(output))
    assert torch.allclose(found, expected, atol=2e-6)
    whole = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(wide), adapter))
    assert (found - whole).abs().max() > 1e-3
    assert "quantization_config" not in json.loads((output / "config.json").read_text())


def test_relora_checkpoint_is_merged_with_the_rounds_behind_it(attempt_below, weights, merge, tmp_path):
    """That of the last step is the model that the training itself leaves behind."""
    adapter = {"kind": "lora", "rank": 2, "alpha": 4, "restarts": True, "target_modules": ["q_proj", "up_proj"]}
    training = attempt_below(tmp_path, model=weights, adapter=adapter, rates__restart_steps=2, optim__max_steps=6)
    training.train()
    left = load_file(training.run / "output" / "model.safetensors")
    merged = load_file(merge(weights, training.run / "checkpoints" / "checkpoint-6") / "model.safetensors")
    assert all(torch.allclose(merged[name], weight, atol=1e-6) for name, weight in left.items())
    assert set(merged) == set(left)


def test_adapter_of_no_numbers_is_refused(weights, merge, tmp_path):
    from safetensors.torch import save_file

    adapter = adapter_on(AutoModelForCausalLM.from_pretrained(weights), tmp_path / "adapter", target_modules=LINEAR)
    trained = load_file(adapter / "adapter_model.safetensors")
    name = next(iter(trained))
    save_file({**trained, name: trained[name] * float("nan")}, adapter / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"lora_model_dir: .* merged into the base: NaNs"):
        merge(weights, adapter)
