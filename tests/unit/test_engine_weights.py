"""TotalSegmentator's weights: found, held to their hashes, fetched."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from segmentation.engines.totalsegmentator_weights import (
    BODIES,
    CHECKSUMS,
    TOTAL_3_MM,
    TOTAL_6_MM,
    VERTEBRAE,
    Mode,
    download_weights,
    find_weights,
    missing_requirements,
    verified_sha256,
)
from segmentation.errors import EngineUnavailable

pytestmark = pytest.mark.usefixtures("trained_packages")


@pytest.fixture
def weights(weights_constant: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(weights_constant, tmp_path / "weights"))


def test_each_mode_needs_its_own_models(weights):
    assert set(find_weights(weights, Mode.STANDARD)) == {TOTAL_6_MM, VERTEBRAE, BODIES}
    assert set(find_weights(weights, Mode.ROBUST)) == {TOTAL_3_MM, VERTEBRAE, BODIES}
    assert set(find_weights(weights, Mode.FAST)) == {TOTAL_3_MM, BODIES}


def test_missing_weights_name_the_ways_out(tmp_path, weights_mini):
    with pytest.raises(EngineUnavailable) as caught:
        find_weights(weights_mini, Mode.STANDARD)
    for way in ("Dataset298, Dataset292", "check --download", "TOTALSEG_WEIGHTS_PATH", "geometric"):
        assert way in str(caught.value)
    assert "Dataset297" in str(missing_requirements(tmp_path / "nowhere", Mode.FAST))
    assert missing_requirements(weights_mini, Mode.FAST) is None


def test_weights_of_another_version_are_refused(weights):
    dataset = next(weights.glob("Dataset292_*/*/dataset.json"))
    content = json.loads(dataset.read_text())
    content["labels"]["vertebrae_L6"] = 27
    dataset.write_text(json.dumps(content))
    with pytest.raises(EngineUnavailable, match="27 classes where its version has 26"):
        find_weights(weights, Mode.STANDARD)


def test_a_folder_without_a_checkpoint_is_no_model(weights):
    next(weights.glob("Dataset298_*/*/fold_0/checkpoint_final.pth")).unlink()
    with pytest.raises(EngineUnavailable, match="or no fold"):
        find_weights(weights, Mode.STANDARD)


def test_a_file_that_changed_since_its_hash_was_noted_is_refused(weights):
    models = tuple(find_weights(weights, Mode.STANDARD).values())
    digests = verified_sha256(weights, models)
    (weights / CHECKSUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))
    assert verified_sha256(weights, models) == digests
    with next(weights.glob("Dataset292_*/*/fold_0/*.pth")).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(EngineUnavailable, match="is not the file that"):
        verified_sha256(weights, models)


@pytest.mark.parametrize("written", ["{digest}  ./{name}", "{digest} *{name}", "{digest}  {name}"])
def test_a_list_is_understood_however_sha256sum_was_asked(weights, written):
    models = tuple(find_weights(weights, Mode.STANDARD).values())
    digests = verified_sha256(weights, models)
    lines = [written.format(digest=digest, name=name) for name, digest in digests.items()]
    (weights / CHECKSUMS).write_text("\n".join(lines) + "\n")
    assert verified_sha256(weights, models) == digests
    (weights / CHECKSUMS).write_text("\n".join(lines).replace(digests[next(iter(digests))], "0" * 64))
    with pytest.raises(EngineUnavailable, match="is not the file that"):
        verified_sha256(weights, models)


def test_a_file_that_the_list_does_not_name_is_refused(weights):
    models = tuple(find_weights(weights, Mode.STANDARD).values())
    name, digest = next(iter(verified_sha256(weights, models).items()))
    (weights / CHECKSUMS).write_text(f"{digest}  {name}\n")
    with pytest.raises(EngineUnavailable, match="does not name"):
        verified_sha256(weights, models)


class _Release:
    """A server's answer: TotalSegmentator's archive of one dataset, made of the fixture."""

    def __init__(self, fixture: Path, spoiled: bool) -> None:
        self._fixture = fixture
        self._spoiled = spoiled
        self.told: list[dict[str, object]] = []

    def get(self, url: str, **_: object) -> _Release:
        name = url.rsplit("/", 1)[1].removesuffix(".zip")
        configuration = Path(os.environ["TOTALSEG_HOME_DIR"]) / "config.json"
        self.told.append({"dataset": name, **json.loads(configuration.read_text())})
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for file in sorted((self._fixture / name).rglob("*")):
                archive.write(file, file.relative_to(self._fixture))
        self._content = packed.getvalue()[: 200 if self._spoiled else None]
        self.headers = {"content-length": str(len(self._content))}
        return self

    def __enter__(self) -> _Release:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def raise_for_status(self) -> None:
        pass

    def iter_content(self, chunk_size: int) -> list[bytes]:
        return [self._content]


@pytest.fixture
def release(weights_constant, monkeypatch, request):
    served = _Release(weights_constant, spoiled=getattr(request, "param", False))
    monkeypatch.setattr("requests.get", served.get)
    monkeypatch.delenv("TOTALSEG_HOME_DIR", raising=False)
    return served


def test_a_download_fetches_what_is_missing_and_notes_its_hashes(release, tmp_path):
    new = download_weights(tmp_path, Mode.STANDARD)
    assert [name[:10] for name in new] == ["Dataset298", "Dataset292", "Dataset305"]
    models = find_weights(tmp_path, Mode.STANDARD)
    digests = verified_sha256(tmp_path, tuple(models.values()))
    noted = dict(reversed(line.split("  ")) for line in (tmp_path / CHECKSUMS).read_text().splitlines())
    assert noted == digests
    assert download_weights(tmp_path, Mode.STANDARD) == ()
    assert len(download_weights(tmp_path, Mode.ROBUST)) == 1
    assert not (tmp_path / ".incoming").exists()


def test_models_that_were_there_before_the_first_download_are_noted_too(release, weights, tmp_path):
    for dataset in ("Dataset298", "Dataset292"):
        shutil.copytree(
            next(weights.glob(f"{dataset}_*")), tmp_path / next(weights.glob(f"{dataset}_*")).name
        )
    assert len(download_weights(tmp_path, Mode.STANDARD)) == 1
    assert verified_sha256(tmp_path, tuple(find_weights(tmp_path, Mode.STANDARD).values()))


def test_usage_posts_are_off_while_totalsegmentator_s_code_runs(release, tmp_path):
    download_weights(tmp_path, Mode.FAST)
    assert [one["send_usage_stats"] for one in release.told] == [False, False]
    assert "TOTALSEG_HOME_DIR" not in os.environ


@pytest.mark.parametrize("release", [True], indirect=True)
def test_a_broken_download_leaves_nothing_that_looks_whole(release, tmp_path):
    with pytest.raises(EngineUnavailable, match="dataset 298 could not be fetched"):
        download_weights(tmp_path, Mode.STANDARD)
    assert list(tmp_path.iterdir()) == []
