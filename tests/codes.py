"""Check which error is raised by its class and its stable code, not by its wording."""

from contextlib import contextmanager

import pytest


@contextmanager
def raises_code(kind, code):
    """Expect an error of a class and code; yields what `pytest.raises` yields."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code
    assert caught.value.hint
