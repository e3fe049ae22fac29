"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """`1 mask`, `3 masks`, `2 processes`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith(('s', 'x', 'ch')) else 's'}"
