"""What launcher, backends and runtime say to each other: job, handle, state, result, events, names of files.

Everything here is data. Launcher and runtime ship together, but a record on disk may be older or newer than
its reader, so all of it is read with `Section.read` (unknown keys are left out).
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from ftl.section import Section

# Files of a run directory, the same on every backend. `result.json` is written last: it exists, so the run is done.
JOB_FILE = "job.json"
EVENTS_FILE = "events.jsonl"
LOG_FILE = "log.txt"
EXIT_FILE = "exit.json"
RESULT_FILE = "result.json"
LOCK_FILE = "run.lock"
SHOWN_FILE = "documents.jsonl"
CHECKPOINTS_DIR = "checkpoints"
OUTPUT_DIR = "output"
PROVENANCE_FILE = "ftl-run.json"
MANIFEST_FILE = "manifest.json"
FIT_FILE = "fit.json"  # what the config says otherwise since memory ran out; later attempts keep to it
STARTS_FILE = "starts.json"  # the number of the newest start, where the provider starts again

# Files of a bundle.
BUNDLE_CONFIG = "config.json"
BUNDLE_CODE = "code"
BUNDLE_FILES = "files"
BUNDLE_TAR = "bundle.tar"  # all of it, in a store of the run

# A path inside a resolved config is one of these, or a Hub repository id.
BUNDLE_SCHEME = "bundle:"  # bundle:files/ab12cd34-train.jsonl  -> below the bundle
MOUNT_SCHEME = "mount:"  # mount:model-ab12cd34               -> the target of that mount

# Where a container sees things; the local backend uses the host's own paths.
CONTAINER_BUNDLE = "/ftl/bundle"
CONTAINER_RUN = "/ftl/run"
CONTAINER_CACHE = "/ftl/cache"
CONTAINER_MOUNTS = "/ftl/mounts"
CONTAINER_SECRETS = "/run/secrets"

Gpu = Literal["all"] | int | tuple[str, ...]


class Resources(Section):
    """What a job asks of the machine it runs on."""

    gpus: Gpu = 0
    """All GPUs, how many, or the ids of those to use; 0 is a CPU run."""
    processes: Annotated[int, Field(ge=1)] = 1
    """How many train together on a machine without GPUs. With GPUs there is one a GPU."""
    gpu_kind: str | None = None
    """Their name where the cloud file asks for one, such as A100-80GB."""
    cpus: float | None = None
    """CPU cores at most; no limit when absent."""
    memory_gib: float | None = None
    """Main memory at most, in GiB; no limit when absent."""
    shm_gib: float = 8.0
    """Size of /dev/shm in GiB; data loader workers and NCCL pass tensors through it."""


class Mount(Section):
    """A host path that the job reads in place because it is too large to be copied into the bundle."""

    name: str
    """What the resolved config calls it: `mount:NAME`."""
    source: str
    """Absolute path on the launching machine."""
    fingerprint: str
    """sha256 over the names, sizes and modification times below the source; part of the bundle's id."""


class Paths(Section):
    """Where the runtime finds things, as seen from inside."""

    bundle: str
    run: str
    cache: str
    mounts: dict[str, str] = {}
    """Name of a mount -> where it is."""
    secrets: str | None = None
    """A directory with one file a secret, or None when secrets are in the environment."""


HubStrategy = Literal["end", "every_save", "checkpoint", "all_checkpoints"]


class HubRef(Section):
    """A model repository of the Hub that a run is sent to while it trains, and its model at the end."""

    kind: Literal["hub"] = "hub"
    repo: str
    branch: str | None = None
    """main when absent."""
    is_private: bool | None = None
    """None leaves a repository that is there as it is, and makes a new one private."""
    strategy: HubStrategy = "checkpoint"


class UrlRef(Section):
    """A directory or bucket that a run is sent to: its checkpoints below URL/RUN, and its model."""

    kind: Literal["url"] = "url"
    url: str
    """s3://, gs://, hf://buckets/, or file:// with an absolute path."""


StoreRef = Annotated[HubRef | UrlRef, Field(discriminator="kind")]
"""A place outside the run directory where checkpoints are kept and the finished model goes."""


Task = Literal["train", "preprocess", "merge", "merge-shards", "lm-eval", "quantize"]
"""train; preprocess fills the token cache and trains nothing; merge puts a trained adapter into its base, merge-shards
weights in shards together; lm-eval measures a finished model, quantize rounds one to few bits."""
Scores = dict[str, dict[str, float]]
"""Of tasks of lm-eval: task -> what it measures -> value."""


class JobSpec(Section):
    """One attempt at one run, everything but where it runs. Secrets are names, never values."""

    version: Literal[1] = 1
    run_id: str
    attempt: Annotated[int, Field(ge=1)] = 1
    restarts: bool = False
    """The provider starts the job again by itself, with this very spec: each start counts its own attempt."""
    submission: int | None = None
    """The attempt as it was submitted, where `attempt` is that of a start (ftl_runtime.starts)."""
    task: Task = "train"
    num_shown: Annotated[int, Field(ge=0)] = 0
    """preprocess: so many documents go to SHOWN_FILE, token by token."""
    fetches_model: bool = False
    """preprocess: put the base model's files into the cache, too."""
    cloud: dict[str, Any] = {}  # Any: JSON
    """What the cloud file asked for, for the record: provider, GPUs; no variables, no secrets."""
    image: str | None = None
    """Name in images.lock.toml, or repository@sha256 digest; None where the backend has no images."""
    resources: Resources = Resources()
    mounts: tuple[Mount, ...] = ()
    env: dict[str, str] = {}
    """Plain variables for the runtime's environment."""
    secrets: tuple[str, ...] = ()
    """Names of the launching environment's variables whose values the job needs."""
    timeout_s: Annotated[int, Field(ge=1)] | None = None
    """Seconds after which the runtime saves and stops; None is no limit."""
    limit_from: float | None = None
    """When `timeout_s` began to count, in seconds since the epoch: it is for all attempts that somebody has asked for
    at once. None where it counts from the start of this one."""
    grace_s: Annotated[int, Field(ge=1)] = 60
    """Seconds between the request to stop and the kill; one checkpoint must fit."""
    stores: tuple[StoreRef, ...] = ()
    """Where checkpoints and the model go beside the run directory, as they are made."""
    max_upload_mb_per_s: Annotated[float, Field(ge=0.1)] | None = None
    """A bound on what is sent there, all stores together; None is none."""
    carried: tuple[str, ...] = ()
    """What of the launcher's run directory the attempt begins with: files, and directories with a manifest. For
    backends whose jobs do not see that directory (ftl.carry)."""
    paths: Paths | None = None
    """Filled in by the backend when it writes job.json."""


class Bundle(Section):
    """What is sent to the job, content-addressed: the same input has the same id and directory."""

    sha256: str
    path: str
    """Directory on the launching machine."""
    size_bytes: int


class JobHandle(Section):
    """What a backend needs to find an attempt again, from any process on any day."""

    provider: str
    run_id: str
    attempt: int
    ref: dict[str, str | int]
    """The provider's own identity of the attempt: a container id, or pid, start time and boot id."""


Cause = Literal[
    "done",
    "config",  # the config or the data is wrong
    "environment",  # the machine cannot run it
    "crash",  # an exception while training
    "diverged",  # the loss stayed above its threshold
    "out-of-memory",  # GPU or main memory
    "storage",  # disk full, no access
    "signal",  # asked to stop from outside: preemption, or `ftl stop`
    "deadline",  # timeout_s reached
    "killed",  # the trainer was killed, no verdict of its own
    "lost",  # supervisor or container gone without a verdict
    "undelivered",  # trained, not delivered
    "superseded",  # another attempt of the run has taken over
]


class ExitRecord(Section):
    """exit.json: how an attempt ended, written by the supervisor as its last act."""

    attempt: int
    submission: int | None = None
    """As in JobSpec."""
    exit_code: int
    cause: Cause
    message: str | None = None
    """One sentence for the user."""

    def is_of(self, submitted: int) -> bool:
        """Whether it tells how the attempt of that number ended, as the launcher counts them."""
        return submitted == (self.attempt if self.submission is None else self.submission)


class JobState(Section):
    """What a backend knows of an attempt right now."""

    phase: Literal["queued", "running", "ended"]
    exit_code: int | None = None
    """Set once ended."""
    cause: Cause | None = None
    """Set once ended; `lost` when nobody could say."""
    message: str | None = None


class DatasetUse(Section):
    """A dataset of the config: which rows it was, and what became of them."""

    key: str
    """Where the config names it: datasets.0"""
    label: str
    """What the user calls it."""
    revision: str | None = None
    """The commit of a Hub repository."""
    identity: str
    """sha256 over what decides the rows."""
    was_cached: bool = False
    """Its tokens were there already."""
    rows: int | None = None
    """None for a stream, whose end nobody has seen."""
    samples: int = 0
    """Used, for training or evaluation."""
    tokens: int = 0
    """Of those."""
    trained: int = 0
    """Tokens of those that are labels."""
    too_long: int = 0
    too_short: int = 0
    duplicates: int = 0
    truncated: int = 0
    """Used, and cut to sequence_len."""
    split: int = 0
    """Used in several pieces."""
    untrained: int = 0
    """Used, with no token that is trained."""


class RunResult(Section):
    """result.json: what a finished training gives."""

    version: Literal[1] = 1
    run_id: str
    attempt: int
    steps: int
    epochs: float
    tokens: int
    """Tokens trained on, padding left out, over all attempts."""
    train_loss_first: float | None
    """Mean of the first tenth of the steps, in nats per trained token; of preferences and scores the loss itself."""
    train_loss_last: float | None
    """Mean of the last tenth of the steps; after an early stop the last one logged."""
    eval_loss_first: float | None = None
    eval_loss_last: float | None = None
    best_step: int | None = None
    """The step whose model this is, where the best evaluation decides; else it is that of the last step."""
    metrics: dict[str, float] = {}
    """What the objective measures beside its loss, such as rewards/accuracies: of the last evaluation, else of the
    last logged steps."""
    tokens_per_s: float | None = None
    """Over this attempt's training time, evaluation and saving left out."""
    seconds: float
    """Wall time of this attempt, from the start of the supervisor."""
    peak_memory_gib: float | None = None
    """GPU memory where there is one, else resident memory."""
    num_parameters: int
    num_trainable: int
    base_revision: str | None = None
    """The commit of the base model's Hub repository; None where the base was a directory."""
    ranks: int = 1
    """Processes that trained together."""
    spread: str | None = None
    """How the model was laid out over them, as it was really built; None with one process."""
    quantisation: str | None = None
    """How the frozen base was held: 4 bits (nf4, scales in 8 bits). None in the format it was computed in."""
    recompute: str = "none"
    """The layers whose activations were computed again in the backward pass, in words."""
    output: str = OUTPUT_DIR
    """Directory below the run directory that holds the model; its manifest.json lists every file."""
    versions: dict[str, str] = {}
    """Versions of what trained it: python, torch, transformers, peft, ftl."""
    scores: Scores = {}
    """Of the tasks that the finished model was measured with."""
    datasets: tuple[DatasetUse, ...] = ()
    """What it was trained and evaluated on."""


class TaskResult(Section):
    """result.json of a task on a finished model: merging an adapter, measuring, rounding."""

    version: Literal[1] = 1
    run_id: str
    attempt: int
    task: Task
    seconds: float
    """Wall time of this attempt, from the start of the supervisor."""
    facts: dict[str, str] = {}
    """What was done, for the user: name -> text."""
    scores: Scores = {}
    """As in RunResult."""
    output: str = OUTPUT_DIR
    """Directory below the run directory with what was made; its manifest.json lists every file."""
    versions: dict[str, str] = {}
    """As in RunResult."""


class Provenance(Section):
    """ftl-run.json beside a delivered model: what it was made from, so that it can be made again."""

    version: Literal[1] = 1
    run_id: str
    ftl: str
    """The version of ftl."""
    finished_at: float
    """Seconds since the epoch."""
    config: dict[str, Any]  # Any: JSON
    """The effective config, in the dialect people write; local files by their name alone."""
    inputs: dict[str, str] = {}
    """Local files that the config names, `directory/file` for those of a directory -> sha256."""
    bundle: str | None = None
    """sha256 of the manifest of all that was sent to the job, ftl's code included."""
    cloud: dict[str, Any] = {}  # Any: JSON
    image: str | None = None
    """The container image by digest; None where there was none."""
    gpu_hours: float | None = None
    """GPUs times hours, over all attempts; None without a GPU."""
    hours: float
    """From the first to the last sign of life of each attempt."""
    result: RunResult


class Event(Section):
    """One line of events.jsonl. `data` depends on `event`:

    phase       name: starting | data | model | training | evaluating | saving | finishing; while data is tokenised also
                dataset (its key), label, rows (so far), share (from 0 to 1), rows_per_s, eta_s; while a model is
                downloaded label, bytes (so far), total_bytes, share, bytes_per_s
    data        datasets (a DatasetUse each), cache (where the tokens are), train and eval: rows, documents, tokens,
                fill (the share of the rows' room that holds tokens); null without evaluation, absent for a stream
    step        step, max_steps, epoch, loss, lr, grad_norm, tokens (total), tokens_per_s, memory_gib, and what the
                objective measures: its means over the steps since the last event. Of an NVIDIA GPU also gpu_percent,
                gpu_memory_gib, gpu_watts
    eval        step, loss, and whatever else an evaluation measures: perplexity, rewards/accuracies
    samples     step, samples (prompt, expected, generated each): what the model writes at an evaluation
    profile     first_step, last_step, path (a directory below the run directory)
    memory      of a GPU, where it decides how many layers recompute their activations: recompute (which, in words),
                free_gib, needed_gib (by estimate, if none did)
    early_stop  step, metric, best, best_step, patience
    checkpoint  step, path (below the run directory), state: saved | verified | quarantined, seconds, bytes, blocked_s
                (how long the training waited for it); of a store step, store (its address), state: pushed (it is
                there, and was compared) | fetched, seconds, bytes
    upload      store, what (checkpoint-N | output), bytes (so far), total_bytes, share, bytes_per_s
    delivered   store, revision (the commit, where there is one), bytes
    warning     message
    waiting     message: what a machine that is not there yet waits for; told by the launcher, in no file
    stopping    reason (signal | deadline), step, saves (whether that step is saved now); why: the sentence of a cloud
                provider that takes the machine back
    stopped     step, checkpoint (step of the newest verified one, or null)
    resumed     step, checkpoint
    history     train, eval: [step, loss] of each that was logged before the checkpoint, where this file does not have
                it, as on a machine that follows a lost one; told before the first step of the attempt
    result      the RunResult, or the TaskResult
    error       cause, message
    """

    t: float
    """Seconds since the epoch."""
    attempt: int
    event: Literal[
        "phase",
        "data",
        "step",
        "eval",
        "memory",
        "early_stop",
        "samples",
        "profile",
        "checkpoint",
        "upload",
        "delivered",
        "warning",
        "waiting",
        "stopping",
        "stopped",
        "resumed",
        "history",
        "result",
        "error",
    ]
    data: dict[str, Any] = {}  # Any: the shape depends on `event`, see above
