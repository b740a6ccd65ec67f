"""A report on runs as one HTML page: what they reached, how, and which words cost them most."""
