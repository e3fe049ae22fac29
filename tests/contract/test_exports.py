"""Promises of every exported graph: it computes what `ushape predict` computes, from raw pixels."""

import warnings

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from exported import CELLS, TISSUES, write_run
from ushape.export.formats import FORMATS, write_format
from ushape.export.graph import ExportOptions, build_graph, reference
from ushape.export.parity import prove_parity
from ushape.export.write import write_checked
from ushape.labels import LabelSpace, Region
from ushape.normalization import Normalization

REGIONS = LabelSpace(
    values=(0, 1, 2),
    names=("background", "edge", "core"),
    regions=(Region(name="whole", classes=(1, 2)), Region(name="core", classes=(2,))),
)
OBJECTS = LabelSpace(values=(0, 1), names=("background", "cell"), has_distance=True)
CONSTANTS = Normalization(low=(10.0,), high=(200.0,), mean=(90.0,), std=(40.0,))

KINDS = {
    "padded": {},
    "valid, 5 levels": {
        "network": {"widths": (2, 2, 3, 3, 4), "padding": "valid", "norm": "none"},
        "space": TISSUES,
        "thresholds": {"fat": 0.4},
    },
    "stretched": {"network": {"widths": (2, 3), "padding": "valid", "valid_output": "stretched"}},
    "instance norm": {"network": {"norm": "instance"}, "tta": "mirrored"},
    "all symmetries": {"tta": "all_8", "network": {"norm": "group"}},
    "3D": {"network": {"dims": 3, "norm": "instance"}, "space": TISSUES},
    "3D, coarse z": {
        "network": {
            "dims": 3,
            "widths": (3, 4, 4),
            "strides": ((1, 2, 2), (2, 2, 2)),
            "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        },
        "downscale": (1.0, 1.5, 1.5),
    },
    "slices": {"by_slice": True, "slices": 3, "space": TISSUES, "downscale": 2},
    "regions": {"space": REGIONS, "thresholds": {"core": 0.6}},
    "pretrained encoder": {
        "network": {
            "widths": (16, 24, 40),
            "encoder": "efficientnet_lite0",
            "encoder_weights": "none",
            "stem": 2,
        },
        "channels": 3,
    },
    "stem": {"network": {"stem": 2, "upsampling": "bilinear"}, "intensity": "min_max"},
    "factor 1.5": {"downscale": 1.5},
    "factor 2": {"downscale": 2, "normalization": CONSTANTS, "intensity": "data"},
    "factor 3": {"downscale": 3},
    "factor 4": {"downscale": 4},
    "fixed shape": {"shape": (70, 50), "intensity": "min_max"},
    "square": {"square": True},
    "channels": {"channels": 4, "space": TISSUES},
    "objects": {"space": OBJECTS, "labels": {"objects": "distance", "max_distance_px": 5.0}},
}

WRITTEN = [
    "padded",
    "valid, 5 levels",
    "stretched",
    "instance norm",
    "3D",
    "slices",
    "regions",
    "pretrained encoder",
    "factor 2",
    "channels",
    "objects",
]
"""Kinds that are written in every format, which takes seconds for each."""

SIZES = {2: [(33, 50), (64, 64), (200, 210)], 3: [(5, 19, 24), (8, 16, 16), (12, 60, 50)]}


@pytest.fixture(params=KINDS)
def run(request, tmp_path):
    return write_run(tmp_path / "run", **KINDS[request.param])


def image_of(graph, sizes, dtype=np.uint8, seed=0):
    """Noise with a gradient, so that different images have different statistics."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(0.2, 1, sizes[-1])
    return (random.random((graph.channels, *sizes)) * 255 * ramp).astype(dtype)


def compute(graph, *images):
    with torch.inference_mode():
        return graph(torch.from_numpy(np.stack(images).astype(np.float32))).numpy()


def test_graph_computes_what_ushape_computes(run):
    graph = build_graph(run, ExportOptions())
    # Halves between two gray values may be rounded differently after resampling to a fixed shape.
    bound = 1e-3 if graph.source.plan.preprocessing.config.shape else 1e-4
    for sizes in SIZES[graph.dims]:
        images = [image_of(graph, sizes, seed=0), image_of(graph, sizes, np.float32, seed=1)]
        images[1][:, : sizes[0] // 2] /= 3
        for image, found in zip(images, compute(graph, *images), strict=True):
            np.testing.assert_allclose(
                found, reference(run, image, graph.source.options), atol=bound
            )


class OnMeta(TorchDispatchMode):
    """Stands for a GPU: tensors on the device `meta` have no values, and no other is created."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        found = operation(*arguments, **(options or {}))
        for one in tree_leaves(found):
            # Numbers can be combined with tensors of any device.
            if isinstance(one, torch.Tensor) and one.dim():
                assert one.device.type == "meta", f"{operation} creates a tensor on {one.device}"
        return found


def check_devices(graph, module):
    image = torch.empty(2, graph.channels, *SIZES[graph.dims][0], device="meta")
    module.to("meta")
    with OnMeta(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated.
        found = module(image)
    assert found.device.type == "meta"
    assert (found.shape[0], *found.shape[-graph.dims :]) == (2, *image.shape[2:])


def test_graph_can_be_moved_to_another_device(run):
    graph = build_graph(run, ExportOptions())
    check_devices(graph, graph)


@pytest.mark.parametrize("kind", ["padded", "regions", "channels"])
def test_graph_of_masks_can_be_moved_to_another_device(kind, tmp_path):
    graph = build_graph(write_run(tmp_path / "run", **KINDS[kind]), ExportOptions(output="mask"))
    check_devices(graph, graph)


def check_devices_of_file(name, path, graph):
    """Check the devices of a file in a format of PyTorch; the other runtimes choose their own."""
    if name == "pt2":
        check_devices(graph, torch.export.load(path).module())
    elif name == "torchscript":
        # A trace cannot be computed on the device meta, so its constants are checked instead.
        graph = torch.jit.load(path).inlined_graph  # Its nodes live as long as it does.
        constants = list(graph.findAllNodes("prim::Constant"))
        kinds = [one.output().type().kind() for one in constants]
        assert "NoneType" in kinds
        assert "DeviceObjType" not in kinds
        for one, kind in zip(constants, kinds, strict=True):
            assert kind != "TensorType" or one.t("value").dim() == 0, one


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_can_be_moved_to_another_device(tmp_path):
    run = write_run(tmp_path / "run", downscale=1.5, square=True)
    graph, path = build_graph(run, ExportOptions(output="mask")), tmp_path / "model.pt"
    write_format("torchscript", graph, path)
    check_devices_of_file("torchscript", path, graph)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["all symmetries", "fixed shape", "stem"])
@pytest.mark.parametrize("name", ["torchscript", "pt2"])
def test_files_of_further_kinds_can_be_moved_to_another_device(name, kind, tmp_path):
    graph = build_graph(write_run(tmp_path / "run", **KINDS[kind]), ExportOptions())
    path = tmp_path / f"model{FORMATS[name].suffix}"
    write_format(name, graph, path)
    check_devices_of_file(name, path, graph)


@pytest.mark.slow
def test_pt2_of_masks_can_be_moved_to_another_device(tmp_path):
    run = write_run(tmp_path / "run", downscale=1.5, square=True)
    graph, path = build_graph(run, ExportOptions(output="mask")), tmp_path / "model.pt2"
    write_format("pt2", graph, path)
    check_devices_of_file("pt2", path, graph)


def test_graph_of_masks_decides_as_ushape_does(tmp_path):
    for number, name in enumerate(("padded", "regions", "channels", "slices")):
        run = write_run(tmp_path / str(number), **KINDS[name])
        graph = build_graph(run, ExportOptions(output="mask"))
        image = image_of(graph, SIZES[graph.dims][0])
        wanted = reference(run, image, graph.source.options)
        assert (compute(graph, image)[0] == wanted).mean() > 0.999
        assert len(np.unique(wanted)) > 1


def test_graph_ignores_missing_pixels_as_ushape_does(tmp_path):
    for number, name in enumerate(("padded", "factor 1.5", "stem")):
        run = write_run(tmp_path / str(number), **KINDS[name])
        graph = build_graph(run, ExportOptions())
        image = image_of(graph, (40, 44), np.float32)
        image[0, 3:5, 3:9] = np.nan
        found = compute(graph, image)[0]
        np.testing.assert_allclose(found, reference(run, image, graph.source.options), atol=1e-4)


def test_graph_of_a_constant_image_equals_ushape(tmp_path):
    graph = build_graph(write_run(tmp_path / "run"), ExportOptions())
    image = np.full((1, 40, 44), 7.1, np.float32)
    wanted = reference(graph.source.runs, image, graph.source.options)
    np.testing.assert_allclose(compute(graph, image)[0], wanted, atol=1e-4)


def check_format(name, graph, folder):
    path, parity = write_equal(name, graph, folder)
    again = prove_parity(FORMATS[name].open(path), graph)
    assert again == parity
    return path


def write_equal(name, graph, folder):
    path, parity = write_checked(name, graph, folder)
    assert parity.largest_difference <= 1e-3
    assert parity.of_run == 0
    return path, parity


def test_torchscript_equals_ushape(tmp_path):
    check_format("torchscript", build_graph(write_run(tmp_path / "run"), ExportOptions()), tmp_path)


def test_onnx_equals_ushape(tmp_path):
    check_format("onnx", build_graph(write_run(tmp_path / "run"), ExportOptions()), tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_equals_ushape(name, kind, tmp_path):
    graph = build_graph(write_run(tmp_path / "run", **KINDS[kind]), ExportOptions())
    check_devices_of_file(name, check_format(name, graph, tmp_path), graph)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_of_an_ensemble_equals_ushape(name, tmp_path):
    runs = [
        write_run(tmp_path / "first", space=CELLS, thresholds={"cell": 0.4}),
        write_run(tmp_path / "second", network={"norm": "instance"}, downscale=2, seed=1),
    ]
    for output in ("probabilities", "mask"):
        folder = tmp_path / output
        folder.mkdir()
        # Opening a PT2 file of several networks takes most of a minute.
        check = write_equal if name == "pt2" else check_format
        check(name, build_graph(runs, ExportOptions(output=output)), folder)
