"""Gives back what it was given, after as many `seconds` as the parameter says."""

import time

INPUTS = [("x", "FP32", [-1, -1])]
OUTPUTS = [("x", "FP32", [-1, -1])]


def infer(x, parameters):
    time.sleep(parameters.get("seconds", 0))
    return x
