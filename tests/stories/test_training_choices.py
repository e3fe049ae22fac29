"""Settings of the training, through the command: accumulation, early stopping, precision."""

import csv

import pytest
import safetensors.numpy

PLAIN = (
    "--set=network.norm=none",
    "--set=loss.terms={cross_entropy: 1}",
    "--set=train.ema_decay=0",
    "--set=train.precision=fp32",
    "--set=train.optimizer=sgd",
    "--set=train.learning_rate=0.05",
    "--set=train.schedule=constant",
)


@pytest.fixture
def train(ushape, cells, tiny, tmp_path):
    def run(name, *settings):
        ended = ushape("train", cells, "-o", tmp_path / name, *tiny, *settings)
        assert ended.code == 0, ended.error
        rows = list(csv.DictReader((tmp_path / name / "metrics.csv").read_text().splitlines()))
        return tmp_path / name, rows

    return run


def test_accumulate_grad_batches_equals_one_large_batch(train):
    big, rows = train("big", "--epochs=1", *PLAIN, "--set=train.batch_size=4")
    small, same = train(
        "small",
        "--epochs=1",
        *PLAIN,
        "--set=train.batch_size=2",
        "--set=train.accumulate_grad_batches=2",
    )
    assert rows[-1]["step"] == same[-1]["step"] == "6"
    assert float(rows[-1]["loss"]) == pytest.approx(float(same[-1]["loss"]), abs=1e-5)
    weights = [safetensors.numpy.load_file(run / "model.safetensors") for run in (big, small)]
    for name, value in weights[0].items():
        assert value == pytest.approx(weights[1][name], abs=1e-5), name


@pytest.mark.parametrize(
    "quantity", ["validation_score", "validation_dice", "validation_loss", "training_loss"]
)
def test_patience_stops_a_training_that_does_not_improve(train, quantity):
    # At this learning rate, no later epoch is better than the first, except by chance.
    _, rows = train(
        "run",
        "--epochs=60",
        "--set=train.learning_rate=1e-12",
        "--set=train.patience=2",
        f"--set=train.monitor={quantity}",
        "--set=train.steps_per_epoch=1",
    )
    assert 3 <= len(rows) < 60


def test_precision_fp64_stores_double_weights(train):
    run, rows = train("run", "--epochs=1", "--set=train.precision=fp64")
    assert len(rows) == 1
    weights = safetensors.numpy.load_file(run / "model.safetensors")
    assert any(value.dtype == "float64" for value in weights.values())
