"""The page of the studio as text; what it does is tested in a browser."""

import base64
import hashlib
import re

import pytest

from ushape.studio.page import FOLDER, MODULES, render_page

IMPORTS = re.compile(r'^import \{([^}]*)\} from "\./(\w+\.js)";$', re.MULTILINE)
TOP_NAMES = re.compile(r"^(?:export )?(?:async )?(?:function|class|const|let) (\w+)", re.MULTILINE)


def read(name):
    return FOLDER.joinpath(name).read_text(encoding="utf-8")


def checksum(text):
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_policy_allows_only_the_style_and_the_script_of_the_page():
    page = render_page()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    [script] = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    assert f"style-src '{checksum(style)}'" in policy
    assert f"script-src '{checksum(script)}'" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_page_names_no_other_server_and_has_no_inline_style_or_handler():
    page = render_page().replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+/", page) == []
    assert re.findall(r"<[^>]+ (?:style|on\w+)=", read("index.html")) == []
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", page)


def test_page_contains_all_modules_without_imports_and_exports():
    assert {one.name for one in FOLDER.iterdir() if one.name.endswith(".js")} == set(MODULES)
    script = re.search(r'<script type="module">(.*?)</script>', render_page(), re.DOTALL)[1]
    assert re.findall(r"^(?:import|export).*", script, re.MULTILINE) == []


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_what_an_earlier_one_exports_and_uses_it(module):
    text = read(module)
    for names, source in IMPORTS.findall(text):
        assert MODULES.index(source) < MODULES.index(module)
        for name in names.strip().split(", "):
            assert re.search(rf"^export (?:async )?\w+ {name}\b", read(source), re.MULTILINE), name
            assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is not used"
    assert len(IMPORTS.findall(text)) == len(re.findall(r"^import ", text, re.MULTILINE))


def test_names_at_the_top_of_modules_are_unique():
    names = [name for module in MODULES for name in TOP_NAMES.findall(read(module))]
    assert sorted(names) == sorted(set(names))


def test_elements_that_the_scripts_use_exist():
    page = read("index.html")
    known = re.findall(r' id="([\w-]+)"', page)
    assert sorted(known) == sorted(set(known))
    known += re.findall(r'id: "([\w-]+)"', "".join(map(read, MODULES)))
    used = {one for module in MODULES for one in re.findall(r'byId\("([\w-]+)"\)', read(module))}
    assert used <= set(known)
    for name in re.findall(r'(?:for|aria-labelledby|aria-describedby)="([\w-]+)"', page):
        assert name in known
