import numpy as np
import pytest
import tifffile
import torch

from codes import raises_code
from exported import write_run
from ushape.data.splits import Splits
from ushape.errors import PlanError
from ushape.export.graph import ExportOptions, build_graph
from ushape.export.parity import RUN_IMAGES, images_of, prove_parity
from ushape.types import Case, CaseFacts


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", thresholds={"cell": 0.45})


def computed(graph, change=lambda output: output):
    """The graph computed by PyTorch, with a change of its output."""

    def compute(images):
        with torch.inference_mode():
            return change(graph(torch.from_numpy(images)).numpy())

    return compute


def test_prove_parity_compares_batches_sizes_and_images(run):
    graph = build_graph(run, ExportOptions())
    image = np.random.default_rng(0).integers(0, 255, (1, 40, 50)).astype(np.uint8)
    found = prove_parity(computed(graph), graph, [image])
    assert (found.images, found.of_run) == (7, 1)
    assert {shape[0] for shape in found.shapes} == {1, 2, 3}
    assert found.shapes[-1] == (1, 1, 40, 50)
    assert found.pixels == 3 * 61 * 94 + 64 * 64 + 2 * 240 * 330 + 40 * 50
    assert found.largest_difference < 1e-4
    assert "1 of them from the data of the run" in found.text


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_prove_parity_holds_for_whole_numbers_of_the_type_of_the_run(tmp_path, dtype):
    run = write_run(tmp_path / "run", downscale=2.0)
    path = tmp_path / "a.tif"
    image = np.random.default_rng(0).integers(0, 2, (40, 50)).astype(dtype)
    tifffile.imwrite(path, image)
    run.save_cases(tmp_path, [CaseFacts(Case(id="a", image=path, mask=path), (1, 1))], "")
    graph = build_graph(run, ExportOptions())
    assert graph.rounds == (dtype == np.uint8)
    assert prove_parity(computed(graph), graph, [image[None]]).largest_difference < 1e-4


@pytest.mark.parametrize(
    "change",
    [
        lambda output: output + 0.002,
        lambda output: output * np.nan,
        lambda output: output[:, :, 1:],
        lambda output: 1 / 0,
    ],
    ids=["difference", "NaN", "size", "failure"],
)
def test_prove_parity_refuses_a_graph_that_differs(run, change):
    graph = build_graph(run, ExportOptions())
    with raises_code(PlanError, "export_differs"):
        prove_parity(computed(graph, change), graph, [])


def test_prove_parity_counts_changed_pixels_of_masks_by_their_distance_from_the_threshold(run):
    graph = build_graph(run, ExportOptions(output="mask"))
    found = prove_parity(computed(graph), graph, [])
    assert found.changed_pixels <= 5
    with raises_code(PlanError, "export_differs"):
        prove_parity(computed(graph, lambda mask: 255 - mask), graph, [])


def test_images_of_are_a_few_test_images_that_still_exist(run, tmp_path):
    graph = build_graph(run, ExportOptions())
    assert images_of(graph.source) == []
    facts = []
    for number in range(RUN_IMAGES + 3):
        path = tmp_path / "data" / f"{number}.tif"
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(path, np.full((20, 1100), number, np.uint8))
        facts.append(CaseFacts(Case(id=str(number), image=path, mask=path), (10, 10)))
    names = [fact.case.id for fact in facts]
    run.save_cases(tmp_path / "data", facts, "")
    Splits(train=names[:1], validation=(), test=names[1:], text="").save(run.splits_path)
    found = images_of(graph.source)
    assert [image.max() for image in found] == [1, 2, 3, 4, 5]
    assert {image.shape for image in found} == {(1, 20, 1024)}
    (tmp_path / "data" / "2.tif").write_bytes(b"damaged")
    assert [image.max() for image in images_of(graph.source)] == [1, 3, 4, 5, 6]
