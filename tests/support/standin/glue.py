"""CuPy's function pointers to the CUDA runtime and driver, pointed at Python functions.

A Cython module publishes each of its functions as a capsule that is named by its C signature. For
every signature made of numbers and objects a C function is written that calls the handler of the
same name; a function without a handler raises NotImplementedError.
"""

import ctypes
import hashlib
import importlib.util
import subprocess
import sysconfig
from types import ModuleType

from support.standin.cache import folder, written_once
from support.standin.card import card

FORMATS = {  # format unit of Python's C API, and the value returned with an exception
    "int": ("i", "-1"),
    "unsigned int": ("I", "0"),
    "intptr_t": ("n", "0"),
    "size_t": ("n", "0"),
    "uintmax_t": ("K", "0"),
    "float": ("d", "0"),
    "CUdevice": ("i", "-1"),
    "PyObject *": ("O", "NULL"),
}
HEAD = """
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
typedef int CUdevice;
static PyObject *handlers;
#if PY_VERSION_HEX < 0x030D0000
#define Py_IsFinalizing _Py_IsFinalizing
#endif

static PyObject *call(const char *name, PyObject *arguments) {
  if (Py_IsFinalizing()) {  // what is released last finds no modules any more
    Py_XDECREF(arguments);
    return PyLong_FromLong(0);
  }
  PyObject *handler = arguments ? PyDict_GetItemString(handlers, name) : NULL;
  PyObject *found = NULL;
  if (handler) found = PyObject_CallObject(handler, arguments);
  else if (arguments) PyErr_Format(PyExc_NotImplementedError, "the stand-in lacks %s", name);
  Py_XDECREF(arguments);
  return found;
}
"""
TAIL = """
static void point(PyObject *capsules, const char *name, void *function) {
  PyObject *capsule = PyDict_GetItemString(capsules, name);
  if (capsule) PyCapsule_SetPointer(capsule, function);
}

static PyObject *install(PyObject *self, PyObject *arguments) {
  PyObject *runtime, *driver;
  if (!PyArg_ParseTuple(arguments, "OOO", &handlers, &runtime, &driver)) return NULL;
  Py_INCREF(handlers);
%s
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"install", install, METH_VARARGS, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "standin_glue", "", -1, methods};
PyMODINIT_FUNC PyInit_standin_glue(void) { return PyModule_Create(&module); }
"""


def signature(capsule: object) -> str:
    name = ctypes.pythonapi.PyCapsule_GetName
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    return name(capsule).decode()


def function(module: str, name: str, declared: str) -> str | None:
    """The C function that replaces one of CuPy's; None if it has a type not in FORMATS."""
    result, _, rest = declared.partition("(")
    kinds = [kind.strip() for kind in rest.removesuffix(")").split(",")]
    kinds = [kind for kind in kinds if kind != "void"]
    result = result.strip()
    plain = [kind for kind in kinds if "__pyx" not in kind]
    if not rest or result not in FORMATS or any(kind not in FORMATS for kind in plain):
        return None
    arguments = ", ".join(
        f"void *p{i}" if "opt_args" in kind else f"int p{i}" if "__pyx" in kind else f"{kind} p{i}"
        for i, kind in enumerate(kinds)
    )
    form = "".join(FORMATS[kind][0] for kind in plain)
    passed = "".join(f", p{i}" for i, kind in enumerate(kinds) if kind in plain)
    lines = [
        f"static {result} f_{module}_{name}({arguments or 'void'}) {{",
        f'  PyObject *found = call("{module}.{name}", Py_BuildValue("({form})"{passed}));',
        f"  if (!found) return {FORMATS[result][1]};",
    ]
    if result == "PyObject *":
        return "\n".join([*lines, "  return found;\n}\n"])
    read = "PyFloat_AsDouble" if result == "float" else "PyLong_AsLongLong"
    kind = "double" if result == "float" else "long long"
    return "\n".join(
        [*lines, f"  {kind} value = {read}(found);", "  Py_DECREF(found);",
         f"  return ({result})value;\n}}\n"]
    )  # fmt: skip


def source(modules: dict[str, ModuleType]) -> str:
    parts, points = [HEAD], []
    for short, module in modules.items():
        for name, capsule in sorted(module.__pyx_capi__.items()):
            text = function(short, name, signature(capsule))
            if text is not None:
                parts.append(text)
                points.append(f'  point({short}, "{name}", (void *)f_{short}_{name});')
    return "\n".join([*parts, TAIL % "\n".join(points)])


def install() -> None:
    """Point the capsules, and the names that Python code calls, at the card's handlers."""
    from cupy_backends.cuda.api import driver, runtime

    modules = {"runtime": runtime, "driver": driver}
    text = source(modules)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = folder() / f"standin_glue-{digest}{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = sysconfig.get_paths()["include"]

    def build(unfinished):
        code = unfinished.with_suffix(".c")
        code.write_text(text)
        command = ["gcc", "-O1", "-w", "-shared", "-fPIC", f"-I{include}", code]
        subprocess.run([*command, "-o", unfinished], check=True)

    written_once(path, build)
    spec = importlib.util.spec_from_file_location("standin_glue", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handlers = card.handlers(runtime.CUDARuntimeError, runtime.PointerAttributes)
    for name, handler in handlers.items():
        short, _, attribute = name.partition(".")
        setattr(modules[short], attribute, handler)
    module.install(handlers, runtime.__pyx_capi__, driver.__pyx_capi__)
