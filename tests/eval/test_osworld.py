"""OSWorld: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kimi_vl.eval.task import Verdict, mean
from kimi_vl.eval.tasks import osworld
from tests.eval.films import Rows, fails, write_json


def os_task(name: str, **evaluator: Any) -> dict[str, Any]:
    return {
        "id": name,
        "snapshot": "os",
        "instruction": "Make a folder.",
        "source": "",
        "config": [{"type": "launch", "parameters": {"command": ["nautilus"]}}],
        "trajectory": "",
        "related_apps": ["os"],
        "evaluator": evaluator,
    }


def os_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, **domains: Rows) -> Path:
    monkeypatch.setattr(osworld, "_COUNT", sum(map(len, domains.values())))
    write_json(folder / "test_all.json", {domain: [row["id"] for row in rows] for domain, rows in domains.items()})
    for domain, rows in domains.items():
        for row in rows:
            write_json(folder / "examples" / domain / f"{row['id']}.json", row)
    return folder


@pytest.fixture
def problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., osworld.Problem]:
    """One of such an evaluator."""

    def loaded(**evaluator: Any) -> osworld.Problem:
        (found,) = osworld.load(os_folder(tmp_path, monkeypatch, os=[os_task("a", **evaluator)]))
        return found

    return loaded


class Desktop:
    """Where metrics give what the getter found, and all calls are noted."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.tools = osworld.Tools(
            getters={"value": self.value, "missing": self.missing, "nothing": lambda given: None},
            metrics={"same": self.same, "fail": self.fail},
            steps={"sleep": self.sleep, "fail": self.fail},
        )

    def value(self, given: Mapping[str, Any]) -> Any:
        self.calls.append(given["is"])
        return given["is"]

    def missing(self, given: Mapping[str, Any]) -> Any:
        self.calls.append("missing")
        raise FileNotFoundError(given["path"])

    def same(self, result: Any, *expected: Any, **options: Any) -> float:
        self.calls.append((result, *expected, options))
        return float(result) if not expected else float(result == expected[0])

    def fail(self, *given: Any, **options: Any) -> float:
        self.calls.append("fail")
        raise RuntimeError("broken")

    def sleep(self, seconds: float) -> None:
        self.calls.append(f"sleep {seconds:g}")


def value(found: float) -> dict[str, Any]:
    return {"type": "value", "is": found}


MISSING = {"type": "missing", "path": "Desktop/a"}


def test_osworld_reads_a_task(problem: Callable[..., osworld.Problem]) -> None:
    step = {"type": "sleep", "parameters": {"seconds": 3}}
    found = problem(func="same", result=value(1), expected=value(2), options={"a": 1}, postconfig=[step])
    assert found == osworld.Problem(
        id="os/a",
        domain="os",
        instruction="Make a folder.",
        snapshot="os",
        apps=("os",),
        setup=(osworld.Call("launch", {"command": ["nautilus"]}),),
        before_checks=(osworld.Call("sleep", {"seconds": 3}),),
        checks=(
            osworld.Check("same", osworld.Call("value", value(1)), osworld.Call("value", value(2)), options={"a": 1}),
        ),
        conjunction="and",
    )
    assert (found.feasible, osworld.groups(found)) == (True, ("os", "feasible"))


@pytest.mark.parametrize(
    ("actions", "score"),
    [(["pyautogui.click(1, 2)", "FAIL"], 1.0), (["FAIL", "DONE"], 0.0), (["DONE"], 0.0), ([], 0.0)],
)
def test_what_cannot_be_done_is_given_up_last(
    problem: Callable[..., osworld.Problem], actions: list[str], score: float
) -> None:
    found = problem(func="infeasible")
    assert osworld.score(found, actions, Desktop().tools) == score
    assert osworld.groups(found) == ("os", "infeasible")


def test_who_gives_up_what_can_be_done_has_nothing(problem: Callable[..., osworld.Problem]) -> None:
    desktop = Desktop()
    found = problem(func="same", result=value(1))
    assert osworld.score(found, ["DONE", "FAIL"], desktop.tools) == 0
    assert desktop.calls == []
    assert osworld.score(found, ["FAIL", "DONE"], desktop.tools) == 1
    assert osworld.score(found, [], desktop.tools) == 1


@pytest.mark.parametrize(
    ("evaluator", "score", "calls"),
    [
        ({"func": "same", "result": value(0.7)}, 0.7, [0.7, (0.7, {})]),  # not only 0 and 1
        ({"func": "same", "result": value(3), "expected": value(3)}, 1.0, [3, 3, (3, 3, {})]),
        ({"func": "same", "result": value(3), "expected": value(4)}, 0.0, [3, 4, (3, 4, {})]),
        # what is expected and not found is not compared with
        ({"func": "same", "result": value(0.5), "expected": {"type": "nothing"}}, 0.5, [0.5, (0.5, {})]),
        ({"func": "same", "result": value(1), "expected": {}, "options": {"a": 2}}, 1.0, [1, (1, {"a": 2})]),
        ({"func": "same", "result": MISSING}, 0.0, ["missing"]),
        ({"func": "same", "result": value(1), "expected": MISSING}, 0.0, [1, "missing"]),
        ({"func": "fail", "result": value(1)}, 0.0, [1, "fail"]),
        ({"func": "same", "result": {"type": "nothing"}}, 0.0, [(None, {})]),  # no number
        (
            {"func": "same", "result": value(1), "postconfig": [{"type": "sleep", "parameters": {"seconds": 2}}]},
            1.0,
            ["sleep 2", 1, (1, {})],
        ),
        ({"func": "same", "result": value(1), "postconfig": [{"type": "fail", "parameters": {}}]}, 0.0, ["fail"]),
    ],
)
def test_a_metric_of_osworld(
    problem: Callable[..., osworld.Problem], evaluator: dict[str, Any], score: float, calls: list[object]
) -> None:
    desktop = Desktop()
    assert osworld.score(problem(**evaluator), ["DONE"], desktop.tools) == score
    assert desktop.calls == calls


@pytest.mark.parametrize(
    ("conjunction", "metrics", "results", "score", "looked_at"),
    [
        ("and", ["same"] * 2, [value(0.5), value(1)], 0.75, 2),
        ("and", ["same"] * 3, [value(1), value(0), value(1)], 0.0, 2),  # stops at nothing
        ("and", ["same", "fail", "same"], [value(1), value(1), value(1)], 0.0, 2),
        ("and", ["same"] * 2, [MISSING, value(1)], 0.0, 1),
        ("or", ["same"] * 3, [value(0.3), value(1), value(1)], 1.0, 2),  # stops at the whole
        ("or", ["same"] * 3, [value(0.3), value(0.6), value(0)], 0.6, 3),
        ("or", ["fail", "same"], [value(1), value(0.6)], 0.6, 2),
        ("or", ["same"] * 2, [MISSING, value(0.6)], 0.6, 2),
        ("or", ["same"] * 2, [value(0), value(0)], 0.0, 2),
        (None, ["same"] * 2, [value(0.5), value(0.7)], 0.6, 2),  # and
    ],
)
def test_several_metrics_of_osworld(
    problem: Callable[..., osworld.Problem],
    conjunction: str | None,
    metrics: list[str],
    results: list[Any],
    score: float,
    looked_at: int,
) -> None:
    desktop = Desktop()
    found = problem(func=metrics, result=results, **({"conj": conjunction} if conjunction else {}))
    assert osworld.score(found, ["DONE"], desktop.tools) == pytest.approx(score)
    assert len([call for call in desktop.calls if not isinstance(call, tuple) and call != "fail"]) == looked_at


def test_several_metrics_have_each_its_own(problem: Callable[..., osworld.Problem]) -> None:
    desktop = Desktop()
    found = problem(
        func=["same", "same"], result=[value(3), value(1)], expected=[value(3), None], options=[{"a": 1}, None]
    )
    assert osworld.score(found, ["DONE"], desktop.tools) == 1
    assert desktop.calls == [3, 3, (3, 3, {"a": 1}), 1, (1, {})]


@pytest.mark.parametrize(
    ("evaluator", "says"),
    [
        ({"func": "compare", "result": value(1)}, r"task os/a needs the metric 'compare', and there is none"),
        ({"func": "same", "result": {"type": "vm_file"}}, r"needs the getter 'vm_file'"),
        ({"func": "same", "result": value(1), "expected": {"type": "rule"}}, r"needs the getter 'rule'"),
        (
            {"func": "same", "result": value(1), "postconfig": [{"type": "open", "parameters": {}}]},
            r"needs the step 'open'",
        ),
        ({"func": ["same", "compare"], "result": [value(0), value(1)]}, r"needs the metric 'compare'"),
    ],
)
def test_what_osworld_does_not_find_by_its_name(
    problem: Callable[..., osworld.Problem], evaluator: dict[str, Any], says: str
) -> None:
    desktop = Desktop()
    with pytest.raises(ValueError, match=says):
        osworld.score(problem(**evaluator), ["FAIL"], desktop.tools)
    assert desktop.calls == []


def test_runs_without_a_result_stay_in_what_osworld_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [os_task("done", func="same", result=value(1)), os_task("unwritten", func="same", result=value(1))]
    # one id in two domains, as officially
    folder = os_folder(tmp_path, monkeypatch, os=rows, vlc=[os_task("done", func="infeasible")])
    problems = osworld.load(folder)
    for name, text in (("os/done", "0.5\n"), ("vlc/done", "1")):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "result.txt").write_text(text)
    marked = osworld.marked(problems, tmp_path / "run")
    assert [(one.item.id, one.verdict) for one in marked] == [
        ("os/done", Verdict(0.5, "0.5")),
        ("os/unwritten", Verdict(0.0, None)),
        ("vlc/done", Verdict(1.0, "1")),
    ]
    assert mean(marked) == 0.5
    assert mean([one for one in marked if "feasible" in osworld.groups(one.item)]) == 0.25

    for text in ("True", "2", "nan", ""):
        (tmp_path / "run" / "os/done" / "result.txt").write_text(text)
        with pytest.raises(ValueError, match=rf"result.txt: a result is a number from 0 to 1, not '{text}'"):
            osworld.marked(problems, tmp_path / "run")


@pytest.mark.parametrize(
    ("evaluator", "says"),
    [
        ({"func": "same", "result": value(1), "conj": "xor"}, r"os/a.json: conj is and or or, not 'xor'"),
        ({"func": ["same"], "result": value(1)}, r"evaluator: result must be a list of 1, as func is"),
        ({"func": ["same"] * 2, "result": [value(1)]}, r"evaluator: result must be a list of 2, as func is"),
        ({"func": "same", "result": [value(1)]}, r"evaluator: result is a list, and func is none"),
        ({"func": [], "result": []}, r"evaluator: func names no metric"),
        ({"func": "same"}, r"evaluator: a row must be an object, not NoneType"),
        ({"func": "same", "result": {"is": 1}}, r"evaluator: type missing; there are is"),
        ({"result": value(1)}, r"evaluator: func missing; there are result"),
        ({"func": "same", "result": value(1), "postconfig": [{"type": "sleep"}]}, r"postconfig: parameters missing"),
    ],
)
def test_broken_tasks_of_osworld(problem: Callable[..., osworld.Problem], evaluator: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        problem(**evaluator)


def test_osworld_must_be_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(osworld.load, tmp_path, r"has no test_all.json or evaluation_examples/test_all.json")
    task = os_task("a", func="infeasible")
    fails(osworld.load, os_folder(tmp_path, monkeypatch, os=[task, task]), r"'os/a' 2 times, and must have it once")
    folder = os_folder(tmp_path, monkeypatch, os=[task])
    monkeypatch.setattr(osworld, "_COUNT", 369)
    fails(osworld.load, folder, r"test_all.json has 1 items, and the benchmark 369")
    write_json(folder / "examples" / "os" / "a.json", {**task, "id": "b"})
    fails(osworld.load, folder, r"os/a.json is the task 'b': the file of each is called by its id")
    (folder / "examples" / "os" / "a.json").unlink()
    fails(osworld.load, folder, r"test_all.json: there is no task .*examples/os/a.json")
    write_json(folder / "test_all.json", ["a"])
    fails(osworld.load, folder, r"test_all.json must have a list of ids for each domain")
