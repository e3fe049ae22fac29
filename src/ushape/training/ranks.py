"""A process that trains one model together with others, each on its own device."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from ushape.config import is_custom
from ushape.planning.plan import Plan
from ushape.training.optimizers import Schedule


@dataclass(frozen=True)
class Rank:
    """Position of a process among those that train together."""

    index: int
    """Number of the process; only process 0 writes files and messages."""

    count: int
    """Number of processes."""

    device_index: int
    """Number of the GPU of the process, among those that are visible."""

    address: str
    """Address of the machine on which process 0 runs."""

    port: int
    """Free port of that machine."""

    neighbors: int = 1
    """Number of training processes on this machine, including this one."""

    def gather(self, own: Any) -> Any:
        """Return the patches of all processes; gradients flow only to those of this process.

        Args:
            own: (B, *) tensor, of the same size in all processes, or several of them.
        """
        if not isinstance(own, Tensor):
            return [self.gather(one) for one in own]
        sent = own.detach().contiguous()
        parts = [torch.empty_like(sent) for _ in range(self.count)]
        torch.distributed.all_gather(parts, sent)
        parts[self.index] = own
        return torch.cat(parts)

    def trainer_options(self, plan: Plan) -> dict[str, Any]:
        """Return the options of Lightning's trainer that connect the processes."""
        network = plan.recipe.network
        # The encoder has no gradients while it is frozen, and parts of other networks may never.
        is_partial = network.is_pretrained or is_custom(network.architecture)
        is_gpu = plan.machine.device == "cuda"
        return {
            "devices": [self.device_index] if is_gpu else 1,
            # Each process counts as a node, so that any number of them may run on a machine.
            "num_nodes": self.count,
            "strategy": DDPStrategy(
                cluster_environment=_Environment(self), find_unused_parameters=is_partial
            ),
            "sync_batchnorm": is_gpu,  # PyTorch lacks it for CPUs.
        }


class _Environment(ClusterEnvironment):
    """Tells Lightning the position of this process, which was not started by Lightning."""

    def __init__(self, rank: Rank):
        super().__init__()
        self.rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self.rank.address

    @property
    def main_port(self) -> int:
        return self.rank.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.rank.count

    def set_world_size(self, size: int) -> None:
        assert size == self.rank.count

    def global_rank(self) -> int:
        return self.rank.index

    def set_global_rank(self, rank: int) -> None:
        assert rank == self.rank.index

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return self.rank.index


class Agreement(Callback):
    """Let all processes make the same number of steps, and validate in the same epochs.

    Process 0, which keeps the time limit, decides about both. An interrupt of any process ends
    training in all of them after the same step.

    Args:
        schedule: Schedule of the module; its `total_steps` is changed.
        interrupt: Whether this process was interrupted; it is set in all processes if it is in one.
    """

    def __init__(self, schedule: Schedule, interrupt: threading.Event):
        self.schedule, self.interrupt = schedule, interrupt

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer, pl_module.device)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._agree(trainer, pl_module.device)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer, pl_module.device)

    def _agree(self, trainer: Trainer, device: torch.device) -> None:
        is_interrupted = self.interrupt.is_set()
        own = torch.tensor(
            [
                self.schedule.total_steps if trainer.is_global_zero else 0,
                trainer.should_stop or is_interrupted,
                is_interrupted,
                trainer.check_val_every_n_epoch if trainer.is_global_zero else 0,
            ],
            device=device,
        )
        together: Sequence[int] = trainer.strategy.reduce(own, reduce_op="max").tolist()
        self.schedule.total_steps = together[0]
        trainer.should_stop = bool(together[1])
        trainer.check_val_every_n_epoch = together[3]
        if together[2]:
            self.interrupt.set()
            trainer.check_val_every_n_epoch = 1
