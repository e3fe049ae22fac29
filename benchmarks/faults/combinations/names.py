"""Names: the path of an image below its folder, and whether it tells the subject."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

Name = Callable[[int, int, random.Random], str]


def _patient_frame(subject: int, number: int, _: random.Random) -> str:
    return f"patient{subject:03d}_frame{number:02d}"


def _letters(subject: int, number: int, _: random.Random) -> str:
    return f"S{subject}F{number}"


def _words(subject: int, number: int, _: random.Random) -> str:
    return f"mouse{subject}_section{number}"


def _tiles(subject: int, number: int, _: random.Random) -> str:
    return f"slide{subject}_x{number * 96:04d}_y{number % 2 * 192:04d}"


def _sections(subject: int, number: int, _: random.Random) -> str:
    return f"P{subject:02d}_z{number:03d}"


def _bids(subject: int, number: int, _: random.Random) -> str:
    return f"sub-{subject:02d}_ses-{number}_T1w"


def _sides(subject: int, number: int, _: random.Random) -> str:
    side = ("left", "right")[number % 2]
    return f"{subject * 7}_{side}" + (str(number // 2) if number > 1 else "")


def _codes(subject: int, number: int, _: random.Random) -> str:
    code = "".join(random.Random(subject).choices(string.ascii_uppercase + string.digits, k=5))
    return f"A_{subject}{code}_{('ED', 'ES', 'MD', 'LD')[number % 4]}"


def _folders(subject: int, number: int, _: random.Random) -> str:
    return f"case{subject:02d}/{number:03d}"


def _dashes(subject: int, number: int, _: random.Random) -> str:
    return f"TCGA-{subject:04d}-{number}"


def _umlauts(subject: int, number: int, _: random.Random) -> str:
    return f"Größe {subject} Aufnahme {number}"


def _dots(subject: int, number: int, _: random.Random) -> str:
    return f"scan.{subject}.{number}"


def _numbered(subject: int, number: int, _: random.Random) -> str:
    return f"img_{subject * 10 + number:04d}"


def _hashes(subject: int, number: int, _: random.Random) -> str:
    return f"{random.Random(subject * 100 + number).getrandbits(64):016x}"


def _bare(subject: int, number: int, _: random.Random) -> str:
    return str(subject * 10 + number)


def _isic(subject: int, number: int, _: random.Random) -> str:
    return f"ISIC_00{24300 + subject * 10 + number * 3}"


NAMES: dict[str, tuple[Name, bool]] = {
    "patient001_frame01": (_patient_frame, True),
    "S1F1": (_letters, True),
    "mouse1_section1": (_words, True),
    "slide1_x0096_y0192": (_tiles, True),
    "P01_z001": (_sections, True),
    "sub-01_ses-1_T1w": (_bids, True),
    "7_left": (_sides, True),
    "A_1X7O4T_ED": (_codes, True),
    "case01/001": (_folders, True),
    "TCGA-0001-1": (_dashes, True),
    "Größe 1 Aufnahme 1": (_umlauts, True),
    "scan.1.1": (_dots, False),
    "img_0010": (_numbered, False),
    "hash": (_hashes, False),
    "10": (_bare, False),
    "ISIC_0024310": (_isic, False),
}
"""Function that makes the name, and whether the name tells the subject."""
