"""Distributed training and evaluation: what several processes exchange; nothing where there is only one.

A decision that ends a loop must be the same everywhere: a process that stopped alone would leave the others waiting
for its gradients. Hosts make such decisions among themselves, over gloo, so that no device waits for its host.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

# What gloo and NCCL say when the other end of a connection is no more.
GONE = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "remote process exited",
    "Connection refused",
)


class Peers:
    """The processes that work together, seen from one of them; all of them must make it and call its methods.

    Attributes:
        number: of this process, 0 ... count - 1.
        count: how many there are.
    """

    def __init__(self) -> None:
        joined = _joined()
        self.number = dist.get_rank() if joined else 0
        self.count = dist.get_world_size() if joined else 1
        self._hosts = dist.new_group(backend="gloo") if self.count > 1 else None

    def any_of(self, *flags: bool) -> list[bool]:
        """Return for each flag whether it is set in any process."""
        if self._hosts is None:
            return list(flags)
        numbers = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, self._hosts)
        return [bool(number) for number in numbers]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of their numbers."""
        if self._hosts is None:
            return [value]
        values = [None] * self.count
        dist.all_gather_object(values, value, self._hosts)
        return values


def join_peers() -> Peers:
    """Join the processes that torchrun started together with this one, if it did."""
    meet_peers()
    return Peers()


def meet_peers() -> None:
    """Meet the processes that torchrun started together with this one, if it did and they have not met.

    Processes that torchrun starts again on one machine share a store with those before them, where the addresses of
    the lost still stand; so every attempt has a part of its own. On several machines attempts are not counted alike.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()) or dist.is_initialized():
        return
    environment = os.environ
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or environment["GROUP_WORLD_SIZE"] != "1":
        dist.init_process_group()
        return
    number, count = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    shared = dist.TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), count, is_master=False)  # type: ignore[attr-defined]
    store = dist.PrefixStore(f"attempt {environment['TORCHELASTIC_RESTART_COUNT']}", shared)  # type: ignore[attr-defined]
    dist.init_process_group(store=store, rank=number, world_size=count)


def is_first_process() -> bool:
    """Return whether this process is the one that writes and prints, also before the processes have joined."""
    if _joined():
        return dist.get_rank() == 0
    # torchrun tells the number among all, Lightning to those it starts the number on this machine.
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def process_count() -> int:
    """Return how many processes have joined; 1 where there is no other."""
    return dist.get_world_size() if _joined() else 1


def launched_shape() -> tuple[int, int] | None:
    """Return (processes on this machine, machines) if torchrun started this process, else None."""
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        return None
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    return local, int(os.environ["WORLD_SIZE"]) // local


def own_device(device: torch.device) -> torch.device:
    """Return this process's own GPU of several where ``device`` names just "cuda", else the device itself."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes, element by element."""
    if not _joined():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def in_any_rank(flag: Tensor) -> Tensor:
    """Return the largest value of a flag in any process, without leaving the device."""
    if _joined():
        dist.all_reduce(flag, dist.ReduceOp.MAX)
    return flag


def peer_is_lost(error: BaseException) -> bool:
    """Return whether an error says that another process has gone."""
    return isinstance(error, RuntimeError) and _joined() and any(words in str(error) for words in GONE)


def global_mean(total: Tensor, count: Tensor | int) -> Tensor:
    """Return a loss such that the mean over processes is the sum of totals over the sum of counts.

    DDP averages gradients over processes. That is the gradient of the whole batch's mean only where each process
    averages over equally many elements. A count that is a plain number is the same everywhere; one that is a tensor
    differs by what is masked, and is summed over the processes without leaving the device.

    Args:
        total: sum over this process's part of the batch.
        count: number of elements in that part; where no process has any, the loss is 0.
    """
    if isinstance(count, int):
        return total / count
    if not _joined():
        return total / count.clamp(min=1)
    everywhere = count.clone()
    dist.all_reduce(everywhere)
    return total * dist.get_world_size() / everywhere.clamp(min=1)


def random_states(device: torch.device) -> list[Tensor]:
    """Return the states of the random generators of the processor and, where it has one of its own, the device."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def restore_random_states(states: list[Tensor], device: torch.device) -> None:
    """Set the generators to what ``random_states`` returned, here or on a machine with other devices."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()
