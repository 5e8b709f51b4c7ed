"""Models, tokenizers and adapters from config sections, in this process."""

import json
import shutil
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl.config.data import DataSection  # noqa: E402
from ftl.config.model import ModelSection  # noqa: E402
from ftl.errors import ConfigError  # noqa: E402
from ftl.tokens import TokenizerView  # noqa: E402
from ftl_runtime.models.load import load_config, load_model  # noqa: E402
from ftl_runtime.models.tokenizer import fit_to_tokenizer, load_tokenizer, new_tokens, view_of  # noqa: E402

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

    (tmp_path / "without.json").write_text((base / "tokenizer.json").read_text().replace("<pad>", "<nop>"))
    PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "without.json"), eos_token="<eos>").save_pretrained(tmp_path)
    tokenizer = load_tokenizer(ModelSection(base=str(tmp_path)), DataSection(**DATA), ctx)
    assert tokenizer.pad_token == "<eos>"
    assert "no pad token" in ctx.warnings[0]


@pytest.mark.parametrize("key", ["vocab_file", "tokenizer_file"])
def test_tokenizer_that_names_a_file_outside_is_refused(ctx, base, tmp_path, monkeypatch, key):
    copy, outside = tmp_path / "copy", tmp_path / ".env"
    shutil.copytree(base, copy)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    outside.write_text("HF_TOKEN=canary")
    monkeypatch.chdir(tmp_path)
    for given in (str(outside), "copy/../.env", ".env"):
        (copy / "tokenizer_config.json").write_text(json.dumps(settings | {key: given}))
        with pytest.raises(ConfigError, match="leads out of the model's directory"):
            load_tokenizer(ModelSection(base=str(copy)), DataSection(**DATA), ctx)
    (copy / "tokenizer_config.json").write_text(json.dumps(settings | {key: "/of/its/maker/vocab.txt"}))
    assert load_tokenizer(ModelSection(base=str(copy)), DataSection(**DATA), ctx).pad_token == "<pad>"


def test_tokens_are_added_and_the_embeddings_grow_to_hold_them(ctx, base):
    section = ModelSection(base=str(base), tokens=tuple(f"<t{i}>" for i in range(10)), reinit_weights=True)
    tokenizer = load_tokenizer(section, DataSection(**DATA), ctx)
    model = load(ctx, base, reinit_weights=True)
    fit_to_tokenizer(model, tokenizer, section, seed=3)
    assert len(tokenizer) > 304
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)


def test_renamed_token_is_that_of_the_laptop_and_is_saved_with_the_model(ctx, base, tmp_path):
    from transformers import AutoTokenizer

    section = ModelSection(base=str(base), renamed_tokens={1: "<call>"})
    tokenizer = load_tokenizer(section, DataSection(**DATA), ctx)
    laptop = TokenizerView.load(base, renamed=section.renamed_tokens)
    tokenizer.save_pretrained(tmp_path)
    text = "the cat<call>sat<pad>"
    expected = laptop.tokenizer.encode(text, add_special_tokens=False).ids
    assert expected.count(1) == 1
    assert tokenizer(text)["input_ids"] == expected
    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == expected
    assert (tokenizer.pad_token, tokenizer.name_or_path) == ("<call>", str(base))
    assert new_tokens(section.model_copy(update={"tokens": ("<call>", "<other>")}), ctx) == ["<other>"]


def test_embeddings_never_shrink(ctx, base):
    tokenizer = load_tokenizer(ModelSection(base=str(base)), DataSection(**DATA), ctx)
    model = load(ctx, base, reinit_weights=True)
    assert len(tokenizer) < 304
    fit_to_tokenizer(model, tokenizer, ModelSection(base=str(base)), seed=3)
    assert model.get_input_embeddings().weight.shape[0] == 304


def test_chat_template_of_the_config_becomes_the_tokenizers_own(ctx, base):
    tokenizer = load_tokenizer(ModelSection(base=str(base)), DataSection(**DATA), ctx)
    view_of(tokenizer, DataSection(**DATA, chat_template="jinja", chat_template_jinja="{{ messages }}"))
    assert tokenizer.chat_template == "{{ messages }}"


def frequencies(model):
    return model.model.rotary_emb.inv_freq


def test_rope_scaling_in_its_old_spelling_changes_the_positions(ctx, base):
    plain = load(ctx, base, reinit_weights=True)
    scaling = {"rope_scaling": {"type": "linear", "factor": 4.0}}
    scaled = load(ctx, base, reinit_weights=True, config_overrides=scaling)
    assert torch.equal(frequencies(scaled), frequencies(plain) / 4)
    assert scaled.config.rope_parameters["rope_theta"] == plain.config.rope_parameters["rope_theta"]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"hiden_size": 64}, "overrides_of_model_config.hiden_size: .* no such key; did you mean hidden_size?"),
        ({"hidden_size": "big"}, "overrides_of_model_config.hidden_size = 'big': .*expected int"),
        ({"rope_scaling": {"type": "liner"}}, "rope_type = liner: must be one of default, linear"),
        ({"rope_scaling": {"type": "linear"}}, "Missing required keys .*'factor'"),
        ({"hidden_act": "nope"}, "cannot be loaded: .*nope"),
    ],
    ids=["unknown", "kind", "rope type", "rope factor", "value"],
)
def test_impossible_override_is_one_sentence(ctx, weights, overrides, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load(ctx, weights, config_overrides=overrides)


def test_config_of_another_place_is_taken(ctx, weights, base, tmp_path):
    shutil.copytree(base, tmp_path / "other")
    text = (base / "config.json").read_text().replace('"max_position_embeddings": 64', '"max_position_embeddings": 32')
    (tmp_path / "other" / "config.json").write_text(text)
    model = load(ctx, weights, config_source=str(tmp_path / "other"))
    assert model.config.max_position_embeddings == 32


def test_config_and_tokenizer_class_are_those_named(ctx, base):
    assert load(ctx, base, reinit_weights=True, config_class="LlamaConfig").config.model_type == "llama"
    with pytest.raises(ConfigError, match=r"cls_model_config: LlamaTokenizer: .* no such config class"):
        load(ctx, base, config_class="LlamaTokenizer")
    section = ModelSection(base=str(base), tokenizer_class="PreTrainedTokenizerFast")
    assert type(load_tokenizer(section, DataSection(**DATA), ctx)).__name__ == "TokenizersBackend"
    with pytest.raises(ConfigError, match=r"tokenizer_type: NoTokenizer: .* no such tokenizer class"):
        load_tokenizer(ModelSection(base=str(base), tokenizer_class="NoTokenizer"), DataSection(**DATA), ctx)


def test_load_options_reach_transformers_and_unknown_ones_are_refused(ctx, weights):
    assert load(ctx, weights, load_options={"use_cache": False, "low_cpu_mem_usage": True}) is not None
    with pytest.raises(ConfigError, match=r"overrides_of_model_kwargs.no_such_option: .*cannot be loaded"):
        load(ctx, weights, load_options={"no_such_option": 1})


@pytest.mark.parametrize(
    ("section", "num_tokens", "expected"),
    [
        ({"pads_embeddings_to_32": True}, 300, 320),
        ({"pads_embeddings_to_32": True}, 321, 352),
        ({"shrink_embeddings": True}, 300, 300),
        ({"shrink_embeddings": True, "pads_embeddings_to_32": True}, 280, 288),
        ({}, 300, 304),
    ],
    ids=["304 rows", "321 tokens", "shrunk", "shrunk to 32", "neither"],
)
def test_rows_of_the_embeddings(ctx, base, section, num_tokens, expected):
    class Tokens:
        bos_token_id = eos_token_id = pad_token_id = 0

        def __len__(self):
            return num_tokens

    model = load(ctx, base, reinit_weights=True)
    fit_to_tokenizer(model, Tokens(), ModelSection(base="x", **section), seed=3)
    assert model.get_input_embeddings().weight.shape[0] == expected
    assert model.lm_head.weight.shape[0] == expected


def test_added_rows_are_drawn_around_the_mean_or_around_zero(ctx, base):
    section = ModelSection(base=str(base), tokens=tuple(f"<t{i}>" for i in range(100)), reinit_weights=True)
    tokenizer = load_tokenizer(section, DataSection(**DATA), ctx)
    rows = []
    for is_mean in (True, False):
        model = load(ctx, base, reinit_weights=True)
        with torch.no_grad():
            model.get_input_embeddings().weight.fill_(3.0)
        fit_to_tokenizer(model, tokenizer, section.model_copy(update={"mean_resizing_embeddings": is_mean}), seed=3)
        rows.append(model.get_input_embeddings().weight[304:].mean().item())
    assert rows[0] == pytest.approx(3.0, abs=0.01)
    assert rows[1] == pytest.approx(0.0, abs=0.01)


def test_experts_are_computed_as_asked(ctx, tmp_path):
    from transformers import MixtralConfig

    MixtralConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
    ).save_pretrained(tmp_path)
    models = [load(ctx, tmp_path, reinit_weights=True, experts=kind) for kind in ("eager", "batched_mm", "grouped_mm")]
    assert [m.config._experts_implementation for m in models] == ["eager", "batched_mm", "grouped_mm"]
    one, two, three = (model(torch.arange(12)[None]).logits for model in models)
    assert torch.allclose(one, two, atol=1e-5)
    assert torch.allclose(one, three, atol=1e-5)


def test_token_made_for_padding_pads_where_the_tokenizer_names_none(ctx, base, tmp_path):
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"), eos_token="<eos>").save_pretrained(tmp_path)
    tokenizer = load_tokenizer(ModelSection(base=str(tmp_path)), DataSection(**DATA), ctx)
    assert (tokenizer.pad_token, ctx.warnings) == ("<pad>", [])
