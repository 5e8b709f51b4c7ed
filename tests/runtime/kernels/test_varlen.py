"""Attention document by document: each architecture it is used for, against its documents under plain attention."""

from itertools import accumulate

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM  # noqa: E402

from ftl_runtime.kernels import varlen  # noqa: E402

TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "norm_topk_prob": True}
MORE = {
    "cohere2": {"sliding_window": 4},
    "exaone4": {"sliding_window": 4},
    "gemma": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 4},
    "glm": {"head_dim": 8},
    "gpt2": {"attn_pdrop": 0.0},
    "glm4": {"head_dim": 8},
    "mistral": {"sliding_window": 4},
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 16},
    "qwen3": {"head_dim": 8},
    "qwen3_moe": EXPERTS,
}
LENGTHS = (7, 3, 12, 1)


def config_of(model_type: str):
    return CONFIG_MAPPING[model_type](**TINY, **MORE.get(model_type, {}))


@pytest.mark.parametrize("model_type", sorted(varlen._MEASURED))
def test_logits_of_a_row_are_those_of_its_documents_alone(model_type):
    config = config_of(model_type)
    assert varlen.fits(config, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="varlen").eval()
    plain = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for weights in model.parameters():  # large, so that a token that sees too much changes a lot
        if weights.ndim == 2:
            torch.nn.init.normal_(weights, std=0.3)
    plain.load_state_dict(model.state_dict())
    documents = [torch.randint(3, 64, (length,)) for length in LENGTHS]
    starts = torch.tensor([0, *accumulate(LENGTHS)], dtype=torch.int32)
    with torch.no_grad():
        logits_TV = model(
            input_ids=torch.cat(documents)[None],
            position_ids=torch.cat([torch.arange(length) for length in LENGTHS])[None],
            use_cache=False,
            cu_seq_lens_q=starts,
            cu_seq_lens_k=starts,
            max_length_q=max(LENGTHS),
            max_length_k=max(LENGTHS),
        ).logits[0]
        alone_TV = torch.cat([plain(input_ids=document[None], use_cache=False).logits[0] for document in documents])
    torch.testing.assert_close(logits_TV, alone_TV, rtol=1e-4, atol=1e-4 * float(alone_TV.abs().max()))


def test_dropout_and_unmeasured_architectures_do_not_fit():
    llama = MODEL_FOR_CAUSAL_LM_MAPPING[CONFIG_MAPPING["llama"]]
    assert not varlen.fits(CONFIG_MAPPING["llama"](**TINY, attention_dropout=0.1), llama)
    gemma2 = config_of("gemma2")  # caps its attention scores
    assert not varlen.fits(gemma2, MODEL_FOR_CAUSAL_LM_MAPPING[type(gemma2)])


def test_rows_without_borders_are_one_document_each_and_a_cache_is_read():
    torch.manual_seed(0)
    config = config_of("mistral")
    model = AutoModelForCausalLM.from_config(config, attn_implementation="varlen").eval()
    plain = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    plain.load_state_dict(model.state_dict())
    ids_BT = torch.randint(3, 64, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(model(ids_BT, use_cache=False).logits, plain(ids_BT, use_cache=False).logits)
        drawn = [m.generate(ids_BT, max_new_tokens=4, do_sample=False) for m in (model, plain)]
    assert torch.equal(*drawn)
