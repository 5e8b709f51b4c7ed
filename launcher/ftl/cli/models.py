"""ftl merge-lora, merge-sharded-fsdp-weights, quantize, lm-eval: what one does with a finished model."""

from pathlib import Path
from typing import Annotated

import typer

from ftl.cli.options import KEYS_AS_FLAGS, AsJson, Assignments, CloudFile, ConfigFile, Detach, DryRun

commands = typer.Typer()
PANEL = "Work on a finished model"


@commands.command("merge-lora", context_settings=KEYS_AS_FLAGS, rich_help_panel=PANEL)
def merge_lora(
    context: typer.Context,
    config: ConfigFile,
    adapter: Annotated[
        Path | None,
        typer.Option("--lora-model-dir", metavar="DIR", help="The adapter; that in output_dir when left out."),
    ] = None,
    cloud: CloudFile = None,
    assignments: Assignments = None,
    detach: Detach = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Merge a trained adapter into its base: one model in output_dir/merged, which loads without peft.

    Every config key is also a flag, as in `ftl train`. It needs no GPU: layers are merged one by one in main memory.

    Examples: `ftl merge-lora cfg.yml`, `ftl merge-lora cfg.yml --lora-model-dir ./adapter --output-dir ./model`
    """
    from ftl.commands.finished import How
    from ftl.commands.merge import run

    how = How(cloud=cloud, detach=detach, dry_run=dry_run, as_json=as_json)
    raise typer.Exit(run(config, flags=list(context.args), assignments=assignments or [], adapter=adapter, how=how))


commands.command("merge", hidden=True, context_settings=KEYS_AS_FLAGS)(merge_lora)


@commands.command("merge-sharded-fsdp-weights", context_settings=KEYS_AS_FLAGS, rich_help_panel=PANEL)
def merge_sharded_fsdp_weights(
    context: typer.Context,
    config: ConfigFile,
    shards: Annotated[
        Path | None,
        typer.Option("--shards-dir", metavar="DIR", help="A model or checkpoint in shards; output_dir when left out."),
    ] = None,
    cloud: CloudFile = None,
    assignments: Assignments = None,
    detach: Detach = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Put a model that was written in shards together: whole safetensors in output_dir/merged.

    For what `fsdp_config` with SHARDED_STATE_DICT writes. It needs no GPU, and main memory for the whole model.

    Example: `ftl merge-sharded-fsdp-weights cfg.yml --shards-dir ./model-out-checkpoint`
    """
    from ftl.commands.finished import How
    from ftl.commands.mergeshards import run

    how = How(cloud=cloud, detach=detach, dry_run=dry_run, as_json=as_json)
    raise typer.Exit(run(config, flags=list(context.args), assignments=assignments or [], shards=shards, how=how))


@commands.command(context_settings=KEYS_AS_FLAGS, rich_help_panel=PANEL)
def quantize(
    context: typer.Context,
    config: ConfigFile,
    base_model: Annotated[
        str | None,
        typer.Option("--base-model", metavar="MODEL", help="The model; that in output_dir when left out."),
    ] = None,
    weight_dtype: Annotated[
        str | None, typer.Option("--weight-dtype", metavar="int8|int4|fp8", help="What weights become.")
    ] = None,
    activation_dtype: Annotated[
        str | None, typer.Option("--activation-dtype", metavar="int8|fp8", help="What activations are rounded to.")
    ] = None,
    group_size: Annotated[
        int | None, typer.Option("--group-size", metavar="N", help="Weights that share a scale.")
    ] = None,
    quantize_embedding: Annotated[
        bool | None, typer.Option("--quantize-embedding/--no-quantize-embedding", help="Round the embeddings too.")
    ] = None,
    cloud: CloudFile = None,
    assignments: Assignments = None,
    detach: Detach = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Round the model that CFG has trained to few bits, as `qat` or `quantization` of CFG says: output_dir/quantized.

    Every config key is also a flag, as in `ftl train`.

    Examples: `ftl quantize cfg.yml`, `ftl quantize cfg.yml --weight-dtype int4 --group-size 64`
    """
    from ftl.commands.finished import How
    from ftl.commands.quantize import run

    how = How(cloud=cloud, detach=detach, dry_run=dry_run, as_json=as_json)
    scheme = {
        "weight_dtype": weight_dtype,
        "activation_dtype": activation_dtype,
        "group_size": group_size,
        "quantize_embedding": quantize_embedding,
    }
    flags = list(context.args)
    raise typer.Exit(run(config, flags=flags, assignments=assignments or [], model=base_model, scheme=scheme, how=how))


@commands.command("lm-eval", context_settings=KEYS_AS_FLAGS, rich_help_panel=PANEL)
def lm_eval(
    context: typer.Context,
    config: ConfigFile,
    tasks: Annotated[
        str | None, typer.Option("--tasks", metavar="A,B", help="Tasks in place of lm_eval_tasks.", show_default=False)
    ] = None,
    cloud: CloudFile = None,
    assignments: Assignments = None,
    detach: Detach = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Measure the model that CFG has trained, or lm_eval_model, with tasks of EleutherAI's lm-eval.

    Every config key is also a flag, as in `ftl train`. Results go to output_dir/lm_eval_results.

    Examples: `ftl lm-eval cfg.yml --tasks arc_easy,mmlu:5`, `ftl lm-eval cfg.yml --lm-eval-model org/name`
    """
    from ftl.commands.finished import How
    from ftl.commands.lmeval import run

    how = How(cloud=cloud, detach=detach, dry_run=dry_run, as_json=as_json)
    raise typer.Exit(run(config, flags=list(context.args), assignments=assignments or [], tasks=tasks, how=how))
