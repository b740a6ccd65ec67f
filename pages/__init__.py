"""What this program writes of README.md and docs/: tables and pictures, made from results/, configurations and flags."""
