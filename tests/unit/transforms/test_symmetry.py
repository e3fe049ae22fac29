import numpy as np
import pytest

from ushape.transforms.symmetry import symmetries

IMAGE = np.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("average", "count"), [("none", 1), ("mirrored", 4), ("rotated_7", 7), ("all_8", 8)]
)
def test_each_version_is_another_and_comes_back_exactly(average, count):
    found = symmetries(average, (0, 1), 2)
    versions = {(turned := s.apply(IMAGE)).tobytes() + bytes(turned.shape) for s in found}
    assert len(found) == len(versions) == count
    assert (found[0].apply(IMAGE) == IMAGE).all()
    for symmetry in found:
        assert (symmetry.undo(symmetry.apply(IMAGE)) == IMAGE).all()


def test_all_eight_are_the_quarter_turns_and_their_mirror_images():
    turned = [np.rot90(IMAGE, quarter, axes=(1, 2)) for quarter in range(4)]
    expected = {array.tobytes() for array in (*turned, *(a[:, :, ::-1] for a in turned))}
    assert {s.apply(IMAGE).tobytes() for s in symmetries("all_8", (), 2)} == expected


def test_axes_from_the_end_and_in_volumes():
    volume = np.arange(48.0).reshape(2, 2, 3, 4)
    last = symmetries("mirrored", (-1,), 3)[1]
    assert (last.apply(volume) == volume[..., ::-1]).all()
    for symmetry in symmetries("all_8", (), 3):  # Planes stay where they are.
        assert symmetry.apply(volume)[:, 0].sum() == volume[:, 0].sum()
