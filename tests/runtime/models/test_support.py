"""The table of docs/models.md, and what the code says of packing, are what tiny models measure.

`python tests/runtime/models/support.py` writes the table again.
"""

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import torch  # noqa: E402
from architectures import FAMILIES  # noqa: E402
from support import MODELS_PAGE, chosen_input, draw_weights, load, measure, row  # noqa: E402
from transformers import AutoConfig, LlamaConfig, MistralConfig  # noqa: E402

from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.models import packing  # noqa: E402


@pytest.mark.parametrize("model_type", FAMILIES)
def test_architecture_trains_as_readme_says(model_type, tmp_path):
    support = measure(model_type, tmp_path)
    assert row(model_type, support) in MODELS_PAGE.read_text()
    assert support.chosen == support.packing


def test_readme_lists_no_architecture_that_is_not_measured():
    rows = [line for line in MODELS_PAGE.read_text().splitlines() if line.startswith("| ") and "| yes | yes |" in line]
    assert len(rows) == len(FAMILIES)


@pytest.fixture
def unmeasured(tmp_path, monkeypatch):
    """unmeasured(config): a model of that config, as if nobody had measured its architecture."""
    monkeypatch.setattr(packing, "_POSITIONS_SUFFICE", frozenset())
    monkeypatch.setattr(packing, "_MASK_SUFFICES", frozenset())

    def make(config):
        config.save_pretrained(tmp_path)
        model, _ = load(tmp_path, reinit_weights=True)
        draw_weights(model)
        return model

    return make


SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(**SIZES), "positions"),
        (MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=4), "positions"),
        (AutoConfig.for_model("opt", **SIZES, ffn_dim=48, word_embed_proj_dim=32), "mask"),
    ],
    ids=["llama", "mistral with windows", "opt"],
)
def test_unmeasured_model_is_tried_with_two_short_rows(config, expected, unmeasured):
    model = unmeasured(config)
    before = torch.random.get_rng_state()
    assert packing.settle(model, model.config, "mask") == expected
    assert torch.equal(before, torch.random.get_rng_state())


def test_unmeasured_model_that_mixes_documents_is_refused(unmeasured):
    model = unmeasured(AutoConfig.for_model("openai-gpt", vocab_size=96, n_embd=32, n_layer=2, n_head=4))
    with pytest.raises(ConfigError, match="one document of a row changes what is computed for the next"):
        packing.settle(model, model.config, "mask")


def test_models_with_a_state_are_refused_by_their_layers():
    assert chosen_input(AutoConfig.for_model("qwen3_next")) is None
    assert chosen_input(AutoConfig.for_model("zamba2")) is None
    assert chosen_input(AutoConfig.for_model("olmo_hybrid")) is None
