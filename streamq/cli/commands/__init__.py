"""One command a file; `streamq.cli.main` knows where each is."""
