"""The same training step done by us and by our peers, in one run on one machine: how to run them is in README.md."""
