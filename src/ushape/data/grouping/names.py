"""Groups that the names of cases indicate.

A name is read as a sequence of fields, which end at separators, at folders, and where letters and
digits meet. Compared over all names, the leading fields that repeat while others vary are the
group: `patient001` of `patient001_frame01`, `A_A7O4T6` of `A_A7O4T6_ED`, `11` of `11L`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from ushape.data.grouping.words import INDICES, KIND_LABELS, KINDS, SUBJECTS, VIEWS

MIN_SPLIT_GROUPS = 3
"""Training, validation and test need a group each."""

MAX_KINDS = 5
"""Largest number of different words in a field that are regarded as kinds of images, not as
names."""

MAX_SIDES = 4
"""Largest number of different letters after a number that form a separate field, as in 11L."""

MAX_ODD_SHARE = 0.2
"""Largest share of the names that may have fewer fields than most; each is a group."""

_TOKEN = re.compile(
    r"(?P<id>TCGA[-_]\w\w[-_]\w{4}(?![^\W_])|(?<!\d)\d+(?:\.\d+){4,}|(?<!\d)\d{9,}\.\d+)"
    r"|(?P<date>(?<!\d)(?:19|20)\d\d(?P<s>[-_.]?)(?:0[1-9]|1[0-2])(?P=s)(?:0[1-9]|[12]\d|3[01])"
    r"(?=\D|\d{6}(?!\d)|$))"
    r"|(?P<number>\d+)|(?P<letters>[^\W\d_]+)"
)
_YEAR = re.compile(r"(?:19|20)\d\d$")

Kind = Literal["id", "date", "number", "letters", "mixed"]
Role = Literal["subject", "index", "view", "kind", "unknown"]


@dataclass(frozen=True)
class NameGroups:
    """Groups that names indicate."""

    keys: tuple[str, ...]
    """Group of each name."""

    coarse: tuple[str, ...] = ()
    """Groups of a higher level, if there are two of them, too few to split by."""

    kinds: tuple[str, ...] = ()
    """Words that are regarded as kinds of images and not as groups."""

    is_named: bool = False
    """Whether an identifier, or a word such as patient next to a field, determines the groups."""


@dataclass(frozen=True)
class _Token:
    text: str
    kind: Kind
    start: int
    end: int


@dataclass(frozen=True)
class _Column:
    """One field of all names; it differs between at least two of them."""

    values: tuple[str, ...]
    kind: Kind
    label: str
    """Word before the field, in lower case; '' if there is none."""

    ends: tuple[int, ...]
    """Place in each name behind the field."""

    @cached_property
    def role(self) -> Role:
        words = {word for value in self.values for word in value.lower().split()}
        if words <= VIEWS or {self.label + word for word in words} <= VIEWS:  # L, R; T1, T2
            return "view"
        if self.kind == "letters":
            few = len(set(self.values)) <= MAX_KINDS
            return "kind" if few or words & KINDS else "unknown"
        if self.label in SUBJECTS or self.label.rstrip("s") in SUBJECTS:
            return "subject"
        if self.label in KIND_LABELS or (self.kind == "number" and all(map(_YEAR.match, words))):
            return "kind"
        if self.label in INDICES or self.label.rstrip("s") in INDICES:
            return "index"
        return "unknown"

    @property
    def is_word_for_kinds(self) -> bool:
        return self.role == "kind" and self.kind == "letters"

    @property
    def may_be_names(self) -> bool:
        """Whether the words could name videos or scenes instead of kinds of images."""
        words = {word for value in self.values for word in value.lower().split()}
        return self.is_word_for_kinds and not words & KINDS


def find_name_groups(
    names: Sequence[str], are_alike: Callable[[Sequence[str]], bool]
) -> NameGroups | None:
    """Return the groups that the names indicate; None if they indicate none.

    Args:
        names: Different names; folders are separated by '/'.
        are_alike: Returns whether images with an equal key are clearly more similar than others;
            decides where names are ambiguous.
    """
    tokens = [_tokens_of(name) for name in names]
    chunks = [list(_chunks_of(own)) for own in tokens]
    joined = [list(_with_joined_words(name, own)) for name, own in zip(names, chunks, strict=True)]
    if len(set(map(len, joined))) < len(set(map(len, chunks))):
        chunks = joined  # Names such as Normal-1 and Lung_Opacity-1.
    least = _common_count([len(own) for own in chunks])
    usual = [place for place, own in enumerate(chunks) if len(own) >= least]
    columns = _columns_of([chunks[place] for place in usual], least)
    own = [names[place] for place in usual]
    is_usual = set(usual)

    def alike(keys: Sequence[str]) -> bool:
        return are_alike(_spread(names, usual, keys))

    found = _choose(own, columns, alike)
    if found is None or len(is_usual) == len(names):
        return found
    keys = tuple(_spread(names, usual, found.keys))
    coarse = tuple(_spread(names, usual, found.coarse)) if found.coarse else ()
    return NameGroups(keys, coarse, found.kinds, found.is_named)


def _spread(names: Sequence[str], places: Sequence[int], keys: Sequence[str]) -> list[str]:
    """Return a key for each name; names without one are their own."""
    found = list(names)
    for place, key in zip(places, keys, strict=True):
        found[place] = key
    return found


def _choose(
    names: Sequence[str], columns: Sequence[_Column], are_alike: Callable[[Sequence[str]], bool]
) -> NameGroups | None:
    """Return the coarsest groups, at least three, whose key identifies a subject."""
    words = [set(column.values) for column in columns if column.is_word_for_kinds]
    kinds = tuple(sorted(set().union(*words)))
    coarse: tuple[str, ...] = ()
    for chosen in _candidates(columns):
        keys = _join(names, columns, chosen)
        count = len(set(keys))
        if count == len(names):
            break
        last = columns[chosen[-1]]
        if count == 1 or (last.role == "kind" and not (last.may_be_names and are_alike(keys))):
            continue
        if count >= MIN_SPLIT_GROUPS:
            is_named = any(columns[c].role == "subject" or columns[c].kind == "id" for c in chosen)
            return NameGroups(keys, coarse, kinds, is_named)
        coarse = coarse or keys
    if coarse:
        return NameGroups((), coarse, kinds)
    # The same names below several words, as T1/p01 and T2/p01, may be of the same subject.
    plain = [place for place, column in enumerate(columns) if column.role not in ("kind", "view")]
    keys = _join(names, columns, plain)
    if MIN_SPLIT_GROUPS <= len(set(keys)) < len(names) and are_alike(keys):
        return NameGroups(keys, (), kinds)
    return NameGroups((), (), kinds) if kinds else None


def _candidates(columns: Sequence[_Column]) -> Iterator[list[int]]:
    """Yield the places of the columns of possible keys, the coarsest key first."""
    for place, column in enumerate(columns):
        if column.role == "subject":
            yield [p for p in range(place + 1) if columns[p].role in ("subject", "unknown")]
    chosen: list[int] = []
    for place, column in enumerate(columns):
        if column.role != "view":
            chosen.append(place)
            yield list(chosen)


def _join(
    names: Sequence[str], columns: Sequence[_Column], chosen: Sequence[int]
) -> tuple[str, ...]:
    """Return the key of each name: its beginning if no field before the last one is left out."""
    if list(chosen) == list(range(len(chosen))):
        ends = columns[chosen[-1]].ends if chosen else (0,) * len(names)
        return tuple(name[:end] for name, end in zip(names, ends, strict=True))
    return tuple(
        "_".join(columns[c].label + columns[c].values[place] for c in chosen)
        for place in range(len(names))
    )


def _common_count(counts: Sequence[int]) -> int:
    """Return the number of fields that nearly all names have."""
    ordered = sorted(counts)
    most = Counter(counts).most_common(1)[0][0]
    least = ordered[int(MAX_ODD_SHARE * len(ordered))] if ordered else 0
    return min(least, most)


def _tokens_of(name: str) -> list[_Token]:
    found = []
    for match in _TOKEN.finditer(name):
        kind = next(k for k in ("id", "date", "number", "letters") if match[k])
        found.append(_Token(match[0], kind, match.start(), match.end()))  # type: ignore[arg-type]
    return found


def _chunks_of(tokens: Sequence[_Token]) -> Iterator[list[_Token]]:
    """Yield the runs of tokens without a separator between them."""
    chunk: list[_Token] = []
    for token in tokens:
        if chunk and chunk[-1].end != token.start:
            yield chunk
            chunk = []
        chunk.append(token)
    if chunk:
        yield chunk


def _with_joined_words(name: str, chunks: Sequence[list[_Token]]) -> Iterator[list[_Token]]:
    """Yield the chunks; words that only a separator divides are one, but not across folders."""
    words: list[_Token] = []
    for chunk in chunks:
        is_word = len(chunk) == 1 and chunk[0].kind == "letters"
        if words and not (is_word and "/" not in name[words[-1].end : chunk[0].start]):
            yield [_join_words(words)]
            words = []
        if is_word:
            words.append(chunk[0])
        else:
            yield chunk
    if words:
        yield [_join_words(words)]


def _join_words(words: Sequence[_Token]) -> _Token:
    text = " ".join(word.text for word in words)
    return _Token(text, "letters", words[0].start, words[-1].end)


def _columns_of(names: Sequence[Sequence[Sequence[_Token]]], count: int) -> list[_Column]:
    """Return the fields that vary over the names.

    Args:
        names: Chunks of each name; what follows the common number of them is one more field.
    """
    columns: list[_Column] = []
    label = ""
    for place in range(count):
        chunks = [own[place] for own in names]
        for fields in _fields_of(chunks):
            values = tuple("".join(token.text for token in field) for field in fields)
            kinds = {field[0].kind if len(field) == 1 else "mixed" for field in fields}
            kind = kinds.pop() if len(kinds) == 1 else "mixed"
            word = _common_letters(values) if kind == "mixed" else ""
            if len(set(values)) > 1:
                ends = tuple(field[-1].end for field in fields)
                columns.append(_Column(values, kind, word or label, ends))
                label = ""
            else:
                label = values[0].lower().split()[-1] if kind == "letters" else ""
    rests = [own[count:] for own in names]
    if any(rests):
        values = tuple("_".join(t.text for chunk in rest for t in chunk) for rest in rests)
        ends = tuple(own[-1][-1].end for own in names)
        columns.append(_Column(values, "mixed", label, ends))
    return columns


def _common_letters(values: Sequence[str]) -> str:
    """Return the letters with which all values begin, in lower case."""
    first, last = min(values).lower(), max(values).lower()
    alike = (a if a == b and a.isalpha() else " " for a, b in zip(first, last, strict=False))
    return "".join(alike).partition(" ")[0]


def _fields_of(chunks: Sequence[Sequence[_Token]]) -> list[list[Sequence[_Token]]]:
    """Divide one chunk of all names where letters and digits meet, unless it is one identifier.

    Returns:
        For each field, its tokens in each name.
    """
    shapes = {tuple(token.kind for token in chunk) for chunk in chunks}
    if len(shapes) > 1:
        return [list(chunks)]
    shape = shapes.pop()
    varying = [
        place
        for place, kind in enumerate(shape)
        if kind == "letters" and len({chunk[place].text for chunk in chunks}) > 1
    ]
    if len(varying) > 1:
        return [list(chunks)]
    cuts = set(range(1, len(shape)))
    if varying and len(shape) > 1:
        place = varying[0]
        sides = len({chunk[place].text for chunk in chunks})
        if place + 1 < len(shape):
            cuts.discard(place + 1)  # The letter belongs to the number behind it, as in A01.
        elif sides > MAX_SIDES:
            return [list(chunks)]
    edges = [0, *sorted(cuts), len(shape)]
    return [[chunk[start:stop] for chunk in chunks] for start, stop in pairwise(edges)]
