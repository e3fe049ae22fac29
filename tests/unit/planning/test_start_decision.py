"""Outcome of the trials before a training, as a file of the run."""

from codes import raises_code
from ushape.errors import RunError
from ushape.io.files import write_sealed_json
from ushape.models.config import NetworkConfig
from ushape.planning.recipe import Recipe, TrainConfig
from ushape.planning.run import Run
from ushape.planning.start_decision import (
    StartDecision,
    load_decision,
    save_decision,
    usual_weights,
)


def test_decision_takes_the_higher_dice_and_the_loaded_weights_if_equal(tmp_path):
    numbers = {"loaded_steps": 20, "usual_steps": 20, "seconds": 3.5}
    for loaded, usual, taken in ((0.5, 0.4, "loaded"), (0.4, 0.5, "usual"), (0, 0, "loaded")):
        decision = StartDecision(loaded_dice=loaded, usual_dice=usual, **numbers)
        assert decision.taken == taken
        ending = {"loaded": "the loaded weights", "usual": "random weights"}[taken]
        assert decision.text.endswith(f"from the trial with {ending}.")
        save_decision(Run(tmp_path), decision)
        assert load_decision(Run(tmp_path)) == decision
    (tmp_path / "start" / "decision.json").write_text('{"loaded_dice": 1}')
    with raises_code(RunError, "damaged_run"):
        load_decision(Run(tmp_path))


def test_decision_without_validation_foreground_takes_the_loaded_weights(tmp_path):
    numbers = {"loaded_steps": 20, "usual_steps": 20, "seconds": 3.5}
    decision = StartDecision(loaded_dice=None, usual_dice=None, **numbers)
    assert decision.taken == "loaded"
    assert "Dice" not in decision.text
    assert "no validation image has foreground" in decision.text
    save_decision(Run(tmp_path), decision)
    assert load_decision(Run(tmp_path)) == decision


def test_decision_takes_the_higher_precision_of_objects_then_the_higher_dice(tmp_path):
    numbers = {"loaded_steps": 20, "usual_steps": 20, "seconds": 3.5}
    for dice, ap, taken in (
        ((0.5, 0.4), (0.2, 0.3), "usual"),
        ((0.5, 0.4), (0.3, 0.3), "loaded"),
        ((0.4, 0.5), (0.3, 0.3), "usual"),
        ((0.4, 0.5), (0.3, None), "usual"),
    ):
        decision = StartDecision(
            loaded_dice=dice[0], usual_dice=dice[1], loaded_ap=ap[0], usual_ap=ap[1], **numbers
        )
        assert decision.taken == taken
        is_about_objects = "objects 0.2000" in decision.text or "objects 0.3000" in decision.text
        assert is_about_objects == (None not in ap)
        save_decision(Run(tmp_path), decision)
        assert load_decision(Run(tmp_path)) == decision


def test_usual_weights_of_a_network_with_a_pretrained_encoder():
    train = TrainConfig(initial_weights="random")
    network = NetworkConfig(encoder="efficientnet_lite0", encoder_weights="imagenet")
    assert usual_weights(Recipe(train=train, network=network)) == "encoder"
    assert usual_weights(Recipe(train=train)) == "random"
    numbers = {"loaded_steps": 20, "usual_steps": 20, "seconds": 3.5}
    decision = StartDecision(loaded_dice=0.4, usual_dice=0.5, initial="encoder", **numbers)
    assert decision.text.endswith("trial with the pretrained weights of the encoder.")


def test_decision_of_an_earlier_version_is_read(tmp_path):
    run = Run(tmp_path)
    run.start_decision_path.parent.mkdir()
    numbers = {"loaded_steps": 20, "usual_steps": 20, "seconds": 3.5}
    stored = {"loaded_dice": 0.4, "usual_dice": 0.5, "initial": "generated", **numbers}
    write_sealed_json(run.start_decision_path, stored)
    expected = {**stored, "initial": "synthetic_pretrained"}
    assert load_decision(run) == StartDecision(**expected)
