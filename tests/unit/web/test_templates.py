"""Templates and their contexts agree, and no template switches escaping off."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from jinja2 import meta, nodes

from app.resources import static_dir, templates_dir
from app.web import (
    accounts,
    container,
    containers,
    errors,
    events,
    hosts,
    images,
    launch,
    overview,
    removal,
    vms,
)
from app.web.assets import Assets
from app.web.templating import Templates

PAGES: list[type] = [
    value
    for module in (
        accounts,
        container,
        containers,
        errors,
        events,
        hosts,
        images,
        launch,
        overview,
        removal,
        vms,
    )
    for value in vars(module).values()
    if isinstance(value, type) and is_dataclass(value) and hasattr(value, "template")
]
FILES = sorted(
    path.relative_to(templates_dir()).as_posix() for path in templates_dir().rglob("*.html")
)


@pytest.fixture(scope="module")
def templates() -> Templates:
    return Templates(Assets(static_dir()))


def names_of(templates: Templates, name: str) -> set[str]:
    """Names that the template and those it extends or includes take from the context."""
    source = (templates_dir() / name).read_text()
    tree = templates.environment.parse(source)
    # Blocks don't see, for this analysis, what their template imports, defines and sets itself.
    own = {
        name if isinstance(name, str) else name[1]
        for node in tree.find_all(nodes.FromImport)
        for name in node.names
    }
    own |= {node.name for node in tree.find_all(nodes.Macro)}
    own |= {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"}
    found = meta.find_undeclared_variables(tree) - templates.environment.globals.keys() - own
    for node in tree.find_all((nodes.Extends, nodes.Include)):
        target = next(node.iter_child_nodes())
        assert isinstance(target, nodes.Const)
        found |= names_of(templates, target.value)
    return found


@pytest.mark.parametrize("page", sorted(set(PAGES), key=str))
def test_template_uses_only_fields_of_its_page(templates: Templates, page: type) -> None:
    allowed = {field.name for field in fields(page)}
    assert names_of(templates, page.template) <= allowed  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("_macros/")])
def test_macros_take_only_parameters(templates: Templates, name: str) -> None:
    assert names_of(templates, name) == set()


@pytest.mark.parametrize("name", FILES)
def test_template_has_nothing_inline_and_escapes_all(name: str) -> None:
    source = (templates_dir() / name).read_text()
    assert "|safe" not in source.replace(" ", "")
    assert "autoescape" not in source
    assert not re.search(r"\sstyle=|\son[a-z]+=|<script(?![^>]*src=)|javascript:|hx-on", source)


def test_every_icon_that_is_named_exists() -> None:
    sprite = (static_dir() / "icons.svg").read_text()
    symbols = set(re.findall(r'<symbol id="([^"]+)"', sprite))
    used = {
        name
        for path in templates_dir().rglob("*.html")
        for name in re.findall(r'icon\("([^"]+)"\)', path.read_text())
    }
    assert used <= symbols


def test_every_sheet_and_script_is_served() -> None:
    assets = Assets(static_dir())
    for path in static_dir().rglob("*.js"):
        for name in re.findall(r"from '(\.[^']+)'", path.read_text()):
            target = (path.parent / name).resolve().relative_to(static_dir())
            assert target.as_posix() in assets, f"{path.name} imports {name}"


def test_page_weight_stays_below_the_promise() -> None:
    assets = Assets(static_dir())
    paths = [path for path in static_dir().rglob("*") if path.suffix in {".js", ".css"}]
    names = [path.relative_to(static_dir()).as_posix() for path in paths]
    assert sum(assets.compressed_size_bytes(name) for name in names) <= 75_000


@pytest.mark.parametrize("path", sorted(static_dir().rglob("js/**/*.js")), ids=lambda one: one.name)
def test_script_is_short_and_builds_no_code_or_markup(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 400
    assert "eval(" not in source
    assert "insertAdjacentHTML" not in source
    if path.name not in {"patch.js", "pages.js"}:  # these place what the server has escaped
        assert "innerHTML" not in source
        assert "outerHTML" not in source
