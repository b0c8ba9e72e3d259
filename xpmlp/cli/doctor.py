"""`xpmlp doctor`: the packages, BLAS and GPU of this machine; exit 2 if --device fails."""

import argparse
import json
from typing import Any

from xpmlp.devices.doctor import report
from xpmlp.devices.words import default_word, place_for

EXAMPLE = "xpmlp doctor --device gpu"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="check that this device can be used: cpu, gpu, gpu:N")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def lines(info: dict[str, Any]) -> list[str]:
    blas, gpu = info["blas"], info["gpu"]
    packages = ", ".join(f"{name} {version}" for name, version in info["packages"].items())
    text = [
        f"xpmlp {info['xpmlp']}, Python {info['python']}, {info['system']}",
        f"packages: {packages}",
        f"BLAS: {blas['library']} {blas['version']}, threads: {blas['threads']}, "
        f"processors: {blas['processors']}",
        f"GPU {gpu['index']}: " + ("usable" if gpu["usable"] else "not usable"),
    ]
    for check in gpu["checks"]:
        verdict = "ok" if check["problem"] is None else f"failed: {check['problem']}"
        text.append(f"  {check['stage']}. {check['doing']}: {verdict}")
        if check["problem"] is not None:
            text.append(f"     to fix it: {check['mend']}")
    if gpu["usable"]:
        text.append(
            f"  {gpu['name']}, driver {gpu['driver']}, runtime {gpu['runtime']}, "
            f"{gpu['bytes_free'] / 2**30:.1f} of {gpu['bytes'] / 2**30:.1f} GiB free"
        )
        error = gpu["recording"]
        text.append(
            "  training steps are recorded as a CUDA graph and replayed"
            if error is None
            else f"  training steps run one by one: recording them failed: {error}"
        )
    return text


def run(options: argparse.Namespace) -> int:
    word = options.device or default_word()
    _, _, index = word.partition(":")
    info = report(int(index) if index.isdecimal() else 0)
    print(json.dumps(info) if options.json else "\n".join(lines(info)))
    place_for(word)  # raises if the device cannot be used
    return 0
