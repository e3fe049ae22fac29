"""A notebook or a service can silence every function."""

import logging

import ushape as package


def test_quiet_silences_every_function(cells, tiny, capfd, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="ushape")
    settings = [one.removeprefix("--set=") for one in tiny if one.startswith("--set=")]
    small = {"epochs": 1, "device": "cpu", "settings": settings}
    run, scores = tmp_path / "run", tmp_path / "scores"
    mask = max((cells / "masks").iterdir(), key=lambda path: path.stat().st_size)
    for name, arguments, options in (
        ("example", [tmp_path / "example"], {"count": 1}),
        ("check", [cells], {"output": tmp_path / "check"}),
        ("plan", [cells], small),
        ("train", [cells], {"output": run, **small}),
        ("resume", [run], {}),
        ("predict", [run, cells / "images"], {"output": tmp_path / "masks", "device": "cpu"}),
        ("evaluate", [run, cells], {"output": scores, "device": "cpu"}),
        ("report", [run], {}),
        ("compare", [run, scores], {}),
        ("preview", [cells], {"output": tmp_path / "preview.png", "settings": settings[:2]}),
        ("weight_map", [mask], {"output": tmp_path / "weights.png"}),
    ):
        caplog.clear()
        returned = getattr(package, name)(*arguments, quiet=True, **options)
        assert name in ("check", "predict") or len(repr(returned)) < 300, name
        assert capfd.readouterr() == ("", ""), name
        assert caplog.messages, name


def test_quiet_command_prints_errors_only(ushape, cells, tiny, tmp_path):
    command = ("train", cells, "-o", tmp_path / "run", "--epochs=1", *tiny, "--quiet")
    ended = ushape(*command)
    assert (ended.code, ended.output, ended.error) == (0, "", "")
    ended = ushape(*command)
    assert ended.code == 2
    assert ended.output == ""
    assert ended.error.startswith("Error: ")
