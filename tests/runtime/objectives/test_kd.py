"""The divergence from a teacher, by hand and against torch's own."""

import math

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from torch.nn.functional import kl_div  # noqa: E402

from ftl.config.objective import ObjectiveSection  # noqa: E402
from ftl_runtime.objectives.kd import count_kd, divergence, kd_terms  # noqa: E402

NONE = -torch.inf
LOG2, LOG3 = math.log(2), math.log(3)
# Four tokens in a vocabulary of four, of which the teacher names two at most.
# 1: teacher 3/4, 1/4; model 1/4 each.             2: teacher 1/2, 1/2; model 1/2, 1/4, and 1/8 twice.
# 3: teacher sure of one token, to which the model gives 1/2.             4: no teacher.
TEACHER_MK = torch.tensor([[math.log(3 / 4), math.log(1 / 4)], [-1.0, -1.0], [-0.3, NONE], [NONE, NONE]])
STUDENT_MK = torch.tensor([[5.0, 5.0], [-LOG2, -2 * LOG2], [-LOG2, 0.0], [0.0, 0.0]])
LOG_SUMS_M = torch.tensor([5.0 + 2 * LOG2, 0.0, 0.0, LOG3])
WHOLE = [0.75 * LOG3, 1.5 * LOG2 - LOG2, LOG2, 0.0]
"""E.g. the first: 3/4 log(3/4 / 1/4) + 1/4 log(1/4 / 1/4)."""
# Among the two, the model has 1/2, 1/2 for the first, and 2/3, 1/3 for the second.
AMONG = [0.75 * LOG3 - LOG2, 0.5 * math.log(3 / 4) + 0.5 * math.log(3 / 2), 0.0, 0.0]


def test_divergence_of_four_tokens_is_what_the_formula_says():
    assert divergence(STUDENT_MK, TEACHER_MK, LOG_SUMS_M).tolist() == pytest.approx(WHOLE, abs=1e-6)
    assert divergence(STUDENT_MK, TEACHER_MK).tolist() == pytest.approx(AMONG, abs=1e-6)


def test_temperature_flattens_both():
    """At temperature 2: 9/10, 1/10 become 3/4, 1/4; 16/17, 1/17 become 4/5, 1/5."""
    teacher, student = torch.tensor([[math.log(9), 0.0]]), torch.tensor([[math.log(16), 0.0]])
    expected = 0.75 * math.log(0.75 / 0.8) + 0.25 * math.log(0.25 / 0.2)
    log_sums = (student / 2).logsumexp(1)
    assert divergence(student, teacher, log_sums, temperature=2.0).item() == pytest.approx(expected, abs=1e-6)


def test_standardised_logits_forget_shift_and_scale():
    teacher = torch.tensor([[1.0, -1.0, 0.0, NONE]])
    assert divergence(7 * teacher.clamp(min=-1) + 3, teacher, spread=2.0).item() == pytest.approx(0, abs=1e-6)
    # 1, -1 are standard themselves: halved they are 1/2, -1/2, against 0, 0 of a model that knows nothing.
    given = torch.tensor([[1.0, -1.0]])
    p = 1 / (1 + math.exp(-1))
    expected = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    flat = torch.zeros(1, 2, requires_grad=True)
    found = divergence(flat, given, spread=2.0)
    assert found.item() == pytest.approx(expected, abs=1e-6)
    found.sum().backward()
    assert torch.isfinite(flat.grad).all()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_over_the_whole_vocabulary_it_is_torchs_kl_div(temperature):
    generator = torch.Generator().manual_seed(1)
    student_MV = torch.randn(9, 40, generator=generator, dtype=torch.float64).requires_grad_()
    teacher_MV = torch.randn(9, 40, generator=generator, dtype=torch.float64)
    log_p, log_q = (x.div(temperature).log_softmax(1) for x in (teacher_MV, student_MV))
    expected = kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    (gradient,) = torch.autograd.grad(expected.sum(), student_MV, retain_graph=True)
    for log_sums in (student_MV.div(temperature).logsumexp(1), None):
        found = divergence(student_MV, teacher_MV, log_sums, temperature=temperature)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found.sum(), student_MV, retain_graph=True)[0], gradient)


def test_tokens_without_a_teacher_leave_no_gradient_behind():
    student = STUDENT_MK.clone().requires_grad_()
    divergence(student, TEACHER_MK).sum().backward()
    assert torch.isfinite(student.grad).all()
    assert not student.grad[3].any()


class Fixed:
    """A model that gives the four tokens above, the trained one first."""

    def chosen_logits(self, batch, ids_MK, temperatures):
        assert (ids_MK.shape, temperatures) == ((4, 3), (1.0, 2.0))
        target_M1 = torch.tensor([[5.0], [-LOG2], [-LOG2], [0.0]])
        return torch.cat([target_M1, STUDENT_MK], 1), torch.stack([LOG_SUMS_M, LOG_SUMS_M], 1)


def test_terms_are_weighed_and_counted_each_by_itself():
    section = ObjectiveSection(kind="kd", kd_alpha=0.5, kd_ce_alpha=0.25, kd_temperature=2.0)
    batch = {
        "labels": torch.tensor([[-100, 1, 2, 3, 1]]),
        "trained_targets": torch.tensor([1, 2, 3, 1]),
        "teacher_ids": torch.zeros(4, 2, dtype=torch.int64),
        "teacher_logits": TEACHER_MK,
    }
    terms = kd_terms(Fixed(), batch, section)
    # The tokens have probability 1/4, 1/2, 1/2 and 1/3.
    cross_entropy = 2 * LOG2 + LOG2 + LOG2 + LOG3
    kl = divergence(STUDENT_MK, TEACHER_MK, LOG_SUMS_M, temperature=2.0).sum().item()
    assert [term.item() for term in terms.sums] == pytest.approx([0.25 * cross_entropy, 0.5 * 4 * kl])
    assert count_kd(batch, section) == (4, 3)
    assert terms.metrics["cross_entropy"].tolist() == pytest.approx([cross_entropy, 4])
    assert terms.metrics["kl"].tolist() == pytest.approx([kl, 3])
