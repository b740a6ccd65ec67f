"""The machine and the process: devices, precision, replicas, signals, profiles."""
