"""Python imports this at startup if the folder is on PYTHONPATH: the stand-in for a child process,
with STANDIN_CARDS devices."""

import os
import sys

if os.environ.get("STANDIN_CARDS"):
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))

    from support import standin

    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    standin.install(0 if hidden else int(os.environ["STANDIN_CARDS"]))
