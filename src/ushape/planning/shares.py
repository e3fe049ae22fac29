"""Share of each process when training on several devices."""

from __future__ import annotations

from dataclasses import replace

from ushape.config import resolved
from ushape.errors import PlanError
from ushape.planning.hardware import Machine
from ushape.planning.loading import loading_processes
from ushape.planning.plan import Plan
from ushape.planning.recipe import TrainConfig


def share_of_step(train: TrainConfig, devices: int) -> tuple[int, int]:
    """Return the batch size of each process, and how many of its batches make up a step.

    All processes together use as many patches in a step as training on a single device. No process
    has more patches in memory than the batch size divided by the number of devices, but at least
    one.

    Raises:
        PlanError: if the patches of a step cannot be divided equally.
    """
    batch = resolved(train.batch_size)
    patches = batch * train.accumulate_grad_batches
    if patches % devices:
        raise PlanError(
            f"A step has {patches} patches, which cannot be divided equally among {devices} "
            "devices.",
            code="patches_not_divisible",
            hint="Use another number of --devices, or a multiple of it as the batch size, such as "
            f"--set train.batch_size={-(-batch // devices) * devices}.",
        )
    each, most = patches // devices, max(1, batch // devices)
    size = next(size for size in range(min(each, most), 0, -1) if each % size == 0)
    return size, each // size


def plan_for_process(plan: Plan, neighbors: int) -> Plan:
    """Return the plan of one process when training on several devices.

    Args:
        neighbors: Number of training processes on this machine, including this one. They share its
            main memory, its cores, and the processes that load patches.
    """
    train, machine = plan.recipe.train, plan.machine
    batch, repeated = share_of_step(train, machine.devices)
    own = replace(
        train,
        batch_size=batch,
        accumulate_grad_batches=repeated,
        workers=-(-resolved(train.workers) // machine.devices),
        threads=max(1, resolved(train.threads) // neighbors),
    )
    recipe = replace(plan.recipe, train=own)
    return replace(plan, recipe=recipe, machine=share_of_machine(machine, neighbors))


def share_of_machine(machine: Machine, processes: int) -> Machine:
    """Return what each of several processes may use of the cores and the main memory of a machine.

    Each of them has its own GPU.
    """
    main = machine.main_memory_bytes // processes
    return replace(
        machine,
        cores=max(1, machine.cores // processes),
        main_memory_bytes=main,
        memory_bytes=machine.memory_bytes if machine.device == "cuda" else main,
    )


def plan_for_devices(
    plan: Plan, devices: int, *, may_round: bool, adds_loaders: bool = False
) -> Plan:
    """Return the plan for training on a number of devices.

    Args:
        may_round: Whether the batch size may be increased to a multiple of the number of devices,
            because the user did not choose it.
        adds_loaders: Whether more processes may load patches, because the user did not choose
            their number.

    Raises:
        PlanError: if the patches of a step cannot be divided equally.
    """
    train = plan.recipe.train
    batch = resolved(train.batch_size)
    if may_round and batch * train.accumulate_grad_batches % devices:
        train = replace(train, batch_size=-(-batch // devices) * devices)
    share_of_step(train, devices)
    machine = replace(plan.machine, devices=devices)
    if adds_loaders:
        train = replace(train, workers=loading_processes(machine))
    return replace(plan, recipe=replace(plan.recipe, train=train), machine=machine)


def describe_shares(plan: Plan, before: int | None = None) -> str:
    """Return sentences about the patches of each device.

    Args:
        before: Number of devices that have trained until now; None: the training begins.
    """
    devices = plan.machine.devices
    batch, repeated = share_of_step(plan.recipe.train, devices)
    total = devices * batch * repeated
    times = f", in {repeated} batches" if repeated > 1 else ""
    text = (
        f"Devices: {devices} processes train one model. A step has {total} patches in total, "
        f"{batch * repeated} on each device{times}."
    )
    if devices == 1:
        text = f"Devices: one process trains the model. A step has {total} patches{times}."
    if before not in (None, devices):
        text += (
            f" Until now there were {before}. The steps have the same patches as before, but the "
            "weights will differ slightly from those of training without an interruption."
        )
    if plan.recipe.network.norm == "batch" and plan.machine.device == "cpu":
        text += (
            " On CPUs, batch norm uses the statistics of the patches of one process only; with "
            "--set network.norm=group, the result does not depend on the number of devices."
        )
    return text
