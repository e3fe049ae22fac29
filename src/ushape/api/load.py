"""Load a trained run in Python: `model = ushape.load(run)`, then `model.predict(image)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ushape import io
from ushape.api._named_images import find_images
from ushape.api._named_runs import run_folders
from ushape.config import setting_list
from ushape.errors import DataError, RunError
from ushape.inference.predictor import Predictor
from ushape.io.files import real_path, refuse_existing_output
from ushape.io.orientation import as_stored
from ushape.planning.custom_code import allow_code
from ushape.types import Case, Grid, MaskEncoding, Pixels, Prediction, TiffMetadata


@dataclass(frozen=True)
class Result:
    """Prediction of one image, on the image's own grid."""

    mask: np.ndarray
    """(*S) in the values of the masks that the model was trained on."""

    classes: np.ndarray
    """(*S) uint8, 0: background, 1: the first class."""

    probabilities: np.ndarray
    """(K, *S) float32."""

    expected_dice: float | None
    """Dice of validation cases of this confidence, provided that the image contains an object;
    None if there were too few cases."""

    image: Path | None
    """Path of the image, if it was a file."""

    encoding: MaskEncoding

    grid: Grid | None = None
    """Position of the image in the patient, if its file contains it."""

    tiff: TiffMetadata | None = None
    orientation: int = 1
    """EXIF orientation of the image file; all arrays are turned as the image is displayed."""

    def __repr__(self) -> str:
        facts = f"image={self.image}, shape={self.mask.shape}"
        return f"Result({facts}, expected_dice={self.expected_dice})"

    def save(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write the mask completely or not at all; the suffix determines the format.

        Raises:
            RunError: if the file exists and is not to be replaced, or is the image itself.
            DataError: if masks cannot be written in this format.
        """
        target = Path(path)
        if self.image is not None and real_path(target) == real_path(self.image):
            raise RunError(
                f"The output {target} is the input image.",
                code="output_is_input",
                hint="Choose another name.",
            )
        refuse_existing_output(target, overwrite)
        place = Pixels(array=np.empty(0), grid=self.grid, tiff=self.tiff)
        is_stored = self.encoding.orientation == "stored"
        mask = as_stored(self.mask, self.orientation) if is_stored else self.mask
        io.write_mask(target, mask, self.encoding, like=place)


class Model:
    """Trained networks, ready to predict. Several threads may use a model at the same time."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor

    def __repr__(self) -> str:
        return f"Model(classes={self.class_names}, networks={len(self._predictor.members)})"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, background first."""
        return self._predictor.plan.preprocessing.space.names

    def predict(
        self, image: Path | str | np.ndarray, *, spacing_mm: Sequence[float] | None = None
    ) -> Result:
        """Predict one image: a file, or pixels with the intensities that the file would have.

        A model that reads images together with others of their group, such as neighbors in a stack,
        looks for these in the folder of the file; `predict_many` lists the folder only once.

        Args:
            spacing_mm: Spacing of an array along (y, x) or (z, y, x), for a model that resamples
                images to a common spacing. That of a file is read from the file.

        Shapes:
            image: (*S) for one channel, (C, *S), or (*S, C).

        Raises:
            DataError: if the image cannot be read, if its channels or dimensions are not those of
                the model, or if its spacing is needed and unknown.
        """
        if not isinstance(image, (str, Path, np.ndarray)):
            raise DataError(
                f"An image cannot be of type {type(image).__name__}.",
                code="not_an_image",
                hint="Pass a path, or a NumPy array: numpy.asarray(image).",
            )
        if isinstance(image, np.ndarray):
            array = self._channels_first(image)
            path, prepared = None, self._predictor.preprocess_array(array, spacing_mm)
        else:
            path = Path(image)
            prepared = self._predictor.preprocess(*self._find_group(path))
        (prediction,) = self._predictor.predict([prepared])
        return self._result(path, prediction)

    def predict_many(
        self,
        images: Iterable[Path | str] | Path | str,
        on_error: Callable[[Path, DataError], None] | None = None,
    ) -> Iterator[Result]:
        """Predict files, folders, patterns and tables, as `ushape.predict` accepts them, in order.

        The next images are read while the network computes; small ones of one size share a batch.

        Args:
            on_error: Function that is called for each image that cannot be read and is skipped;
                None: the first error ends the iteration.

        Raises:
            DataError: if an image cannot be read, and there is no `on_error`.
        """
        cases = [image.case for image in find_images(self._predictor, images)]
        for case, prediction in self._predictor.predict_many(cases):
            if not isinstance(prediction, DataError):
                yield self._result(case.image, prediction)
            elif on_error is None:
                raise prediction
            else:
                on_error(case.image, prediction)

    def _find_group(self, path: Path) -> tuple[Case, list[Case]]:
        """Return the case of a file, and all cases of its group if the model reads them."""
        if self._predictor.reads_groups and path.exists():
            cases = [one.case for one in find_images(self._predictor, path.parent)]
            place = real_path(path)
            for own in cases:
                if real_path(own.image) == place and own.page is None:
                    return own, [one for one in cases if one.group == own.group]
        return Case(id=path.stem, image=path), []

    def _channels_first(self, image: np.ndarray) -> np.ndarray:
        """Return an array of any accepted form as (C, *S)."""
        plan = self._predictor.plan
        channels, dims = plan.preprocessing.channels, plan.image_dims
        if image.dtype.kind not in "buif" or 0 in image.shape:
            raise DataError(
                f"The array has type {image.dtype} and shape {image.shape}.",
                code="not_an_image",
                hint="Pass an array of numbers with at least one pixel.",
            )
        image = image.astype(np.uint8) if image.dtype == bool else np.asarray(image)
        if image.ndim == dims and channels == 1:
            return image[None]
        if image.ndim == dims + 1 and image.shape[0] == channels:
            return image
        if image.ndim == dims + 1 and image.shape[-1] == channels:
            return np.ascontiguousarray(np.moveaxis(image, -1, 0))
        raise DataError(
            f"The array has shape {image.shape}; the model reads {channels} channels in {dims}D.",
            code="array_shape_mismatch",
            hint=f"Pass it as ({channels}, {'y, x' if dims == 2 else 'z, y, x'}).",
        )

    def _result(self, image: Path | None, prediction: Prediction) -> Result:
        source = prediction.source if image else None
        return Result(
            mask=self._predictor.codes_of(prediction.classes),
            classes=prediction.classes,
            probabilities=prediction.probabilities,
            expected_dice=self._predictor.expected_dice(prediction),
            image=image,
            encoding=self._predictor.plan.encoding,
            grid=source.grid if source else None,
            tiff=source.tiff if source else None,
            orientation=source.orientation if source else 1,
        )


def load(
    run: Path | str | Sequence[Path | str],
    *,
    device: str = "auto",
    backend: str = "torch",
    settings: Iterable[str] = (),
    recipe: str | None = None,
) -> Model:
    """Load a trained model; the arguments are those of `predict`.

    Raises:
        RunError: if a folder is not a run, or has no weights.
        PlanError: if the device or the backend is missing, or the runs have different classes.
    """
    allow_code(recipe)
    chosen = setting_list(settings)
    return Model(Predictor.open(run_folders(run), device, backend=backend, settings=chosen))
