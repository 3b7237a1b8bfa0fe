"""Perceptual distance: maps compared by what a network for images sees in them (Johnson et al., 2016,
https://arxiv.org/abs/1603.08155), with the features of VGG-19.

Shapes: B batch, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Width of each convolution; 0 = the largest of 2x2.
VGG19 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)
LEVEL_WEIGHTS = (8.0, 1.0, 1.0, 1.0, 1.0)  # of relu1_1, relu2_1, …, relu5_1, as in Focal-TSMP's release


class PerceptualDistance(nn.Module):
    """Mean absolute difference of the first activation of every resolution, a weighted sum over resolutions.

    Maps have one channel, which is repeated to three; as in the release it is not normalised as images are.
    The weights are those of torchvision's `vgg19` (`load_vgg19`) and are never trained.
    """

    def __init__(self, widths: tuple[int, ...] = VGG19) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in widths:
            if width:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers).requires_grad_(False)
        # (index of the layer, after it comes one that is looked at)
        pooled = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        self.read = tuple([1] + [i + 2 for i in pooled])

    def load_vgg19(self, state: Mapping[str, Tensor]) -> None:
        """Take the convolutions out of a `vgg19` state dict ("features.0.weight", …); the rest is not needed.

        Raises ValueError where one is missing or has another shape.
        """
        for key, parameter in self.named_parameters():
            if key not in state or state[key].shape != parameter.shape:
                found = tuple(state[key].shape) if key in state else "nothing"
                raise ValueError(
                    f"the weights have {found} for {key}, where {tuple(parameter.shape)} is needed; "
                    "pass the state dict of torchvision's vgg19"
                )
        self.load_state_dict({key: state[key] for key, _ in self.named_parameters()})

    def looked_at(self, maps: Tensor) -> list[Tensor]:
        """maps (B, H, W) -> activations, finest resolution first."""
        x = maps[:, None].expand(-1, 3, -1, -1)
        seen = []
        for first, last in pairwise((-1, *self.read)):
            x = self.features[first + 1 : last + 1](x)
            seen.append(x)
        return seen

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:  # (B, H, W), (B, H, W) -> ()
        pairs = zip(self.looked_at(predicted), self.looked_at(target), strict=True)
        distances = [F.l1_loss(ours, theirs.detach()) for ours, theirs in pairs]
        return torch.stack(distances) @ distances[0].new_tensor(LEVEL_WEIGHTS)
