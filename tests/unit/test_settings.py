"""config/settings.py: defaults, files, environment."""

from __future__ import annotations

import tomllib

import pytest

from config.settings import ConfigurationError, Settings, default_toml, load_settings, source_date_epoch


def test_every_setting_has_its_default_in_the_shipped_file():
    shipped = tomllib.loads(default_toml())
    for section, field in Settings.model_fields.items():
        if section not in ("destinations", "peers"):
            assert set(shipped[section]) == set(field.annotation.model_fields)


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
    with pytest.raises(ConfigurationError, match="elsewhere is no destination's name"):
        load_settings(destinations=[PACS], completeness={"ask": ["elsewhere"]})


def test_the_environment_can_name_who_is_asked(monkeypatch):
    monkeypatch.setenv("OSTEONODE_COMPLETENESS__ASK", "[]")
    assert load_settings(destinations=[PACS]).archives == {}
    monkeypatch.setenv("OSTEONODE_COMPLETENESS__ASK", "destinations")
    assert list(load_settings(destinations=[PACS]).archives) == ["pacs"]
