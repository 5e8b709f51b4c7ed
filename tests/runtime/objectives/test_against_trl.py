"""trl as referee: the same logits give the same loss and the same gradient."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytestmark = pytest.mark.torch

from trl.trainer.dpo_trainer import DPOTrainer  # noqa: E402

from ftl.config.objective import ObjectiveSection  # noqa: E402
from ftl_runtime.objectives import OBJECTIVES  # noqa: E402
from ftl_runtime.train.scoring import Inputs, ModelScorer  # noqa: E402

ALONE = SimpleNamespace(device=torch.device("cpu"), gather=lambda value: value, gather_for_metrics=lambda value: value)
TRL_STATE = {
    "model": SimpleNamespace(training=True),
    "accelerator": ALONE,
    "aux_loss_enabled": False,
    "ld_alpha": None,
    "precompute_ref_logps": True,
    "f_divergence_type": "reverse_kl",
    "use_weighting": False,
    "_tp_size": 1,
    "_total_train_tokens": 0,
}
LENGTHS = [7, 5, 6, 4, 7, 3]
"""Tokens of six rows, of which the first two are prompt: three pairs."""


@pytest.fixture
def batch():
    torch.manual_seed(3)
    input_ids = torch.randint(0, 13, (6, 7))
    position = torch.arange(7)
    is_answer = (position >= 2) & (position < torch.tensor(LENGTHS)[:, None])
    return {
        "input_ids": input_ids,
        "labels": input_ids.masked_fill(~is_answer, -100),
        "first_label": 2,
        "reference": -torch.rand(6) * 20,
    }


@pytest.fixture
def logits():
    torch.manual_seed(4)
    return torch.randn(6, 7, 13, requires_grad=True)


def ours(kind, batch, logits, **section):
    """The loss of the batch as one step, and its gradient."""
    objective, settings = OBJECTIVES[kind], ObjectiveSection(kind=kind, **section)
    scorer = ModelScorer(lambda **_: SimpleNamespace(logits=logits), Inputs(frozenset()))
    terms = objective.terms(scorer, batch, settings)
    loss = sum(term / count for term, count in zip(terms.sums, objective.count(batch, settings), strict=True))
    return loss, torch.autograd.grad(loss, logits)[0], terms


def fused(logits, labels):
    """What trl's patched models give."""
    logprobs = logits.log_softmax(-1)[:, :-1]
    targets = labels[:, 1:, None]
    return SimpleNamespace(
        log_probs=logprobs.gather(2, targets.clamp(min=0))[:, :, 0] * (targets[:, :, 0] != -100),
        log_sum_sq_probs=(2 * logprobs).logsumexp(-1),
        entropy=logprobs.sum(-1) * 0,
        mean_logits=logits.mean(-1)[:, :-1],
        is_top1=torch.ones(logprobs.shape[:2], dtype=torch.bool),
    )


def trl_dpo(batch, logits, losses, beta, smoothing=0.0, weights=None, **attributes):
    trainer = DPOTrainer.__new__(DPOTrainer)
    settings = TRL_STATE | {
        "args": SimpleNamespace(discopop_tau=0.05),
        "label_smoothing": smoothing,
        "loss_types": losses,
        "loss_weights": weights or [1.0] * len(losses),
        "beta": beta,
    }
    for name, value in (settings | attributes).items():
        setattr(trainer, name, value)
    trainer._metrics = {"train": {name: [] for name in _TRL_METRICS}}
    ref_chosen, ref_rejected = batch["reference"].chunk(2)
    inputs = {
        "input_ids": batch["input_ids"],
        "attention_mask": torch.ones_like(batch["input_ids"]),
        "completion_mask": (batch["labels"] != -100).long(),
        "ref_chosen_logps": ref_chosen,
        "ref_rejected_logps": ref_rejected,
    }
    loss = trainer._compute_loss(lambda labels, **_: fused(logits, labels), inputs, False)
    return loss, torch.autograd.grad(loss, logits)[0], trainer._metrics["train"]


_TRL_METRICS = (
    *("entropy", "num_tokens", "logits/chosen", "logits/rejected", "mean_token_accuracy", "rewards/chosen"),
    *("rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"),
)


def assert_same(found, expected):
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


@pytest.mark.parametrize(
    ("loss", "smoothing"),
    [
        *((loss, None) for loss in ("sigmoid", "sigmoid_norm", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard")),
        *((loss, None) for loss in ("apo_zero", "apo_down", "discopop")),
        *((loss, 0.1) for loss in ("robust", "exo_pair", "aot", "aot_unpaired")),
    ],
)
def test_dpo_loss(batch, logits, loss, smoothing):
    found = ours("dpo", batch, logits, dpo_loss_type=(loss,), beta=0.3, dpo_label_smoothing=smoothing)
    assert_same(found, trl_dpo(batch, logits, [loss], 0.3, smoothing or 0.0))


def test_ipo_is_the_loss_of_that_name(batch, logits):
    assert_same(ours("ipo", batch, logits), trl_dpo(batch, logits, ["ipo"], 0.1))


def test_weighted_dpo_loss(batch, logits):
    found = ours("dpo", batch, logits, dpo_use_weighting=True)
    assert_same(found, trl_dpo(batch, logits, ["sigmoid"], 0.1, use_weighting=True))


def test_rpo_is_dpo_with_a_share_of_sft(batch, logits):
    found = ours("dpo", batch, logits, rpo_alpha=0.7)
    assert_same(found, trl_dpo(batch, logits, ["sigmoid", "sft"], 0.1, weights=[1.0, 0.7]))


def test_several_losses_add_up(batch, logits):
    found = ours("dpo", batch, logits, dpo_loss_type=("sigmoid", "bco_pair"))
    assert_same(found, trl_dpo(batch, logits, ["sigmoid", "bco_pair"], 0.1))


def test_metrics_of_dpo(batch, logits):
    found = {name: float(pair[0] / pair[1]) for name, pair in ours("dpo", batch, logits)[2].metrics.items()}
    expected = {
        name: values[0] for name, values in trl_dpo(batch, logits, ["sigmoid"], 0.1)[2].items() if name in found
    }
    assert len(found) == 5
    assert found == pytest.approx(expected)


def paired(batch):
    """A batch of pairs as trl's older collators make it."""
    chosen, rejected = slice(0, 3), slice(3, 6)
    attention = (torch.arange(7) < torch.tensor(LENGTHS)[:, None]).long()
    return {
        **{f"chosen_{key}": value[chosen] for key, value in named(batch, attention).items()},
        **{f"rejected_{key}": value[rejected] for key, value in named(batch, attention).items()},
    }


def named(batch, attention):
    return {"input_ids": batch["input_ids"], "attention_mask": attention, "labels": batch["labels"]}


def trl_paired(trainer_class, batch, logits, **settings):
    trainer = trainer_class.__new__(trainer_class)
    defaults = {"accelerator": ALONE, "aux_loss_enabled": False, "is_encoder_decoder": False, "padding_value": 0}
    for name, value in (defaults | {"pad_token_id": 0, "label_smoothing": 0.0, "alpha": 0.0} | settings).items():
        setattr(trainer, name, value)
    loss, metrics = trainer.get_batch_loss_metrics(lambda *_, **__: SimpleNamespace(logits=logits), paired(batch))
    return loss, torch.autograd.grad(loss, logits)[0], metrics


def assert_same_metrics(terms, expected):
    found = {name: float(pair[0] / pair[1]) for name, pair in terms.metrics.items()}
    assert len(found) >= 5
    assert found == pytest.approx({name: float(expected[name]) for name in found}, rel=1e-4)


@pytest.mark.parametrize("weight", [{"orpo_alpha": 0.3}, {"beta": 0.3}], ids=str)
def test_orpo(batch, logits, weight):
    from trl.experimental.orpo import ORPOTrainer

    expected = trl_paired(ORPOTrainer, batch, logits, beta=0.3)
    found = ours("orpo", batch | {"lengths": torch.tensor(LENGTHS)}, logits, **weight)
    assert_same(found, expected)
    assert_same_metrics(found[2], expected[2])


@pytest.mark.parametrize("kind", ["cpo", "simpo"])
@pytest.mark.parametrize("cpo_alpha", [1.0, 0.0, 0.4])
def test_cpo_and_simpo(batch, logits, kind, cpo_alpha):
    from trl.experimental.cpo import CPOTrainer

    settings = {"loss_type": "simpo" if kind == "simpo" else "sigmoid", "simpo_gamma": 0.7, "cpo_alpha": cpo_alpha}
    expected = trl_paired(CPOTrainer, batch, logits, beta=0.3, **settings)
    section = {"simpo_gamma": 0.7} if kind == "simpo" else {}
    found = ours(kind, batch, logits, beta=0.3, cpo_alpha=cpo_alpha, **section)
    assert_same(found, expected)
    assert_same_metrics(found[2], expected[2])


def trl_kto(batch, logits, stranger_logits, is_good, beta, good, bad):
    from trl.trainer.kto_trainer import KTOTrainer

    trainer = KTOTrainer.__new__(KTOTrainer)
    settings = TRL_STATE | {"calculate_KL": True, "loss_type": "kto"}
    settings |= {"beta": beta, "desirable_weight": good, "undesirable_weight": bad}
    for name, value in settings.items():
        setattr(trainer, name, value)
    names = ("kl", "entropy", "num_tokens", "logits/chosen", "logits/rejected", "rewards/margins")
    names += ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected")
    trainer._metrics = {"train": {name: [] for name in names}}
    whole = torch.ones_like(batch["input_ids"])
    inputs = {
        "input_ids": batch["input_ids"],
        "attention_mask": whole,
        "completion_mask": (batch["labels"] != -100).long(),
        "KL_input_ids": batch["stranger"]["input_ids"],
        "KL_attention_mask": whole,
        "KL_completion_mask": (batch["stranger"]["labels"] != -100).long(),
        "label": is_good,
        "ref_logps": batch["reference"],
        "ref_KL_logps": batch["stranger"]["reference"],
    }

    def model(input_ids, labels, **_):
        return fused(stranger_logits if input_ids is inputs["KL_input_ids"] else logits, labels)

    loss = trainer._compute_loss(model, inputs, False)
    return loss, torch.autograd.grad(loss, logits)[0], trainer._metrics["train"]


@pytest.mark.parametrize("far", [-40.0, 40.0], ids=["divergence 0", "divergence above 0"])
def test_kto(batch, logits, far):
    is_good = torch.tensor([True, False, True, True, False, True])
    stranger_logits = torch.randn(6, 7, 13)
    stranger = {key: batch[key].flip(0) for key in ("input_ids", "labels")} | {"first_label": 2}
    stranger["reference"] = torch.full((6,), -20.0 - far)
    judged = batch | {"stranger": stranger, "is_good": is_good}
    expected = trl_kto(judged, logits, stranger_logits, is_good, 0.2, 0.8, 1.3)
    objective = OBJECTIVES["kto"]

    def model(input_ids, **_):
        return SimpleNamespace(logits=stranger_logits if input_ids is stranger["input_ids"] else logits)

    model.training = False
    scorer = ModelScorer(model, Inputs(frozenset()))
    judged["estimate"] = objective.estimate(scorer, judged)
    section = {"beta": 0.2, "kto_desirable_weight": 0.8, "kto_undesirable_weight": 1.3}
    found = ours("kto", judged, logits, **section)
    assert_same(found, expected)
    metrics = {name: float(pair[0] / pair[1]) for name, pair in found[2].metrics.items()}
    assert metrics == pytest.approx({name: expected[2][name][0] for name in metrics}, rel=1e-4)
    assert (metrics["kl"] > 0) == (far > 0)


@pytest.mark.parametrize("coefficient", [None, 0.1])
def test_reward(coefficient):
    from trl.trainer.reward_trainer import RewardTrainer

    scores = torch.randn(6, 1, requires_grad=True)
    trainer = RewardTrainer.__new__(RewardTrainer)
    trainer.model, trainer.accelerator, trainer._tp_size = SimpleNamespace(training=False), ALONE, 1
    trainer.args = SimpleNamespace(center_rewards_coefficient=coefficient)
    trainer._total_train_tokens = 0
    trainer._metrics = {
        "eval": {name: [] for name in ("min_reward", "mean_reward", "max_reward", "accuracy", "margin")}
    }
    loss = trainer.compute_loss(lambda **_: SimpleNamespace(logits=scores), {})
    batch = {"labels": torch.zeros(6, 2), "input_ids": torch.zeros(6, 2)}
    found = ours("reward", batch, scores, center_rewards_coefficient=coefficient)
    assert_same(found, (loss, torch.autograd.grad(loss, scores)[0]))
    right, number = found[2].metrics["rewards/accuracies"].tolist()
    assert right / number == pytest.approx(trainer._metrics["eval"]["accuracy"][0])
