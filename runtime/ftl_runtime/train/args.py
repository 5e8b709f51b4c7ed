"""Config sections -> transformers' TrainingArguments. What decides when to log, evaluate and save is schedule.py."""

import torch
from transformers import TrainingArguments

from ftl.config.optim import OptimSection
from ftl.config.parallel import ParallelSection
from ftl.config.precision import PrecisionSection
from ftl.contract import CHECKPOINTS_DIR
from ftl_runtime.context import Context, Device
from ftl_runtime.train.schedule import Schedule


def compute_dtype(precision: PrecisionSection, device: Device) -> torch.dtype:
    """The format products are computed in; fp32 means no autocast."""
    named = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if precision.compute != "auto":
        return named[precision.compute]
    if precision.weights in ("bf16", "fp16"):
        return named[precision.weights]
    if device.kind == "cpu":
        return torch.float32
    return torch.bfloat16 if device.has_bf16 else torch.float16


def training_args(
    optim: OptimSection,
    precision: PrecisionSection,
    parallel: ParallelSection,
    schedule: Schedule,
    ctx: Context,
    *,
    has_own_format: bool = False,
) -> TrainingArguments:
    """Everything that transformers would do by itself and we do is off: reports, hub, saving, evaluating, bars."""
    # DeepSpeed holds the weights in what is computed in, and wants no autocast around them.
    dtype = torch.float32 if has_own_format else compute_dtype(precision, ctx.device)
    on_cpu = ctx.device.kind == "cpu"
    return TrainingArguments(
        output_dir=str(ctx.run_dir / CHECKPOINTS_DIR),
        learning_rate=optim.learning_rate,
        optim="adamw_torch",  # a name is needed; train/optim.py and train/rates.py make optimizer and schedule
        weight_decay=optim.weight_decay,
        adam_beta1=optim.adam_beta1,
        adam_beta2=optim.adam_beta2,
        adam_epsilon=optim.adam_epsilon or 1e-8,
        max_grad_norm=optim.max_grad_norm,
        lr_scheduler_type="constant",
        warmup_steps=schedule.warmup_steps,
        max_steps=schedule.max_steps,
        per_device_train_batch_size=optim.micro_batch_size,
        per_device_eval_batch_size=optim.eval_batch_size_or_default,
        gradient_accumulation_steps=optim.gradient_accumulation_steps,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        tf32=precision.tf32,
        use_cpu=on_cpu,
        ddp_timeout=parallel.timeout_s,
        ddp_bucket_cap_mb=parallel.bucket_mib,
        ddp_broadcast_buffers=parallel.broadcasts_buffers,
        ddp_find_unused_parameters=parallel.finds_unused,
        ddp_backend="gloo" if on_cpu and ctx.device.num_ranks > 1 else None,
        seed=optim.seed,
        logging_nan_inf_filter=False,
        prediction_loss_only=True,
        eval_strategy="no",
        save_strategy="no",
        report_to=[],
        push_to_hub=False,
        disable_tqdm=True,
        remove_unused_columns=False,
        log_level="warning",
    )
