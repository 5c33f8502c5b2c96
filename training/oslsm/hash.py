"""Few numbers spread over many weights, by a fixed draw.

Chen et al., ICML 2015, as OSLSM (Shaban et al., BMVC 2017, section 4.1) uses it. The paper's
supplement has the hash itself and is not at hand; here the places and signs are drawn evenly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Hash(nn.Module):
    """``theta_j = sign_j * z[index_j]``: a gather, which has no parameters.

    Index and sign are drawn once and stored with the weights, so that a checkpoint does not depend
    on any library's generator.

    Args:
        inputs: how many numbers there are. outputs: how many are made of them. seed: of the draw.
    """

    index: Tensor
    sign: Tensor

    def __init__(self, inputs: int, outputs: int, seed: int = 0) -> None:
        super().__init__()
        self.inputs = inputs
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("index", torch.randint(inputs, (outputs,), generator=generator))
        sign = 2.0 * torch.randint(2, (outputs,), generator=generator) - 1
        self.register_buffer("sign", sign)

    def forward(self, z: Tensor) -> Tensor:
        """``[B, inputs] -> [B, outputs]``."""
        return z[:, self.index] * self.sign

    def mean_transpose(self) -> Tensor:
        """``[inputs, outputs]``: what takes theta to the z whose hash is nearest to it: the mean of
        the entries, with their signs, that share a place. Made for a start, not for use."""
        matrix = torch.zeros(self.inputs, len(self.index))
        places = torch.arange(len(self.index))
        matrix[self.index.cpu(), places] = self.sign.cpu()
        return matrix / matrix.abs().sum(1, keepdim=True).clamp_min(1)
