"""What is wrong is said in one line on the command line, before anything is spent."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kimi_vl import checkpoint
from kimi_vl.answer import KimiVL
from tests.cli.conftest import KIMI_VL, Run

BAD = {
    "ask": "Missing argument 'QUESTION'",
    "ask red.png": "no question after red.png",
    "ask -": "no question after -",
    "ask red.png ''": "empty",
    "ask none.png what": "none.png: no such file",
    "ask red.png . what": ".: is a folder",
    "ask text.txt what": "text.txt: is no picture",
    "ask cut.png what": "cut.png: PNG cannot be read",
    "ask thread.png what": "under 512 patches",
    "ask - what": "is empty (read from stdin)",
    "ask - - what": "give it once",
    "ask https://example.org/a.png what": "download the picture",
    "ask what --temperature -1": "temperature must be 0 or more, not -1.0",
    "ask what --temperature nan": "temperature",
    "ask what --temperature hot": "'--temperature'",
    "ask what --top-p 0": "top_p",
    "ask what --seed -1": "seed",
    "ask what --max-new-tokens 0": "max_new_tokens must be at least 1",
    "ask what --max-new-tokens 200000": "exceed the context of 131072",
    "ask what --top-k -1": "top_k must be 0",
    "ask what --min-p 2": "min_p must be from 0 to 1",
    "ask what --repetition-penalty 0": "repetition_penalty must be from 0.01 to 100",
    "ask what --presence-penalty 3": "presence_penalty must be from -2 to 2",
    "ask what --frequency-penalty nan": "frequency_penalty must be from -2 to 2",
    "ask what --stop ''": "stop must be at most 16 strings, none of them empty",
    "ask what --threads 0": "'--threads'",
    "ask what --regex [a": "the regular expression '[a' cannot be followed: unclosed character class",
    "ask what --choice ''": "a choice needs one or more texts",
    "ask what --choice a --regex a": "give one of --json-schema, --regex and --choice",
    "ask what --json-schema none.json": "--json-schema none.json cannot be read: No such file",
    "ask what --json-schema text.txt": "--json-schema text.txt is no JSON",
    "ask what --json-schema list.json": "the JSON schema must be an object",
    "ask what --json-schema bad.json": "the JSON schema cannot be followed: Invalid type: colour",
    "ask what --dtype int3": "'float32', 'bfloat16', 'float16'",
    "ask what --device meta": "--device meta cannot be used here",
    "ask what --device toaster": "--device toaster cannot be used here",
    "ask what --device fpga": "--device fpga cannot be used here",
    "ask what --model nobody": "no model 'nobody'",
    "ask what --model a3b": "preprocessor_config.json",
    "ask what --revision v1": "has no revision",
    "ask what --model owner/name --offline": "owner/name is not on this machine",
    "ask what --loud": "No such option: --loud",
    "chat --top-p 2": "top_p",
    "chat --top-k -1": "top_k",
    "chat --model nobody": "no model 'nobody'",
    "info": "Missing argument 'MODEL'",
    "info nobody": "no model 'nobody'",
    "info .": "config.json is missing",
    "info llama": "model_type is 'llama'",
    "info nano --size 100": "--size 100 is no size",
    "info nano --size 0x5": "has no pixels",
    "info nano --size 9999999x1": "under 512 patches",
    "info nano --picture text.txt": "text.txt: is no picture",
    "plan": "Missing argument 'MODEL'",
    "plan .": "config.json is missing",
    "plan llama": "model_type is 'llama'",
    "plan other-4-bits": "quantised in a way that is not known here",
    "plan nano --context 0": "'--context'",
    "plan nano --context 131073": "131,073 tokens is more than the 131,072",
    "plan nano --pictures 16 --context 16384": "16 pictures of 4,096 tokens fill a context of 16,384",
    "plan nano --size 9999999x1": "under 512 patches",
    "plan nano --devices 8": "--devices says nothing without --train",
    "plan nano --train --batch 2": "--batch says nothing with --train",
    "plan nano --train --devices 0": "'--devices'",
    "plan nano --train --device abacus": "'--device'",
    "plan nano --train --context 131073": "131,073 tokens is more than the 131,072",
    "plan nano --train --tokens 100": "a step of 100 tokens has no room for a sample of 8,192",
    "plan nano --train --tokens 8192 --devices 64": "too short for 64 devices",
    "plan nano --train --picture-share 1": "at least 0 and below 1, not 1",
    "plan nano --train --picture-share nan": "at least 0 and below 1, not nan",
    "plan nano --train --picture-share 0.5 --context 512": "a picture of 4,096 tokens is longer than a sample of 512",
    "plan nano --train --reached 0": "must be above 0, 1 at most, not 0",
    "plan nano --train --stage-tokens nan": "must be a number above 0, not nan",
    "init new": "--preset (a3b or nano) or --config",
    "init new --preset huge": "'a3b', 'nano'",
    "init new --preset nano --config a3b/config.json": "either",
    "init new --config none.json": "none.json is missing",
    "init new --config text.txt": "text.txt is not JSON",
    "init new --preset nano --shards 0": "'--shards'",
    "init text.txt --preset nano": "text.txt is a file",
    "init text.txt/new --preset nano": "cannot be written",
    "init a3b --preset nano": "--force",
    "aks": "Did you mean 'ask'",
    "": "Missing command",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_code_2(line: str, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were touched")

    monkeypatch.setattr(KimiVL, "from_pretrained", refuse)
    monkeypatch.setattr(checkpoint, "write_random_checkpoint", refuse)
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "empty"))
    before = sorted(folder.rglob("*"))
    ended = run(*[word.strip("'") for word in line.split()])
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("kimi-vl: ")
    assert ended.err.count("\n") == 1
    assert BAD[line] in ended.err
    assert [path for path in sorted(folder.rglob("*")) if "empty" not in path.parts] == before


def test_the_hub_cannot_be_reached(folder: Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "empty")}
    command = [*KIMI_VL, "info", "thinking"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("kimi-vl: moonshotai/Kimi-VL-A3B-Thinking is not on this machine")
    assert ended.stderr.count("\n") == 1
