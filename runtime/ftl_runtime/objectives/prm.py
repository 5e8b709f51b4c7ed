"""Process reward models: each step towards an answer is right or wrong.

Shapes: B rows, T tokens, C classes, N steps.
"""

from torch import Tensor
from torch.nn.functional import cross_entropy

from ftl.config.objective import ObjectiveSection
from ftl_runtime.objectives.terms import IGNORED, Batch, Counts, Scorer, Terms, mean_of


def step_loss(logits_BTC: Tensor, labels_BT: Tensor) -> Tensor:
    """Scalar: cross-entropy of the class at each label, summed, in nats. Logits are of the token itself."""
    return cross_entropy(logits_BTC.flatten(0, 1).float(), labels_BT.flatten(), ignore_index=IGNORED, reduction="sum")


def prm_terms(scorer: Scorer, batch: Batch, section: ObjectiveSection) -> Terms:
    logits_BTC, labels_BT = scorer.class_logits(batch), batch["labels"]
    is_step_BT = labels_BT != IGNORED
    is_right_N = logits_BTC.argmax(-1)[is_step_BT] == labels_BT[is_step_BT]
    return Terms((step_loss(logits_BTC, labels_BT),), {"accuracy": mean_of(is_right_N)})


def count_prm(batch: Batch, section: ObjectiveSection) -> Counts:
    """Steps with a label."""
    return (int((batch["labels"] != IGNORED).sum()),)
