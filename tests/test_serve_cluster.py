"""Several replicas behind one door: conversations stay where they are known, and one that dies takes little with it.

``KIMI_VL_CLUSTER=1`` runs all of it: beginning a cluster of Ray's takes a minute and both cores.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.engines import noise
from tests.serving import LINE_PART, Server, encoded, serving, shown, user
from tests.test_serve_chat import LINE_SAYS, PATH
from tests.test_serve_life import ENDLESS

pytest.importorskip("ray", reason="the extra [cluster] is not installed")

from kimi_vl.serve.answer_schema import Status
from kimi_vl.serve.cluster import ClusterOptions, conversation_key, ranked
from kimi_vl.serve.replica_views import Figures, view

KEY = {"Authorization": "Bearer a-key"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if "KIMI_VL_CLUSTER" not in os.environ:
        pytest.skip("set KIMI_VL_CLUSTER=1 to begin a cluster")
    folder = tmp_path_factory.mktemp("cluster")
    with serving(folder, "--replicas", "2", "--api-key", "a-key", RAY_ADDRESS="") as running:
        yield running


def post(server: Server, body: dict[str, Any], path: str = PATH) -> httpx2.Response:
    return server.post(path, body, headers=KEY)


def replicas(server: Server) -> list[psutil.Process]:
    """Processes of engines."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "ray::ServeReplica:kimi-vl:Replica" in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found


def key(messages: list[dict[str, Any]]) -> str:
    return conversation_key(PATH, json.dumps({"messages": messages}).encode())


def test_a_conversation_keeps_its_key_while_it_grows() -> None:
    one = user(LINE_PART, "Read the text.")
    more = [*one, {"role": "assistant", "content": "It says"}, *user("And then?")]
    assert key(one) == key(more) == key(user(LINE_PART, "What colour is it?"))
    other = user(shown(encoded(noise(1, 40, 40))), "Read the text.")
    assert key(other) != key(one)
    words = [{"role": "system", "content": "Be brief."}, *user("Hello")]
    assert key(words) == key([*words, {"role": "assistant", "content": "Hi"}]) != key(user("Hello"))
    assert conversation_key("/v1/completions", b'{"prompt": "a"}') != conversation_key(
        "/v1/completions", b'{"prompt": "b"}'
    )
    for broken in (b"", b"{", b"[]", b"7", b"[" * 100_000, b'{"messages": 7}', b'{"messages": [7, null]}'):
        assert isinstance(conversation_key(PATH, broken), str)


def test_replicas_share_conversations_evenly_and_few_move() -> None:
    names = [f"replica-{n}" for n in range(5)]
    keys = [str(n) for n in range(2000)]
    best = {each: ranked(names, each, str)[0] for each in keys}
    counts = Counter(best.values())
    assert min(counts.values()) > 300
    after = {each: ranked(names[1:], each, str)[0] for each in keys}
    assert all(after[each] == best[each] for each in keys if best[each] != names[0])
    assert all(after[each] == ranked(names, each, str)[1] for each in keys if best[each] == names[0])


def test_fewer_at_most_than_at_least_is_refused() -> None:
    with pytest.raises(ValueError, match="--max-replicas is 1, fewer than the 2"):
        ClusterOptions(2, 1, 4, 1.0)


def test_answers_are_as_on_one_machine(cluster: Server) -> None:
    body = {"messages": user(LINE_PART, "Read the text.")}
    assert post(cluster, body).json()["choices"][0]["message"]["content"] == LINE_SAYS
    with httpx2.stream("POST", cluster.url + PATH, json={**body, "stream": True}, headers=KEY, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    said = "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines[:-1])
    assert said == LINE_SAYS
    assert len(replicas(cluster)) == 2


def test_the_door_is_guarded(cluster: Server) -> None:
    refused = cluster.chat("Hi")
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert cluster.get("/health").status_code == 200
    assert post(cluster, {"messages": user("Hi"), "temperature": -1}).status_code == 400
    assert post(cluster, {}, "/v1/nothing").status_code == 404
    large = httpx2.post(cluster.url + PATH, content=b" " * (65 * 2**20), headers=KEY, timeout=60)
    assert large.status_code == 413


def figures(server: Server, name: str) -> dict[str, float]:
    """Of each replica."""
    shown = server.get("/metrics").text
    samples = (s for family in text_string_to_metric_families(shown) for s in family.samples if s.name == name)
    return {sample.labels["replica"]: sample.value for sample in samples}


def settled(server: Server, name: str) -> dict[str, float]:
    """The same, once all have told theirs, which they do every two seconds or so."""
    until = time.monotonic() + 40
    told, before = figures(server, name), None
    while len(told) < 2 or told != before:
        assert time.monotonic() < until, told
        time.sleep(6)
        told, before = figures(server, name), told
    return told


def test_figures_are_those_of_all_replicas(cluster: Server) -> None:
    answered = sum(settled(cluster, "kimi_vl_prompt_tokens_total").values())
    spent = 0
    for number in range(16):  # one replica alone with chance of one in 32,768
        usage = post(cluster, {"messages": user(f"What is {number}?"), "max_tokens": 2}).json()["usage"]
        spent += usage["prompt_tokens"]
    told = settled(cluster, "kimi_vl_prompt_tokens_total")
    assert sum(told.values()) == answered + spent
    assert min(told.values()) > 0
    for path in ("/health", "/ready"):
        shown = cluster.get(path)
        assert shown.status_code == 200
        assert shown.json() == {"status": "ok", "replicas": dict.fromkeys(told, "ok")}


@pytest.mark.parametrize(
    ("states", "health", "ready", "status"),
    [
        ((), 503, 503, "dead"),
        (("ok", "ok"), 200, 200, "ok"),
        (("ok", "stuck"), 200, 200, "degraded"),
        (("draining", "dead"), 200, 503, "degraded|dead"),
        (("stuck", "dead"), 503, 503, "dead"),
    ],
)
def test_one_that_is_well_is_enough(states: tuple[Status, ...], health: int, ready: int, status: str) -> None:
    told = {f"r{number}": Figures(state) for number, state in enumerate(states)}
    one, two = view("/health", told), view("/ready", told)
    assert one is not None
    assert two is not None
    assert (one.status_code, two.status_code) == (health, ready)
    shown = [json.loads(bytes(each.body)) for each in (one, two)]
    assert all(each["replicas"] == {name: figures.status for name, figures in told.items()} for each in shown)
    assert [shown[0]["status"], shown[1]["status"]] == (status.split("|") * 2)[:2]
    assert view("/v1/models", told) is None


def test_a_conversation_comes_back_to_where_it_is_known(cluster: Server) -> None:
    """All of eight do, with their pictures; with chance alone one in 256 times."""
    for number in range(8):
        turns = user(shown(encoded(noise(300 + number, 280, 280))), "What?")
        first = post(cluster, {"messages": turns, "max_tokens": 4}).json()
        turns += [{"role": "assistant", "content": first["choices"][0]["message"]["content"]}, *user("And?")]
        details = post(cluster, {"messages": turns, "max_tokens": 4}).json()["usage"]["prompt_tokens_details"]
        assert details["cached_tokens"] >= 64


def test_whoever_leaves_is_forgotten_by_its_replica(cluster: Server) -> None:
    def leave(number: int) -> None:
        body = {**ENDLESS, "messages": user(f"Go on {number}."), "max_tokens": 50_000, "stream": True}
        with httpx2.stream("POST", cluster.url + PATH, json=body, headers=KEY, timeout=60) as response:
            for _ in response.iter_bytes():
                break

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(leave, range(8)))
    until = time.monotonic() + 20
    while time.monotonic() < until:
        before = [sum(p.cpu_times()[:2]) for p in replicas(cluster)]
        time.sleep(1.0)
        spent = [sum(p.cpu_times()[:2]) - b for p, b in zip(replicas(cluster), before, strict=True)]
        if max(spent) < 0.3:
            return
    pytest.fail(f"replicas still work: {spent}")


def test_a_replica_that_is_killed_loses_only_what_it_was_at(cluster: Server) -> None:
    def ask(number: int) -> tuple[int, str]:
        body = {**ENDLESS, "messages": user(f"Conversation {number}"), "max_tokens": 500, "stream": number % 2 == 0}
        try:
            with httpx2.stream("POST", cluster.url + PATH, json=body, headers=KEY, timeout=240) as response:
                return response.status_code, response.read().decode()
        except httpx2.HTTPError as error:
            return 0, repr(error)

    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask, number) for number in range(16)]
        victim = replicas(cluster)[0]
        before = sum(victim.cpu_times()[:2])
        while sum(victim.cpu_times()[:2]) < before + 0.5:  # until it is at work
            time.sleep(0.02)
        victim.kill()
        answers = [each.result() for each in asked]
    whole = [text for status, text in answers if status == 200 and '"error":{' not in text]
    lost = [(status, text) for status, text in answers if not (status == 200 and '"error":{' not in text)]
    assert whole, answers
    assert lost, "nothing was under way there"
    for status, text in lost:
        assert status in (200, 503), (status, text)
        assert "replica that answered this has died; try again" in text
        assert "replica_died" in text
    for number in range(8):
        again = post(cluster, {"messages": user(f"Conversation {number}"), "max_tokens": 4})
        assert again.status_code == 200, again.text
    until = time.monotonic() + 90
    while len([p for p in replicas(cluster) if p.pid != victim.pid]) < 2:
        assert time.monotonic() < until, "the replica was not replaced"
        time.sleep(0.5)
