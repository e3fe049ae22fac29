"""The project files agree with each other: metadata, workflows, citation, constraints, Makefile."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import ushape

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
)


def load_yaml(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def normalized(name):
    """The name of a distribution as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_all_files_name_the_same_version():
    version = PROJECT["project"]["version"]
    assert load_yaml("CITATION.cff")["version"] == version
    assert ushape.__version__ == version
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert headings[:2] == ["Unreleased", version]


def test_citation_and_metadata_agree():
    citation, project = load_yaml("CITATION.cff"), PROJECT["project"]
    assert citation["license"] == project["license"]
    assert citation["repository-code"] == project["urls"]["Source"]
    assert citation["url"] == project["urls"]["Documentation"]
    assert [one["name"] for one in citation["authors"]] == [
        one["name"] for one in project["authors"]
    ]


def test_ci_tests_the_python_versions_of_the_classifiers():
    prefix = "Programming Language :: Python :: 3."
    classified = [
        one.removeprefix("Programming Language :: Python :: ")
        for one in PROJECT["project"]["classifiers"]
        if one.startswith(prefix)
    ]
    matrix = load_yaml(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == classified
    assert PROJECT["project"]["requires-python"] == f">={classified[0]}"
    assert PROJECT["tool"]["mypy"]["python_version"] == classified[0]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_has_few_permissions_and_pinned_actions(path):
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job or "uses" in job
        assert set(job.get("permissions", {})) <= {"id-token"}
    for action in re.findall(r"uses: (?!\./)(\S+)", text):
        assert re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", action)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"run: make ([\w-]+)", text):
        assert f"\n{target}:" in makefile


def test_every_extra_that_is_named_anywhere_exists():
    files = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("src/**/*.py"),
        *WORKFLOWS,
        ROOT / "Makefile",
        ROOT / ".readthedocs.yaml",
    ]
    found = set()
    for path in files:
        text = path.read_text(encoding="utf-8")
        for names in re.findall(r"(?:ushape|\"\.)\[([a-z, ]+)\]", text):
            found.update(name.strip() for name in names.split(","))
    assert {"medical", "zarr", "dev", "docs"} <= found  # The expression finds both spellings.
    assert found <= set(EXTRAS)


def test_constraints_are_sorted_and_hold_what_make_installs():
    names = [name.lower().replace("_", "-") for name in PINS]
    assert names == sorted(names, key=lambda name: f"{name}=")
    pinned = {normalized(name) for name in PINS}
    needed = [*PROJECT["project"]["dependencies"], *EXTRAS["dev"], *EXTRAS["docs"]]
    for requirement in needed:
        name = re.split(r"[\[<>=]", requirement)[0]
        assert normalized(name) in pinned, requirement


def test_pre_commit_uses_the_pinned_ruff():
    repos = {one["repo"]: one for one in load_yaml(".pre-commit-config.yaml")["repos"]}
    ruff = repos["https://github.com/astral-sh/ruff-pre-commit"]
    assert ruff["rev"] == f"v{PINS['ruff']}"


def test_make_targets_of_the_contributing_guide_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:`|^)make ([\w-]+)", guide, re.MULTILINE))
    assert {"install", "test", "test-slow", "coverage", "docs"} <= targets
    for target in targets:
        assert f"\n{target}:" in makefile


def test_package_is_marked_as_typed():
    assert (Path(ushape.__file__).parent / "py.typed").is_file()


def test_issue_forms_have_unique_fields():
    for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*_*.yml")):
        form = load_yaml(path)
        fields = [field["id"] for field in form["body"]]
        assert form["name"]
        assert form["description"]
        assert len(fields) == len(set(fields))
