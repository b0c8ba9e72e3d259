#!/usr/bin/env python
"""How long a start takes: `import xpmlp` beside `import numpy`, and `xpmlp shapes 2,3,1`.

python benchmarks/startup.py            # the fastest of 20 processes each, taken in turn
python benchmarks/startup.py --json
"""

import argparse
import json
import subprocess
import sys
import time

STARTS = {
    "python": ["-c", ""],
    "import numpy": ["-c", "import numpy"],
    "import xpmlp": ["-c", "import xpmlp"],
    "from xpmlp import train": ["-c", "from xpmlp import train"],
    "xpmlp shapes 2,3,1": ["-m", "xpmlp", "shapes", "2,3,1"],
}
MOST = {"import xpmlp": 1.3, "xpmlp shapes 2,3,1": 0.4}  # times `import numpy`; seconds


def seconds(words: list[str]) -> float:
    """What one process takes from its start to its end."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", default=20, type=int, help="processes of each kind (20)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    fastest = dict.fromkeys(STARTS, float("inf"))
    for _ in range(options.repeats):  # in turn: what else the machine does meets all of them
        for name, words in STARTS.items():
            fastest[name] = min(fastest[name], seconds(words))
    found = {
        "import xpmlp": fastest["import xpmlp"] / fastest["import numpy"],
        "xpmlp shapes 2,3,1": fastest["xpmlp shapes 2,3,1"],
    }
    if options.json:
        print(json.dumps({"seconds": fastest, "found": found, "most": MOST}))
    else:
        for name, taken in fastest.items():
            print(f"{name:<24} {taken:.3f} s  {taken / fastest['import numpy']:.2f} x import numpy")
    return 0 if all(found[name] <= MOST[name] for name in MOST) else 1


if __name__ == "__main__":
    sys.exit(main())
