"""A site's rows of the table of findings, and its folder, are held to the rules when a command starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from config.catalog import require_configured
from config.findings import load_findings
from config.settings import ConfigurationError, load_settings
from node.cli import build
from segmentation.vertebrae import Observation

pytestmark = pytest.mark.slow

ROW = """
[{code}]
severity = "{severity}"
withholds = {withholds}
hazard = "One."
text.en = "{text}"
"""
OUTPUTS = (
    "volume", "hu", "bmd", "t_score", "z_score", "density_category", "study_class", "features", "rad_score",
    "nomogram",
)  # fmt: skip
ALL_BUT_HU = str([one for one in OUTPUTS if one != "hu"]).replace("'", '"')


def row(
    code: str = "single_slice", severity: str = "info", withholds: str = "[]", text: str = "Words."
) -> str:
    return ROW.format(code=code, severity=severity, withholds=withholds, text=text)


@pytest.fixture
def site(tmp_path):
    def write(text: str) -> Path:
        (tmp_path / "findings.toml").write_text(text, "utf-8")
        return tmp_path

    return write


def test_a_site_s_row_takes_the_place_of_the_shipped_one(site):
    table = load_findings(site(row(text="{slices} slice(s), {level}.")))
    assert (
        table.describe(Observation(code="single_slice", values={"slices": 3})).text
        == "3 slice(s), the study."
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (row(code="nonesuch"), "nonesuch: no finding has this code"),
        (row(text="{slices} of {patients}."), "fills in patients: the finding has none such"),
        (row(text="{slices."), "braces that do not match"),
        (row(text="{slices.real}"), "fills in slices.real"),
        (row(text="{}"), "the finding has none such"),
        (row(withholds='["bmd"]'), "it withholds bmd but not density_category, t_score, z_score"),
        (row(withholds='["rad_score"]'), "it withholds rad_score but not nomogram"),
        (row(severity="refusal"), "it refuses and does not withhold bmd"),
        (
            row(code="lossy_strong", severity="refusal", withholds=ALL_BUT_HU),
            "does not withhold hu",
        ),
        (row(severity="grave"), "single_slice.severity: Input should be 'info', 'caution' or 'refusal'"),
        (row(withholds='["everything"]'), "not 'everything'"),
        ('[single_slice]\nseverity = "info"\n', "single_slice.text is missing"),
        ("single_slice = 3\n", "single_slice: Input should be a dictionary"),
        (row().replace("text.en", "text.zh"), "single_slice.text: has no English text"),
        ("[single_slice\n", "findings.toml"),
    ],
)
def test_a_row_that_would_fail_or_let_something_through_stops_the_start(site, text, told):
    folder = site(text)
    with pytest.raises(ConfigurationError) as refused:
        require_configured(load_settings(node={"site": str(folder)}))
    assert told in str(refused.value)
    assert str(folder / "findings.toml") in str(refused.value)


@pytest.mark.parametrize("command", ["process", "serve", "worker"])
@pytest.mark.parametrize("there", [True, False], ids=["a wrong row", "no folder"])
def test_no_command_that_measures_starts_with_it(site, tmp_path, command, there):
    folder = site(row(code="nonesuch")) if there else tmp_path / "nowhere"
    config = tmp_path / "node.toml"
    broker = '[broker]\nurl = "redis://127.0.0.1:1/0"\n'  # which a worker by itself must name
    config.write_text(f'{broker}[node]\nsite = "{folder}"\n', "utf-8")
    study = ["process", str(tmp_path), "--out", str(tmp_path / "out")] if command == "process" else [command]
    found = CliRunner().invoke(build([command]), [*study, "--config", str(config)])
    assert isinstance(found.exception, ConfigurationError)  # exit status 2, in words: node.cli
    assert ("no finding has this code" if there else f"node.site: {folder} is not a folder") in str(
        found.exception
    )


def test_check_fails_where_the_site_s_folder_is_not_there(tmp_path):
    config = tmp_path / "node.toml"
    config.write_text('[node]\nsite = "nowhere"\n', "utf-8")
    found = CliRunner().invoke(build(["check"]), ["check", "--config", str(config)])
    assert found.exit_code == 1
    assert "is not a folder" in " ".join(found.output.split())
