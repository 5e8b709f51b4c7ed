import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from transformers import BloomConfig, FalconConfig, LlamaConfig, LlamaForCausalLM, MptConfig, MptForCausalLM  # noqa: E402

from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.models.attention import documents_input, pick_attention  # noqa: E402


@pytest.mark.parametrize(
    ("config", "is_packed", "expected"),
    [
        (LlamaConfig(), True, "positions"),
        (FalconConfig(), True, "mask"),
        (FalconConfig(), False, "positions"),
        (BloomConfig(), False, "positions"),
    ],
    ids=["llama", "falcon", "falcon unpacked", "bloom unpacked"],
)
def test_input_that_keeps_documents_apart(config, is_packed, expected):
    assert documents_input(config, None, is_packed=is_packed) == expected


def test_packing_is_refused_where_nothing_keeps_documents_apart():
    with pytest.raises(ConfigError, match="cannot be kept apart in a bloom model"):
        documents_input(BloomConfig(), None, is_packed=True)
    with pytest.raises(ConfigError, match="flash_attention_2 cannot keep documents apart in a falcon model"):
        documents_input(FalconConfig(), "flash_attention_2", is_packed=True)


def test_attention_is_what_was_asked_for_else_sdpa_where_the_model_has_it():
    assert pick_attention("eager", LlamaForCausalLM, on_cuda=False, documents="positions") == "eager"
    assert pick_attention(None, LlamaForCausalLM, on_cuda=False, documents="positions") == "sdpa"
    assert pick_attention(None, MptForCausalLM, on_cuda=False, documents="mask") == "eager"
    assert MptConfig().model_type == "mpt"
