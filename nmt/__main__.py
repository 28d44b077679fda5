"""`python -m nmt`."""

from nmt.cli import command

command()
