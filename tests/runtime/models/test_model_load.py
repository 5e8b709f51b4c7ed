"""Models, tokenizers and adapters from config sections, in this process."""

import shutil
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl.config.data import DataSection  # noqa: E402
from ftl.config.model import ModelSection  # noqa: E402
from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.models.load import load_config, load_model  # noqa: E402
from ftl_runtime.models.tokenizer import fit_to_tokenizer, load_tokenizer, view_of  # noqa: E402

DATA = {"datasets": [{"path": "x.jsonl", "type": "completion"}]}


@pytest.fixture
def ctx():
    """As much of a Context as loading asks for; `warnings` is what it was told."""
    warnings: list[str] = []
    return SimpleNamespace(resolve_model=lambda reference: reference, warn=warnings.append, warnings=warnings)


def load(ctx, base, **section):
    model = ModelSection(base=str(base), **section)
    config = load_config(model, ctx)
    return load_model(model, config, ctx, dtype=torch.float32, attention="sdpa", seed=3)


def test_reinitialised_weights_depend_on_the_seed_alone(ctx, base):
    one, two = load(ctx, base, reinit_weights=True), load(ctx, base, reinit_weights=True)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_weights_are_those_of_the_base(ctx, weights):
    from safetensors.torch import load_file

    stored = load_file(weights / "model.safetensors")
    assert torch.equal(load(ctx, weights).lm_head.weight, stored["lm_head.weight"])
    assert ctx.warnings == []


def test_base_without_weights_is_refused_with_what_to_do(ctx, base):
    with pytest.raises(ConfigError, match="reinit_weights: true"):
        load(ctx, base)


def test_pickled_weights_are_refused_with_the_reason(ctx, base, tmp_path):
    shutil.copytree(base, tmp_path / "pickled")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(ConfigError, match="a pickle, which can run any code"):
        load(ctx, tmp_path / "pickled")


def test_base_that_lacks_weights_is_told(ctx, weights, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(weights, tmp_path / "partial")
    stored = load_file(weights / "model.safetensors")
    del stored["lm_head.weight"]
    save_file(stored, tmp_path / "partial" / "model.safetensors", metadata={"format": "pt"})
    load(ctx, tmp_path / "partial")
    assert "1 weights are not in the base and start random: lm_head.weight" in ctx.warnings[0]


def test_class_that_the_base_is_not_is_refused(ctx, base):
    with pytest.raises(ConfigError, match="this base is a LlamaForCausalLM"):
        load_config(ModelSection(base=str(base), class_name="GPT2LMHeadModel"), ctx)


def test_missing_directory_is_one_sentence(ctx):
    with pytest.raises(ConfigError, match="base_model: no model config can be loaded from /nowhere"):
        load_config(ModelSection(base="/nowhere"), ctx)


def test_pad_token_is_the_eos_token_where_there_is_none_and_that_is_told(ctx, base, tmp_path):
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"), eos_token="<eos>").save_pretrained(tmp_path)
    tokenizer = load_tokenizer(ModelSection(base=str(tmp_path)), DataSection(**DATA), ctx)
    assert tokenizer.pad_token == "<eos>"
    assert "no pad token" in ctx.warnings[0]


def test_tokens_are_added_and_the_embeddings_grow_to_hold_them(ctx, base):
    section = ModelSection(base=str(base), tokens=tuple(f"<t{i}>" for i in range(10)), reinit_weights=True)
    tokenizer = load_tokenizer(section, DataSection(**DATA), ctx)
    model = load(ctx, base, reinit_weights=True)
    fit_to_tokenizer(model, tokenizer, seed=3)
    assert len(tokenizer) > 304
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)


def test_embeddings_never_shrink(ctx, base):
    tokenizer = load_tokenizer(ModelSection(base=str(base)), DataSection(**DATA), ctx)
    model = load(ctx, base, reinit_weights=True)
    assert len(tokenizer) < 304
    fit_to_tokenizer(model, tokenizer, seed=3)
    assert model.get_input_embeddings().weight.shape[0] == 304


def test_chat_template_of_the_config_becomes_the_tokenizers_own(ctx, base):
    tokenizer = load_tokenizer(ModelSection(base=str(base)), DataSection(**DATA), ctx)
    view_of(tokenizer, DataSection(**DATA, chat_template="jinja", chat_template_jinja="{{ messages }}"))
    assert tokenizer.chat_template == "{{ messages }}"
