"""Fails as the parameters `code` and `text` say."""

from kingpole.contract import ModelError

INPUTS = [("x", "FP32", [-1, -1])]
OUTPUTS = [("x", "FP32", [-1, -1])]


def infer(x, parameters):
    if "code" in parameters:  # left out when the server warms up
        raise ModelError(parameters["code"], parameters["text"])
    return x
