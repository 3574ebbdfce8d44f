"""Has two outputs: what it was given, and twice that."""

INPUTS = [("x", "FP32", [-1, -1])]
OUTPUTS = [("a", "FP32", [-1, -1]), ("b", "FP32", [-1, -1])]


def infer(x):
    return x, 2 * x
