"""Many jobs of one kind: in shards, resumable, on one process or many."""

from .ledger import Ledger
from .run import run_jobs
from .shards import Shard

__all__ = ["Ledger", "Shard", "run_jobs"]
