"""Who may come in, and what the others are told."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from kimi_vl.serve.admission import Admission
from kimi_vl.serve.errors import RefusedError, refused_for


def admission() -> Admission:
    return Admission(most_running=2, most_waiting=3, most_image_tokens=100)


def test_as_many_as_may_wait_come_in_and_leave_room_behind() -> None:
    door = admission()
    with ExitStack() as inside:
        inside.enter_context(door.enter(2))
        inside.enter_context(door.enter(3))
        with pytest.raises(RefusedError) as caught, door.enter(1):
            pass
        assert (caught.value.status, caught.value.code, door.answers) == (429, "overloaded", 5)
        assert 1 <= int(caught.value.headers["Retry-After"]) <= 60
    assert door.answers == 0
    with door.enter(5):
        pass


def test_an_error_leaves_room_behind_as_well() -> None:
    door = admission()

    def fail() -> None:
        with door.enter(4) as ticket:
            door.take_pictures(ticket, 90)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (door.answers, door.image_tokens) == (0, 0)


def test_pictures_of_all_are_bounded() -> None:
    door = admission()
    with door.enter(1) as first, door.enter(1) as second:
        door.take_pictures(first, 60)
        with pytest.raises(RefusedError, match="pictures of 60 tokens wait, and 100 may") as caught:
            door.take_pictures(second, 41)
        assert caught.value.status == 429
        door.take_pictures(second, 40)
        with pytest.raises(RefusedError, match="have 101 tokens, and a request may have 100") as caught:
            door.take_pictures(second, 101)
        assert caught.value.status == 400
    assert door.image_tokens == 0


def test_more_answers_than_ever_fit_are_no_overload() -> None:
    with pytest.raises(RefusedError, match="n is 6, but at most 5") as caught, admission().enter(6):
        pass
    assert caught.value.status == 400


def test_slower_answers_mean_longer_waits() -> None:
    door = admission()
    for _ in range(100):
        door.answered(20.0)
    with door.enter(5), pytest.raises(RefusedError) as caught, door.enter(1):
        pass
    assert caught.value.retry_after == 30


def test_nobody_comes_in_before_the_end() -> None:
    door = admission()
    door.draining = True
    with pytest.raises(RefusedError) as caught, door.enter(1):
        pass
    assert caught.value.status == 503
    assert caught.value.body["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("messages[3].content[1].image_url.url is empty", "messages[3].content[1].image_url.url"),
        ("tools[0].name must be", "tools[0].name"),
        ("temperature must be 0 or more", None),
    ],
)
def test_a_fault_of_the_package_keeps_its_place(message: str, param: str | None) -> None:
    refused = refused_for(ValueError(message))
    wanted = {"message": message, "type": "invalid_request_error", "param": param, "code": "invalid_value"}
    assert (refused.status, refused.body) == (400, {"error": wanted})
