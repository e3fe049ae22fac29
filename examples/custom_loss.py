"""Train with a loss function of your own: the focal Tversky loss.

    python examples/custom_loss.py out --epochs 20

The same recipe works on the command line, where it is named by its file and function:

    ushape train DATA --recipe examples/custom_loss.py:focal_tversky
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor, nn

import ushape
from ushape.labels import LabelSpace
from ushape.losses import LossConfig
from ushape.planning.recipe import Recipe


class FocalTverskyLoss(nn.Module):
    """Tversky loss to the power of gamma, averaged over the foreground classes.

    Args:
        space: Label space; determines sigmoid or softmax, and which classes are foreground.
        alpha: Cost of a false positive pixel.
        beta: Cost of a false negative pixel.
        gamma: Exponent; values below 1 give classes with small errors more weight.

    Shapes:
        logits: (B, K, *S), raw scores.
        target: (B, K, *S), 0 to 1.
        weight: (B, 1, *S); 0 ignores the pixel.
        returns: scalar in [0, 1].

    Source:
        Abraham, Khan 2019, arXiv 1810.07842.
    """

    def __init__(
        self, space: LabelSpace, alpha: float = 0.3, beta: float = 0.7, gamma: float = 0.75
    ):
        super().__init__()
        self.space, self.alpha, self.beta, self.gamma = space, alpha, beta, gamma

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        counted = (weight > 0).float()
        probabilities = self.space.probabilities(logits.float()) * counted
        target = target * counted
        axes = [0, *range(2, logits.ndim)]  # All but the class.

        found = (probabilities * target).sum(axes)
        invented = (probabilities * (counted - target)).sum(axes)
        missed = ((counted - probabilities) * target).sum(axes)
        errors = self.alpha * invented + self.beta * missed
        # One pixel is added, so that a class without any pixel costs nothing.
        loss = (errors / (found + errors + 1)).clamp(min=1e-7)  # x^0.75 has no gradient at 0.
        return loss[self.space.foreground].pow(self.gamma).mean()


def focal_tversky() -> Recipe:
    """Return a recipe with this loss; everything else is planned from the data."""
    return Recipe(loss=LossConfig(terms={FocalTverskyLoss: 1.0, "cross_entropy": 0.5}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="new folder for everything that is written")
    parser.add_argument("--data", type=Path, help="folder of images and masks (default: generated)")
    parser.add_argument("--count", type=int, default=48, help="number of generated images")
    parser.add_argument("--epochs", type=int, default=20, help="number of epochs")
    parser.add_argument("--set", action="append", default=[], help="recipe setting, key=value")
    arguments = parser.parse_args()

    data = arguments.data or ushape.example(arguments.output / "cells", count=arguments.count)
    run = ushape.train(
        data,
        output=arguments.output / "run",
        recipe=f"{__file__}:focal_tversky",
        epochs=arguments.epochs,
        settings=arguments.set,
    )
    print(run.summary.verdict)

    # Prediction needs the network, but not the loss, so it does not need this file.
    result = ushape.load(run.folder).predict(next((Path(data) / "images").iterdir()))
    print(f"{(result.mask > 0).mean():.0%} of {result.image} is foreground.")


if __name__ == "__main__":
    main()
