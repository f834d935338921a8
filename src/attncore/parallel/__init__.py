"""One function on several processes that send each other tensors. Needs torch and cloudpickle.

:func:`run` starts ranks: processes on this machine, numbered from 0, each of which calls the
same function. Inside it, torch.distributed is ready for use (``dist.get_rank()`` tells which rank
this is, ``dist.get_world_size()`` how many there are), and so are four functions that know their
gradients: :func:`shift` round a ring, :func:`exchange` pieces all to all, the :func:`total` over
all ranks, and :func:`spread`, which hands a tensor on to all of them.

This is for learning, on one machine. Real work starts its processes with ``torchrun``, on as many
machines as there are, and takes its algorithms from torch:

- A call of :func:`run` becomes ``dist.init_process_group("nccl")`` at the top of a file, and
  ``torchrun --nproc-per-node 8 file.py``. The function stays as it is.
- Data parallel: ``torch.nn.parallel.DistributedDataParallel(model)``, or, where a model does not
  fit one device, ``torch.distributed.fsdp.fully_shard(model)``.
- Heads over ranks, with :func:`spread` before and :func:`total` after: ``parallelize_module(model,
  mesh, {"query": ColwiseParallel(), "out": RowwiseParallel()})`` of
  ``torch.distributed.tensor.parallel``, where `mesh` is ``init_device_mesh("cuda", (8,))``.
- Tokens over ranks, with :func:`shift`, each rank's share balanced under a causal mask:
  ``with context_parallel(mesh, buffers=[q, k, v], buffer_seq_dims=[2, 2, 2]):`` of
  ``torch.distributed.tensor.experimental``, around a call of
  ``torch.nn.functional.scaled_dot_product_attention``.
"""

from attncore.parallel.collectives import exchange, shift, spread, total
from attncore.parallel.counting import bytes_sent
from attncore.parallel.launch import run

__all__ = ["bytes_sent", "exchange", "run", "shift", "spread", "total"]
