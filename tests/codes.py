"""Check which error is raised by its class and its stable code, not by its wording."""

import json
from contextlib import contextmanager

import pytest


@contextmanager
def raises_code(kind, code):
    """Expect an error of a class and code; yields what `pytest.raises` yields."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code
    assert caught.value.hint


def edit_sealed_json(path, **changes):
    """Change a file of a run on purpose, which includes the removal of its checksums."""
    values = json.loads(path.read_text())
    kept = {key: value for key, value in values.items() if key not in ("checksum", "tables")}
    path.write_text(json.dumps({**kept, **changes}))
