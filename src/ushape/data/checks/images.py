"""Checks of files and images, and of images across cases: readable, consistent, not duplicated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ushape.data.case_stats import CaseStats
from ushape.data.checks.finding import Finding, Severity
from ushape.data.grouping.similarity import correlation_of_neighbors
from ushape.data.scan import DatasetStats
from ushape.formatting import natural_order, pluralize, size_text
from ushape.io.files import DAMAGED
from ushape.io.float_range import LARGEST

NEIGHBORS = 3
"""Distance up to which neighboring slices of one group may be nearly identical."""

MIN_FRAMES = 6
"""Smallest number of images for which their order is meaningful."""

LISTING_NOTES: Mapping[str, tuple[str, Severity, str]] = {
    "Left out: ": (
        "unpaired",
        "warning",
        "Give both files of a pair the same name, complete the annotation, or remove the files "
        "without a counterpart.",
    ),
    "Not used: ": (
        "unused_masks",
        "note",
        "If these are the masks to use, select them with --masks.",
    ),
    "Regions: ": (
        "regions",
        "note",
        "List the regions to train on in labels.names, background first.",
    ),
    "Missing regions: ": (
        "missing_regions",
        "warning",
        "Complete the structure sets, or list in labels.names only regions that all of them "
        "contain.",
    ),
    "Time points: ": (
        "time_points",
        "note",
        "No action is needed if the axis is time.",
    ),
    "Other series: ": (
        "other_series",
        "warning",
        "Check in the report that the contours match the images, or add the series that they were "
        "drawn on.",
    ),
}
"""Check, severity and fix for a note of the listing, by its first words; all other notes are about
unpaired files."""


def find_unpaired(dataset: DatasetStats) -> Iterator[Finding]:
    """Report images without a mask, masks without an image, and masks that are not used."""
    for note in dataset.listing.notes:
        start = next((one for one in LISTING_NOTES if note.startswith(one)), "Left out: ")
        check, severity, fix = LISTING_NOTES[start]
        text = note.removeprefix("Left out: ").removeprefix("Not used: ")
        yield Finding(check=check, severity=severity, text=text, fix=fix)


def find_unreadable(dataset: DatasetStats) -> Iterator[Finding]:
    """Find empty files and files that cannot be read."""
    broken = [stats for stats in dataset.case_stats if stats.error is not None]
    empty = [stats for stats in broken if stats.is_zero_bytes]
    damaged = [stats for stats in broken if not stats.is_zero_bytes]
    if empty:
        yield Finding(
            check="zero_bytes",
            severity="error",
            text=f"In {pluralize(len(empty), 'pair')}, a file is empty (0 bytes).",
            fix="Copy these files again from their source.",
            cases=tuple(stats.case.id for stats in empty),
            in_copy="left out",
        )
    if damaged:
        yield Finding(
            check="unreadable",
            severity="error",
            text=f"In {pluralize(len(damaged), 'pair')}, a file cannot be read, e.g. "
            f"{damaged[0].error}",
            fix=damaged[0].hint or DAMAGED,
            cases=tuple(stats.case.id for stats in damaged),
            in_copy="left out",
        )


def find_other_sizes(dataset: DatasetStats) -> Iterator[Finding]:
    """Find masks with another size than the image: transposed, or different."""
    unlike = [stats for stats in dataset.readable if stats.shape != stats.mask_shape]
    transposed = [stats for stats in unlike if stats.shape == stats.mask_shape[::-1]]
    other = [stats for stats in unlike if stats not in transposed]
    if transposed:
        yield Finding(
            check="transposed",
            severity="error",
            text=f"In {pluralize(len(transposed), 'pair')}, the mask is transposed: "
            f"{_sizes_of(transposed[0])}.",
            fix="Transpose the mask, and check whether it is mirrored as well.",
            cases=tuple(stats.case.id for stats in transposed),
            in_copy="corrected",
        )
    if other:
        yield Finding(
            check="size",
            severity="error",
            text=f"In {pluralize(len(other), 'pair')}, image and mask differ in size: "
            f"{_sizes_of(other[0])}.",
            fix="Export the masks at the size of their images.",
            cases=tuple(stats.case.id for stats in other),
            in_copy="left out",
        )


def find_mixed_kinds(dataset: DatasetStats) -> Iterator[Finding]:
    """Find images that differ in channels, dimensions or data type."""
    for check, key, severity, fix in (
        (
            "channels",
            lambda stats: pluralize(stats.channels, "channel"),
            "error",
            "Convert all images to one format, e.g. all grayscale or all RGB.",
        ),
        (
            "dimensions",
            lambda stats: f"{len(stats.shape)}D",
            "error",
            "Use either images or volumes, not both.",
        ),
        (
            "depth",
            lambda stats: stats.dtype,
            "warning",
            "No action is needed if this is intended, since each image is normalized separately; "
            "otherwise convert the images to one data type.",
        ),
    ):
        rare, text = _minorities(dataset.readable, key)
        if rare:
            yield Finding(
                check=check,
                severity=severity,  # type: ignore[arg-type]  # A literal of the table above.
                text=f"The images are of different kinds: {text}.",
                fix=fix,
                cases=tuple(stats.case.id for stats in rare),
            )


def find_odd_images(dataset: DatasetStats) -> Iterator[Finding]:
    """Find missing values, constant images, transparency, and channels that are identical."""

    def those(is_odd: Callable[[CaseStats], bool]) -> tuple[str, ...]:
        return tuple(stats.case.id for stats in dataset.readable if is_odd(stats))

    if cases := those(lambda stats: stats.not_finite > 0):
        count = sum(stats.not_finite for stats in dataset.readable)
        yield Finding(
            check="not_finite",
            severity="error",
            text=f"In {pluralize(len(cases), 'image')}, there are {count} values that are NaN, "
            f"infinite, or larger than {LARGEST:.3g}, which a 32-bit float cannot represent.",
            fix="Replace them, for example by the background value, or remove the images.",
            cases=cases,
            in_copy="left out",
        )
    if cases := those(lambda stats: stats.low == stats.high and stats.not_finite == 0):
        yield Finding(
            check="constant",
            severity="warning",
            text=f"In {pluralize(len(cases), 'image')}, all pixels have the same value.",
            fix="Check whether the export failed, and remove images that show nothing.",
            cases=cases,
            in_copy="left out",
        )
    if cases := those(lambda stats: stats.has_alpha):
        yield Finding(
            check="alpha",
            severity="note",
            text=f"In {pluralize(len(cases), 'image')}, an alpha channel is ignored.",
            fix="No action is needed, unless the transparency has a meaning.",
            cases=cases,
        )
    if cases := those(lambda stats: stats.equal_channels):
        yield Finding(
            check="equal_channels",
            severity="note",
            text=f"In {pluralize(len(cases), 'image')}, two channels are identical.",
            fix="Save gray images with one channel, unless one channel replaces a missing one.",
            cases=cases,
        )


def _sizes_of(stats: CaseStats) -> str:
    return f"e.g. image {size_text(stats.shape)}, mask {size_text(stats.mask_shape)}"


def _minorities(
    case_stats: Iterable[CaseStats], key_of: Callable[[CaseStats], str]
) -> tuple[list[CaseStats], str]:
    """Return the cases that are not of the most common kind, and all kinds with their counts."""
    by_key: dict[str, list[CaseStats]] = {}
    for stats in case_stats:
        by_key.setdefault(key_of(stats), []).append(stats)
    if len(by_key) < 2:
        return [], ""
    counts = Counter({key: len(own) for key, own in by_key.items()}).most_common()
    rare = [stats for key, _ in counts[:0:-1] for stats in by_key[key]]
    return rare, ", ".join(f"{count} of {key}" for key, count in counts)


def find_duplicates(dataset: DatasetStats) -> Iterator[Finding]:
    """Find identical and nearly identical images; neighbors in one group may be similar."""
    selected = sorted(dataset.readable, key=lambda stats: natural_order(stats.case.id))
    place = {stats.case.id: index for index, stats in enumerate(selected)}
    found: dict[tuple[bool, bool], list[tuple[str, str]]] = {}
    groups = dataset.inferred_groups
    for pair in dataset.duplicates:
        first, second = pair.first, pair.second
        is_across = groups[first] != groups[second]
        if not (is_across or pair.is_exact) and place[second] - place[first] <= NEIGHBORS:
            continue
        found.setdefault((pair.is_exact, is_across), []).append((first, second))
    for (is_exact, is_across), pairs in sorted(found.items(), reverse=True):
        yield _describe_duplicates(dataset, pairs, is_exact, is_across)


def _describe_duplicates(
    dataset: DatasetStats, pairs: Sequence[tuple[str, str]], is_exact: bool, is_across: bool
) -> Finding:
    part_of = dataset.part_of
    leaks = [pair for pair in pairs if len({part_of.get(name, "") for name in pair}) > 1]
    severity: Severity = "warning" if is_across else "note"
    if leaks and is_exact:
        severity = "error"  # That others are nearly identical is not certain.
    first, second = (leaks or pairs)[0]
    like = "identical" if is_exact else "nearly identical"
    count = f"{pluralize(len(pairs), 'image')} {'is' if len(pairs) == 1 else 'are'}"
    where = "another" if is_across else "the same"
    text = f"{count} {like} to an image of {where} group, e.g. {second} and {first}."
    if leaks:
        text += f" The split separates {len(leaks)} of these pairs."
    elif is_across:
        text += " The split keeps their groups together."
    return Finding(
        check=("duplicate" if is_exact else "near_duplicate")
        + ("_across_groups" if is_across else ""),
        severity=severity,
        text=text,
        fix="Keep one of them; an image in both training and test makes the scores invalid."
        if is_across
        else "No action is needed, unless an image was exported twice by mistake.",
        cases=tuple(second for _, second in pairs),
        in_copy="left out" if is_exact and is_across else "",
    )


def find_doubtful_groups(dataset: DatasetStats) -> Iterator[Finding]:
    """Find inferred groups that make the scores less meaningful than usual."""
    if dataset.grouping.warning:
        yield Finding(
            check="doubtful_groups",
            severity="warning",
            text=dataset.grouping.warning,
            fix="Specify the groups with --groups, or annotate images of more patients, dishes or "
            "scenes.",
        )


def find_ungrouped(dataset: DatasetStats) -> Iterator[Finding]:
    """Find images that are not grouped although neighbors in the order of names are similar."""
    selected = [stats for stats in dataset.readable if stats.detail.any()]
    if (
        dataset.grouping.kind != "single"
        or dataset.grouping.is_stated
        or len(selected) < MIN_FRAMES
    ):
        return
    near, far = correlation_of_neighbors(selected)
    if near > far + 0.25:
        yield Finding(
            check="ungrouped",
            severity="warning",
            text=f"Each image is its own group, but neighbors in the order of their names are "
            f"similar (correlation {near:.2f}, others {far:.2f}), as in a volume or a video.",
            fix="Specify with --groups which images belong together, put them into one folder, or "
            "give them the same name before the number (a_01, a_02, b_01).",
            cases=tuple(stats.case.id for stats in selected[:5]),
        )
