from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import yaml

from codes import raises_code
from reports import make_case, make_report
from ushape.console import Console
from ushape.errors import ConfigError, PlanError
from ushape.export import bioimageio
from ushape.export.bioimageio import (
    describe_model,
    draw_cover,
    export_package,
    fill_package,
    validate,
)
from ushape.export.graph import ExportOptions
from ushape.export.parity import Parity
from ushape.export.publication import Publication
from ushape.export.sample import Sample
from ushape.labels import LabelSpace
from ushape.types import MaskEncoding

PARITY = Parity(
    images=7,
    of_run=1,
    shapes=((1, 1, 64, 64),),
    largest_difference=2e-6,
    changed_pixels=3,
    pixels=1000,
)
STATED = Publication(authors=("Ada Lovelace",), license="MIT")
SPACE = LabelSpace(values=(0, 255), names=("background", "cell"))


def graph_of(
    channels=1, dims=2, space=SPACE, normalization=None, left_out=(), halo=0, *, is_custom=False
):
    """The attributes of a graph from which a package is described."""
    preprocessing = SimpleNamespace(space=space, channels=channels, normalization=normalization)
    plan = SimpleNamespace(
        image_dims=dims,
        preprocessing=preprocessing,
        recipe=SimpleNamespace(network=SimpleNamespace(dims=dims, is_custom=is_custom)),
        encoding=MaskEncoding(kind="values", dtype="uint8", palette=None, suffix=".png"),
    )
    members = [SimpleNamespace(plan=plan)]
    source = SimpleNamespace(
        plan=plan,
        space=space,
        predictor=SimpleNamespace(members=members),
        left_out=left_out,
        runs=[SimpleNamespace(folder=Path("runs/my cells"))],
        networks=[],
        options=ExportOptions(),
    )
    return SimpleNamespace(
        channels=channels,
        dims=dims,
        class_names=space.channel_names,
        decide=None,
        source=source,
        halo=(halo,) * dims,
    )


def test_describe_model_states_the_facts_of_the_run():
    report = make_report([make_case("a", 32), make_case("b", 32, 1, group="other")])
    found = describe_model("cells - 2D U-Net", graph_of(), (64, 80), report, STATED)
    assert found["name"] == "cells - 2D U-Net"
    assert found["description"].startswith(
        f"U-Net that segments cell. {report.summary.verdict[:20]}"
    )
    assert len(found["description"]) <= 512
    assert found["authors"] == [{"name": "Ada Lovelace"}]
    assert found["license"] == "MIT"
    assert found["cite"][0]["doi"] == "10.1007/978-3-319-24574-4_28"
    assert {"unet2d", "2d", "semantic-segmentation"} <= set(found["tags"])


def test_describe_model_calls_only_a_unet_a_unet():
    graph = graph_of(is_custom=True)
    found = describe_model("cells", graph, (64, 80), None, Publication())
    assert found["description"] == "Network that segments cell."
    assert found["cite"] == []
    assert not {"unet", "unet2d"} & set(found["tags"])


def test_describe_model_has_free_batch_and_sizes():
    (own,) = describe_model("cells", graph_of(), (64, 80), None, Publication())["inputs"]
    assert own["axes"] == [
        {"type": "batch", "id": "batch"},
        {"type": "channel", "id": "channel", "channel_names": ["intensity"]},
        {"type": "space", "id": "y", "size": {"min": 32, "step": 1}},
        {"type": "space", "id": "x", "size": {"min": 32, "step": 1}},
    ]
    assert own["data"] == {"type": "float32"}


def test_describe_model_states_the_halo_of_tiles_where_the_sample_is_large_enough():
    found = describe_model("cells", graph_of(halo=36), (64, 80), None, Publication())
    y, x = found["outputs"][0]["axes"][2:]
    assert "halo" not in y  # 2 x 36 pixels are more than the 64 of the sample.
    assert x["halo"] == 36
    assert [axis["size"]["min"] for axis in found["inputs"][0]["axes"][2:]] == [32, 73]


def test_describe_model_has_one_output_channel_for_each_class():
    space = LabelSpace(values=(0, 1, 2), names=("background", "liver", "tumor"))
    graph = graph_of(channels=3, dims=3, space=space)
    found = describe_model("livers", graph, (9, 64, 80), None, Publication())
    assert found["inputs"][0]["axes"][1]["channel_names"] == ["red", "green", "blue"]
    # The test tensor has 9 planes, which is less than the usual smallest size.
    assert [axis["size"]["min"] for axis in found["inputs"][0]["axes"][2:]] == [9, 32, 32]
    output = found["outputs"][0]
    assert output["axes"][1]["channel_names"] == ["background", "liver", "tumor"]
    assert [axis["id"] for axis in output["axes"]] == ["batch", "channel", "z", "y", "x"]
    assert output["axes"][2]["size"] == {"tensor_id": "input", "axis_id": "z", "offset": 0}
    assert output["data"] == {"type": "float32", "range": [0.0, 1.0]}
    assert found["cite"][0]["doi"] == "10.1007/978-3-319-46723-8_49"


def values_of(value):
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [found for part in parts for found in values_of(part)]
    return [value]


def test_describe_model_meets_the_requirements_of_qupath_and_deepimagej():
    found = describe_model("cells - 2D U-Net", graph_of(), (64, 80), None, Publication())
    # Both cast these to text, and QuPath stops if they are missing.
    for key in ("format_version", "name", "description", "license", "documentation"):
        assert isinstance(found[key], str)
        assert found[key]
    assert found["covers"] == ["cover.png"]
    assert isinstance(found["authors"], list)
    # QuPath reads a number from each value of data.range and data.offset.
    assert None not in values_of(found)
    # QuPath: one input and one output with channels; JDLL: an id for each axis and tensor.
    for kind in ("inputs", "outputs"):
        (tensor,) = found[kind]
        assert tensor["id"]
        assert [axis["id"] for axis in tensor["axes"]] == ["batch", "channel", "y", "x"]
        assert tensor["test_tensor"]["source"].endswith(".npy")
        # Neither can be relied on to compute processing steps.
        assert not {"preprocessing", "postprocessing"} & tensor.keys()
    # JDLL: a NullPointerException without id or nickname.
    assert found["config"]["bioimageio"]["nickname"] == "cells-2d-u-net"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes a package of a graph whose weights and sample are made up, and validates it."""
    folder = tmp_path / "files"
    folder.mkdir()

    def fill(graph=None, publication=STATED, origin="test"):
        graph = graph or graph_of()
        shape = (64, 80) if graph.dims == 2 else (9, 64, 80)
        pixels = np.arange(graph.channels * np.prod(shape)).reshape(graph.channels, *shape)
        image = (pixels % 251).astype(np.uint8)
        outputs = np.linspace(0, 1, len(graph.class_names) * image[0].size, dtype=np.float32)
        sample = Sample(
            image=image,
            outputs=outputs.reshape(-1, *shape),
            classes=(image[0] > 100).astype(np.uint8),
            origin=origin,
        )
        monkeypatch.setattr(bioimageio, "take_sample", lambda graph: sample)
        monkeypatch.setattr(bioimageio, "onnx_opset", lambda path: 20)
        for name in (bioimageio.ONNX, bioimageio.TORCHSCRIPT):
            (folder / name).write_bytes(name.encode())
        notes = fill_package(graph, folder, publication, {"onnx": PARITY})
        return [*notes, validate(folder)], folder, sample

    return fill


@pytest.mark.parametrize(
    "graph",
    [
        graph_of(),
        graph_of(channels=3),
        graph_of(dims=3),
        graph_of(halo=20),
        graph_of(dims=3, halo=20),
        graph_of(
            channels=2,
            dims=3,
            space=LabelSpace(values=(0, 1, 2), names=("background", "liver", "tumor")),
        ),
    ],
    ids=["gray", "color", "volume", "halo", "volume with halo", "volume with channels"],
)
def test_validate_accepts_what_fill_package_writes(package, graph):
    notes, folder, sample = package(graph)
    assert notes[-1].startswith("Validated by bioimageio.spec ")
    assert ": passed" in notes[-1]
    assert np.array_equal(np.load(folder / "test_input.npy")[0], sample.image)
    assert np.array_equal(np.load(folder / "test_output.npy")[0], sample.outputs)
    assert np.load(folder / "test_input.npy").dtype == np.float32
    stored = tifffile.imread(folder / "sample_input.tif").reshape(-1)
    axes = (0, 1, 2) if graph.dims == 2 else (1, 0, 2, 3)
    assert np.array_equal(stored, sample.image.transpose(axes).reshape(-1))
    assert "## Validation" in (folder / "README.md").read_text()
    stored = yaml.safe_load((folder / "rdf.yaml").read_text())
    assert stored["config"]["ushape"]["parity"]["onnx"]["largest_difference"] == 2e-6
    weights = stored["weights"]
    assert weights["onnx"]["parent"] == "torchscript"
    assert weights["onnx"]["opset_version"] == 20
    assert "parent" not in weights["torchscript"]


def test_fill_package_says_that_authors_and_license_are_missing(package):
    notes, *_ = package(publication=Publication())
    assert notes[0].startswith("License: CC-BY-4.0, the default")
    assert notes[1].startswith("Authors: not specified")


def test_validate_refuses_an_unknown_license(package):
    with raises_code(PlanError, "package_invalid") as caught:
        package(publication=Publication(license="all mine"))
    assert "license" in caught.value.message
    assert max(map(len, caught.value.message.splitlines())) < 300


def test_export_package_refuses_an_unknown_license_at_once(tmp_path):
    with raises_code(ConfigError, "unknown_license"):
        export_package([], tmp_path, ExportOptions(license="all mine"), Console(quiet=True))


def test_export_package_refuses_masks(tmp_path):
    with raises_code(PlanError, "export_refused"):
        export_package([], tmp_path, ExportOptions(output="mask"), Console(quiet=True))


@pytest.mark.parametrize(
    ("normalization", "words"), [(None, "whole images"), (object(), "constants")]
)
def test_documentation_says_how_intensities_are_normalized(package, normalization, words):
    _, folder, _ = package(graph_of(normalization=normalization, left_out=("cell: fills holes",)))
    text = (folder / "README.md").read_text()
    assert words in text
    assert "cell: fills holes." in text


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ("test", None),
        (
            "validation",
            "part of a validation image, with which the settings of the model were chosen",
        ),
        ("training", "part of an image with which the model was trained"),
    ],
)
def test_package_says_what_the_image_of_its_sample_was_used_for(package, origin, words):
    notes, folder, _ = package(origin=origin)
    text = (folder / "README.md").read_text()
    assert any(f"part of a {origin} image" in note for note in notes)
    assert ("The sample and the cover" in text) == (words is not None)
    assert words is None or words in text


def test_validate_refuses_a_package_without_its_files(package):
    _, folder, _ = package()
    (folder / "test_input.npy").unlink()
    with raises_code(PlanError, "package_invalid"):
        validate(folder)


def test_draw_cover_shows_the_image_beside_the_classes():
    classes = np.zeros((40, 60), np.uint8)
    classes[:, 30:] = 1
    sample = Sample(
        image=np.full((3, 40, 60), 77, np.uint8),
        outputs=np.zeros((1, 40, 60), np.float32),
        classes=classes,
    )
    cover = draw_cover(sample, graph_of().source.plan)
    assert cover.shape == (256, 512, 3)
    assert (cover[:, :256] == 77).all()
    assert (cover[:, 256:380] == 0).all()
    assert cover[:, 400:].max() > 100
