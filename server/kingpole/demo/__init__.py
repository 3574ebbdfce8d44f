"""The demo: a real image classifier, asked over every core protocol.

Nothing of the server imports this package; it starts the server as a user would, as a command.
"""
