"""The backends that come with Kingpole: one module per framework, each knowing only its own."""

BUILT_IN = {
    "identity": "kingpole_backends.identity:IdentityBackend",
    "onnx": "kingpole_backends.onnx:OnnxBackend",
    "python": "kingpole_backends.python:PythonBackend",
}
"""Where each backend is; also registered as entry points by the distribution."""
