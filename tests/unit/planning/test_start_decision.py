"""Outcome of the trials before a training, as a file of the run."""

from codes import raises_code
from ushape.errors import RunError
from ushape.planning.run import Run
from ushape.planning.start_decision import StartDecision, load_decision, save_decision


def test_decision_takes_the_higher_dice_and_the_loaded_weights_if_equal(tmp_path):
    numbers = {"loaded_steps": 20, "random_steps": 20, "seconds": 3.5}
    for loaded, random, taken in ((0.5, 0.4, "loaded"), (0.4, 0.5, "random"), (0, 0, "loaded")):
        decision = StartDecision(loaded_dice=loaded, random_dice=random, **numbers)
        assert decision.taken == taken
        ending = {"loaded": "the loaded weights", "random": "random weights"}[taken]
        assert decision.text.endswith(f"from the trial with {ending}.")
        save_decision(Run(tmp_path), decision)
        assert load_decision(Run(tmp_path)) == decision
    (tmp_path / "start" / "decision.json").write_text('{"loaded_dice": 1}')
    with raises_code(RunError, "damaged_run"):
        load_decision(Run(tmp_path))
