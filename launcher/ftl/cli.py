"""The command line: options and help text. Each body is one lazy import and one call."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class _UnreadError(Exception):
    """Nobody reads what is printed any more. No OSError, which click would end with 1."""


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:  # Any: typer has a click of its own in some versions
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _UnreadError from error


app = typer.Typer(
    name="ftl",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune language models from one YAML file: on this machine, in a container, or in a cloud.\n\n"
    "Start with `ftl train CFG`. A run goes on when this terminal closes: `ftl ps` lists the runs, "
    "`ftl attach ID` comes back to one, `ftl stop ID` saves a checkpoint and stops it, `ftl resume ID` goes on.",
)
images = typer.Typer(no_args_is_help=True, help="Build, list and inspect the pinned container images.")
app.add_typer(images, name="images")
imports = typer.Typer(no_args_is_help=True, help="Turn another program's command line or task file into a config.")
app.add_typer(imports, name="import")


_PIPE_EXIT_CODE = 128 + 13  # what a shell says of a program that SIGPIPE has ended


def _run_ids(incomplete: str) -> list[str]:
    from ftl.completion import run_ids

    return run_ids(incomplete)


RunId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The run: any unique beginning of its id.", autocompletion=_run_ids, show_default=False
    ),
]
NewestRunId = Annotated[
    str | None,
    typer.Argument(
        metavar="[ID]", help="The run, the newest when left out.", autocompletion=_run_ids, show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]

ConfigFile = Annotated[
    Path, typer.Argument(metavar="CFG", help="The training config, a YAML file.", show_default=False)
]
CloudFile = Annotated[
    Path | None,
    typer.Option("--cloud", metavar="FILE", help="Where to train: a cloud file. This machine when left out."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config key; nested as datasets.0.path=x. Repeatable."),
]


def _version(wanted: bool) -> None:
    if wanted:
        from ftl import __version__

        typer.echo(f"ftl {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    config: ConfigFile,
    cloud: CloudFile = None,
    assignments: Assignments = None,
    sweep: Annotated[
        Path | None,
        typer.Option(
            "--sweep",
            metavar="FILE",
            help="Train once for each combination of values in this file.",
            show_default=False,
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return as soon as the run is accepted.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print what would be submitted; start nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train what CFG says, and follow it to the end.

    Every config key is also a flag: `--learning-rate 1e-4`, `--no-flash-attention`.
    Ctrl-C stops following, never the training.

    Examples:

    - `ftl train examples/quickstart/cfg.yml`

    - `ftl train cfg.yml --cloud cloud_templates/docker.yml --detach`

    - `ftl train cfg.yml --learning-rate 1e-4 --set datasets.0.path=my.jsonl --dry-run`

    - `ftl train cfg.yml --sweep sweep.yml`
    """
    from functools import partial

    from ftl.commands import sweep as sweeping
    from ftl.commands import train as training

    run = partial(training.run, config) if sweep is None else partial(sweeping.run, config, sweep)
    flags = list(context.args)
    raise typer.Exit(
        run(
            flags=flags,
            assignments=assignments or [],
            cloud=cloud,
            detach=detach,
            dry_run=dry_run,
            as_json=as_json,
        )
    )


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def check(
    context: typer.Context,
    config: ConfigFile,
    cloud: CloudFile = None,
    assignments: Assignments = None,
    data: Annotated[bool, typer.Option("--data/--no-data", help="Read, render and tokenise every row.")] = True,
    network: Annotated[
        bool,
        typer.Option("--network/--no-network", help="Look up the repositories and addresses in CFG, read their rows."),
    ] = True,
    all_rows: Annotated[
        bool, typer.Option("--all-rows", help="Read also the rows of large remote datasets to the last one.")
    ] = False,
    max_problems: Annotated[
        int, typer.Option(metavar="N", min=1, help="Broken rows to name for each dataset; the others are counted.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Find out all that is wrong with CFG and its data, here and now; start nothing.

    Every config key is also a flag, as in `ftl train`. Ends with 2 when there is any problem.

    Examples: `ftl check cfg.yml`, `ftl check cfg.yml --cloud cloud.yml --no-network --sequence-len 4096`
    """
    from ftl.commands.check import run

    flags = list(context.args)
    raise typer.Exit(
        run(
            config,
            flags=flags,
            assignments=assignments or [],
            cloud=cloud,
            data=data,
            network=network,
            all_rows=all_rows,
            max_problems=max_problems,
            as_json=as_json,
        )
    )


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def preview(
    context: typer.Context,
    config: ConfigFile,
    num_rows: Annotated[int, typer.Option("-n", metavar="N", min=1, help="Rows of each dataset.")] = 3,
    row: Annotated[
        int | None, typer.Option(metavar="I", min=0, help="Only this row of the file, counted from 0.")
    ] = None,
    dataset: Annotated[
        int | None, typer.Option(metavar="K", min=0, help="Only this dataset of the config, counted from 0.")
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Each token as token(label, id).")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page for a browser instead.", show_default=False)
    ] = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Show rows as the model will see them, with what is trained in green.

    Rows come in the order of the file. Every config key is also a flag, as in `ftl train`.

    Examples: `ftl preview cfg.yml`, `ftl preview cfg.yml --row 41 --ids`, `ftl preview cfg.yml -n 50 --html rows.html`
    """
    from ftl.commands.preview import run

    flags = list(context.args)
    raise typer.Exit(
        run(
            config,
            flags=flags,
            assignments=assignments or [],
            num_rows=num_rows,
            row=row,
            dataset=dataset,
            ids=ids,
            html=html,
            as_json=as_json,
        )
    )


@app.command()
def explain(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CFG]", help="The training config.", show_default=False)
    ] = None,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Show the manual page of this key instead.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every default, not those alone that do something.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what each key of CFG does: honoured, translated, ignored or refused, and why.

    Examples: `ftl explain cfg.yml`, `ftl explain --key lora_r`, `ftl explain --key datasets.roles_to_train`
    """
    from ftl.commands.explain import run

    raise typer.Exit(run(config, key=key, everything=everything, as_json=as_json))


@app.command()
def schema(
    format: Annotated[str, typer.Option(metavar="json|yaml|markdown", help="How to print it.")] = "json",
    field: Annotated[str | None, typer.Option(metavar="KEY", help="Only this key.")] = None,
) -> None:
    """Print the keys of a config: a JSON Schema for editors, or the reference in Markdown.

    With `ftl schema > ftl.schema.json` and the line `# yaml-language-server: $schema=ftl.schema.json` at the top of
    a config, an editor completes and checks its keys.
    """
    from ftl.commands.schema import run

    raise typer.Exit(run(format, field=field))


@app.command()
def migrate(
    config: Annotated[Path, typer.Argument(metavar="CFG", help="The training config.", show_default=False)],
    write: Annotated[bool, typer.Option("--write", help="Change the file itself.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a new file, and leave CFG as it is.")
    ] = None,
) -> None:
    """Show CFG in today's spellings, as a difference. Comments, order and blank lines are kept.

    Examples: `ftl migrate cfg.yml`, `ftl migrate cfg.yml --write`
    """
    from ftl.commands.migrate import run

    raise typer.Exit(run(config, write=write, output=output))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def preprocess(
    context: typer.Context,
    config: ConfigFile,
    debug: Annotated[bool, typer.Option("--debug", help="Show documents as token(label, id).")] = False,
    num_examples: Annotated[
        int, typer.Option("--debug-num-examples", metavar="N", min=1, help="With --debug: so many documents.")
    ] = 1,
    text_only: Annotated[bool, typer.Option("--debug-text-only", help="With --debug: without labels and ids.")] = False,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Tokenise the data of CFG on this machine, without a GPU; `ftl train` then finds its tokens here.

    Every config key is also a flag, as in `ftl train`.

    Examples: `ftl preprocess cfg.yml`, `ftl preprocess cfg.yml --debug --debug-num-examples 5`
    """
    from ftl.commands.preprocess import run

    flags = list(context.args)
    num_shown = num_examples if debug else 0
    raise typer.Exit(
        run(
            config,
            flags=flags,
            assignments=assignments or [],
            num_shown=num_shown,
            text_only=text_only,
            as_json=as_json,
        )
    )


Detach = Annotated[bool, typer.Option("--detach", "-d", help="Return as soon as the run is accepted.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and print what would be submitted; start nothing.")
]


@app.command("merge-lora", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
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


app.command("merge", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    merge_lora
)


@app.command("merge-sharded-fsdp-weights", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
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


@app.command("lm-eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
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


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
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


@app.command()
def ps(as_json: AsJson = False) -> None:
    """List the runs launched from this machine, newest first."""
    from ftl.commands.jobs import ps as run

    raise typer.Exit(run(as_json=as_json))


@app.command()
def logs(
    run_id: NewestRunId = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until the run ends.")] = False,
) -> None:
    """Print what a run has written, from its start.

    Examples: `ftl logs`, `ftl logs k3m -f`
    """
    from ftl.commands.jobs import logs as run

    raise typer.Exit(run(run_id, follow=follow))


@app.command()
def attach(run_id: NewestRunId = None, as_json: AsJson = False) -> None:
    """Follow a run with its progress, as `ftl train` does. Ctrl-C leaves it running."""
    from ftl.commands.jobs import attach as run

    raise typer.Exit(run(run_id, as_json=as_json))


@app.command()
def stop(
    run_id: RunId,
    now: Annotated[bool, typer.Option("--now", help="Kill it; only checkpoints already saved are left.")] = False,
) -> None:
    """Save a checkpoint at the current step, then stop. `ftl resume ID` goes on from there."""
    from ftl.commands.jobs import stop as run

    raise typer.Exit(run(run_id, now=now))


@app.command()
def resume(
    run_id: RunId,
    cloud: Annotated[
        Path | None, typer.Option("--cloud", metavar="CLOUD", help="Go on in this cloud instead.", show_default=False)
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return as soon as the run is accepted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that stopped, was preempted or crashed, from its newest verified checkpoint."""
    from ftl.commands.jobs import resume as run

    raise typer.Exit(run(run_id, cloud=cloud, detach=detach, as_json=as_json))


@app.command()
def push(
    run_id: RunId,
    cloud: Annotated[
        Path | None,
        typer.Option("--cloud", metavar="CLOUD", help="Send it from this cloud instead.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a finished model to the Hub or bucket that has not got it: after exit code 76."""
    from ftl.commands.jobs import push as run

    raise typer.Exit(run(run_id, cloud=cloud, as_json=as_json))


@app.command()
def pull(
    run_id: RunId,
    dest: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DEST]", help="A directory; the config's output_dir when left out.", show_default=False
        ),
    ] = None,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="The newest verified checkpoint, not the finished model.")
    ] = False,
) -> None:
    """Copy a run's finished model to this machine and verify every file.

    Examples: `ftl pull k3m`, `ftl pull k3m ./my-model`, `ftl pull k3m --checkpoint`
    """
    from ftl.commands.jobs import pull as run

    raise typer.Exit(run(run_id, dest, checkpoint=checkpoint))


@app.command()
def rm(
    run_id: RunId,
    force: Annotated[bool, typer.Option("--force", help="Also when it is running: kill it first.")] = False,
) -> None:
    """Remove a run with its logs, checkpoints and output. A model already copied to output_dir stays."""
    from ftl.commands.jobs import rm as run

    raise typer.Exit(run(run_id, force=force))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can do, and what to install for what it cannot."""
    from ftl.commands.doctor import run

    raise typer.Exit(run(as_json=as_json))


@app.command()
def reproduce(
    source: Annotated[
        str,
        typer.Argument(
            metavar="REPO", help="A repository that ftl delivered to, or an ftl-run.json.", show_default=False
        ),
    ],
    dest: Annotated[
        Path | None,
        typer.Argument(metavar="[DEST]", help="A folder; the name of the run when left out.", show_default=False),
    ] = None,
) -> None:
    """Write the config and cloud file of a published model, and say what of it cannot be pinned any more."""
    from ftl.commands.reproduce import run

    raise typer.Exit(run(source, dest))


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="cloud_templates|examples", help="What to copy.", show_default=False)],
    dest: Annotated[
        Path | None,
        typer.Argument(metavar="[DEST]", help="A folder; the same name here when left out.", show_default=False),
    ] = None,
) -> None:
    """Copy the cloud templates or the examples that come with ftl to this folder."""
    from ftl.commands.fetch import run

    raise typer.Exit(run(name, dest))


_Client = Annotated[
    str | None, typer.Option("--client", metavar="DOCKER", help="The docker program; found by itself when left out.")
]


@images.command("build")
def images_build(
    name: Annotated[str, typer.Argument(metavar="NAME", help="cpu, cuda or cuda-flash.", show_default=False)],
    base: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="Another base image than the pinned one, for machines that lack it."),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates the build must trust besides the usual ones.")
    ] = None,
    pip_conf: Annotated[Path | None, typer.Option(metavar="FILE", help="A pip.conf for the build only.")] = None,
    wheels: Annotated[Path | None, typer.Option(metavar="DIR", help="Wheels to take before asking an index.")] = None,
    push: Annotated[str | None, typer.Option(metavar="REPO", help="Push it there and print the digest.")] = None,
    client: _Client = None,
) -> None:
    """Build a pinned image: minutes the first time, seconds while its lock is unchanged.

    Examples: `ftl images build cpu`, `ftl images build cuda --push registry.example/ftl`
    """
    from ftl.commands.images import build

    build(name, base=base, ca=ca, pip_conf=pip_conf, wheels=wheels, push=push, client=client)


@images.command("ls")
def images_ls(client: _Client = None, as_json: AsJson = False) -> None:
    """List the images by name, and the builds that the engine has of each."""
    from ftl.commands.images import ls

    ls(client=client, as_json=as_json)


@images.command("inspect")
def images_inspect(
    name: Annotated[str, typer.Argument(metavar="NAME", help="cpu, cuda or cuda-flash.", show_default=False)],
    client: _Client = None,
    as_json: AsJson = False,
) -> None:
    """Show what an image is made of: base, lock, labels, and its builds."""
    from ftl.commands.images import inspect

    inspect(name, client=client, as_json=as_json)


_CommandLine = Annotated[
    str,
    typer.Argument(
        metavar="COMMAND", help="The command in quotes, a file that holds it, or - for stdin.", show_default=False
    ),
]
_Written = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="PATH", help="A folder, or the name of the YAML file.")
]
_Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]


@imports.command("qlora")
def import_qlora(
    command: _CommandLine, output: _Written = None, force: _Force = False, as_json: AsJson = False
) -> None:
    """From jondurbin/qlora: what its `train.py` is started with.

    Example: `ftl import qlora 'torchrun --nproc_per_node=2 train.py --bits 4 --dataset my.jsonl'`
    """
    from ftl.commands.import_ import run

    raise typer.Exit(run("qlora", command, output=output, force=force, as_json=as_json))


@imports.command("llm-finetuning")
def import_llm_finetuning(
    command: _CommandLine, output: _Written = None, force: _Force = False, as_json: AsJson = False
) -> None:
    """From taprosoft/llm_finetuning: what its `finetune.py` is started with.

    Example: `ftl import llm-finetuning 'python finetune.py --base_model ./model --mode 4'`
    """
    from ftl.commands.import_ import run

    raise typer.Exit(run("llm-finetuning", command, output=output, force=force, as_json=as_json))


@imports.command("dstack")
def import_dstack(
    task: Annotated[
        str, typer.Argument(metavar="FILE", help="A task file, or the dstack command in quotes.", show_default=False)
    ],
    output: _Written = None,
    force: _Force = False,
    as_json: AsJson = False,
) -> None:
    """From dstack: a task that trains an axolotl config, as a cloud file.

    Example: `ftl import dstack train.dstack.yaml -o cloud.yml`
    """
    from ftl.commands.import_ import run

    raise typer.Exit(run("dstack", task, output=output, force=force, as_json=as_json))


def main() -> None:
    """Run the command line. What went wrong in the user's world ends as one sentence and its exit code."""
    import os
    import sys

    from ftl.redact import RedactedStream

    if sys.stderr is not None:
        sys.stderr = RedactedStream(sys.stderr)  # tracebacks, and logs of libraries
    try:
        try:
            _run()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except (_UnreadError, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains when it flushes at its end
        sys.exit(_PIPE_EXIT_CODE)


def _run() -> None:
    import errno
    import os
    import sys

    from ftl.errors import ExitCode, FtlError

    try:
        app()
    except FtlError as error:
        if os.environ.get("FTL_TRACEBACK") or not str(error):
            raise
        from ftl.console import show_error

        show_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if os.environ.get("FTL_TRACEBACK") or (
            error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT)
        ):
            raise
        from ftl.console import show_error
        from ftl.errors import Problem, StorageError

        where = str(error.filename) if error.filename is not None else "writing"
        show_error(StorageError(Problem(where, error.strerror or type(error).__name__)))
        sys.exit(ExitCode.STORAGE)
