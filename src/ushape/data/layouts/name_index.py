"""Search in many names at once: a million of them are searched as one text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache, cached_property

END = "\0"
"""Character between two names, which no name contains."""


class NameIndex:
    """Names, all different, in a text in which parts of them are found quickly.

    Args:
        names: Names without END.
    """

    def __init__(self, names: Sequence[str]):
        self.names = names
        self._text = f"{END}{END.join(names)}{END}"
        self.count = cache(self._count)
        """Returns how often a part occurs in all names; END stands for the ends of a name."""

    @cached_property
    def sorted(self) -> list[str]:
        """The names in the order of the alphabet."""
        return sorted(self.names)

    @cached_property
    def positions(self) -> dict[str, int]:
        """Number of each name in the order in which they were given, from 0."""
        return {name: number for number, name in enumerate(self.names)}

    def _count(self, part: str) -> int:
        return self._text.count(part)

    def containing(self, part: str) -> Iterator[str]:
        """Yield the names that contain a part, in their order.

        A part that begins or ends with a digit must not be next to another digit on that side.

        Args:
            part: Text; END at its beginning or end stands for that of a name.
        """
        if not part.strip(END):
            yield from self.names
            return
        text, before, after = self._text, part[0].isdigit(), part[-1].isdigit()
        length, at = len(part), self._text.find(part)
        while at >= 0:
            if (before and text[at - 1].isdigit()) or (after and text[at + length].isdigit()):
                at = text.find(part, at + 1)
                continue
            start = at + 1 if part[0] == END else text.rfind(END, 0, at) + 1
            end = text.find(END, at + 1)
            yield text[start:end]
            at = text.find(part, end)

    def with_word(self, word: str) -> list[str]:
        """Return the names of which a word or number, in lower case, is a part by itself."""
        kind = r"\d" if word.isdecimal() else r"[^\W\d_]"
        # The text comes first, so that the search is one for a text and not one for a pattern.
        own = re.escape(word)
        whole = re.compile(f"{own}(?<!{kind}{own})(?!{kind})")
        text, found = self._text, list[str]()
        at = whole.search(text)
        while at is not None:
            end = text.find(END, at.end())
            found.append(text[text.rfind(END, 0, at.start()) + 1 : end])
            at = whole.search(text, end)
        return found

    @cached_property
    def is_lower(self) -> bool:
        """Whether no name contains an upper-case letter."""
        return self._text.lower() == self._text
