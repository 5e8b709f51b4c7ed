"""The only Trainer subclass.

transformers' loop drives it: batches, accumulation, backward, clipping, optimizer, scheduler. What is ours: the loss,
the order of the data, what is logged, evaluation, and checkpoints.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader
from transformers import Trainer as TransformersTrainer
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer import SCHEDULER_NAME
from transformers.trainer_callback import DefaultFlowCallback, PrinterCallback

from ftl_runtime import ranks
from ftl_runtime.checkpoint.contents import Contents
from ftl_runtime.checkpoint.saver import Saver
from ftl_runtime.context import Context
from ftl_runtime.evaluate.writing import Writing
from ftl_runtime.objectives.terms import Batch, Counts
from ftl_runtime.parallel import fsdp, shards
from ftl_runtime.parallel.held import Held
from ftl_runtime.parallel.rayreport import ray_listens
from ftl_runtime.parallel.spread import spread_of
from ftl_runtime.parallel.tensor import step_one_by_one
from ftl_runtime.patches import accelerate_lomo
from ftl_runtime.train.asked import Asked
from ftl_runtime.train.averaging import averaged_weights, bare, mark_averaged, restore_trained
from ftl_runtime.train.batches import Loaders
from ftl_runtime.train.best import Selection
from ftl_runtime.train.callbacks import Conductor
from ftl_runtime.train.ledger import Ledger, check_finite
from ftl_runtime.train.losswatch import LossWatch
from ftl_runtime.train.metrics import Evaluation
from ftl_runtime.train.progress import Progress, Stopwatch
from ftl_runtime.train.rollout import Rollouts
from ftl_runtime.train.routers import RouterLoss
from ftl_runtime.train.schedule import Schedule
from ftl_runtime.train.stopping import note_stop

_STATE_FILE = "trainer_state.json"


class Trainer(TransformersTrainer):
    """Trains the model to the end of `schedule`, or to the step at which `ctx.stop` is set.

    `progress` is carried on from the checkpoint that is resumed.
    """

    loss_is_scaled_for_ga = True  # num_items covers the accumulated batch, so nothing is divided afterwards

    def __init__(
        self,
        held: Held,
        asked: Asked,
        loaders: Loaders,
        args: TrainingArguments,
        schedule: Schedule,
        ctx: Context,
        *,
        make_optimizer: Callable[[nn.Module], Optimizer],
        make_scheduler: Callable[[Optimizer], LRScheduler | ReduceLROnPlateau],
        progress: Progress,
        selection: Selection,
        loss_watch: LossWatch,
        keep_checkpoints: int,
        writing: Writing | None = None,
        rollouts: Rollouts | None = None,
    ) -> None:
        self.progress = progress
        self.stopped_at: int | None = None
        self.unsaved: str | None = None
        """Why the step it was stopped at is not saved."""
        self.spread: str | None = None
        self.stopwatch = Stopwatch()
        self.held = held
        self._asked = asked
        self._loaders = loaders
        self._make_optimizer = make_optimizer
        self._make_scheduler = make_scheduler
        self.schedule = schedule
        self._selection = selection
        self._writing = writing
        self._rollouts = rollouts
        self._loss_watch = loss_watch
        self._ctx = ctx
        self._routers = RouterLoss.of(held.model)
        self._num_micro_batches = 1
        self._has_restored = False
        self._has_random_state = False
        self._resumed_from: str | None = None
        self._companions: list[Callable[[Path, Contents], None]] = []
        self.saver = Saver(ctx, keep_checkpoints, may_be_behind=not ray_listens())
        self.start_tokens = progress.tokens
        accelerate_lomo.apply()
        train = loaders.train.dataset
        super().__init__(model=held.model, args=args, train_dataset=train, data_collator=loaders.collator)
        held.take_over(self.accelerator, self.create_optimizer)
        self._ledger = Ledger(progress, schedule.max_steps, self.args.device, ctx)
        self.model_accepts_loss_kwargs = True  # versions before loss_is_scaled_for_ga read this instead
        for callback in (DefaultFlowCallback, PrinterCallback):
            self.remove_callback(callback)
        conductor: TrainerCallback = Conductor(schedule, self._must_stop)
        self.add_callback(conductor)

    # -- shards

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        if self.held.is_whole:  # shards are where they belong
            super()._move_model_to_device(model, device)

    def _clip_grad_norm(self, model: nn.Module) -> Any:  # Any: a tensor, or none
        if self.held.zero is not None:
            return None  # its step clips
        return fsdp.whole(super()._clip_grad_norm(model))  # type: ignore[no-untyped-call]

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:  # Any: as above
        if self.held.zero is not None:
            return None  # known after the step
        return fsdp.whole(super()._get_grad_norm(model, grad_norm=grad_norm))  # type: ignore[no-untyped-call]

    # -- optimizer

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        if self.optimizer is None:
            trained = self.model if model is None else model
            assert isinstance(trained, nn.Module)
            self.optimizer = self._make_optimizer(trained)
            if self.held.cut is not None:
                step_one_by_one(self.optimizer)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: Optimizer | None = None
    ) -> LRScheduler | ReduceLROnPlateau:
        if self.lr_scheduler is None:
            stepped = self.optimizer if optimizer is None else optimizer
            assert stepped is not None
            if self.held.zero is not None:
                stepped = bare(stepped)  # the engine hands its groups on
            self.lr_scheduler = self._make_scheduler(stepped)  # type: ignore[assignment]
            self._created_lr_scheduler = True
        assert self.lr_scheduler is not None
        return self.lr_scheduler

    # -- data and loss

    def get_train_dataloader(self) -> DataLoader[Any]:
        return self._loaders.train

    def get_batch_samples(  # type: ignore[override]  # what it counts is handed to compute_loss as it is
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Counts]:
        """The micro-batches of one step, and what each term of their loss is divided by, over all ranks; counted
        before they go to the device."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        if self._rollouts is not None and batches:
            assert isinstance(self.model, nn.Module)
            self._load_rng_state(self._resumed_from)
            step = self.state.global_step + 1
            is_logged = step % self.schedule.log_every == 0
            batches = self._rollouts.play(self.model, batches, step=step if is_logged else None)
        counts = self._asked.count(batches)
        if self._asked.objective.estimate is not None:
            assert isinstance(self.model, nn.Module)
            batches = [self._prepare_inputs(batch) for batch in batches]
            estimate = self._asked.estimate(self.model, batches, self.args.device)
            batches = [{**batch, "estimate": estimate} for batch in batches]
        num_tokens = sum(int(batch.pop("num_tokens")) for batch in batches)
        self.progress.tokens += ranks.sum_over_copies(num_tokens, self._ctx.device)
        self._num_micro_batches = len(batches)
        if self.held.zero is not None:
            self.held.zero.expect(len(batches))
        return batches, counts

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # Any: transformers means a number, get_batch_samples gives Counts
    ) -> Tensor:
        terms = self._asked.terms(model, inputs)
        self._ledger.metrics.add(terms.metrics)
        # Gradients are averaged over ranks, while each rank divides by the counts of all of them.
        device = self._ctx.device
        num_averaged = device.num_ranks if self.held.cut is None else device.num_copies
        loss = _divided(terms.sums, num_items_in_batch) * num_averaged
        return loss if self._routers is None else loss + self._routers.take() / self._num_micro_batches

    def training_step(
        self,
        model: nn.Module,
        inputs: Batch,
        num_items_in_batch: Any = None,  # Any: as above
    ) -> Tensor:
        """transformers' own, but it does not put every module in training mode again for each micro-batch."""
        loss = self.compute_loss(model, self._prepare_inputs(inputs), num_items_in_batch=num_items_in_batch)
        self.accelerator.backward(loss, **({"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}))
        if self.held.cut is not None and self.accelerator.sync_gradients:
            self.held.cut.average_gradients(model)
        loss = loss.detach()
        self._ledger.add(self.state.global_step + 1, loss)
        return loss

    def floating_point_ops(self, inputs: Batch) -> int:
        return 0  # nobody reads the sum, and counting parameters at each micro-batch is slow

    # -- steps

    def train(self, *args: Any, **kwargs: Any) -> Any:  # Any: transformers' signature
        """To the end, that of the last checkpoint included."""
        with self.saver.seen_through():
            return super().train(*args, **kwargs)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Once: transformers asks for it after the batches of a step are there, when completions were drawn already."""
        if not self._has_random_state:
            super()._load_rng_state(checkpoint)
            self._has_random_state = True

    def _run_epoch(self, *, epoch: int, **rest: Any) -> None:  # type: ignore[override]  # called by keywords only
        self._loaders.set_epoch(epoch)
        if not self._has_restored:
            self._has_restored = True
            self._resumed_from = rest["resume_from_checkpoint"]
            self._begin()
            is_over = self.state.global_step >= self.schedule.max_steps or self.progress.is_exhausted
            if self.stopped_at is not None or is_over:
                self.control.should_training_stop = True
                return
        super()._run_epoch(epoch=epoch, **rest)  # type: ignore[no-untyped-call]

    def _begin(self) -> None:
        """Once, before the first step: carry on the sums of the checkpoint, and evaluate where it left that undone."""
        self._tr_loss.fill_(self.progress.window_loss)
        self._globalstep_last_logged = self.progress.logged_step
        device = self._ctx.device
        self.spread = (
            self.held.zero.spread() if self.held.zero else spread_of(self.model_wrapped, device, self.held.cut)
        )
        self._ctx.phase("training")
        self.stopwatch = Stopwatch()
        step = self.state.global_step
        if self.schedule.evaluates_at(step) and self.progress.evaluated_step != step:
            self._judge(self.evaluate())
            if self.control.should_save:
                self.control.should_save = False
                assert isinstance(self.model, nn.Module)
                self._save_checkpoint(self.model, None)
        if self._must_stop() and step < self.schedule.max_steps:
            self._note_stop(saves=False)
        self.model_wrapped.train()
        optimizer: Any = self.optimizer  # Any: accelerate's wrapper around it, which has no types
        optimizer.train()

    def _maybe_log_save_evaluate(
        self,
        tr_loss: Tensor,
        grad_norm: Tensor | float | None,
        model: nn.Module,
        trial: object,
        epoch: float,
        ignore_keys_for_eval: list[str] | None,
        start_time: float,
        learning_rate: float | None = None,
    ) -> None:
        """Called after each step, and once more after each epoch, when nothing is left to do."""
        self.saver.look()
        if self.held.zero is not None:
            grad_norm = self.held.zero.grad_norm()
        if self.control.should_log or self.control.should_save:
            # With fp16 a scaler skips steps whose gradients overflow: that is its normal work.
            needed = float(grad_norm) if grad_norm is not None and self.accelerator.scaler is None else None
            check_finite(float(tr_loss), needed, self.state.global_step, self._globalstep_last_logged)
        if self.control.should_log:
            self.control.should_log = False
            self._log_window(tr_loss, grad_norm, learning_rate)
        if self.control.should_evaluate:
            self.control.should_evaluate = False
            self._judge(self.evaluate())
        if self._must_stop() and self.state.global_step < self.schedule.max_steps and self.stopped_at is None:
            self._note_stop(saves=True)
            self.control.should_save = self.unsaved is None
            self.control.should_training_stop = True
        if self.control.should_save:
            self.control.should_save = False
            self._save_checkpoint(model, trial)

    def _log_window(self, tr_loss: Tensor, grad_norm: Tensor | float | None, learning_rate: float | None) -> None:
        step = self.state.global_step
        loss = ranks.mean(tr_loss, self._ctx.device) / (step - self._globalstep_last_logged)
        tr_loss.zero_()
        self._globalstep_last_logged = step
        self.progress.logged_loss = loss
        norm = float(grad_norm) if grad_norm is not None else None
        facts = {"epoch": self.state.epoch, "loss": loss, "lr": learning_rate, "grad_norm": norm}
        metrics = self._ledger.tell(step, self.stopwatch.read(), facts)
        if self._loaders.eval is None:
            self.progress.metrics = metrics
        self._loss_watch.see(step, loss)

    # -- evaluation

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:  # Any: transformers' signature, unused
        """Mean loss over the evaluation rows, as in training; no logits are kept, no random numbers drawn.

        A request to stop ends it without a result.
        """
        assert self._loaders.eval is not None
        self._ctx.phase("evaluating")
        assert isinstance(self.model, nn.Module)
        model = self.model  # not the DDP wrapper, which would wait for ranks that have fewer batches
        if self.held.zero is not None and self.held.zero.cuts_weights:
            model = self.model_wrapped  # which gathers weights where they are used
        model.eval()
        evaluation = Evaluation(self.args.device)
        with self.stopwatch.paused(), torch.no_grad(), averaged_weights(self.optimizer):
            prepared = map(self._prepare_inputs, self._loaders.eval)
            estimate = self._asked.estimate(self.model, prepared, self.args.device)
            for number, batch in enumerate(self._loaders.eval):
                if estimate is not None:
                    batch["estimate"] = estimate
                counts = self._asked.count_once(batch)
                terms = self._asked.terms(model, self._prepare_inputs(batch))
                if number < self._loaders.num_eval_batches:
                    evaluation.add(terms, counts)
                self.callback_handler.on_prediction_step(self.args, self.state, self.control)
                if self._may_break_off():
                    return {}
            scores = self._write(model)
        model.train()
        loss, measured = evaluation.finish(self._ctx.device)
        if isinstance(self.lr_scheduler, ReduceLROnPlateau):
            self.lr_scheduler.step(loss)
        self.progress.evaluated_step = self.state.global_step
        self.progress.last_eval_loss = loss
        if self.progress.first_eval_loss is None:
            self.progress.first_eval_loss = loss
        self.progress.metrics = measured
        metrics = {"loss": loss, **measured, **scores}
        if self._asked.objective.is_likelihood:
            metrics["perplexity"] = perplexity(loss)
        self._ctx.emit("eval", {"step": self.state.global_step, **metrics})
        self._ctx.phase("training")
        return metrics

    def _write(self, model: nn.Module) -> dict[str, float]:
        """Have the model answer prompts, and show some; gives the scores. All ranks answer the same ones."""
        if self._writing is None:
            return {}
        scores, samples = self._writing.evaluate(
            model, lambda: self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        )
        if samples:
            self._ctx.emit("samples", {"step": self.state.global_step, "samples": samples})
        return scores

    def _judge(self, metrics: dict[str, float]) -> None:
        """Have the best model saved, and stop once none has been better for too long. The untrained one is no choice,
        and an evaluation that was broken off has no numbers."""
        step, progress = self.state.global_step, self.progress
        if not metrics:
            return
        self._selection.check(metrics)
        if step == 0:
            return
        judgement = self._selection.judge(step, metrics)
        if judgement.is_best and self._selection.saves_best:
            self.control.should_save = True
        if judgement.is_exhausted and step < self.schedule.max_steps:
            facts = {"metric": self._selection.metric, "best": progress.best_value, "best_step": progress.best_step}
            self._ctx.emit("early_stop", {"step": step, **facts, "patience": self._selection.patience})
            self.control.should_save = self.control.should_training_stop = True

    # -- stopping

    def _must_stop(self) -> bool:
        """Whether any rank was asked to stop; all ranks get the same answer at the same step."""
        return ranks.sum_counts(int(self._ctx.stop.reason is not None), self._ctx.device) > 0

    def _may_break_off(self) -> bool:
        """Whether an evaluation may end midway: at the last step it belongs to the result, and ranks that have
        different numbers of batches cannot agree."""
        is_last = self.state.global_step >= self.schedule.max_steps
        return self._ctx.stop.reason is not None and not is_last and self._ctx.device.num_ranks == 1

    def _note_stop(self, *, saves: bool) -> None:
        self.saver.wait()  # nearer to its end than another one
        self.stopped_at = self.state.global_step
        self.unsaved = note_stop(self._ctx, self.stopped_at, saves=saves)

    # -- what the result says

    def mean_losses(self) -> tuple[float, float]:
        """Mean loss of the first and of the last tenth of the steps; after an early stop the last logged one."""
        return self._ledger.mean_losses(self.state.global_step)

    # -- checkpoints

    def save_along(self, save: Callable[[Path, Contents], None]) -> None:
        """Have `save` put what it needs for resuming into the directory of each checkpoint."""
        self._companions.append(save)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Nothing: run.py built the model from the checkpoint's weights, strictly and in one go."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        directory = Path(checkpoint)
        if self.held.is_whole and not shards.are_in(directory):
            super()._load_optimizer_and_scheduler(checkpoint)
            restore_trained(self.optimizer)
            return
        assert self.optimizer is not None and self.lr_scheduler is not None
        self.held.load_states(self.optimizer, directory)
        self.lr_scheduler.load_state_dict(torch.load(directory / SCHEDULER_NAME, weights_only=True))

    def load_best(self) -> int | None:
        """Put the weights of the best evaluation into the model; gives its step.

        None where no evaluation was any good, or its checkpoint is not whole: then the weights stay the last ones.
        """
        best_step = self.progress.best_step
        if best_step is None or best_step == self.state.global_step:
            return best_step
        found = self._ctx.mesh.bring(self._ctx.store.valid(best_step) if self._ctx.device.is_main else None)
        if found is None:
            self._ctx.warn(f"the checkpoint of step {best_step}, the best, is not whole; the model is the last one")
            return None
        self.state.best_model_checkpoint = str(found.path)
        self._load_best_model()
        mark_averaged(self.optimizer)
        return best_step

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        with self.stopwatch.paused():
            self._ctx.phase("saving")
            best_step = self.progress.best_step if self._selection.saves_best else None
            self.saver.save(self.state.global_step, self._state_of_now, best_step)
            self.callback_handler.on_save(self.args, self.state, self.control)
            self._ctx.phase("training")

    @contextmanager
    def _state_of_now(self, stage: Path) -> Iterator[Contents]:
        """All that resuming needs: weights, optimizer, scheduler, scaler, random states, counters."""
        contents = Contents()
        self._save_rng_state(str(stage))
        self.progress.logged_step = self._globalstep_last_logged
        self.progress.window_loss = ranks.mean(self._tr_loss, self._ctx.device)
        self._ledger.keep()
        with averaged_weights(self.optimizer if self._ctx.device.is_main and self.held.is_whole else None):
            self.held.save(self.optimizer, stage, contents)
            if self._ctx.device.is_main:
                self._save_rest(stage, contents)
            yield contents

    def _save_rest(self, stage: Path, contents: Contents) -> None:
        for save in self._companions:
            save(stage, contents)
        assert self.lr_scheduler is not None
        torch.save(self.lr_scheduler.state_dict(), stage / SCHEDULER_NAME)
        self._save_scaler(str(stage))
        self.state.save_to_json(str(stage / _STATE_FILE))
        self.progress.stream = self._loaders.stream_mark(self.state.global_step * self.args.gradient_accumulation_steps)
        self.progress.save(stage)


def perplexity(loss: float) -> float:
    """Of a loss in nats per token; infinite where no number is that large."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def _divided(sums: tuple[Tensor, ...], counts: Counts) -> Tensor:
    return torch.stack([term / max(count, 1) for term, count in zip(sums, counts, strict=True)]).sum()
