"""The servers that are compared: each says how it is set up, started and asked."""
