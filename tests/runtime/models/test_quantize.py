"""A base in 4 and 8 bits: what an evaluation leaves behind, what a resumed run gives, what the result tells."""

import copy
import hashlib
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.torch

from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, GPTQConfig, LlamaConfig  # noqa: E402

from ftl.config.quantize import QuantSection  # noqa: E402
from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.models.quantize import (  # noqa: E402
    count_parameters,
    describe,
    keep_layout,
    missing_package,
    quantisation,
    quantise,
)

QLORA = {"kind": "qlora", "rank": 4, "alpha": 8, "dropout": 0.1}
NF4 = {"in_4bit": True}
IDS = torch.arange(40).reshape(2, 20)


def load(directory: Path, **options) -> torch.nn.Module:
    wanted = quantise(QuantSection.model_validate(options), torch.float32)
    return AutoModelForCausalLM.from_pretrained(directory, quantization_config=wanted, device_map={"": "cpu"})


def adapted(directory: Path, **options) -> torch.nn.Module:
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(load(directory, **options), config).train()


def gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    model.zero_grad()
    model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]


def evaluate(model: torch.nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=IDS, use_cache=False).logits
    model.train()
    return logits


@pytest.mark.parametrize("options", [{"in_4bit": True}, {"in_8bit": True}], ids=["nf4", "int8"])
def test_gradients_after_an_evaluation_are_those_before_it(wide, options):
    model = adapted(wide, **options)
    keep_layout(model)
    before = gradients(model)
    evaluate(model)
    assert all(torch.equal(one, other) for one, other in zip(before, gradients(model), strict=True))


def test_evaluation_leaves_the_weights_as_they_are_on_a_cpu_with_avx512_bf16(wide):
    """The stored bytes, their shape and their scales; any CPU is told that it has the instructions."""
    model = load(wide, **NF4)
    layers = [part for part in model.modules() if hasattr(part, "support_avx512bf16_for_cpu")]
    for part in layers:
        part.support_avx512bf16_for_cpu = True
    keep_layout(model)
    before = [(part.weight.data.clone(), part.weight.quant_state.absmax.clone()) for part in layers]
    evaluate(model)
    assert len(layers) == 2 * 7
    for part, (weights, scales) in zip(layers, before, strict=True):
        assert torch.equal(part.weight.data, weights)
        assert torch.equal(part.weight.quant_state.absmax, scales)


def test_evaluation_computes_with_the_dequantised_weights(wide):
    """The logits of an evaluation are those of a model in 32 bits that holds what 4 bits stand for."""
    model = load(wide, **NF4)
    keep_layout(model)
    logits = evaluate(model)
    plain = copy.deepcopy(model).dequantize()
    assert torch.allclose(logits, evaluate(plain), atol=1e-5)


@pytest.mark.parametrize(
    ("quant", "told"),
    [(NF4, "4 bits (nf4, scales in 8 bits)"), ({"in_8bit": True}, "8 bits")],
    ids=["nf4", "int8"],
)
def test_stopped_run_equals_straight_run(make_attempt, wide, quant, told):
    """With dropout, and with evaluations that the straight run has at other steps."""
    config = {"model": wide, "adapter": QLORA, "quant": quant}
    straight = make_attempt("straight", **config)
    stopped = make_attempt("stopped", **config, output__eval_steps=2)
    straight.train()
    for step in (3, 8):
        stopped.train(stop_at=step)
    stopped.train()
    assert [event["data"]["step"] for event in stopped.events("resumed")] == [3, 8]
    assert stopped.losses() == straight.losses()
    assert len(set(map(adapter_of, (straight, stopped)))) == 1
    result = straight.events("result")[0]["data"]
    assert result["quantisation"] == told
    # 2 layers, rank 4: q, k, v and o have 64 + 64 rows and columns, gate, up and down 64 + 128.
    assert result["num_trainable"] == 2 * 4 * (4 * 128 + 3 * 192)


def adapter_of(attempt) -> str:
    return hashlib.sha256((attempt.run / "output" / "adapter_model.safetensors").read_bytes()).hexdigest()


def test_parameters_are_counted_as_weights_not_as_bytes(wide):
    plain = AutoModelForCausalLM.from_pretrained(wide)
    num_weights = sum(parameter.numel() for parameter in plain.parameters())
    assert count_parameters(load(wide, **NF4))[0] == count_parameters(load(wide, in_8bit=True))[0] == num_weights


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("nf4", True, torch.bfloat16, 6.0)),
        (
            {
                "bnb_4bit_quant_type": "fp4",
                "bnb_4bit_use_double_quant": False,
                "bnb_4bit_compute_dtype": "float32",
                "llm_int8_threshold": 0.0,
            },
            ("fp4", False, torch.float32, 0.0),
        ),
    ],
    ids=["defaults", "all given"],
)
def test_options_reach_bitsandbytes(given, expected):
    wanted = quantise(QuantSection.model_validate({"in_4bit": True, "options": given}), torch.bfloat16)
    assert isinstance(wanted, BitsAndBytesConfig) and wanted.load_in_4bit
    found = (wanted.bnb_4bit_quant_type, wanted.bnb_4bit_use_double_quant, wanted.bnb_4bit_compute_dtype)
    assert (*found, wanted.llm_int8_threshold) == expected


def test_base_that_bitsandbytes_quantised_is_loaded_as_it_is(wide, tmp_path):
    load(wide, **NF4).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert quantisation(config, QuantSection(**NF4), torch.float32, has_adapter=True) is None
    assert describe(config) == "4 bits (nf4, scales in 8 bits)"


@pytest.mark.parametrize(
    ("own", "quant", "has_adapter", "sentence"),
    [
        ({"quant_method": "bitsandbytes"}, {}, False, "quantised already, so they cannot be trained themselves"),
        ({"quant_method": "awq"}, {}, True, "quantised already, by awq; bitsandbytes and gptq can be trained on"),
        ({"quant_method": "gptq", "bits": 4}, {"in_4bit": True}, True, "quantised already, by gptq"),
        (None, {"is_gptq": True}, True, "gptq: true: the weights of base_model are not quantised"),
    ],
)
def test_quantised_base_that_cannot_be_trained_on_is_refused(own, quant, has_adapter, sentence):
    config = LlamaConfig()
    if own is not None:
        config.quantization_config = own
    with pytest.raises(ConfigError, match=sentence):
        quantisation(config, QuantSection(**quant), torch.float32, has_adapter=has_adapter)


def test_gptq_base_is_loaded_for_training(monkeypatch):
    config = LlamaConfig(quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128})
    monkeypatch.setattr("ftl_runtime.models.quantize.find_spec", lambda name: object())
    wanted = quantisation(config, QuantSection(is_gptq=True), torch.float16, has_adapter=True)
    assert isinstance(wanted, GPTQConfig)
    assert (wanted.bits, wanted.backend) == (4, "auto_trainable")
    assert describe(config) == "4 bits (gptq)"


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr("ftl_runtime.models.quantize.find_spec", lambda name: None)
    assert missing_package(QuantSection()) is None
    assert "pip install 'ftl-launcher[quant]'" in missing_package(QuantSection(in_8bit=True))
    assert missing_package(QuantSection(is_gptq=True)).startswith("gptq: needs the 'gptqmodel' package")
