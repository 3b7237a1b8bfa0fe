"""ConvLSTM: an LSTM in every cell, and what it may see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import framecast as fc


def small(**config: Any) -> Any:
    torch.manual_seed(0)
    return fc.create_model("convlstm", **{"in_channels": 3, "width": 4} | config).eval()


def test_with_a_kernel_of_one_every_cell_is_an_lstm() -> None:
    model, lstm = small(kernel_size=1), nn.LSTM(3, 4, num_layers=2, batch_first=True)
    ours_in_theirs = (0, 1, 3, 2)  # i, f, o, g -> i, f, g, o
    with torch.no_grad():
        for index, layer in enumerate(model.layers):
            for conv, name in ((layer.conv_x, "weight_ih"), (layer.conv_h, "weight_hh")):
                weight = conv.weight.reshape(4, 4, -1)[list(ours_in_theirs)]
                getattr(lstm, f"{name}_l{index}").copy_(weight.flatten(0, 1))
            getattr(lstm, f"bias_ih_l{index}").copy_(
                layer.conv_x.bias.reshape(4, 4)[list(ours_in_theirs)].flatten()
            )
            getattr(lstm, f"bias_hh_l{index}").zero_()
        x = torch.randn(2, 3, 6, 5, 7)
        answer = model(x)
        cell, _ = lstm(x[:, :, :, 3, 2].transpose(1, 2))
        assert_close(answer[:, :, 3, 2], model.head(cell[:, -1, :, None, None])[..., 0, 0])


def test_what_a_cell_sees_grows_with_the_steps() -> None:
    """One layer, kernel 3: a change t steps back reaches t + 1 cells."""
    model, x = small(num_layers=1), torch.randn(1, 3, 4, 15, 15)
    with torch.no_grad():
        for back in range(4):
            other = x.clone()
            other[0, :, 3 - back, 7, 7] += 1.0
            changed = (model(other) - model(x))[0, 0].abs() > 0
            reach = torch.zeros(15, 15, dtype=torch.bool)
            reach[6 - back : 9 + back, 6 - back : 9 + back] = True
            assert not changed[~reach].any()
            assert changed[7, 6 - back]


def test_settings_and_inputs_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="kernel_size must be odd, got 4"):
        small(kernel_size=4)
    with pytest.raises(ValueError, match="at least one of each"):
        small(num_layers=0)
    with pytest.raises(ValueError, match=r"reads \(B, 3, T, H, W\)"):
        small()(torch.zeros(1, 4, 2, 5, 5))
