"""`ushape plan` shows what training would do, and its file is what training does."""

import json


def test_plan_is_explained_written_edited_and_run(ushape, cells, tiny, tmp_path):
    plan = tmp_path / "plan.json"
    ended = ushape("plan", cells, "--epochs", 1, *tiny, "--explain", "-o", plan)
    assert ended.code == 0, ended.error
    for part in ("Network: U-Net", "evidence: ", "alternative: ", "rule: "):
        assert part in ended.output
    ended = ushape("plan", cells, "--epochs", 1, *tiny, "-o", plan)
    assert (ended.code, ended.error_code) == (2, "output_exists")

    values = json.loads(plan.read_text())
    values["recipe"]["train"]["epochs"] = 2
    plan.write_text(json.dumps(values))
    run = tmp_path / "run"
    ended = ushape("train", cells, "--plan", plan, "-o", run)
    assert ended.code == 0, ended.error
    assert len((run / "metrics.csv").read_text().splitlines()) == 3
    stored = json.loads((run / "plan.json").read_text())
    assert stored.pop("checksum")
    assert stored == values

    again = tmp_path / "again"
    splits = json.loads((run / "splits.json").read_text())
    splits["train"], splits["test"] = splits["test"], splits["train"]
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    ended = ushape(
        "train", cells, "--plan", plan, "--splits", tmp_path / "splits.json", "-o", again
    )
    assert ended.code == 0, ended.error
    assert json.loads((again / "splits.json").read_text())["test"] == splits["test"]


def test_plan_is_reproducible(ushape, cells, tiny, tmp_path):
    plans = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in plans:
        assert ushape("plan", cells, "--epochs", 1, *tiny, "-o", path).code == 0
    assert plans[0].read_bytes() == plans[1].read_bytes()


def test_train_refuses_a_plan_that_does_not_fit(ushape, cells, tiny, tmp_path):
    plan = tmp_path / "plan.json"
    assert ushape("plan", cells, "--epochs", 1, *tiny, "-o", plan).code == 0
    values = json.loads(plan.read_text())

    def complaint(*options):
        ended = ushape("train", cells, "--plan", plan, "-o", tmp_path / "run", *options)
        assert ended.code == 2
        assert "Hint" in ended.error
        return ended

    assert complaint("--minutes", 3).error_code == "conflicting_options"
    for change, expected in (
        ({"preprocessing": {**values["preprocessing"], "channels": 3}}, "3 channels"),
        ({"recipe": {**values["recipe"], "augment": "auto"}}, 'augment is "auto"'),
        ({"version": 0}, "version 0"),
    ):
        plan.write_text(json.dumps({**values, **change}))
        assert expected in complaint().error
    plan.write_text("{")
    assert str(plan) in complaint().error
