"""The operator's page on a real port: what it shows, what it never shows, and what it refuses."""

from __future__ import annotations

import html
import http.client
import io
import json
import logging
import queue
import re
import shlex
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert

from config.sections import BrokerSettings
from config.settings import Settings, load_settings, remember_file
from node import logs
from node.net.scp import Listener
from node.processes.page import run_page
from node.processes.supervisor import EmbeddedRedis
from node.store.schema import activations
from node.store.store import Store, open_store
from node.store.workers import FeatureCheck, ResultBasis, Worker
from tests.closing import close_due
from tests.net.page_content import (
    ARTEFACTS,
    IDENTITY,
    PNG,
    READ,
    RECEIVING,
    RESULTS,
    SET_ASIDE,
    STUDY,
    fill,
    hold,
    receive,
)
from tests.waiting import LIMIT_S

# A connection that pynetdicom was refused is closed by the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return _settings(tmp_path)


def _settings(folder: Path) -> Settings:
    return load_settings(
        node={"port": 1},  # nobody listens there
        storage={"root": str(folder / "var")},
        web={"port": 0},
        destinations=[{"name": "pacs", "ae_title": "ORTHANC", "host": "192.0.2.10", "port": 4242}],
    )


@pytest.fixture
def logged(settings: Settings) -> Callable[[], str]:
    """Everything that this process logs, at the most talkative level, as text."""
    logs.configure(settings.log.model_copy(update={"level": "DEBUG", "format": "json"}))
    told = io.StringIO()
    for handler in logging.getLogger().handlers:
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(told)
    return told.getvalue


@contextmanager
def serving(settings: Settings) -> Iterator[httpx.Client]:
    stop = threading.Event()
    told: queue.Queue[str] = queue.Queue()
    thread = threading.Thread(target=run_page, args=(settings, "geometric 1", told.put, stop))
    thread.start()
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{told.get(timeout=LIMIT_S)}", timeout=LIMIT_S
        ) as client:
            yield client
    finally:
        stop.set()
        thread.join(LIMIT_S)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A page for the tests that only look."""
    settings = _settings(tmp_path_factory.mktemp("page"))
    with closing(open_store(settings.storage)) as store:
        fill(store)
    with serving(settings) as client:
        yield client


@pytest.fixture
def own_page(settings: Settings, filled: Store) -> Iterator[httpx.Client]:
    """A page for a test that changes what lies behind it: the store `filled`."""
    with serving(settings) as client:
        yield client


@pytest.fixture
def filled(store: Store) -> Store:
    fill(store)
    return store


def _text(answer: httpx.Response) -> str:
    """What a reader sees: without tags, white space as one blank."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))


def _get_verbatim(page: httpx.Client, path: str) -> tuple[int, bytes]:
    """Status and body. httpx would tidy the path, and log it."""
    connection = http.client.HTTPConnection(page.base_url.host, page.base_url.port, timeout=LIMIT_S)
    with closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


class _References(HTMLParser):
    """Tags, and addresses that a browser loads or follows."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_the_first_page_says_what_the_node_is_and_where_each_study_stands(page: httpx.Client) -> None:
    answer = page.get("/")
    assert answer.status_code == 200
    told = _text(answer)
    for expected in (
        "OSTEONODE",
        "127.0.0.1:1",
        "geometric 1",
        "free of",
        "pacs",
        "ORTHANC",
        "192.0.2.10:4242",
    ):
        assert expected in told
    assert "1 study is set aside" in told
    for uid, word, reason in (
        (STUDY, "sent", "1 object arrived"),
        (SET_ASIDE, "set aside", "NoMemory"),
        (RECEIVING, "receiving", "images may still arrive"),
    ):
        row = re.search(rf"<a[^>]*{uid}.*?</tr>", answer.text, re.DOTALL)
        assert row is not None
        assert f">{word}</span>" in row[0]
        assert reason in row[0]
    assert told.index(RECEIVING) < told.index(SET_ASIDE) < told.index(STUDY)


def test_a_study_page_shows_findings_and_density_with_its_mineral(page: httpx.Client) -> None:
    told = _text(page.get(f"/studies/{STUDY}"))
    assert "BMD, mg/cm³ HA" in told
    assert "in the cancellous core of each body" in told
    assert "98.7" in told[told.index("mid-body ellipse") :]
    assert "(grade: phantom)" in told
    assert "102.3 ± 0.7" in told
    assert "not available" in told  # L2
    assert told.index("L2: Cut by") < told.index("Marrow fat")  # the gravest first
    for expected in ("two-point", "report.dcm", "0x0000", "deliver", "2.25.77", "selection.json"):
        assert expected in told
    assert "quiet time only" in told[told.index("Closed by") :][:60]


def test_a_hint_can_be_pasted_into_a_shell_with_the_file_that_configures_the_node(
    page: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a site's folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OSTEONODE_CONFIGURATION_FILE", "")
    remember_file(Path("node.toml"))
    told = page.get(f"/studies/{SET_ASIDE}").text
    hints = [html.unescape(one) for one in re.findall(r'<code class="whole">(.*?)</code>', told)]
    words = ["osteonode", "studies", "retry", SET_ASIDE, "--config", str(folder / "node.toml")]
    assert words in [shlex.split(one) for one in hints]
    remember_file(None)
    plain = html.unescape(page.get(f"/studies/{SET_ASIDE}").text)
    assert f'<code class="whole">osteonode studies retry {SET_ASIDE}</code>' in plain


def test_slices_without_a_level_are_shown_as_such(own_page: httpx.Client, filled: Store) -> None:
    written = json.loads((RESULTS / "single-slices" / "result.json").read_bytes())
    alone = written | {"unnamed": [written["unnamed"][0] | READ]}
    receive(filled, STUDY, 2)
    jobs = {job.generation: job for job in close_due(filled, first_step="select", quiet_s=0, stale_s=20)}
    lease = hold(filled, jobs[2], "report")
    filled.artefacts.put(lease, "result.json", json.dumps(alone).encode(), {})
    told = _text(own_page.get(f"/studies/{STUDY}"))
    assert "slice 1 level not known" in told
    assert "BMD, mg/cm³ HA" in told
    assert "102.3 ± 0.7" in told
    assert "No level was measured" not in told


def test_pictures_come_as_they_were_stored(page: httpx.Client) -> None:
    shown = _References(page.get(f"/studies/{STUDY}").text).addresses
    for name in ("nomogram.png", "overlay.png"):
        address = f"/studies/{STUDY}/pictures/{name}"
        assert address in shown
        answer = page.get(address)
        assert answer.headers["content-type"] == "image/png"
        assert answer.content == ARTEFACTS[name]


def test_a_later_generation_takes_over_when_it_has_a_result(own_page: httpx.Client, filled: Store) -> None:
    receive(filled, STUDY, 2)
    assert "of generation 1" in _text(own_page.get(f"/studies/{STUDY}"))
    jobs = {job.generation: job for job in close_due(filled, first_step="select", quiet_s=0, stale_s=20)}
    lease = hold(filled, jobs[2], "report")
    filled.artefacts.put(lease, "overlay.png", PNG + b"newer", {})
    assert own_page.get(f"/studies/{STUDY}/pictures/overlay.png").content == ARTEFACTS["overlay.png"]
    filled.artefacts.put(lease, "result.json", ARTEFACTS["result.json"], {})
    assert "of generation" not in _text(own_page.get(f"/studies/{STUDY}"))
    assert own_page.get(f"/studies/{STUDY}/pictures/overlay.png").content == PNG + b"newer"
    assert own_page.get(f"/studies/{STUDY}/pictures/nomogram.png").status_code == 404


def test_an_altered_result_is_not_shown(own_page: httpx.Client, filled: Store) -> None:
    for file in (filled.files.root / "artefacts").rglob("*"):
        if file.is_file():
            file.write_bytes(b"altered")
    answer = own_page.get(f"/studies/{STUDY}")
    assert answer.status_code == 200
    assert "cannot be read" in _text(answer)
    assert own_page.get(f"/studies/{STUDY}/pictures/overlay.png").status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "result.json",
        "selection.json",
        "../result.json",
        "..%2fresult.json",
        "%2e%2e%2f%2e%2e%2fosteonode.sqlite3",
        "..%5cresult.json",
        "overlay.png%00.json",
        "overlay.png/",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "",
    ],
)
def test_no_other_file_can_be_had_as_a_picture(page: httpx.Client, name: str) -> None:
    status, body = _get_verbatim(page, f"/studies/{STUDY}/pictures/{name}")
    assert status in {404, 307}
    assert not body.startswith(PNG)
    assert not any(secret.encode() in body for secret in IDENTITY)


def test_unknown_studies_are_not_found(page: httpx.Client) -> None:
    for path in (
        "/studies/2.25.999",
        "/studies/2.25.999/pictures/overlay.png",
        "/studies/'%20OR%201=1",
        "/nowhere",
    ):
        answer = page.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    answer = page.get("/api/studies/2.25.999")
    assert (answer.status_code, answer.json()) == (404, {"detail": "The node does not hold this study."})


def test_no_answer_and_no_log_names_the_patient(
    settings: Settings, filled: Store, logged: Callable[[], str]
) -> None:
    with serving(settings) as page:
        for path in (
            "/",
            f"/studies/{STUDY}",
            f"/studies/{SET_ASIDE}",
            f"/studies/{STUDY}/pictures/overlay.png",
            "/api/studies",
            f"/api/studies/{STUDY}",
            "/metrics",
            "/readyz",
            f"/studies/{IDENTITY[0]}",
            f"/{IDENTITY[0]}?patient={IDENTITY[0]}",
        ):
            _, body = _get_verbatim(page, path)
            assert not any(secret.encode() in body for secret in IDENTITY), path
    assert not any(secret in logged() for secret in IDENTITY)


def test_what_others_wrote_is_escaped(page: httpx.Client) -> None:
    assert "&lt;b&gt;too large&lt;/b&gt;" in page.get("/").text
    assert "Cut by &lt;the&gt; edge." in page.get(f"/studies/{STUDY}").text


def test_pages_load_nothing_from_elsewhere_and_need_no_script(page: httpx.Client) -> None:
    for path in ("/", f"/studies/{STUDY}", "/nowhere"):
        found = _References(page.get(path).text)
        assert not found.tags & {"script", "iframe", "form", "object", "style"}
        assert all(address.startswith("/") for address in found.addresses)
        for address in found.addresses:
            if address.startswith("/static/"):
                assert page.get(address).status_code == 200


def test_every_answer_carries_the_security_headers(page: httpx.Client) -> None:
    for path in (
        "/",
        "/nowhere",
        "/api/studies",
        "/api/studies/1",
        "/healthz",
        "/metrics",
        "/api/studies?limit=0",
    ):
        headers = page.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1:8080", "[::1]", "[::1]:8080", "LOCALHOST:1"])
def test_names_of_this_machine_are_answered(page: httpx.Client, name: str) -> None:
    assert page.get("/healthz", headers={"host": name}).status_code == 200


@pytest.mark.parametrize(
    "name", ["rebound.example", "127.0.0.1.rebound.example", "localhost@evil", "[::2]", ""]
)
def test_another_name_is_turned_away_before_anything_is_read(page: httpx.Client, name: str) -> None:
    answer = page.get("/api/studies", headers={"host": name})
    assert answer.status_code in {400, 421}
    assert STUDY not in answer.text


def test_nothing_can_be_changed(page: httpx.Client) -> None:
    before = page.get(f"/api/studies/{SET_ASIDE}").json()
    for path in ("/", f"/studies/{SET_ASIDE}", "/api/studies", f"/api/studies/{SET_ASIDE}", "/readyz"):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert page.request(method, path).status_code == 405
    assert page.get(f"/api/studies/{SET_ASIDE}").json() == before


def test_the_api_gives_what_the_command_line_shows(page: httpx.Client) -> None:
    listed = page.get("/api/studies").json()
    assert [one["study_instance_uid"] for one in listed] == [RECEIVING, SET_ASIDE, STUDY]
    assert page.get("/api/studies?limit=1").json() == listed[:1]
    shown = page.get(f"/api/studies/{STUDY}").json()
    assert shown["summary"] == listed[2]
    assert shown["deliveries"][0]["destination"] == "pacs"
    assert {one["name"] for one in shown["artefacts"]} == set(ARTEFACTS)


def test_metrics_count_states_and_name_no_study(page: httpx.Client) -> None:
    answer = page.get("/metrics")
    samples = {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels, reverse=True))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["osteonode_studies", "sent"] == 1
    assert samples["osteonode_studies", "set aside"] == 1
    assert samples["osteonode_studies", "undelivered"] == 0  # there before the first one
    assert samples["osteonode_jobs", "deliver", "finished"] == 1
    assert samples["osteonode_deliveries", "sent", "pacs"] == 1
    assert samples["osteonode_deliveries", "failed", "pacs"] == 0
    assert samples["osteonode_oldest_due_job_age_seconds",] == 0
    assert samples["osteonode_storage_free_bytes",] > 0
    assert "2.25." not in answer.text


def test_workers_are_listed_and_one_that_differs_or_takes_no_work_is_told(
    own_page: httpx.Client, filled: Store
) -> None:
    assert "No worker is running. Nothing is measured" in own_page.get("/").text
    for pid, configuration, problem in ((11, "aa", ""), (12, "aa", ""), (13, "bb", "no <share> here")):
        worker = Worker(
            worker_id=f"{pid}",
            host="scanner-room",
            pid=pid,
            queues=("segment", "score"),
            engine="geometric 3",
        )
        filled.workers.enter(
            worker,
            ResultBasis(software="0.1.0 (numpy 2)", configuration_sha256=32 * configuration),
            problem,
            lambda _: True,
        )
    page = own_page.get("/").text
    assert page.count('<th scope="row">scanner-room') == 3
    assert "takes no work</span> no &lt;share&gt; here" in page
    assert page.count("other configuration than most") == 1
    metrics = own_page.get("/metrics").text
    assert 'osteonode_workers{state="works"} 2.0' in metrics
    assert 'osteonode_workers{state="takes no work"} 1.0' in metrics
    assert "osteonode_differing_workers 1.0" in metrics


def test_a_node_is_ready_while_every_part_answers(settings: Settings, filled: Store) -> None:
    listener = Listener(settings.node.model_copy(update={"port": 0}), filled, lambda _: False)
    node = settings.node.model_copy(update={"port": listener.start()})
    broker = EmbeddedRedis()
    try:
        broker.start()
        parts = settings.model_copy(update={"node": node, "broker": BrokerSettings(url=broker.url)})
        with serving(parts) as page:
            answer = page.get("/readyz")
            assert answer.status_code == 200, answer.text
            assert answer.json()["ready"] is True
            assert set(answer.json()["checks"]) == {
                "database",
                "disk",
                "listener",
                "broker",
                "model",
                "features",
                "engine",
            }

            broker.stop()  # what is received waits in the database
            answer = page.get("/readyz")
            assert (answer.status_code, answer.json()["ready"]) == (200, True)
            assert _failing(answer) == {"broker"}

            listener.stop()
            answer = page.get("/readyz")
            assert answer.status_code == 503
            assert _failing(answer) == {"listener", "broker"}
            told = _text(page.get("/"))
            assert "The listener is not ready" in told
            assert "The broker is not ready" in told
    finally:
        broker.close()
        listener.stop()


def test_drifted_features_and_a_model_that_is_not_the_pinned_one_are_told_at_readiness(
    own_page: httpx.Client, filled: Store
) -> None:
    said = own_page.get("/readyz").json()["checks"]
    assert said["features"] == {"ok": True, "detail": "not checked on this machine yet"}
    assert said["model"]["detail"].startswith("demonstration 1, ")
    assert "osteonode_model_usable 1.0" in own_page.get("/metrics").text

    filled.feature_checks.keep(FeatureCheck(drifted=4, checked=851, example="original_glcm_Id"))
    filled.feature_checks.keep(FeatureCheck(drifted=3, checked=851, example="original_glcm_Idn"))
    assert own_page.get("/readyz").json()["checks"]["features"]["detail"].startswith("3 of 851 drifted")
    with filled.database.writing() as connection:
        connection.execute(insert(activations).values(number=1, content='{"card_sha256": "00"}'))
    assert {"features", "model"} <= _failing(own_page.get("/readyz"))
    metrics = own_page.get("/metrics").text
    assert "osteonode_model_usable 0.0" in metrics
    assert "osteonode_drifted_features 3.0" in metrics
    assert "The model is not ready" in _text(own_page.get("/"))


def _failing(answer: httpx.Response) -> set[str]:
    return {name for name, check in answer.json()["checks"].items() if not check["ok"]}


def test_page_metrics_and_api_tell_the_same_alerts(own_page: httpx.Client, filled: Store) -> None:
    filled.parts.begin("reconcile", beats=True)
    filled.parts.begin("reconcile", beats=True)  # the first did not say that it ended
    told = own_page.get("/api/alerts").json()
    assert {"listener_not_ready", "no_worker", "process_died", "study_set_aside"} <= {
        one["code"] for one in told
    }
    assert {one["severity"] for one in told[:2]} == {"urgent"}
    (died,) = (one for one in told if one["code"] == "process_died")
    assert died["since"].startswith("20")
    shown = _text(own_page.get("/"))
    assert all(one["text"] in shown for one in told if one["code"] != "process_died")  # it says how long ago
    assert "The process reconcile ended unexpectedly" in shown
    metrics = own_page.get("/metrics").text
    for one in told:
        line = f'osteonode_alerts{{code="{one["code"]}",severity="{one["severity"]}"}}'
        assert f"{line} 1.0" in metrics
    assert 'osteonode_alerts{code="destination_away",severity="urgent"} 0.0' in metrics
    assert 'osteonode_part_deaths{part="reconcile"} 1.0' in metrics


def test_a_deleted_database_is_noticed(own_page: httpx.Client, filled: Store) -> None:
    assert "database" not in _failing(own_page.get("/readyz"))
    (filled.files.root / "osteonode.sqlite3").unlink()
    answer = own_page.get("/readyz")
    assert answer.status_code == 503
    assert "database" in _failing(answer)


def test_a_database_that_refuses_leaves_a_page_that_says_so(own_page: httpx.Client, filled: Store) -> None:
    with sqlite3.connect(filled.files.root / "osteonode.sqlite3") as connection:
        connection.execute("ALTER TABLE studies RENAME TO elsewhere")
    connection.close()
    answer = own_page.get("/")
    assert answer.status_code == 503
    assert "Studies cannot be listed" in _text(answer)
    alerts = own_page.get("/api/alerts")
    assert alerts.status_code == 200
    assert "database_not_ready" in {one["code"] for one in alerts.json()}
    assert "database" in _failing(own_page.get("/readyz"))
    for path in ("/metrics", "/api/studies"):
        assert own_page.get(path).status_code == 503
        assert own_page.get(path).headers["content-type"] == "application/json"
    assert own_page.get("/healthz").json() == {"status": "alive"}  # this process is well
