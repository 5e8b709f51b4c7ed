"""What a run on rented machines costs: said before it starts, and when it has ended."""

from ftl.backends import Backend, Rents
from ftl.commands import show
from ftl.contract import JobSpec
from ftl.cost import limit_s, receipt, sentence
from ftl.errors import FtlError
from ftl.jobs import RunRecord


def tell_before(spec: JobSpec, backend: Backend, *, as_json: bool) -> None:
    """Say what the run will cost; nothing where no machine is rented."""
    if not isinstance(backend, Rents):
        return
    try:
        price = backend.price(spec)
    except FtlError:
        price = None  # preflight says what is the matter
    if price is None:
        show.note("what it costs is not known before it runs", as_json=as_json)
        return
    timeout_s = limit_s(spec.timeout_s, getattr(backend.cloud, "max_usd", None), price)
    show.note(sentence(price, timeout_s), as_json=as_json)


def tell_after(record: RunRecord, backend: Backend, *, as_json: bool) -> None:
    """Say what the run has cost, over all attempts that are known."""
    if not isinstance(backend, Rents):
        return
    handles = [attempt.handle for attempt in record.attempts if attempt.handle is not None]
    known = [spent for handle in handles if handle.provider == record.provider and (spent := backend.spent(handle))]
    if any(one.usd_per_hour for one in known):  # a cluster of one's own has no price
        show.note(f"run {record.id} took {receipt(known)}", as_json=as_json)
