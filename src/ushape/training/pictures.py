"""A few validation images in TensorBoard, the same ones after each epoch."""

from __future__ import annotations

import lightning
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger

from ushape.evaluation.figures import judge
from ushape.training.module import SegmentationModule


class ValidationPictures(lightning.Callback):
    """Each image with hits, misses and false alarms in colours of their own."""

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        assert isinstance(pl_module, SegmentationModule)
        if trainer.sanity_checking or not isinstance(trainer.logger, TensorBoardLogger):
            return
        for index, guess in pl_module.shown.items():
            sample = pl_module.validation[index]
            assert sample.classes is not None, "a validation case has a mask"
            picture = judge(sample.image, sample.classes, np.asarray(guess))
            trainer.logger.experiment.add_image(
                f"validation/{sample.case.id}", picture, trainer.current_epoch, dataformats="HWC"
            )
