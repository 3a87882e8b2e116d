"""The font that Chinese pictures need: asked for before any work, never missed by English ones."""

from __future__ import annotations

import pytest
from matplotlib import get_data_path

from config.catalog import require_configured
from config.phrases import wide_font
from config.settings import ConfigurationError, load_settings
from node.cli import main
from node.commands.check import CheckStatus, examine

ABSENT = "/nonexistent/font.ttc"


def settings_with(language: str, font: str):
    return load_settings(node={"language": language, "wide_font": font})


def test_chinese_without_its_font_names_the_package_before_any_work():
    with pytest.raises(ConfigurationError, match="fonts-wqy-microhei"):
        require_configured(settings_with("zh", ABSENT))


def test_a_file_that_is_no_font_is_as_good_as_none(tmp_path):
    page = tmp_path / "font.ttf"
    page.write_text("<html>not found</html>")
    with pytest.raises(ConfigurationError, match=r"font\.ttf is none"):
        require_configured(settings_with("zh", str(page)))


def test_english_goes_on_without_it():
    settings = settings_with("en", ABSENT)
    require_configured(settings)
    assert wide_font(settings.node) is None


def test_a_font_that_is_there_is_taken_in_either_language():
    font = f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    assert str(wide_font(settings_with("en", font).node)) == font
    assert str(wide_font(settings_with("zh", font).node)) == font


@pytest.mark.parametrize("command", [("serve",), ("process", "STUDY", "--out", "OUT")])
def test_a_command_that_draws_ends_with_status_2(command, tmp_path, monkeypatch, capsys):
    config = tmp_path / "site.toml"
    config.write_text(f'[node]\nlanguage = "zh"\nwide_font = "{ABSENT}"\n')
    places = {"STUDY": str(tmp_path), "OUT": str(tmp_path / "out")}
    words = [places.get(word, word) for word in command]
    monkeypatch.setattr("sys.argv", ["osteonode", *words, "--config", str(config)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "fonts-wqy-microhei" in capsys.readouterr().err


def test_check_says_that_the_font_is_missing():
    lines = {line.what: line for line in _first_lines(settings_with("zh", ABSENT))}
    assert lines["pictures"].standing is CheckStatus.FAILED
    assert "fonts-wqy-microhei" in lines["pictures"].detail


def _first_lines(settings):
    """Up to the pictures': what comes later needs a broker and a disk."""
    for line in examine(settings):
        yield line
        if line.what == "pictures":
            return
