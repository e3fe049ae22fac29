"""Compare the versions of packages on the computers of a Dask cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ushape.errors import RunError

EVERYWHERE = ("python", "dask", "distributed")
"""Packages whose versions must agree on all computers, because they read each other's messages."""

COMPUTING = ("ushape", "torch", "numpy", "zarr")
"""Packages whose versions decide the result: they must agree on all workers and on the client,
which measures the intensities."""


def check_versions(client: Any, address: str) -> None:
    """Check that scheduler, workers and client have the same versions.

    Raises:
        RunError: if they have not; the message lists the packages.
    """
    lines = differences(client.get_versions(packages=list(COMPUTING)))
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        raise RunError(
            f"The versions of packages differ between this computer and the cluster {address}:\n"
            f"{listed}",
            code="versions_differ",
            hint="Install the same versions everywhere, for example with one container image or "
            "one shared environment, and start the scheduler and the workers again.",
        )


def differences(versions: Mapping[str, Any]) -> list[str]:
    """Return one line for each package whose versions differ.

    Args:
        versions: Result of `distributed.Client.get_versions`.
    """
    workers = {f"worker {name}": of for name, of in versions["workers"].items()}
    computing = {"here": versions["client"], **workers}
    everybody = {"here": versions["client"], "scheduler": versions["scheduler"], **workers}
    lines = []
    for package in (*EVERYWHERE, *COMPUTING):
        places = everybody if package in EVERYWHERE else computing
        found: dict[str, list[str]] = {}
        for place, one in places.items():
            found.setdefault(_version(one, package), []).append(place)
        if len(found) > 1:
            lines.append(
                f"{package}: "
                + "; ".join(f"{version} ({_first(names)})" for version, names in found.items())
            )
    return lines


def _version(one: Mapping[str, Any], package: str) -> str:
    """Return the version as far as it matters: 3.12 of Python, and no builds such as +cu128."""
    version = one["packages"].get(package)
    if not version:
        return "missing"
    if package == "python":
        return ".".join(str(version).split(".")[:2])
    return str(version).partition("+")[0]


def _first(names: list[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more
