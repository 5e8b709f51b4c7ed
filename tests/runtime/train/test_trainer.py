"""The loss as the model gets its batches; everything else of the trainer is tested by whole runs."""

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from ftl.config.objective import ObjectiveSection  # noqa: E402
from ftl_runtime.objectives import OBJECTIVES  # noqa: E402
from ftl_runtime.train.scoring import Inputs, ModelScorer  # noqa: E402

# Two rows of two documents each; the first label of a document is never trained.
IDS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])
POSITIONS = torch.tensor([[0, 1, 0, 1, 2], [0, 1, 2, 0, 1]])
LABELS = torch.where(POSITIONS == 0, -100, IDS)


def loss_of(model, ids, positions, labels, **inputs: bool) -> float:
    targets = labels.reshape(-1).roll(-1)
    trained = (targets != -100).nonzero().flatten()
    scorer = ModelScorer(model, Inputs(frozenset(["position_ids"]), **inputs))
    batch = {"input_ids": ids, "position_ids": positions, "labels": labels}
    batch |= {"trained_rows": trained, "trained_targets": targets[trained]}
    with torch.no_grad():
        (loss,) = OBJECTIVES["sft"].terms(scorer, batch, ObjectiveSection()).sums
    return float(loss)


@pytest.fixture(scope="module")
def model(base):
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base), attn_implementation="sdpa").eval()


def test_packed_rows_lose_what_their_documents_lose_alone(model):
    documents = [IDS[:1, :2], IDS[:1, 2:], IDS[1:, :3], IDS[1:, 3:]]
    alone = sum(
        loss_of(model, ids, torch.arange(ids.shape[1])[None], torch.cat([torch.tensor([[-100]]), ids[:, 1:]], 1))
        for ids in documents
    )
    assert loss_of(model, IDS, POSITIONS, LABELS) == pytest.approx(alone, rel=1e-5)


def test_loss_is_the_same_without_logits(model):
    whole = loss_of(model, IDS, POSITIONS, LABELS)
    assert loss_of(model, IDS, POSITIONS, LABELS, splits_head=True) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("splits_head", [False, True], ids=["logits", "no logits"])
def test_loss_by_probability_is_that_of_the_training_only(model, splits_head):
    whole = loss_of(model, IDS, POSITIONS, LABELS)
    scaled = {"splits_head": splits_head, "scales_by_probability": True}
    assert loss_of(model, IDS, POSITIONS, LABELS, **scaled) == pytest.approx(whole, rel=1e-6)
    with torch.no_grad():
        logprobs = model(input_ids=IDS, position_ids=POSITIONS, use_cache=False).logits.log_softmax(-1)
    trained = [(b, t) for b in range(2) for t in range(1, 5) if LABELS[b, t] != -100]
    chosen = torch.stack([logprobs[b, t - 1, LABELS[b, t]] for b, t in trained])
    model.train()
    try:
        given = loss_of(model, IDS, POSITIONS, LABELS, **scaled)
    finally:
        model.eval()
    assert given == pytest.approx(float((-chosen * chosen.exp()).sum()), rel=1e-5)
