"""Frames of videos, by their numbers, and what is no video."""

from __future__ import annotations

import struct
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import pytest

from kimi_vl.eval import video
from kimi_vl.eval.video import Video, between_ends, middles
from tests.eval.films import COUNT, FPS, fails, number_of, write_video


def test_frames_are_those_of_their_numbers_in_any_order(film: Path) -> None:
    wanted = [0, 39, 13, 12, 11, 30, 31, 30, 23, 24]
    with Video(film) as opened:
        assert (opened.count, opened.fps) == (COUNT, FPS)
        frames = opened.frames(wanted, pixels=10**6)
        assert [number_of(frame) for frame in frames] == wanted
        assert [number_of(frame) for frame in opened.frames(range(COUNT), pixels=10**6)] == list(range(COUNT))
    assert {(frame.mode, frame.size) for frame in frames} == {("RGB", (96, 48))}


def test_large_frames_are_scaled_down_and_small_ones_stay(film: Path) -> None:
    with Video(film) as opened:
        (small,) = opened.frames([21], pixels=48 * 24)
        assert (small.size, number_of(small)) == ((48, 24), 21)
        assert opened.frames([21], pixels=96 * 48)[0].size == (96, 48)


def test_a_frame_that_is_not_there_is_refused(film: Path) -> None:
    with Video(film) as opened:
        for number in (-1, COUNT):
            with pytest.raises(ValueError, match=rf"film.mp4 has 40 frames, and none of the number {number}"):
                opened.frames([0, number], pixels=10**6)


def test_a_telephone_held_upright_is_shown_upright(film: Path, tmp_path: Path) -> None:
    data = bytearray(film.read_bytes())
    matrix = data.index(b"tkhd") + 44
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    with Video(tmp_path / "turned.mp4") as opened:
        (frame,) = opened.frames([1], pixels=10**6)
    assert frame.size == (48, 96)
    # The first column, which is white in frame 1, is the first row once the picture is turned clockwise.
    assert [frame.convert("L").point(lambda grey: grey > 127).getpixel((24, y)) for y in (8, 88)] == [1, 0]


def not_a_video(path: Path) -> None:
    path.write_bytes(b"no video at all " * 99)


def cut_short(path: Path) -> None:
    write_video(path)
    path.write_bytes(path.read_bytes()[:2000])


def only_sound(path: Path) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("a.mp4", not_a_video, r"a.mp4 cannot be opened as a video: Invalid data"),
        ("a.mp4", cut_short, r"a.mp4 (holds no video|cannot be opened)"),
        ("a.mp4", lambda path: None, r"a.mp4 cannot be opened as a video: No such file"),
        ("a.wav", only_sound, r"a.wav holds no video that can be decoded"),
        ("a.avi", write_video, r"a.avi: AVI does not say when its frames are shown: convert it to MP4"),
    ],
)
def test_what_is_no_video_says_why(tmp_path: Path, name: str, make: Callable[[Path], None], says: str) -> None:
    make(tmp_path / name)
    fails(Video, tmp_path / name, says)


def test_a_broken_video_says_why(film: Path, tmp_path: Path) -> None:
    data = bytearray(film.read_bytes())
    first = data.index(b"mdat") + 4
    data[first : data.index(b"moov") - 4] = bytes(data.index(b"moov") - 4 - first)
    (tmp_path / "broken.mp4").write_bytes(data)
    with Video(tmp_path / "broken.mp4") as opened, pytest.raises(ValueError, match=r"broken.mp4: .+"):
        opened.frames([30], pixels=10**6)


def test_a_video_may_take_no_longer_and_be_no_larger(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(video, "_SECONDS", -1.0)
        fails(Video, film, r"film.mp4: it takes longer than -1 s to read")
    monkeypatch.setattr(video, "_MOST_PIXELS", 96 * 48 - 1)
    fails(Video, film, r"film.mp4: a frame has 96 x 48 pixels, and at most 4607 may be")


def test_without_the_library_the_extra_is_named(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    fails(Video, film, r"film.mp4: videos need the library av, pip install 'kimi-vl\[eval\]'")


def test_spread_over_a_video() -> None:
    assert middles(40, 3) == [6, 19, 32]  # pieces of 13
    assert middles(2, 4) == [0, 0, 0, 1]
    assert between_ends(40, 3) == [10, 20, 30]
    assert between_ends(2, 4) == [0, 0, 1, 1]
