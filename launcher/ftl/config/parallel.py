"""How the ranks of one training work together."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.config.zero import Zero, zero_of
from ftl.section import Section

StateDict = Literal["FULL_STATE_DICT", "SHARDED_STATE_DICT"]


class FsdpSection(Section):
    """Weights, gradients and optimizer states in shards, one a process: torch's FSDP2. By the names people write."""

    reshard_after_forward: bool = True
    """Give a layer's weights back after its forward pass and gather them again in the backward pass, which saves
    memory; false keeps them in between."""
    transformer_layer_cls_to_wrap: tuple[str, ...] = ()
    """Classes of the layers that are gathered one at a time; those that transformers keeps in one piece when absent."""
    activation_checkpointing: bool = False
    """Recompute a layer's activations in the backward pass, as gradient_checkpointing does."""
    offload_params: bool = False
    """Keep the shards in main memory, and step the optimizer there: a GPU holds the layers that compute. Slower."""
    state_dict_type: StateDict = "FULL_STATE_DICT"
    """How checkpoints are written: whole, by rank 0; or SHARDED_STATE_DICT, each process its part, which gathers
    nothing. Either resumes in any number of processes."""
    final_state_dict_type: StateDict = "FULL_STATE_DICT"
    """How the finished model is written. `ftl merge-sharded-fsdp-weights` puts shards together. An adapter is always
    written whole."""

    @property
    def finishes_in_shards(self) -> bool:
        return self.final_state_dict_type == "SHARDED_STATE_DICT"

    @property
    def saves_in_shards(self) -> bool:
        return self.state_dict_type == "SHARDED_STATE_DICT"


class ParallelSection(Section):
    fsdp: Annotated[FsdpSection | None, Flat("fsdp_config")] = None
    """Cut the model into shards, one a process, instead of a copy in each."""
    deepspeed: Annotated[dict[str, Any] | str | None, Flat("deepspeed")] = None  # Any: JSON, as DeepSpeed takes it
    """Shards by DeepSpeed ZeRO: a JSON file of its settings, the name of one that ftl ships, or a mapping of them."""
    tensor_size: Annotated[int, Flat("tensor_parallel_size"), Field(ge=1)] = 1
    """So many processes hold the large matrices of each layer between them, and read the same rows."""
    context_size: Annotated[int, Flat("context_parallel_size"), Field(ge=1)] = 1
    """So many processes share out the tokens of the same rows: for rows that are too long for one GPU."""
    num_shards: Annotated[int | None, Flat("dp_shard_size"), Field(ge=1)] = None
    """Processes that share one copy of the model, with `fsdp_config`; all of them when absent."""
    num_copies: Annotated[int | None, Flat("dp_replicate_size"), Field(ge=1)] = None
    """Copies of the model, each in so many shards; as many as there are processes for when absent."""
    timeout_s: Annotated[int, Flat("ddp_timeout"), Field(ge=1)] = 1800
    """Seconds a rank waits for the others in a step before the training fails. While rank 0 tokenises, downloads or
    saves, they wait for as long as it takes."""
    bucket_mib: Annotated[int | None, Flat("ddp_bucket_cap_mb"), Field(ge=1)] = None
    """Gradients are exchanged in pieces of this many MiB, while the backward pass goes on; 25 when absent."""
    broadcasts_buffers: Annotated[bool, Flat("ddp_broadcast_buffers")] = True
    """Before each forward pass, every rank takes over the buffers of rank 0."""
    finds_unused: Annotated[bool, Flat("ddp_find_unused_parameters")] = False
    """Look in every step for parameters that got no gradient, which costs time; without it such a model fails."""

    @property
    def zero(self) -> Zero | None:
        """What `deepspeed` says; a file that it named has been read into it."""
        return zero_of(self.deepspeed) if isinstance(self.deepspeed, dict) and self.deepspeed else None
