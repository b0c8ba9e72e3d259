"""`xpmlp doctor`: what this machine offers; exit 2 only where a device asked for fails."""

import argparse
import json
from typing import Any

from xpmlp.devices.doctor import report
from xpmlp.devices.words import default_word, place_for

EXAMPLE = "xpmlp doctor --device gpu"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="check that this device can be used: cpu, gpu, gpu:N")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def lines(found: dict[str, Any]) -> list[str]:
    blas, gpu = found["blas"], found["gpu"]
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    shown = [
        f"xpmlp {found['xpmlp']}, Python {found['python']}, {found['system']}",
        f"packages: {packages}",
        f"BLAS: {blas['library']} {blas['version']}, threads: {blas['threads']}, "
        f"processors: {blas['processors']}",
        f"GPU {gpu['index']}: " + ("usable" if gpu["usable"] else "not usable"),
    ]
    for check in gpu["checks"]:
        verdict = "ok" if check["problem"] is None else f"failed: {check['problem']}"
        shown.append(f"  {check['stage']}. {check['doing']}: {verdict}")
        if check["problem"] is not None:
            shown.append(f"     to mend it: {check['mend']}")
    if gpu["usable"]:
        shown.append(
            f"  {gpu['name']}, driver {gpu['driver']}, runtime {gpu['runtime']}, "
            f"{gpu['bytes_free'] / 2**30:.1f} of {gpu['bytes'] / 2**30:.1f} GiB free"
        )
        why = gpu["recording"]
        shown.append(
            "  training steps are recorded as a CUDA graph and replayed"
            if why is None
            else f"  training steps run one by one: recording them failed: {why}"
        )
    return shown


def run(options: argparse.Namespace) -> int:
    word = options.device or default_word()
    _, _, index = word.partition(":")
    found = report(int(index) if index.isdecimal() else 0)
    print(json.dumps(found) if options.json else "\n".join(lines(found)))
    place_for(word)  # raises where the device asked for fails
    return 0
