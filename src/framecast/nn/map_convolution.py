"""The residual convolution block of the Focal-TSMP release, the family it is compared with.

Shapes: B batch, H rows, W columns, C channels; maps are channel-last.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from framecast.nn.map_layers import channels_first, channels_last


class ConvBlock(nn.Module):
    """ReLU(LN(conv(ReLU(LN(conv x))))) + ReLU(LN(conv x)), convolutions of 3x3.

    scrambled: as in the release, where height and width change places on the way back from the norm, so that
    the second convolution and the sum read other pixels' numbers unless the map is square, and the shortcut
    is transposed even then. Only its own weights want that.
    """

    def __init__(self, channels: int, width: int, *, scrambled: bool = False) -> None:
        super().__init__()
        self.scrambled = scrambled
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm1 = nn.LayerNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.conv_shortcut = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm_shortcut = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, C) -> (B, H, W, C')
        main = self.unit(self.unit(x, self.conv1, self.norm1), self.conv2, self.norm2)
        shortcut = self.unit(x, self.conv_shortcut, self.norm_shortcut)
        if self.scrambled:  # (B, W, H, C) back to (B, H, W, C)
            shortcut = shortcut.transpose(1, 2)
        return main + shortcut

    def unit(self, x: Tensor, conv: nn.Conv2d, norm: nn.LayerNorm) -> Tensor:
        y = F.relu(norm(channels_last(conv(channels_first(x)))))
        if self.scrambled:
            batch, height, width, channels = y.shape
            y = y.reshape(batch, width, height, channels)
        return y
