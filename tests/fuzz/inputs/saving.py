"""A full disk, corrupt and hostile files: saving, loading and resuming."""

import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from fuzz.inputs.arrays import N
from fuzz.inputs.case import Case, Refused
from fuzz.inputs.files import FILE
from fuzz.inputs.setting_cases import CORE, case


def stored(call: str, id: str, arguments: dict[str, Any], says: str = "", name: str = FILE) -> Case:
    kinds = (OSError, ValueError) if call == "save" else (ValueError,)
    return case("files", f"{call}: {id}", arguments, Refused(name, says, kinds), calls=(call,))


def resumed(id: str, arguments: dict[str, Any], says: str, name: str = "run.ckpt") -> Case:
    expected = Refused(name, says, (OSError, ValueError), early="limit" not in arguments)
    return case("files", f"resume: {id}", arguments, expected, calls=("resume",), surfaces=CORE)


DAMAGED: tuple[tuple[str, Callable[[bytes], bytes], str], ...] = (
    ("nothing in it", lambda data: b"", ""),
    ("half of it", lambda data: data[: len(data) // 2], ""),
    ("a byte more", lambda data: data + b"\0", ""),
    ("a changed byte", lambda data: data[:-9] + b"\1" + data[-8:], "SHA-256"),
    ("a header without end", lambda data: b"\xff" * 8 + data[8:], ""),
    ("noise", lambda data: bytes(range(256)) * 4, ""),
    ("a pickle", lambda data: pickle.dumps({"a": 1}), ""),
    ("nested without end", lambda data: (2**20).to_bytes(8, "little") + b"[" * 2**20, ""),
)
NO_CHECKPOINT = "not a whole checkpoint"
RESUMED = [
    *(
        resumed(id, {"damage": damage}, f"{NO_CHECKPOINT}.*{says}")
        for id, damage, says in (
            *DAMAGED, ("a changed name", lambda data: data.replace(b"params", b"parama", 1), ""),
        )
    ),
    resumed("a model file", {"place": FILE}, f"{NO_CHECKPOINT}.*format", FILE),
    resumed("a folder", {"place": "folder"}, "directory", "checkpoint"),
    resumed("a folder that is not there", {"place": "no/run.ckpt"}, "folder no does not"),
    resumed("a file as a folder", {"place": f"{FILE}/run.ckpt"}, "does not exist"),
    resumed("no name", {"place": ""}, "directory", "checkpoint"),
    resumed("a full disk", {"limit": 64}, ""),
    resumed("a file that is there", {"resume": False}, "resume=True"),
    resumed("another rate", {"learning_rate": 0.5}, "learning_rate was 0.001 and is 0.5"),
    resumed("other rows", {"sample_weight": np.arange(N)}, "sample_weight was"),
    *(
        resumed(f"{name}={value!r}", {"every": {name: value}}, re.escape(f"got {value!r}"), name)
        for name in ("every_epochs", "every_seconds")
        for value in (0, -1, True, float("nan"), "often", [1])
    ),
    resumed("every_epochs=2.5", {"every": {"every_epochs": 2.5}}, "got 2.5", "every_epochs"),
]  # fmt: skip

NOT_WHOLE = "not a whole model file"
CASES = [
    stored("save", "a full disk", {"limit": 64}),
    stored("save", "a disk that is full at once", {"limit": 0}),
    stored("save", "a folder that is not there", {"path": f"no/{FILE}"}),
    stored("save", "a folder in its place", {"path": "folder"}, name="folder"),
    stored("save", "a file as a folder", {"path": f"{FILE}/model"}),
    stored("save", "no name", {"path": ""}, name=""),
    *(
        stored("load", id, {"damage": damage}, f"{NOT_WHOLE}.*{says}")
        for id, damage, says in (
            *DAMAGED,
            ("a changed name", lambda data: data.replace(b"layers.0", b"layers.1", 1), ""),
        )
    ),
    *RESUMED,
]  # fmt: skip
