"""Networks as vectors: round trips, replaced normalisation, weights from a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from blindtune.errors import ModelError
from blindtune.models.networks import build_network, from_vector, shared_names, to_vector

SMALL = "test_resnet"


def statistics(model):
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("norm", ["group", "local"])
def test_a_vector_and_back(norm):
    torch.manual_seed(0)
    one, two = build_network(SMALL, 3, norm=norm), build_network(SMALL, 3, norm=norm)
    names = shared_names(one, norm)
    values = to_vector(one, names)
    assert (to_vector(two, names) != values).any()
    from_vector(two, names, values)
    np.testing.assert_array_equal(to_vector(two, names), values)
    if norm == "group":
        x = torch.randn(2, 3, 64, 64)
        torch.testing.assert_close(one(x), two(x))
    with pytest.raises(ModelError, match="values for a network"):
        from_vector(two, names, values[:-1])


def test_no_batch_statistics_are_left_or_shared():
    assert statistics(build_network(SMALL, 3, norm="local"))
    grouped = build_network(SMALL, 3, norm="group")
    assert not statistics(grouped)
    x = torch.randn(4, 3, 64, 64)
    # Nothing of one image reaches another.
    torch.testing.assert_close(grouped(x)[:1], grouped(x[:1]), atol=1e-5, rtol=1e-4)
    local = build_network(SMALL, 3, norm="local")
    kept = {id(p) for m in statistics(local) for p in m.parameters()}
    named = dict(local.named_parameters())
    assert kept
    assert not kept & {id(named[n]) for n in shared_names(local, "local")}


def test_a_replaced_normalisation_keeps_its_activation_and_scale():
    torch.manual_seed(0)
    before = build_network(SMALL, 3, norm="local")
    for m in statistics(before):
        nn.init.uniform_(m.weight, 0.5, 1.5)
    first = statistics(before)[0]
    from blindtune.models import networks

    networks._replace(before)
    group = next(m for m in before.modules() if isinstance(m, nn.GroupNorm))
    assert first.num_features % group.num_groups == 0
    torch.testing.assert_close(group.weight, first.weight)
    activations = [m for m in before.modules() if isinstance(m, nn.ReLU)]
    assert activations


@pytest.mark.parametrize("channels", [1, 3])
def test_pretrained_weights_but_for_the_head(tmp_path, channels):
    torch.manual_seed(0)
    source = build_network(SMALL, 7, norm="local").eval()
    path = tmp_path / "weights.safetensors"
    save_file(source.state_dict(), path)
    found = build_network(SMALL, 3, channels=channels, weights=path, norm="local").eval()
    grey = torch.rand(2, 1, 64, 64)
    theirs = source.forward_features(grey.repeat(1, 3, 1, 1))
    ours = found.forward_features(grey.repeat(1, channels, 1, 1))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_what_cannot_be_built(tmp_path):
    with pytest.raises(ModelError, match="no network"):
        build_network("resnet-of-mine", 3)
    with pytest.raises(ModelError, match="2 channels"):
        build_network(SMALL, 3, channels=2)
    path = tmp_path / "weights.safetensors"
    save_file({"something": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="the weights lack"):
        build_network(SMALL, 3, weights=path)
