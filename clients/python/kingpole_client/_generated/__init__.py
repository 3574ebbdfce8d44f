"""Code made by flatc from protocol/schema/kingpole.fbs; clients/python/README.md has the command."""
