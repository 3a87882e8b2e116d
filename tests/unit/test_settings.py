"""config/settings.py: defaults, files, environment."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import PATHS, ConfigurationError, Settings, load_settings, source_date_epoch
from tools.write_default_toml import ROOT, TOML, all_settings, all_tables, toml_text


def test_the_shipped_file_is_what_the_settings_say():
    """`make defaults` writes it."""
    assert TOML.read_text("utf-8") == toml_text()


def test_the_shipped_file_states_every_default(tmp_path):
    shipped = tmp_path / "all.toml"
    shipped.write_text(toml_text(), "utf-8")
    (tmp_path / "empty.toml").touch()
    assert load_settings(shipped).model_dump() == load_settings(tmp_path / "empty.toml").model_dump()
    assert tomllib.loads(toml_text()).keys() == set(Settings.model_fields) - {"destinations", "peers"}


# Another thing of the same name and value: why a setting does not rule it.
_NO_SETTING = {
    ("node/net/sender.py", "_MAX_PDU_BYTES"): "what this node takes as a requestor",
    ("scoring/calibration/__init__.py", "offset_hu"): "a phantom's own file may state it",
    ("segmentation/gates/motion.py", "_BESIDE_MM"): "where motion is looked for",
    ("segmentation/single_slice.py", "WORKING_STEP_MM"): "of one slice, in its own plane",
}


def test_no_setting_is_stated_twice():
    """Neither as a constant, nor as a field or argument with a default, outside the modules of settings."""
    stated: dict[str, list[object]] = {}
    for one in all_settings():
        stated.setdefault(one.name, []).append(one.default)
    homes = {Path(sys.modules[table.cls.__module__].__file__) for table in all_tables()}
    found = {
        (str(source.relative_to(ROOT)), name)
        for room in ("config", "node", "scoring", "segmentation")
        for source in (ROOT / room).rglob("*.py")
        if source not in homes
        and source.parent.name != "reference"  # which shares nothing with what it tests
        for name, value in _numbers_in(source)
        if value in stated.get(name.lower().strip("_"), [])
    }
    assert found == set(_NO_SETTING)


def _numbers_in(source: Path) -> Iterator[tuple[str, object]]:
    """Names that a module gives a number or a span to, but for 0, 1 and what is empty."""
    given: list[tuple[str, ast.expr | None]] = []
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            given.append((node.target.id, node.value))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            given.append((node.targets[0].id, node.value))
        elif isinstance(node, ast.arguments):
            arguments = [*node.posonlyargs, *node.args][::-1]
            pairs = [
                *zip(arguments, node.defaults[::-1], strict=False),
                *zip(node.kwonlyargs, node.kw_defaults, strict=True),
            ]
            given += [(argument.arg, default) for argument, default in pairs]
    for name, expression in given:
        try:
            value = None if expression is None else ast.literal_eval(expression)
        except ValueError:
            continue
        if isinstance(value, int | float | tuple) and value not in (0, 1, ()):
            yield name, value


def test_tables_and_their_classes_have_one_place_each():
    tables = all_tables()
    assert (
        len({table.path for table in tables}) == len({table.cls.__name__ for table in tables}) == len(tables)
    )


def test_settings_load_no_image_library():
    """A process that only receives reads them too."""
    code = "import config.settings, sys; print(sorted({'numpy', 'scipy', 'SimpleITK'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_setting_says_what_it_is():
    assert [one.path for one in all_settings() if not one.text] == []


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path):
    (tmp_path / "site.toml").write_text(
        '[node]\nport = 104\n\n[[destinations]]\nname = "pacs"\nae_title = "P"\nhost = "h"\nport = 1\n'
    )
    settings = load_settings(tmp_path / "site.toml")
    assert settings.node.port == 104
    assert settings.node.ae_title == "OSTEONODE"
    assert settings.destinations[0].ae_title == "P"


def test_the_environment_goes_before_the_file(tmp_path, monkeypatch):
    (tmp_path / "site.toml").write_text("[node]\nport = 104\n")
    monkeypatch.setenv("OSTEONODE_NODE__PORT", "105")
    assert load_settings(tmp_path / "site.toml").node.port == 105


def test_an_option_of_the_command_line_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv("OSTEONODE_SEGMENTATION__ENGINE", "mask")
    assert load_settings(segmentation={"engine": "geometric"}).segmentation.engine == "geometric"


def test_the_reproducible_date_must_be_a_number(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert source_date_epoch() == 1_700_000_000
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    with pytest.raises(ConfigurationError, match="SOURCE_DATE_EPOCH"):
        source_date_epoch()


@pytest.mark.parametrize(
    "text",
    [
        "[node]\nprot = 104\n",
        "[node]\nport = 70000\n",
        "[node\n",
        '[segmentation]\nengine = "magic"\n',
        '[selection]\nqct_procedure_codes = ["77078"]\n',
        '[[destinations]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 0\n',
    ],
)
def test_a_mistake_is_named_with_its_file(tmp_path, text):
    (tmp_path / "site.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"site\.toml"):
        load_settings(tmp_path / "site.toml")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_settings(tmp_path / "none.toml")


def test_the_hashes_of_equal_settings_are_those_that_databases_hold():
    """Results and follow-up compare them with what earlier releases stored."""
    shipped, internal = load_settings(), load_settings(calibration={"method": "internal"})
    assert shipped.sha256 == "7f8e53724d1c68af145d9a5af6ae428fb3d850ff393b62648c3ef01e5c446c48"
    assert shipped.measurement_sha256 == "f2d6f0312889c64c847e9195adaea3cef07037aeb277893a1203443904f9faed"
    assert internal.measurement_sha256 == "56d0e5b037400347afd1c534d2ca5f03d519f2095df8da5f3b5aac93085bb8ac"
    changed = load_settings(
        node={"language": "zh"},
        quality={"phantom_patient_ids": ["QA*"], "baseline_from": {"1": "2026-03-01"}},
        scoring={"k2hpo4_from_ha": [1.0, 2.0]},
        segmentation={"image": {"noise_hu": 40}},
    )
    assert changed.sha256 == "6429504c0d7a96abe3a8ad07a42461c23f68f71e67edbd6b96a9171f8e4428c3"


def test_the_hash_follows_what_changes_results_only():
    base = load_settings().sha256
    assert load_settings(node={"port": 1}).sha256 == base
    assert load_settings(scoring={"model": ""}).sha256 != base


PACS = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}
SCANNER = {"ae_title": "SCANNER", "host": "127.0.0.1", "port": 104}


def test_all_destinations_are_asked_unless_somebody_is_named():
    known = {"destinations": [PACS, {**PACS, "name": "second"}], "peers": [SCANNER]}
    assert list(load_settings(**known).archives) == ["pacs", "second"]
    named = load_settings(**known, completeness={"ask": ["SCANNER", "second"]})
    assert {name: peer.ae_title for name, peer in named.archives.items()} == {
        "SCANNER": "SCANNER",
        "second": "PACS",
    }
    assert load_settings(**known, completeness={"ask": []}).archives == {}


def test_who_is_asked_must_be_known():
    with pytest.raises(ConfigurationError, match="elsewhere is not the name of a destination"):
        load_settings(destinations=[PACS], completeness={"ask": ["elsewhere"]})


def test_the_environment_can_name_who_is_asked(monkeypatch):
    monkeypatch.setenv("OSTEONODE_COMPLETENESS__ASK", "[]")
    assert load_settings(destinations=[PACS]).archives == {}
    monkeypatch.setenv("OSTEONODE_COMPLETENESS__ASK", "destinations")
    assert list(load_settings(destinations=[PACS]).archives) == ["pacs"]


def test_a_relative_path_in_a_file_counts_from_the_file_s_folder(tmp_path, monkeypatch):
    """Two commands with one file use one database, wherever they are started."""
    folder = tmp_path / "etc"
    folder.mkdir()
    file = folder / "node.toml"
    lines = []
    for section, names in PATHS.items():
        lines += [f"[{section}]", *(f'{name} = "kept/{name}"' for name in names)]
    file.write_text("\n".join(lines), "utf-8")
    monkeypatch.chdir(tmp_path)
    for named in (file, Path("etc/node.toml"), Path("etc/../etc/node.toml")):
        settings = load_settings(named)
        for section, names in PATHS.items():
            for name in names:
                assert str(getattr(getattr(settings, section), name)) == str(folder / "kept" / name), name
        assert settings.storage.resolved_database_url == f"sqlite:///{folder}/kept/root/osteonode.sqlite3"


def test_every_setting_that_is_a_path_by_type_or_by_name_is_taken_from_the_file_s_folder():
    paths = {
        (section, name)
        for section, field in Settings.model_fields.items()
        if section in PATHS
        for name, one in field.annotation.model_fields.items()
        if one.annotation is Path
    }
    assert paths <= {(section, name) for section, names in PATHS.items() for name in names}
    for section, names in PATHS.items():
        assert set(names) <= set(Settings.model_fields[section].annotation.model_fields)


def test_a_relative_path_outside_a_file_counts_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "etc" / "node.toml"
    file.parent.mkdir()
    file.write_text(
        '[storage]\nroot = "/absolute"\ndatabase_url = "sqlite:///kept.db"\n[clinical]\ncsv = ""\n', "utf-8"
    )
    settings = load_settings(file)
    assert settings.storage.root == Path("/absolute")
    assert settings.storage.database_url == f"sqlite:///{file.parent}/kept.db"
    assert settings.clinical.csv_path is None
    file.write_text("", "utf-8")
    assert load_settings(file).storage.root == file.parent / "var"
    assert load_settings().storage.root == Path("var")
    monkeypatch.setenv("OSTEONODE_STORAGE__ROOT", "elsewhere")
    assert load_settings(file).storage.root == Path("elsewhere")
