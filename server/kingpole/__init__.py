"""Kingpole: one small server, many models, many protocols."""

__version__ = "0.1.0"
