import copy

import pytest
import torch

from ushape.models import build_model
from ushape.models.config import NetworkConfig
from ushape.planning.muon import Muon, hidden_kernels, orthogonalize

OPTIONS = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1, "fused": True}


@pytest.fixture
def network():
    torch.manual_seed(0)
    config = NetworkConfig(dims=2, widths=(8, 16), norm="instance")
    return build_model(config, 1, 1).to(memory_format=torch.channels_last)


def train(network, optimizer, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(2, 1, 16, 16, generator=generator)).square().mean().backward()
        optimizer.step()


def build(network, dtype=None):
    return Muon(list(network.parameters()), momentum=0.9, dtype=dtype, **OPTIONS)


def test_hidden_kernels_leave_out_first_layer_head_and_vectors(network):
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {names[id(one)] for one in hidden_kernels(list(network.parameters()))}
    kernels = {name for name, one in network.named_parameters() if one.ndim == 4}
    assert kernels - found == {"encoder.blocks.0.layers.0.weight", "heads.0.weight"}


def test_hidden_kernels_have_several_channels():
    kernels = [
        torch.nn.Parameter(torch.ones(*shape)) for shape in ((8, 8, 3), (8, 4, 3), (4, 8, 3))
    ]
    assert hidden_kernels(kernels) == []
    assert len(hidden_kernels([kernels[1], *kernels])) == 1


@pytest.mark.parametrize("shape", [(3, 16, 144), (2, 32, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalize_brings_singular_values_near_one(shape, dtype):
    matrices = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    found = orthogonalize((1000 * matrices).to(dtype)).float()
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    assert (
        torch.nn.functional.cosine_similarity(found.flatten(), (left @ right).flatten(), 0) > 0.95
    )


def test_orthogonalize_keeps_zeros():
    assert not orthogonalize(torch.zeros(1, 4, 8)).any()


def test_muon_equals_that_of_torch_for_kernels_as_matrices(network):
    ours, kernels = copy.deepcopy(network), hidden_kernels(list(network.parameters()))
    matrices = [torch.nn.Parameter(one.detach().flatten(1).clone()) for one in kernels]
    theirs = torch.optim.Muon(
        matrices, lr=0.01, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    own = hidden_kernels(list(ours.parameters()))
    optimizer = build(ours, torch.bfloat16)
    for step in range(3):
        for kernel, matrix in zip(own, matrices, strict=True):
            torch.manual_seed(step)
            matrix.grad = torch.randn(matrix.shape)
            kernel.grad = matrix.grad.view(kernel.shape).clone()
        optimizer.step()
        theirs.step()
    for kernel, matrix in zip(own, matrices, strict=True):
        torch.testing.assert_close(kernel.flatten(1), matrix, atol=1e-4, rtol=1e-3)


def test_muon_leaves_the_other_parameters_to_adamw(network):
    hidden = {id(one) for one in hidden_kernels(list(network.parameters()))}
    others = [one for one in network.parameters() if id(one) not in hidden]
    copies = [torch.nn.Parameter(one.detach().clone()) for one in others]
    optimizer, adamw = build(network), torch.optim.AdamW(copies, **OPTIONS)
    train(network, optimizer, 1)
    for one, other in zip(others, copies, strict=True):
        other.grad = one.grad
    adamw.step()
    assert all(torch.equal(one, other) for one, other in zip(others, copies, strict=True))


def test_muon_moves_kernels_as_much_as_adamw(network):
    before = copy.deepcopy(network)
    optimizer = build(network)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    train(network, optimizer, 1)
    pairs = zip(*(hidden_kernels(list(one.parameters())) for one in (network, before)), strict=True)
    moved = [(one - other).square().mean().sqrt().item() for one, other in pairs]
    assert moved == pytest.approx([0.2 * 0.01] * len(moved), rel=0.3)


def test_muon_resumes_exactly(network, tmp_path):
    optimizer = build(network)
    train(network, optimizer, 3)
    torch.save([network.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    train(network, optimizer, 3, seed=1)

    weights, state = torch.load(tmp_path / "state.pt")
    resumed = copy.deepcopy(network)
    resumed.load_state_dict(weights)
    again = build(resumed)
    again.load_state_dict(state)
    train(resumed, again, 3, seed=1)
    for one, other in zip(network.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_muon_follows_a_scheduler(network):
    optimizer = build(network)
    before = copy.deepcopy(network.state_dict())
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    train(network, optimizer, 1)
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())
