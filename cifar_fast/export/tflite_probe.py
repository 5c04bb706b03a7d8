"""Runs a .tflite from stdin twice, in a process of its own: the interpreter may stop that at a file made to do so.

This file is run by its path and imports nothing of the project.
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

try:
    from resource import RLIMIT_AS, setrlimit

    setrlimit(RLIMIT_AS, (2**33, 2**33))  # a padding of millions would take all memory
except (ImportError, ValueError, OSError):  # Windows, or a lower limit of the user's own
    pass

interpreter = Interpreter(model_content=sys.stdin.buffer.read(), num_threads=1)
interpreter.allocate_tensors()
(image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
for value in (0, 100):
    interpreter.set_tensor(image["index"], np.full(image["shape"], value, image["dtype"]))
    interpreter.invoke()
    interpreter.get_tensor(output["index"])
