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
