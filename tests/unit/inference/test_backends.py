import copy
import importlib.util
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from ushape.errors import PlanError
from ushape.inference.backend_choice import compare_networks
from ushape.inference.backends import BACKENDS, has_compiler, installed, open_backend
from ushape.inference.backends.export import network_digest
from ushape.inference.network import prepare
from ushape.labels import LabelSpace
from ushape.models import build_model
from ushape.models.config import NetworkConfig

NORMS = ["none", "batch", "instance", "group"]


PAIRS = [
    (norm, ("same", "valid")[(index + dims) % 2], dims)
    for index, norm in enumerate(NORMS)
    for dims in (2, 3)
]


SPACE = LabelSpace(values=(0, 1), names=("background", "foreground"))


BOUND = {"fp32": 1e-4, "bf16": 0.1}


EXPORTED = [pytest.param("onnx", marks=pytest.mark.slow), "openvino"]
"""Export to ONNX takes seconds for each network."""


def network_of(dims=2, norm="batch", padding="same", seed=0, **settings):
    """A small U-Net whose norms have seen data and learned something."""
    torch.manual_seed(seed)
    widths = (4, 8, 8) if dims == 2 else (4, 8)
    config = NetworkConfig(dims=dims, widths=widths, norm=norm, padding=padding, **settings)
    network = build_model(config, 2, 3)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            spread = torch.rand(value.shape) / 2
            value.copy_(spread + 0.5 if "var" in name or "weight" in name else spread)
    return network.eval()


def tiles_for(network, batch, at_least):
    """Noise of the next legal sizes, a different one along each axis."""
    sizes = [network.legal_size(at_least)]
    while len(sizes) < network.config.dims:
        sizes.append(network.legal_size(sizes[-1] + 1))
    return torch.randn(batch, 2, *sizes, generator=torch.Generator().manual_seed(batch))


@torch.no_grad()
def check_equal(backend, network, precision="fp32", batches=(1, 3)):
    """Check that outputs equal those of the network for odd batch sizes and several tile sizes."""
    for batch, at_least in zip(batches, (8, 33), strict=True):
        tiles = tiles_for(network, batch, at_least)
        wanted, found = network(tiles), backend.logits(tiles)
        assert found.dtype == torch.float32
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() <= BOUND[precision] * wanted.abs().max().clamp(min=1)


def skip_without(*packages):
    # pytest.importorskip would import OpenVINO with its reports of use to a web service.
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package}")


def open_or_skip(name, network, **settings):
    skip_without(*BACKENDS[name].packages)
    return open_backend(name, network, **settings)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torch_backend_equals_the_network(norm, padding, dims, precision):
    network = network_of(dims, norm, padding)
    check_equal(open_backend("torch", network, precision=precision), network, precision)


@pytest.mark.parametrize(("norm", "padding", "dims"), PAIRS)
@pytest.mark.parametrize("name", EXPORTED)
def test_exported_backends_equal_the_network(name, norm, padding, dims, tmp_path):
    network = network_of(dims, norm, padding)
    check_equal(open_or_skip(name, network, folder=tmp_path), network)


@pytest.mark.parametrize(
    "settings",
    [
        {"upsampling": "bilinear", "activation": "leaky_relu"},
        {"upsampling": "nearest", "activation": "gelu", "downsampling": "average_pool"},
        {"upsampling": "bilinear_3x3", "activation": "silu", "padding": "valid"},
        {"block": "residual", "downsampling": "stride", "dropout": 0.5, "deep_supervision": 1},
        {"padding": "valid", "valid_output": "stretched"},
    ],
)
@pytest.mark.parametrize("name", EXPORTED)
def test_exported_backends_support_all_layers(name, settings, tmp_path):
    network = network_of(**settings)
    check_equal(open_or_skip(name, network, folder=tmp_path), network)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_openvino_backend_in_bf16(norm, tmp_path):
    network = network_of(norm=norm)
    backend = open_or_skip("openvino", network, folder=tmp_path, precision="bf16")
    check_equal(backend, network, "bf16")


def test_compile_backend_equals_the_network():
    if not has_compiler():
        pytest.skip("no compiler")
    torch.manual_seed(0)
    network = OneConvolution().eval()
    backend = open_backend("compile", network)
    tiles = torch.randn(1, 2, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(backend.logits(tiles), network(tiles))
    assert backend.name == "compile"


def test_compile_backend_requires_a_compiler(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(PlanError) as error:
        open_backend("compile", network_of())
    assert error.value.code == "missing_compiler"
    assert "compile" not in installed()
    assert "torch" in installed()


class OneConvolution(nn.Module):
    """Every size is legal; `channels` as given, batch norm after the convolution."""

    margin = 0

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())

    def legal_size(self, at_least):
        return max(1, at_least)

    def forward(self, x):
        return self.layers(x)


def test_prepare_folds_batch_norms_by_hand():
    # A convolution that doubles and adds 1, a norm (x - 3) / 2 * 5 + 7:
    # 4 -> 9 -> 22, so one convolution of weight 2 / 2 * 5 = 5 and bias (1 - 3) / 2 * 5 + 7 = 2.
    convolution, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0)
    network = nn.Sequential(convolution, norm)
    values = {"0.weight": 2, "0.bias": 1, "1.weight": 5, "1.bias": 7}
    values |= {"1.running_mean": 3, "1.running_var": 4}
    for name, value in values.items():
        network.state_dict()[name].fill_(value)
    folded = prepare(network)
    assert isinstance(folded[1], nn.Identity)
    assert (folded[0].weight.item(), folded[0].bias.item()) == (5, 2)
    assert folded(torch.full((1, 1, 1, 1), 4.0)).item() == 22


@pytest.mark.parametrize("name", BACKENDS)
def test_open_backend_does_not_change_the_network(name, tmp_path):
    network = network_of().train()
    before, layers = copy.deepcopy(network.state_dict()), repr(network)
    tiles = [tiles_for(network, 2, 16).numpy()]
    open_or_skip(name, network, folder=tmp_path, precision="bf16", calibration=tiles)
    assert network.training
    assert repr(network) == layers
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])
        assert value.dtype == before[key].dtype


@pytest.mark.parametrize("name", ["torch", *EXPORTED])
def test_backends_give_equal_results_in_several_threads(name, tmp_path):
    backend = open_or_skip(name, network_of(norm="instance"), folder=tmp_path)
    batches = [torch.randn(1 + i % 3, 2, 16, 16 + 4 * (i % 4)) for i in range(24)]
    one_by_one = [backend.logits(tiles) for tiles in batches]
    start = threading.Barrier(4)
    with ThreadPoolExecutor(4, initializer=start.wait) as pool:
        together = list(pool.map(backend.logits, batches))
    for alone, found in zip(one_by_one, together, strict=True):
        torch.testing.assert_close(found, alone)


def exports(monkeypatch):
    """Counts the exports from now on."""
    found, export = [], torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: found.append(1) or export(*a, **k))
    return found


def test_cached_export_is_renewed_when_the_network_changes(tmp_path, monkeypatch):
    skip_without("onnx", "onnxruntime")
    made, network = exports(monkeypatch), network_of()
    for _ in range(2):
        open_backend("onnx", network, folder=tmp_path)
    assert len(made) == 1
    with torch.no_grad():
        network.heads[0].bias += 1
    check_equal(open_backend("onnx", network, folder=tmp_path), network)
    assert len(made) == 2
    assert len(list(tmp_path.glob("onnx-*/model.onnx"))) == 2
    assert not list(tmp_path.glob(".*"))


def test_network_digest_distinguishes_networks():
    names = {
        network_digest(network)
        for network in (
            network_of(),
            network_of(seed=1),
            network_of(padding="valid"),
            network_of(activation="silu"),
            network_of().double(),
            network_of().to(torch.bfloat16),
        )
    }
    assert len(names) == 6
    assert network_digest(network_of()) in names
    assert network_digest(network_of().to(memory_format=torch.channels_last)) in names


class DependsOnBatch(OneConvolution):
    def forward(self, x):
        return super().forward(x) * len(x)  # Traced as the number 1.


class DependsOnValues(OneConvolution):
    def forward(self, x):
        return super().forward(x) * (2 if x.sum() > 0 else 1)  # No program has both branches.


@pytest.mark.parametrize(
    ("name", "network"), [("onnx", DependsOnValues), ("openvino", DependsOnBatch)]
)
def test_cached_export_removes_a_failed_export(name, network, tmp_path):
    skip_without(*BACKENDS[name].packages)
    with pytest.raises(PlanError) as error:
        open_backend(name, network(), folder=tmp_path)
    assert error.value.code == "export_failed"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "file"),
    [pytest.param("onnx", "model.onnx", marks=pytest.mark.slow), ("openvino", "model.xml")],
)
def test_exported_backends_name_a_damaged_file(name, file, tmp_path):
    network = network_of()
    open_or_skip(name, network, folder=tmp_path)
    (path,) = tmp_path.glob(f"{name}-*/{file}")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PlanError, match=file) as error:
        open_backend(name, network, folder=tmp_path)
    assert error.value.code == "export_unreadable"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_cached_export_names_an_unwritable_folder(tmp_path):
    skip_without("onnxruntime")
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(PlanError) as error:
        open_backend("onnx", network_of(), folder=tmp_path)
    assert error.value.code == "export_folder_unwritable"


def test_cached_export_refuses_a_file_as_folder(tmp_path):
    skip_without("onnx", "onnxruntime")
    path = tmp_path / "taken"
    path.write_text("")
    with pytest.raises(PlanError, match="taken") as error:
        open_backend("onnx", network_of(), folder=path)
    assert error.value.code == "export_folder_unwritable"


@pytest.mark.parametrize("name", ["torch", *EXPORTED])
def test_backends_refuse_illegal_sizes(name, tmp_path):
    backend = open_or_skip(name, network_of(), folder=tmp_path)
    with pytest.raises(PlanError, match="17"):
        backend.logits(torch.zeros(1, 2, 16, 17))


def test_open_backend_refuses_unknown_names_and_devices(tmp_path):
    network = network_of()
    with pytest.raises(PlanError, match="torch, compile, onnx") as error:
        open_backend("tensorrt", network)
    assert error.value.code == "unknown_backend"
    with pytest.raises(PlanError) as error:
        open_backend("onnx", network, device="cuda", folder=tmp_path)
    assert error.value.code == "backend_needs_cpu"
    with pytest.raises(PlanError) as error:
        open_backend("torch", nn.Linear(1, 1))
    assert error.value.code == "network_without_convolution"


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("onnx", "onnx", "onnx"),
        ("onnx", "onnxruntime", "onnx"),
        ("openvino", "openvino", "openvino"),
        ("openvino-int8", "nncf", "openvino"),
    ],
)
def test_open_backend_names_a_missing_package(name, package, extra, tmp_path, monkeypatch):
    skip_without(*(set(BACKENDS[name].packages) - {package}))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PlanError, match=rf'{package}(.|\n)*"ushape\[{extra}\]"') as error:
        open_backend(name, network_of(), folder=tmp_path)
    assert error.value.code == "missing_package"


def test_exported_backends_require_a_folder():
    skip_without("onnxruntime")
    with pytest.raises(PlanError) as error:
        open_backend("onnx", network_of())
    assert error.value.code == "missing_export_folder"


def discs(count, seed):
    """Bright discs on noise: images (count, 1, 32, 32), truth (count, 1, 32, 32)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    truth = np.zeros((count, 1, 32, 32), np.float32)
    for place in truth[:, 0]:
        for _ in range(2):
            middle, radius = rng.uniform(4, 28, 2), rng.uniform(3, 8)
            place[(y - middle[0]) ** 2 + (x - middle[1]) ** 2 < radius**2] = 1
    image = truth + 0.3 * rng.standard_normal(truth.shape).astype(np.float32)
    return image.astype(np.float32), truth


@pytest.fixture(scope="module")
def trained():
    """A network that finds discs."""
    torch.manual_seed(0)
    network = build_model(NetworkConfig(widths=(8, 16), norm="batch"), 1, 1).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    image, truth = (torch.from_numpy(array) for array in discs(64, 0))
    for step in range(40):
        own = slice(step % 4 * 16, step % 4 * 16 + 16)
        loss = nn.functional.binary_cross_entropy_with_logits(network(image[own]), truth[own])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def test_int8_backend_changes_few_pixels_of_a_trained_network(trained, tmp_path):
    tiles, truth = discs(32, 1)
    reference = open_backend("torch", trained)
    found = SPACE.probabilities(reference.logits(torch.from_numpy(tiles))).numpy() >= 0.5
    assert (found == truth).mean() > 0.98  # Else nothing would be said below.
    int8 = open_or_skip("openvino-int8", trained, folder=tmp_path, calibration=[discs(16, 0)[0]])
    difference = compare_networks(reference, int8, [tiles], SPACE)
    assert difference.tiles == 32
    assert 0 < difference.largest_probability < 1
    assert difference.changed_share < 0.005

    def not_to_be_read():
        raise AssertionError("there is a quantised network already")
        yield

    again = open_backend("openvino-int8", trained, folder=tmp_path, calibration=not_to_be_read())
    assert torch.equal(again.logits(torch.from_numpy(tiles)), int8.logits(torch.from_numpy(tiles)))


def test_int8_backend_requires_calibration_tiles(tmp_path):
    with pytest.raises(PlanError) as error:
        open_or_skip("openvino-int8", network_of(), folder=tmp_path)
    assert error.value.code == "missing_calibration_tiles"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the signal stack of Linux")
def test_signals_can_be_handled_after_openvino_networks_were_closed():
    skip_without("nncf")
    script = """
import pathlib, signal, tempfile
import numpy as np, torch
from ushape.inference.backends import open_backend
from ushape.models import build_model
from ushape.models.config import NetworkConfig

network = build_model(NetworkConfig(widths=(8, 16), norm="batch"), 1, 1).eval()
tiles = np.random.default_rng(0).random((4, 1, 64, 64), dtype=np.float32)
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    opened = open_backend("openvino-int8", network, folder=folder, calibration=[tiles])
    opened.logits(torch.from_numpy(tiles))
    again = open_backend("openvino-int8", network, folder=folder)
    del opened, again
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr


def test_openvino_backends_send_no_telemetry(tmp_path):
    skip_without("nncf")
    script = (
        "import logging, sys; before = logging.getLoggerClass()\n"
        "from ushape.inference.backends.openvino import import_silently\n"
        "assert import_silently('openvino').Core() and import_silently('nncf').quantize\n"
        "import nncf.telemetry.wrapper as wrapper\n"
        "assert isinstance(wrapper.telemetry, wrapper.NNCFTelemetryStub)\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
        "assert logging.getLoggerClass() is before\n"
    )
    environment = {key: os.environ[key] for key in os.environ if key not in ("CI", "NNCF_CI")}
    subprocess.run(
        [sys.executable, "-c", script], env=environment | {"HOME": str(tmp_path)}, check=True
    )
    assert list(tmp_path.iterdir()) == []  # Else it holds an id of this user.
