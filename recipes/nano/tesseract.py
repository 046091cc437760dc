"""Tesseract, which nano's reading is set beside: a picture of one line -> what it says."""

from __future__ import annotations

import io
import shutil
import subprocess

from PIL import Image

_PROGRAM = "tesseract"


def version() -> str | None:
    """None where it is not installed."""
    if shutil.which(_PROGRAM) is None:
        return None
    told = subprocess.run([_PROGRAM, "--version"], capture_output=True, text=True, check=True)
    return told.stdout.split()[1]


def read(image: Image.Image) -> str:
    """Told that the picture is one line, which is enlarged threefold: it likes capitals of 30 pixels."""
    file = io.BytesIO()
    image.resize((3 * image.width, 3 * image.height)).save(file, "PNG")
    command = [_PROGRAM, "stdin", "stdout", "--psm", "7", "-l", "eng"]
    return subprocess.run(command, input=file.getvalue(), capture_output=True, check=True).stdout.decode()
