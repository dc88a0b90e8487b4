"""Runs cells of Python, one JSON document a line, in one namespace that lasts."""

import ast
import json
import linecache
import os
import signal
import sys
import tempfile
import traceback


def head_and_tail(data, limit):
    """Cuts what is too long in the middle, and says so."""
    if len(data) <= limit:
        return data
    half = limit // 2
    note = "\n[boxyard: %d bytes cut]\n" % (len(data) - 2 * half)
    return data[:half] + note.encode() + data[-half:]


def read_limited(file, limit):
    """Reads what a cell wrote without holding more of it than is kept."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size <= limit:
        return file.read()
    half = limit // 2
    head = file.read(half)
    file.seek(-half, os.SEEK_END)
    note = "\n[boxyard: %d bytes cut]\n" % (size - 2 * half)
    return head + note.encode() + file.read(half)


def new_output():
    """Opens a file without a name for what a cell writes: in memory where none can be made."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return os.fdopen(os.memfd_create("output"), "w+b")


def run(code, name, space):
    """Runs a cell; returns the last expression's value as text and the traceback, if any."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        tree = ast.parse(code, name)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)
        exec(compile(tree, name, "exec"), space)
        if last is not None:
            value = eval(compile(last, name, "eval"), space)
            if value is not None:
                space["_"] = value
                return repr(value), None
        return None, None
    except SystemExit as error:
        return None, "SystemExit: %s" % (error.code,)
    except BaseException:
        kind, error, trace = sys.exc_info()
        # Not the frames of this file.
        while trace is not None and trace.tb_frame.f_code.co_filename != name:
            trace = trace.tb_next
        return None, "".join(traceback.format_exception(kind, error, trace))
    finally:
        # Between cells there is nothing to interrupt.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def main():
    cells, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    space = {"__name__": "__main__", "__builtins__": __builtins__}
    for number, line in enumerate(cells, 1):
        cell = json.loads(line)
        name = "<cell %d>" % number
        lines = cell["code"].splitlines(True)
        linecache.cache[name] = (len(cell["code"]), None, lines, name)
        with new_output() as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            result, error = run(cell["code"], name, space)
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            except Exception:
                pass
            text = read_limited(output, cell["limit"])
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        limit = cell["limit"]
        answer = {
            "output": text.decode("utf-8", "replace"),
            "result": result and head_and_tail(result.encode("utf-8", "replace"), limit).decode("utf-8", "replace"),
            "error": error and head_and_tail(error.encode("utf-8", "replace"), limit).decode("utf-8", "replace"),
        }
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


main()
