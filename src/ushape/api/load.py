"""A trained run in Python: `model = ushape.load(run)`; `model.predict(image)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ushape import io
from ushape.api.predict import inputs_for, run_folders
from ushape.data.preprocessing import by_group
from ushape.errors import DataError, RunError
from ushape.inference.predictor import Predictor
from ushape.planning.custom_code import allow_code
from ushape.types import Case, MaskEncoding, Prediction


@dataclass(frozen=True)
class Result:
    """What a model says about one image, on the image's own grid."""

    mask: np.ndarray
    """(*S) in the values of the masks that the model was trained on."""

    classes: np.ndarray
    """(*S) uint8, 0: background, 1: the first class."""

    probabilities: np.ndarray
    """(K, *S) float32."""

    expected_dice: float | None
    """What validation cases of this confidence had, if there is something to find; None: there
    were too few of them to say."""

    image: Path | None
    """The file, where it was one."""

    encoding: MaskEncoding

    def save(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Writes the mask, whole or not at all; the suffix decides the format.

        Raises:
            RunError: the file exists, and is not to be replaced; or it is the image itself.
            DataError: a format that masks cannot be written in.
        """
        target = Path(path)
        if self.image is not None and target.resolve() == self.image.resolve():
            raise RunError(f"{target} is the image itself.", hint="Choose another name.")
        if target.exists() and not overwrite:
            raise RunError(f"{target} exists.", hint="overwrite=True replaces it.")
        io.write_mask(Path(path), self.mask, self.encoding, like=self.image)


class Model:
    """Trained networks, ready to predict. Several threads may ask at once."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor

    @property
    def class_names(self) -> tuple[str, ...]:
        """Background first."""
        return self._predictor.plan.preprocessing.space.names

    def predict(self, image: Path | str | np.ndarray) -> Result:
        """One image: a file, or pixels with the intensities that the file would have.

        Shapes:
            image: (*S) for one channel, (C, *S), or (*S, C).

        Raises:
            DataError: unreadable, or other channels or dimensions than the model's.
        """
        if not isinstance(image, (str, Path, np.ndarray)):
            raise DataError(
                f"An image of type {type(image).__name__}.",
                hint="Give a path, or a NumPy array: numpy.asarray(image).",
            )
        if isinstance(image, np.ndarray):
            return self._result(None, self._predictor.predict_array(self._channels_first(image)))
        path = Path(image)
        return self._result(path, self._predictor.predict(Case(id=path.stem, image=path)))

    def predict_many(
        self,
        images: Iterable[Path | str] | Path | str,
        *,
        on_error: Callable[[Path, DataError], None] | None = None,
    ) -> Iterator[Result]:
        """Files, folders, patterns and tables as `ushape.predict` takes them, one after another.

        The next ones are read while the network computes; small ones of one size share a batch.

        Args:
            on_error: Is told of each image that cannot be read, which is left out; None: the
                first of them ends the iteration.

        Raises:
            DataError: the first image that cannot be read, if nobody is to be told.
        """
        found = inputs_for(self._predictor, images)
        groups = by_group([one.case for one in found])
        requests = ((one.case, one.case, groups[one.case.group]) for one in found)
        for case, prediction in self._predictor.predict_many(requests):
            if not isinstance(prediction, DataError):
                yield self._result(case.image, prediction)
            elif on_error is None:
                raise prediction
            else:
                on_error(case.image, prediction)

    def _channels_first(self, image: np.ndarray) -> np.ndarray:
        """(C, *S) of whatever form."""
        plan = self._predictor.plan
        channels, dims = plan.preprocessing.channels, plan.recipe.network.dims
        if image.dtype.kind not in "buif" or 0 in image.shape:
            raise DataError(
                f"An array of {image.dtype} of shape {image.shape}.",
                hint="Give numbers, at least one pixel of them.",
            )
        image = image.astype(np.uint8) if image.dtype == bool else np.asarray(image)
        if image.ndim == dims and channels == 1:
            return image[None]
        if image.ndim == dims + 1 and image.shape[0] == channels:
            return image
        if image.ndim == dims + 1 and image.shape[-1] == channels:
            return np.ascontiguousarray(np.moveaxis(image, -1, 0))
        raise DataError(
            f"An array of shape {image.shape}; the model reads {channels} channels of {dims}D.",
            hint=f"Give it as ({channels}, {'y, x' if dims == 2 else 'z, y, x'}).",
        )

    def _result(self, image: Path | None, prediction: Prediction) -> Result:
        return Result(
            mask=self._predictor.codes_of(prediction.classes),
            classes=prediction.classes,
            probabilities=prediction.probabilities,
            expected_dice=self._predictor.expected_dice(prediction),
            image=image,
            encoding=self._predictor.plan.encoding,
        )


def load(
    run: Path | str | Sequence[Path | str],
    *,
    device: str = "auto",
    backend: str = "torch",
    settings: Iterable[str] = (),
    recipe: str | None = None,
) -> Model:
    """A trained model; the arguments are those of `predict`.

    Raises:
        RunError: not a run, or one without weights.
        PlanError: the device or the backend is not there; runs of other classes.
    """
    allow_code(recipe)
    folders = run_folders(run)
    settings = (settings,) if isinstance(settings, str) else tuple(settings)
    return Model(Predictor.open(folders, device, backend=backend, settings=settings))
