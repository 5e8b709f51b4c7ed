"""ReLoRA: what is merged, what begins anew, how the rate goes, and that resuming changes nothing."""

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from ftl.config.optim import OptimSection  # noqa: E402
from ftl.config.rates import RatesSection  # noqa: E402
from ftl_runtime.models.quantize import dense, put_dense, quantise  # noqa: E402
from ftl_runtime.train.rates import make_scheduler  # noqa: E402
from ftl_runtime.train.relora import prune  # noqa: E402
from ftl_runtime.train.schedule import Rhythm, Schedule  # noqa: E402

RELORA = {
    "kind": "lora",
    "rank": 2,
    "alpha": 4,
    "dropout": 0.1,
    "restarts": True,
    "target_modules": ["q_proj", "up_proj"],
}
RATES = {"rates__restart_steps": 4, "rates__restart_warmup_steps": 1}


def test_rate_falls_at_each_restart_and_rises_again():
    """Constant 1, 6 steps a round, up over 2 and down over 2; 0.001 is the least."""
    half = 0.001 + 0.999 / 2
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    optim = OptimSection(learning_rate=1.0, scheduler="constant")
    rates = RatesSection(restart_steps=6, restart_warmup_steps=2, restart_anneal_steps=2)
    scheduler = make_scheduler(optimizer, optim, rates, Schedule(18, 18, 0, 1, Rhythm(), Rhythm()))
    found = []
    for _ in range(14):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert found == pytest.approx([1, 1, 1, 1, 1, half, 0.001, half, 1, 1, 1, half, 0.001, half])


def test_smallest_moments_are_forgotten():
    parameter = nn.Parameter(torch.zeros(5))
    optimizer = torch.optim.Adam([parameter])
    moments = torch.tensor([0.5, -3.0, 0.1, 2.0, -0.2])
    optimizer.state[parameter] = {"step": torch.tensor(7.0), "exp_avg": moments.clone(), "exp_avg_sq": moments**2}
    prune(optimizer, [parameter], 0.6)
    assert optimizer.state[parameter]["exp_avg"].tolist() == [0, -3, 0, 2, 0]
    assert optimizer.state[parameter]["exp_avg_sq"].tolist() == [0, 9, 0, 4, 0]
    assert optimizer.state[parameter]["step"] == 7


def test_moments_in_few_bits_are_forgotten_whole():
    parameter = nn.Parameter(torch.zeros(5))
    optimizer = torch.optim.Adam([parameter])
    optimizer.state[parameter] = {"step": 7, "state1": torch.zeros(5, dtype=torch.uint8)}
    prune(optimizer, [parameter], 0.6)
    assert parameter not in optimizer.state


@pytest.mark.parametrize(("options", "most"), [({"in_4bit": True}, 0.2), ({"in_8bit": True}, 0.01), ({}, 0.0)])
def test_weight_that_is_put_is_held_as_nearly_as_the_format_can(wide, options, most):
    pytest.importorskip("bitsandbytes")
    from ftl.config.quantize import QuantSection

    wanted = quantise(QuantSection(**options), torch.float32)
    model = AutoModelForCausalLM.from_pretrained(wide, quantization_config=wanted, device_map={"": "cpu"})
    layer = model.model.layers[0].mlp.up_proj
    value = torch.randn(128, 64, generator=torch.Generator().manual_seed(2))
    put_dense(layer, value)
    assert float((dense(layer) - value).norm() / value.norm()) <= most
    batch = torch.randn(3, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.allclose(layer.train()(batch), batch @ dense(layer).T, atol=1e-3)


@pytest.mark.parametrize("quant", [None, {"in_4bit": True}, {"in_8bit": True}], ids=["whole", "nf4", "int8"])
def test_stopped_run_equals_straight_run(make_attempt, wide, quant):
    """Restarts before steps 5 and 9 of 12; stopped at a restart and amid a round."""
    if quant:
        pytest.importorskip("bitsandbytes")
    config = {"model": wide, "adapter": RELORA, "quant": quant, "output__eval_steps": 4, **RATES}
    straight, stopped = (make_attempt(name, **config) for name in ("straight", "stopped"))
    straight.train()
    for step in (4, 10):
        stopped.train(stop_at=step)
    stopped.train()
    assert stopped.losses() == straight.losses()
    one, other = (load_file(run.run / "output" / "model.safetensors") for run in (straight, stopped))
    assert one.keys() == other.keys() == load_file(wide / "model.safetensors").keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    rounds = load_file(straight.run / "checkpoints" / "checkpoint-12" / "relora.safetensors")
    assert {name.partition(".")[0] for name in rounds} == {"0", "1"}
    assert not (straight.run / "output" / "adapter_config.json").exists()


def test_finished_model_is_the_base_and_all_rounds(make_attempt, wide):
    """W + s B A of the two rounds that the checkpoint keeps and of the last one, by hand; and nothing else moved."""
    run = make_attempt("a", model=wide, adapter=RELORA, **RATES)
    run.train()
    last = run.run / "checkpoints" / "checkpoint-12"
    rounds, adapter = load_file(last / "relora.safetensors"), load_file(last / "adapter_model.safetensors")
    base, final = load_file(wide / "model.safetensors"), load_file(run.run / "output" / "model.safetensors")
    name = "model.layers.1.self_attn.q_proj"
    layer = f"base_model.model.{name}"
    pairs = [(rounds[f"{number}.{layer}.A"], rounds[f"{number}.{layer}.B"]) for number in (0, 1)]
    pairs.append((adapter[f"{layer}.lora_A.weight"], adapter[f"{layer}.lora_B.weight"]))
    expected = base[f"{name}.weight"] + sum(2 * b @ a for a, b in pairs)
    assert torch.allclose(final[f"{name}.weight"], expected, atol=1e-6)
    moved = {key for key in base if not torch.equal(base[key], final[key])}
    assert moved == {f"model.layers.{n}.{part}.weight" for n in (0, 1) for part in ("self_attn.q_proj", "mlp.up_proj")}


def test_a_restart_changes_no_evaluation(make_attempt, wide):
    """The merged model is what the adapted one was: evaluated at step 4 before the restart, and again after it."""
    config = {"model": wide, "adapter": RELORA, **RATES, "optim__learning_rate": 1e-2}
    run = make_attempt("a", **config, output__eval_steps=1)
    run.train()
    losses = {event["data"]["step"]: event["data"]["loss"] for event in run.events("eval")}
    assert abs(losses[5] - losses[4]) < 0.3 * abs(losses[4] - losses[0])
