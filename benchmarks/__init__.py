"""Time one training step of this program and of its peers, in one run on one machine. README.md says how to run it."""
