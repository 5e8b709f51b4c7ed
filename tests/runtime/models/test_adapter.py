"""Adapters: what they sit on, how they start, what is saved, and what does not fit."""

import json
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from peft import PeftModel  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: E402

from ftl.config.adapter import LoraSection  # noqa: E402
from ftl.config.model import ModelSection  # noqa: E402
from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.models.adapter import add_adapter, check_new_tokens, settle_on_base  # noqa: E402
from ftl_runtime.models.loftq import best_factors  # noqa: E402
from ftl_runtime.models.quantize import quantise  # noqa: E402
from ftl_runtime.models.tokenizer import new_tokens  # noqa: E402

LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
IDS = torch.arange(40).reshape(2, 20)


@pytest.fixture
def ctx(tmp_path):
    """As much of a Context as adapters ask for."""
    return SimpleNamespace(
        resolve_model=lambda reference: reference, device=SimpleNamespace(is_main=True), run_dir=tmp_path
    )


@pytest.fixture
def adapted(ctx, weights):
    """adapted(**section): the tiny base with an adapter."""

    def make(directory=weights, model=None, checkpoint=None, **section):
        torch.manual_seed(3)
        plain = model or AutoModelForCausalLM.from_pretrained(directory)
        lora = LoraSection(kind="lora", **section)
        return add_adapter(plain, lora, ctx, base=ModelSection(base=str(directory)), checkpoint=checkpoint)

    return make


def trained(model) -> set[str]:
    """Trained weights, named by layer and module: 0.q_proj."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {
        name.split(".lora_")[0].split("layers.")[-1].replace("self_attn.", "").replace("mlp.", "") for name in names
    }


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, {f"{n}.{name}" for n in "01" for name in LINEAR}),
        ({"target_modules": ("q_proj",)}, {"0.q_proj", "1.q_proj"}),
        ({"target_modules": r".*\.1\..*(q|v)_proj"}, {"1.q_proj", "1.v_proj"}),
        ({"layers_to_transform": (1,)}, {f"1.{name}" for name in LINEAR}),
        ({"target_modules": ("q_proj",), "layers_to_transform": (0,), "layers_pattern": ("layers",)}, {"0.q_proj"}),
        (
            {"target_linear": True, "target_modules": ("embed_tokens",)},
            {f"{n}.{name}" for n in "01" for name in LINEAR} | {"base_model.model.model.embed_tokens"},
        ),
        ({"target_parameters": ("q_proj.weight",)}, {"0.q_proj", "1.q_proj"}),
    ],
    ids=["default", "names", "regex", "a layer", "a layer of a list", "linear and more", "parameters"],
)
def test_adapter_sits_on_what_the_keys_say(adapted, section, expected):
    assert trained(adapted(**section)) == expected


def test_target_that_is_not_there_is_one_sentence(adapted):
    with pytest.raises(ConfigError, match="lora_target_modules: Target modules"):
        adapted(target_modules=("nope",))


@pytest.mark.parametrize(
    ("section", "scale"),
    [({}, 16 / 4), ({"use_rslora": True}, 16 / 2), ({"alpha": 3.0}, 3 / 4)],
    ids=["alpha / rank", "alpha / sqrt(rank)", "alpha given"],
)
def test_update_is_scaled(adapted, section, scale):
    model = adapted(rank=4, **section)
    (layer,) = {part for name, part in model.named_modules() if name.endswith("layers.0.self_attn.q_proj")}
    assert layer.scaling["default"] == scale


STARTS = ["gaussian", "orthogonal", "pissa", "pissa_niter_2", "olora", "mica"]


@pytest.mark.parametrize("init", [True, *STARTS])
def test_model_starts_as_the_base_is(adapted, weights, init):
    base = logits(AutoModelForCausalLM.from_pretrained(weights))
    assert torch.allclose(logits(adapted(rank=4, init_weights=init)), base, atol=1e-5)


def test_dora_starts_as_the_base_is_and_trains_lengths(adapted, weights):
    model = adapted(rank=4, use_dora=True)
    base = logits(AutoModelForCausalLM.from_pretrained(weights))
    assert torch.allclose(logits(model), base, atol=1e-5)
    vectors = [p for name, p in model.named_parameters() if "magnitude" in name and p.requires_grad]
    assert len(vectors) == 2 * len(LINEAR)


@pytest.mark.parametrize(("init", "rslora"), [("pissa", False), ("olora", True)])
def test_adapter_that_took_from_the_base_is_saved_as_one_for_the_whole_base(
    adapted, ctx, weights, tmp_path, init, rslora
):
    section = {"rank": 4, "init_weights": init, "use_rslora": rslora}
    model = adapted(**section)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 50)
    saved = tmp_path / "saved"
    model.save_pretrained(saved)
    settle_on_base(LoraSection(kind="lora", **section), saved, ctx)
    assert json.loads((saved / "adapter_config.json").read_text())["r"] == 8
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(weights), saved)
    assert torch.allclose(logits(loaded), logits(model), atol=1e-4)


def test_saved_adapter_is_gone_on_from(adapted, tmp_path):
    first = adapted(rank=4, init_weights=False, target_modules=("q_proj",))
    first.save_pretrained(tmp_path / "first")
    second = adapted(initial=str(tmp_path / "first"), dropout=0.1)
    assert trained(second) == {"0.q_proj", "1.q_proj"}
    assert torch.equal(logits(second), logits(first))


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"rank": 16}, "lora_r = 16: the adapter of lora_model_dir has 4; remove the key"),
        ({"use_dora": True}, "peft_use_dora = True: the adapter of lora_model_dir has False"),
    ],
)
def test_adapter_of_another_shape_is_refused(adapted, tmp_path, section, sentence):
    adapted(rank=4).save_pretrained(tmp_path / "first")
    with pytest.raises(ConfigError) as caught:
        adapted(initial=str(tmp_path / "first"), **section)
    assert sentence in str(caught.value)


def test_adapter_of_another_base_is_refused(adapted, tmp_path, base):
    adapted(rank=4).save_pretrained(tmp_path / "first")
    other = AutoModelForCausalLM.from_config(LlamaConfig.from_pretrained(base, intermediate_size=96))
    with pytest.raises(ConfigError, match=r"does not fit the base .*: .* is \(4, 64\), and this model has \(4, 96\)"):
        adapted(model=other, initial=str(tmp_path / "first"))


def test_directory_without_an_adapter_is_refused(adapted, weights):
    with pytest.raises(ConfigError, match=r"has no adapter_config.json, so it is not an adapter"):
        adapted(initial=str(weights))


def test_modules_saved_in_full_are_trained_in_fp32(adapted, weights):
    half = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.bfloat16)
    model = adapted(model=half, modules_to_save=("embed_tokens", "lm_head"))
    kinds = {p.dtype for p in model.parameters() if p.requires_grad}
    names = [name for name, p in model.named_parameters() if p.requires_grad and "modules_to_save" in name]
    assert (kinds, len(names)) == ({torch.float32}, 2)


def test_tied_head_stays_tied(ctx, base, tmp_path):
    tied = AutoModelForCausalLM.from_config(LlamaConfig.from_pretrained(base, tie_word_embeddings=True))
    lora = LoraSection(kind="lora", modules_to_save=("embed_tokens",))
    model = add_adapter(tied, lora, ctx, base=ModelSection(base="x"))
    rows = model.get_input_embeddings().modules_to_save["default"].weight
    with torch.no_grad():
        rows.mul_(3)
    head = model.base_model.model.lm_head
    assert torch.equal(head.modules_to_save["default"].weight, rows)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"tokens": ("<x>", "the")}, ["<x>", "the"]),
        ({"special_tokens": {"eos_token": "<eos>", "pad_token": "<fill>"}}, []),
        ({"special_tokens": {"eos_token": "<end>"}}, ["<end>"]),
    ],
)
def test_tokens_that_the_tokenizer_lacks_are_found(ctx, base, section, expected):
    vocabulary = json.loads((base / "tokenizer.json").read_text())["model"]["vocab"]
    assert "the" not in vocabulary
    assert new_tokens(ModelSection(base=str(base), **section), ctx) == expected


@pytest.mark.parametrize(
    ("is_tied", "saved", "remedy"),
    [
        (False, (), "[embed_tokens, lm_head]"),
        (False, ("embed_tokens",), "[embed_tokens, lm_head]"),
        (False, ("model.embed_tokens", "lm_head"), None),
        (True, (), "[embed_tokens]"),
        (True, ("embed_tokens",), None),
    ],
)
def test_new_tokens_want_their_embeddings_trained(base, is_tied, saved, remedy):
    model = AutoModelForCausalLM.from_config(LlamaConfig.from_pretrained(base, tie_word_embeddings=is_tied))
    adapter = LoraSection(kind="lora", modules_to_save=saved)
    check_new_tokens([], model, adapter)
    check_new_tokens(["<x>"], model, None)
    if remedy is None:
        check_new_tokens(["<x>"], model, adapter)
        return
    with pytest.raises(ConfigError) as caught:
        check_new_tokens(["<x>"], model, adapter)
    assert str(caught.value).endswith(f"write lora_modules_to_save: {remedy}")


def test_best_factors_of_a_rank_one_weight_are_its_own():
    """[1, 2]^T [3, 0, 4] is 5 * sqrt(5) times unit vectors, shared evenly between both factors."""
    weight = torch.outer(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0, 4.0]))
    a, b = best_factors(weight, 1)
    assert torch.allclose(b @ a, weight, atol=1e-5)
    assert float(a.norm()) == pytest.approx((5 * 5**0.5) ** 0.5)
    assert float(b.norm()) == pytest.approx((5 * 5**0.5) ** 0.5)


def test_loftq_starts_nearer_to_the_base_than_four_bits_are(adapted, wide):
    """Every layer is nearer to its weights, and with as many ranks as there are it is the base itself."""
    pytest.importorskip("bitsandbytes")
    from ftl.config.quantize import QuantSection

    def errors(rank) -> tuple[float, float]:
        wanted = quantise(QuantSection(in_4bit=True), torch.float32)
        held = AutoModelForCausalLM.from_pretrained(wide, quantization_config=wanted, device_map={"": "cpu"})
        lost = (logits(held) - base).norm()
        model = adapted(wide, model=held, rank=rank, alpha=3.0, init_weights="loftq")
        return float((logits(model) - base).norm()), float(lost)

    base = logits(AutoModelForCausalLM.from_pretrained(wide))
    of_eight, of_bits = errors(8)
    of_all, _ = errors(64)
    assert of_eight < 0.9 * of_bits
    assert of_all < 1e-3 * of_bits


@pytest.mark.parametrize(
    "section",
    [{"use_dora": True, "dropout": 0.1}, {"init_weights": "pissa_niter_4"}, {"init_weights": "mica"}],
    ids=["dora", "pissa", "mica"],
)
def test_stopped_run_equals_straight_run(make_attempt, weights, section):
    adapter = {"kind": "lora", "rank": 4, **section}
    straight, stopped = (make_attempt(name, model=weights, adapter=adapter) for name in ("straight", "stopped"))
    straight.train()
    stopped.train(stop_at=5)
    stopped.train()
    assert stopped.losses() == straight.losses()
    one, other = (load_file(run.run / "output" / "adapter_model.safetensors") for run in (straight, stopped))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_weights_of_a_full_fine_tune_are_held_in_bf16_when_asked(make_attempt, weights):
    straight, stopped = (
        make_attempt(name, model=weights, precision__weights="bf16", precision__compute="bf16")
        for name in ("straight", "stopped")
    )
    straight.train()
    stopped.train(stop_at=5)
    stopped.train()
    assert stopped.losses() == straight.losses()
    kinds = {value.dtype for value in load_file(straight.run / "output" / "model.safetensors").values()}
    assert kinds == {torch.bfloat16}
