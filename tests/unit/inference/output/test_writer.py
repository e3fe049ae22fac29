import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from codes import raises_code
from dicoms import SLICES, STUDY, save_series
from ome_zarrs import save_image
from ushape import io
from ushape.api.load import Result
from ushape.data.inputs import Input
from ushape.errors import ConfigError, DataError, RunError
from ushape.inference import band_separation
from ushape.inference.output import OutputConfig, writer
from ushape.inference.output.manifest import MANIFEST_FILE
from ushape.inference.output.streamed_objects import check_streamed_objects, settings_for_bands
from ushape.inference.output.writer import IMAGES_TABLE, PredictionWriter, _as_stored
from ushape.inference.separation import SEPARATED
from ushape.inference.streaming import StreamedPrediction
from ushape.instances.label import ObjectConfig
from ushape.io import ome_zarr
from ushape.io.names import tells_names_apart
from ushape.io.orientation import as_displayed
from ushape.io.streaming import open_bands
from ushape.labels import LabelSpace
from ushape.types import Case, Grid, MaskEncoding, Pixels, Prediction

CLASSES = np.array([[0, 1, 1], [0, 0, 0]], np.uint8)
PREDICTION = Prediction(
    probabilities=np.where(CLASSES, 0.9, 0.2).astype(np.float32)[None],
    classes=CLASSES,
    confidence=0.75,
    source=Pixels(array=np.zeros((1, 2, 3), np.uint8)),
)


def predictor_of(*values, dims=2):
    names = ("background", *(f"class {value}" for value in values[1:]))
    space = LabelSpace(values=values, names=names)
    return SimpleNamespace(
        plan=SimpleNamespace(
            preprocessing=SimpleNamespace(space=space),
            recipe=SimpleNamespace(predict=SimpleNamespace(objects=ObjectConfig())),
            encoding=MaskEncoding(),
            image_dims=dims,
        ),
        codes_of=space.values_of,
        expected_dice=lambda prediction: 0.5,
        joins_objects=False,
        separates=False,
        reads_groups=False,
    )


def inputs_of(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        io.write_rgb(folder / name, np.zeros((2, 3), np.uint8))
    return [Input(case=Case(id=name, image=folder / name), below=Path(name)) for name in names]


def write_all(inputs, predictor=None, made_by=None, **settings):
    config = OutputConfig(**settings)
    predictor = predictor or predictor_of(0, 255)
    with PredictionWriter.open(config, predictor, inputs, made_by or {}) as writer:
        todo = [image for image in inputs if not writer.is_done(image)]
        return [writer.write(image, PREDICTION) for image in todo]


def test_prediction_writer_writes_masks_and_a_table(tmp_path):
    inputs = inputs_of(tmp_path / "in", "sub/a.png")
    (written,) = write_all(inputs, folder=tmp_path / "out", table=True)
    assert written.path == tmp_path / "out/sub/a.png"
    assert written.pixels == 6
    assert io.read_mask(written.path).codes.tolist() == [[0, 255, 255], [0, 0, 0]]
    header, row = (tmp_path / "out" / IMAGES_TABLE).read_text().splitlines()
    assert header == "image,class,objects,area_px,area_mm2,share,confidence,expected_dice"
    assert row.startswith("sub/a.png,class 255,1,2,,0.333")
    assert row.endswith(",0.75,0.5")


def test_prediction_writer_writes_a_full_table_and_coco(tmp_path):
    inputs = inputs_of(tmp_path / "in", "sub/a.png")
    asked = {"folder": tmp_path / "out", "table": True, "contours": "coco"}
    write_all(inputs, **asked, columns="full")
    header, row = (tmp_path / "out/sub/a_objects.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert (cells["area_px"], float(cells["orientation_deg"])) == ("2", 0)
    assert (cells["mean_intensity"], cells["solidity"]) == ("0.0", "1.0")
    assert cells["axis_major_mm"] == ""
    found = json.loads((tmp_path / "out/sub/a_coco.json").read_text())
    assert found["images"][0]["file_name"] == "sub/a.png"
    assert found["annotations"][0]["segmentation"] == [[1, 0, 3, 0, 3, 1, 1, 1]]
    # Other columns are another call.
    with raises_code(RunError, "output_exists"):
        write_all(inputs, **asked)


def test_prediction_writer_refuses_coco_for_volumes(tmp_path):
    inputs = inputs_of(tmp_path / "in", "a.png")
    with raises_code(ConfigError, "coco_unsupported"):
        write_all(inputs, predictor_of(0, 255, dims=3), folder=tmp_path / "o", contours="coco")


def test_prediction_writer_continues_an_equal_call(tmp_path):
    inputs = inputs_of(tmp_path / "in", "a.png", "b.png")
    write_all(inputs[:1], folder=tmp_path / "out")
    assert [one.path.name for one in write_all(inputs, folder=tmp_path / "out")] == ["b.png"]


def test_prediction_writer_keeps_existing_outputs(tmp_path):
    inputs = inputs_of(tmp_path / "in", "a.png")
    write_all(inputs, folder=tmp_path / "out")
    with raises_code(RunError, "output_exists"):
        write_all(inputs, made_by={"weights": "others"}, folder=tmp_path / "out")
    with raises_code(RunError, "output_is_input"):
        write_all(inputs, folder=tmp_path / "in")
    write_all(inputs, made_by={"weights": "others"}, folder=tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("names", [("a.png", "A.png"), ("\u00e9.png", "e\u0301.png")])
def test_names_that_the_disk_takes_for_the_same_are_refused(tmp_path, monkeypatch, names):
    inputs = [
        one for number, name in enumerate(names) for one in inputs_of(tmp_path / str(number), name)
    ]
    monkeypatch.setattr(writer, "tells_names_apart", lambda folder: False)
    with raises_code(DataError, "equal_output_names"):
        write_all(inputs, folder=tmp_path / "out")


def test_image_of_a_name_that_the_disk_takes_for_that_of_a_mask_is_kept(tmp_path, monkeypatch):
    (image,) = inputs_of(tmp_path / "in", "A.png")
    monkeypatch.setattr(writer, "tells_names_apart", lambda folder: False)
    with raises_code(RunError, "output_is_input"):
        write_all([replace(image, below=Path("a.png"))], folder=tmp_path / "in")


@pytest.mark.skipif(not tells_names_apart(Path.cwd()), reason="this disk ignores case")
def test_names_that_the_disk_tells_apart_are_written(tmp_path):
    inputs = inputs_of(tmp_path / "in", "a.png", "A.png")
    assert len(write_all(inputs, folder=tmp_path / "out")) == 2


def test_prediction_writer_refuses_equal_output_names(tmp_path):
    inputs = inputs_of(tmp_path / "in", "a.png", "a.jpg")
    with raises_code(DataError, "equal_output_names"):
        write_all(inputs, folder=tmp_path / "out")
    inputs = inputs_of(tmp_path / "in", "x/a.png", "y/a.png")
    with raises_code(DataError, "equal_output_names"):
        write_all(inputs, folder=None, submission=tmp_path / "rows.csv")


@pytest.mark.parametrize("predictor", [predictor_of(0, 1, 2), predictor_of(0, 1, dims=3)])
def test_prediction_writer_refuses_run_lengths_of_several_classes_and_volumes(predictor, tmp_path):
    with raises_code(ConfigError, "run_lengths_unsupported"):
        write_all([], predictor, folder=None, submission=tmp_path / "rows.csv")


def test_prediction_writer_writes_run_lengths(tmp_path):
    write_all(inputs_of(tmp_path / "in", "a.png"), folder=None, submission=tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text() == "img,rle_mask\na.png,2 2\n"


def test_prediction_writer_refuses_a_link_out_of_its_folder(tmp_path):
    inputs = inputs_of(tmp_path / "in", "sub/a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    with raises_code(RunError, "output_outside"):
        write_all(inputs, folder=tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


STORED = np.arange(6, dtype=np.uint8).reshape(2, 3)


def test_prediction_is_turned_back_to_the_stored_pixels():
    shown = as_displayed(STORED, 6)
    prediction = Prediction(
        probabilities=shown[None].astype(np.float32),
        classes=shown,
        source=Pixels(array=shown[None], orientation=6),
    )
    turned = _as_stored(prediction)
    assert (turned.classes == STORED).all()
    assert (turned.probabilities == STORED).all()
    assert turned.source is not None
    assert (turned.source.array == STORED).all()


def test_saved_result_has_the_orientation_of_the_training_masks(tmp_path):
    shown = as_displayed(STORED, 6)
    for orientation, expected in (("displayed", shown), ("stored", STORED)):
        result = Result(
            mask=shown,
            classes=shown,
            probabilities=shown[None].astype(np.float32),
            expected_dice=None,
            image=None,
            encoding=MaskEncoding(orientation=orientation),
            orientation=6,
        )
        result.save(tmp_path / f"{orientation}.png")
        assert (io.read(tmp_path / f"{orientation}.png").array[0] == expected).all()
        with Image.open(tmp_path / f"{orientation}.png") as image:
            assert 274 not in image.getexif()


def test_prediction_writer_places_objects_and_uncertainty_of_volumes(tmp_path):
    grid = Grid(
        shape=(2, 2, 3),
        spacing_mm=(5.0, 0.7, 0.7),
        origin_mm=(1.0, 2.0, 3.0),
        direction=(0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    )
    classes = np.array([CLASSES, CLASSES])
    source = Pixels(array=np.zeros((1, 2, 2, 3), np.uint8), spacing_mm=grid.spacing_mm, grid=grid)
    prediction = replace(
        PREDICTION,
        classes=classes,
        probabilities=np.stack([PREDICTION.probabilities] * 2, axis=1),
        source=source,
    )
    predictor = predictor_of(0, 1, dims=3)
    predictor.plan.encoding = MaskEncoding(suffix=".nii.gz")
    inputs = inputs_of(tmp_path / "in", "a.png")
    config = OutputConfig(folder=tmp_path / "out", instances=True, uncertainty=True, table=True)
    with PredictionWriter.open(config, predictor, inputs, {}) as writer:
        writer.write(inputs[0], prediction)
    for name in ("a", "a_instances", "a_uncertainty"):
        found = io.read(tmp_path / "out" / f"{name}.nii.gz")
        assert np.allclose(found.grid.matrix, grid.matrix, atol=1e-5)
    # An interrupted call that wrote TIFF files is another call.
    stated = json.loads((tmp_path / "out" / MANIFEST_FILE).read_text().splitlines()[0])
    assert stated["made_by"]["outputs"]["instances"] == "_instances.nii.gz"
    labels = io.read_mask(tmp_path / "out/a_instances.nii.gz").codes
    assert labels.tolist() == classes.tolist()
    header, row = (tmp_path / "out/a_objects.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    # Four voxels of 5 x 0.7 x 0.7 mm.
    assert float(cells["volume_mm3"]) == pytest.approx(4 * 2.45)


@pytest.mark.parametrize(
    ("stated", "joins", "written"),
    [(None, True, True), (None, False, False), (False, True, False), (True, False, True)],
)
def test_prediction_writer_adds_instances_if_masks_join_objects(stated, joins, written, tmp_path):
    predictor = predictor_of(0, 255)
    predictor.joins_objects = joins
    inputs = inputs_of(tmp_path / "in", "a.png")
    numbers = np.array([[0, 1, 2], [0, 0, 0]], np.int32)
    config = OutputConfig(folder=tmp_path / "out", instances=stated)
    with PredictionWriter.open(config, predictor, inputs, {}) as writer:
        writer.write(inputs[0], replace(PREDICTION, labels=numbers))
        # They are written for images larger than memory, too, which then keep the distance.
        assert writer.only_whole == []
        assert not writer.prefers_whole
        assert writer.keeps_distance == written
    path = tmp_path / "out/a_instances.tif"
    assert path.exists() == written
    if written:
        assert io.read_mask(path).codes.tolist() == numbers.tolist()
    assert io.read_mask(tmp_path / "out/a.png").codes.tolist() == [[0, 255, 255], [0, 0, 0]]


def test_run_lengths_alone_add_no_instances(tmp_path):
    predictor = predictor_of(0, 255)
    predictor.joins_objects = True
    inputs = inputs_of(tmp_path / "in", "a.png")
    write_all(inputs, predictor, folder=None, submission=tmp_path / "x.csv")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["x.csv"]


def test_prediction_writer_writes_dicom_segmentations(tmp_path):
    pytest.importorskip("highdicom")
    save_series(tmp_path / "p1", **STUDY)
    classes = np.random.default_rng(0).integers(0, 2, SLICES.shape, dtype=np.uint8)
    prediction = replace(
        PREDICTION,
        classes=classes,
        probabilities=classes[None].astype(np.float32),
        source=io.read(tmp_path / "p1"),
    )
    predictor = predictor_of(0, 1, dims=3)
    predictor.plan.encoding = MaskEncoding(suffix=".nii.gz")
    image = Input(case=Case(id="p1", image=tmp_path / "p1"), below=Path("p1"))
    config = OutputConfig(folder=tmp_path / "out", dicom_seg=True)
    with PredictionWriter.open(config, predictor, [image], {}) as writer:
        writer.write(image, prediction)
    (path,) = (tmp_path / "out").glob("*.dcm")
    assert (io.read_mask(path).codes == classes).all()
    assert io.dicom.segment_names(path) == {1: "class 1"}


def streaming_predictor(**changes):
    predictor = predictor_of(0, 255)
    predictor.tuning = SimpleNamespace(rule=SimpleNamespace(cleans=False))
    for name, value in changes.items():
        setattr(predictor, name, value)
    return predictor


def streamed(image, cut_parts=()):
    bands = iter([(np.zeros((1, 2, 3), np.float32), CLASSES, None)])
    return StreamedPrediction(open_bands(image.case.image), bands, list(cut_parts))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_outputs_of_a_former_call_do_not_stay_beside_a_streamed_mask(suffix, tmp_path):
    predictor = streaming_predictor(joins_objects=True)
    predictor.plan.encoding = MaskEncoding(suffix=suffix)
    inputs, out = inputs_of(tmp_path / "in", "a.png"), tmp_path / "out"
    write_all(inputs, predictor, folder=out)
    assert (out / "a_instances.tif").exists()
    config = OutputConfig(folder=out, overwrite=True)
    with PredictionWriter.open(config, predictor, inputs, {"weights": 2}) as writer:
        written = writer.write_streamed(inputs[0], streamed(inputs[0], [2, 1]))
    assert written.path == out / "a.tif"
    assert written.cut_parts == 3
    names = [path.name for path in out.iterdir() if path.name[0] != "."]
    assert sorted(names) == ["a.tif", "a_instances.tif"]
    with PredictionWriter.open(OutputConfig(folder=out), predictor, inputs, {"weights": 2}) as one:
        assert one.is_done(inputs[0])
        assert one.mask_path(inputs[0]) == out / "a.tif"


def zarr_input(folder, name="x.zarr"):
    save_image(folder / name, (2, 3), "yx", levels=1)
    return Input(case=Case(id=name, image=folder / name), below=Path(name))


def test_images_without_label_images_fail_by_themselves(tmp_path):
    good, bad = zarr_input(tmp_path), zarr_input(tmp_path, "bad.zarr")
    (bad.case.image / ".zattrs").write_text("{")
    (tiff,) = inputs_of(tmp_path, "a.png")
    config = OutputConfig(folder=tmp_path / "out", zarr_labels=True)
    predictor = streaming_predictor()
    with PredictionWriter.open(config, predictor, [bad, tiff, good], {}) as writer:
        for image in (bad, tiff):
            with raises_code(DataError, "not_ome_zarr"):
                writer.check(image)
        writer.check(good)
        writer.write(good, PREDICTION)
    assert (ome_zarr.read(good.case.image / "labels/ushape_classes").array == CLASSES).all()


def test_label_images_of_another_call_are_replaced_only_with_overwrite(tmp_path):
    image, out = zarr_input(tmp_path), tmp_path / "out"
    predictor = streaming_predictor()

    def call(made_by, folder, stops=False, overwrite=False):
        config = OutputConfig(folder=folder, zarr_labels=True, overwrite=overwrite)
        with PredictionWriter.open(config, predictor, [image], {"weights": made_by}) as writer:
            if stops:
                writer._begin(image)
            else:
                writer.write(image, PREDICTION)

    call(1, out, stops=True)
    call(2, tmp_path / "other")
    with raises_code(RunError, "output_exists"):  # Although the first call has begun it.
        call(1, out)
    call(1, out, overwrite=True)
    (out / MANIFEST_FILE).unlink()
    call(1, out, stops=True, overwrite=True)
    call(1, out)  # Its own ones are replaced when it is continued.


@pytest.mark.parametrize(
    ("how", "needed"),
    [
        (ObjectConfig(), []),
        (ObjectConfig(separation="distance_transform"), ["predict.objects.separation=none"]),
        (
            ObjectConfig(border_class=1, max_hole_size_px=3),
            ["predict.objects.border_class=null", "predict.objects.max_hole_size_px=0"],
        ),
    ],
)
def test_settings_that_need_whole_images_for_label_images_are_named(how, needed, tmp_path):
    predictor = streaming_predictor()
    predictor.plan.recipe.predict.objects = how
    assert settings_for_bands(predictor) == needed
    config = OutputConfig(folder=tmp_path, zarr_labels=True)
    writer = PredictionWriter(config, predictor, None, None)
    assert writer.prefers_whole == bool(needed)
    if needed:
        with pytest.raises(DataError) as caught:
            check_streamed_objects(Path("x.zarr"), predictor)
        assert all(setting in caught.value.hint for setting in needed)
    else:
        check_streamed_objects(Path("x.zarr"), predictor)


@pytest.mark.parametrize("most", [1, 2])
def test_metadata_of_label_images_state_the_classes_of_few_objects(most, monkeypatch, tmp_path):
    monkeypatch.setattr("ushape.inference.output.zarr_labels.MAX_STATED", most)
    image = zarr_input(tmp_path)
    classes = np.array([[1, 0, 2], [1, 0, 2]], np.uint8)
    config = OutputConfig(folder=tmp_path / "out", zarr_labels=True)
    predictor = streaming_predictor()
    predictor.plan.preprocessing.space = predictor_of(0, 1, 2).plan.preprocessing.space
    prediction = replace(PREDICTION, classes=classes, probabilities=np.zeros((3, 2, 3), np.float32))
    with PredictionWriter.open(config, predictor, [image], {}) as writer:
        writer.write(image, prediction)
    labels = image.case.image / "labels"
    stated = json.loads((labels / "ushape_objects/.zattrs").read_text())["image-label"]
    properties = [
        {"label-value": 1, "class": "class 1"},
        {"label-value": 2, "class": "class 2"},
    ]
    assert stated.get("properties") == (properties if most == 2 else None)


def test_label_images_of_a_volume_with_cut_objects_are_complete(monkeypatch, tmp_path):
    monkeypatch.setattr(band_separation, "MAX_OPEN_PX", 200)
    monkeypatch.setattr(band_separation, "free_memory_bytes", lambda: 0)
    path, shape = tmp_path / "x.zarr", (20, 8, 8)
    save_image(path, shape, "zyx", levels=1)
    image = Input(case=Case(id="x", image=path), below=Path("x.zarr"))
    space = replace(predictor_of(0, 255, dims=3).plan.preprocessing.space, has_distance=True)
    predictor = streaming_predictor(separates=True, objects=SEPARATED)
    predictor.plan.image_dims, predictor.plan.encoding = 3, MaskEncoding(suffix=".tif")
    predictor.plan.preprocessing.space = space
    classes = np.zeros(shape, np.uint8)
    classes[:, :3, :3] = 1  # Longer than the 3 planes that may wait.
    distance = classes.astype(np.float32)
    bands = (
        (np.zeros((1, 2, 8, 8), np.float32), classes[row : row + 2], distance[row : row + 2])
        for row in range(0, 20, 2)
    )
    config = OutputConfig(folder=tmp_path / "out", zarr_labels=True)
    with PredictionWriter.open(config, predictor, [image], {}) as writer:
        written = writer.write_streamed(image, StreamedPrediction(open_bands(path), bands))
    assert written.cut_parts > 0
    found = ome_zarr.read(path / "labels/ushape_classes").array[0]
    numbers = ome_zarr.read(path / "labels/ushape_objects").array[0]
    assert np.array_equal(found > 0, numbers > 0)
    assert numbers.max() == written.cut_parts + 1
