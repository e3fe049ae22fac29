"""README, documentation and example scripts: all examples run, and everything they name exists."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

import ushape
from commands import command_environment
from docs.run_page import blocks_of
from ushape import config
from ushape.cli import app
from ushape.planning.recipes import RECIPES, load_recipe
from ushape.transforms.augment import AugmentConfig

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
TEXTS = [
    *sorted(
        {*PAGES, *ROOT.glob("*.md"), *(ROOT / "benchmarks").glob("*.md")} - {ROOT / "CHANGELOG.md"}
    ),
    *EXAMPLES,
]
COMMANDS = {name: one for name, one in get_command(app).commands.items() if not one.hidden}
INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def code_of(path: Path) -> Iterator[str]:
    """Yield all pieces of inline code, and all lines of code blocks and of scripts."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = re.sub(r"\\\n", " ", text)
        for block in blocks_of(path):
            if block.language != "python":
                yield from re.sub(r"\\\n", " ", block.code).splitlines()
        text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for code in INLINE.findall(text):
        yield re.sub(r"\s+", " ", code)


def commands_of(path: Path) -> Iterator[list[str]]:
    """Yield the words of each call of `ushape`, without comments and redirections."""
    for code in code_of(path):
        for part in re.split(r"&&|\|\||;", code):
            call = re.match(r"(?:\$ )?ushape(?= |$)(.*)", part.strip())
            if call and not re.match(r" (COMMAND|\w+\.)", call[1]):
                yield shlex.split(re.sub(r" >+ .*", "", call[1]), comments=True)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of the headings as GitHub and Python-Markdown make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in headings}


def generated_pages() -> set[str]:
    """Return the pages of the navigation that docs/hooks.py generates."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    pages = re.findall(r"[\w/-]+\.md", navigation)
    return {page for page in pages if not (ROOT / "docs" / page).exists()}


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_commands_and_their_options_exist(path):
    for words in commands_of(path):
        name = words[0] if words else "--help"
        if name in ("--help", "--version"):
            continue
        assert name in COMMANDS, f"ushape {' '.join(words)}"
        known = {
            option for one in COMMANDS[name].params for option in (*one.opts, *one.secondary_opts)
        } | {"--help"}
        for word in words[1:]:
            if re.match(r"--?[a-z]", word):
                assert word.partition("=")[0] in known, f"{word} of: ushape {' '.join(words)}"


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_options_and_settings_exist(path):
    known = {
        option
        for command in COMMANDS.values()
        for one in command.params
        for option in (*one.opts, *one.secondary_opts)
    }
    known |= {"--help", "--version"}
    recipe = load_recipe("auto")
    for code in code_of(path):
        words = code.split()
        if words[:1] and words[0].startswith("--"):
            assert words[0].partition("=")[0] in known, code
        for setting in re.findall(r"""--set (?:"([^"]+)"|'([^']+)'|(\S+))""", code):
            setting = "".join(setting)
            if not re.search(r"\.\.\.|^key=value$|=[A-Z]$", setting):
                config.override(recipe, [setting])  # Raises if the key or the value is wrong.
        for name in re.findall(r"--recipe (\S+)", code):
            assert name in RECIPES or name.isupper() or re.search(r"\.ya?ml$|\.py:", name), code


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_recipe_keys_exist(path):
    sections = config.to_dict(load_recipe("auto")) | {"augment": config.to_dict(AugmentConfig())}
    for code in code_of(path):
        key = r"([a-z_]+)\.(?!(?:json|py)$)([a-z_]+)(?:\.([a-z_]+))?(?:[:=].*)?"
        found = re.fullmatch(key, code)
        if found and isinstance(sections.get(found[1]), dict) and path.parent.name != "explanation":
            assert found[2] in sections[found[1]], code
            assert not found[3] or found[3] in sections[found[1]][found[2]], code


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_links_have_a_target(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text) if path.suffix == ".md" else []:
        if re.match(r"https?:|mailto:", link):
            continue
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        if found.is_relative_to(ROOT / "docs") and name_of(found)[5:] in generated_pages():
            continue
        assert found.exists(), link
        assert not anchor or anchor in anchors_of(found), link


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_files_of_the_repository_exist(path):
    for code in code_of(path):
        for name in re.findall(r"(?<![\w/])(?:src|tests|benchmarks|docs)/[\w/.-]*\w/?", code):
            assert (ROOT / name).exists(), f"{name} in: {code}"


def test_modules_of_the_architecture_exist():
    page = ROOT / "docs" / "explanation" / "architecture.md"
    package = Path(ushape.__file__).parent
    top = {path.stem for path in package.iterdir()}
    found = [
        code
        for code in INLINE.findall(page.read_text(encoding="utf-8"))
        if re.fullmatch(r"[a-z_]+([./][a-z_]+)*(\.py)?", code) and re.split(r"[./]", code)[0] in top
    ]
    assert len(found) > 30
    for code in found:
        place = package / code.removesuffix(".py").replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").exists(), code


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_python_names_exist(path):
    text = path.read_text(encoding="utf-8")
    code = (
        text
        if path.suffix == ".py"
        else "\n".join(
            [*code_of(path), *(one.code for one in blocks_of(path) if one.language == "python")]
        )
    )
    for name in re.findall(r"(?<![\w./])ushape\.(?!yaml\b)(\w+)", code):
        package = Path(ushape.__file__).parent
        assert (
            name in ushape.__all__ or (package / name).exists() or (package / f"{name}.py").exists()
        ), name


def test_every_data_check_is_described():
    page = (ROOT / "docs" / "how-to" / "prepare-data.md").read_text(encoding="utf-8")
    table = page.split("\n## Checks\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    described = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    folder = Path(ushape.__file__).parent / "data"
    source = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    assert set(re.findall(r'check="(\w+)"', source)) <= described
    families = tuple(re.findall(r'check=f"(\w+_)\{', source))
    for name in described:
        assert f'"{name}"' in source or name.startswith(families), name


def run_as_reader(folder, *arguments):
    """Run Python with arguments in a folder, with the command `ushape` of this environment."""
    environment = {
        **command_environment(),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT / "src"),
    }
    command = [sys.executable, *map(str, arguments)]
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def examples_of(page):
    return any(block.is_run for block in blocks_of(page))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", list(filter(examples_of, PAGES)), ids=name_of)
def test_examples_of_the_page_run(page, tmp_path):
    run_as_reader(tmp_path, Path(__file__).with_name("run_page.py"), page)


TINY = ["--set", "network.widths=[4,8]", "--set", "sampling.patch_shape=[64,64]"]


OPTIONS = {"compare_runs": ["--change", "network.norm=batch"]}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("script", EXAMPLES, ids=name_of)
def test_example_script_runs(script, tmp_path):
    options = OPTIONS.get(script.stem, [])
    run_as_reader(tmp_path, script, "out", "--count", 8, "--epochs", 1, *TINY, *options)
    assert list((tmp_path / "out").glob("*/report.html"))
