from pathlib import Path

import pytest

from codes import raises_code
from ushape.errors import RunError
from ushape.export import bioimageio, hugging_face
from ushape.export.destination import WRITTEN, refuse_destination
from ushape.export.formats import FORMATS
from ushape.export.standalone import TEMPLATE
from ushape.planning.run import Run

RUN = Run(Path())


@pytest.mark.parametrize(
    "name",
    [
        *(f"model{one.suffix}" for one in FORMATS.values()),
        *(bioimageio.TORCHSCRIPT, bioimageio.ONNX, bioimageio.COVER, bioimageio.DESCRIPTION),
        *(hugging_face.CARD, hugging_face.CONFIG, hugging_face.PICTURE, "fold-2/code/net.py"),
        *(str(path) for path in (RUN.plan_path, RUN.tuning_path, RUN.weights_path)),
        *(path.name for path in TEMPLATE.iterdir() if path.is_file()),
    ],
)
def test_written_has_the_files_of_each_target(name):
    assert WRITTEN.fullmatch(name)


def test_destination_with_a_link_to_other_files_is_not_replaced(tmp_path):
    folder, own = tmp_path / "export", tmp_path / "own"
    folder.mkdir()
    own.mkdir()
    (folder / "export.json").touch()
    refuse_destination(folder, [tmp_path / "run"], is_file=False, overwrite=True)
    (folder / "code").symlink_to(own)
    with raises_code(RunError, "output_exists"):
        refuse_destination(folder, [tmp_path / "run"], is_file=False, overwrite=True)
