"""How the ranks of one training work together."""

from typing import Annotated

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section


class ParallelSection(Section):
    timeout_s: Annotated[int, Flat("ddp_timeout"), Field(ge=1)] = 1800
    """Seconds a rank waits for the others in a step before the training fails. While rank 0 tokenises, downloads or
    saves, they wait for as long as it takes."""
    bucket_mib: Annotated[int | None, Flat("ddp_bucket_cap_mb"), Field(ge=1)] = None
    """Gradients are exchanged in pieces of this many MiB, while the backward pass goes on; 25 when absent."""
    broadcasts_buffers: Annotated[bool, Flat("ddp_broadcast_buffers")] = True
    """Before each forward pass, every rank takes over the buffers of rank 0."""
    finds_unused: Annotated[bool, Flat("ddp_find_unused_parameters")] = False
    """Look in every step for parameters that got no gradient, which costs time; without it such a model fails."""
